"""The runs in ComfyUI's own queue and history as entries of the list of jobs. Nothing of them is stored here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..graph.nodes import Graph, is_ours, node_type, shown_inputs
from ..graph.run import ERROR, INTERRUPTED, SUCCESS, GraphRun, read_end, read_item
from ..remote.job import JobState
from .entry import JobEntry

REMOTE_NODES = {"Wan22RemoteImageToVideo", "Wan22ResumeRemoteClip"}
REMOTE_NODE = "Wan22RemoteImageToVideo"
SAMPLERS = {"Wan22Sampler", "Wan22BridgeSampler"}
CLIPS = (".mp4", ".webm", ".mkv", ".mov", ".webp", ".gif")
PICTURES = (".png", ".jpg", ".jpeg")
_STATES = {SUCCESS: JobState.DONE, ERROR: JobState.FAILED, INTERRUPTED: JobState.CANCELED}


@dataclass(frozen=True)
class QueueSnapshot:
    """ComfyUI's queue at one moment, in ComfyUI's own forms (see graph/run.py)."""

    running: Sequence[Sequence[Any]]
    pending: Sequence[Sequence[Any]]
    history: Mapping[str, Mapping[str, Any]]
    """Prompt id -> {"prompt": an item of the queue, "outputs", "status"}."""
    progress: Mapping[str, Mapping[str, Any]]
    """Node id -> {"state": "running" or another, "value", "max"} of the run at work."""

    def find(self, prompt_id: str) -> GraphRun | None:
        """Return a run, queued, at work or in the history; None for an unknown one."""
        for item in (*self.running, *self.pending):
            if item[1] == prompt_id:
                return read_item(item)
        found = self.history.get(prompt_id)
        return None if found is None else read_item(found["prompt"])

    def running_ids(self) -> set[str]:
        """Return the prompt ids of the runs at work."""
        return {item[1] for item in self.running}

    def error(self, prompt_id: str) -> str:
        """Return why a run failed; "" when it did not, or is not known."""
        return read_end(self.history.get(prompt_id, {})).error

    def entries(self, since: float, runs: Collection[str] | None = None) -> Iterator[JobEntry]:
        """Yield the runs with nodes of this pack: those under way, and those that ended since a time.

        runs: prompt ids; of these runs instead, whatever nodes they have.
        """
        def is_wanted(run: GraphRun) -> bool:
            return _has_ours(run.graph) if runs is None else run.prompt_id in runs

        for run in map(read_item, self.running):
            if is_wanted(run):
                yield replace(_under_way(run, JobState.RUNNING), progress=self._progress(run.graph))
        for run in map(read_item, self.pending):
            if is_wanted(run):
                yield _under_way(run, JobState.QUEUED)
        for found in self.history.values():
            run, end = read_item(found["prompt"]), read_end(found)
            if is_wanted(run) and end.ended >= since:
                yield replace(_entry(run, _STATES[end.message]), began=end.began or None, ended=end.ended or None,
                              error=end.error, file=_file(found.get("outputs") or {}))

    def _progress(self, graph: Graph) -> dict[str, Any] | None:
        running = [(node, found) for node, found in self.progress.items()
                   if found["state"] == "running" and node in graph]
        if not running:
            return None
        node, found = max(running, key=lambda one: one[1]["max"])
        return {"node": node_type(graph[node]), "value": found["value"], "max": found["max"]}


def is_remote_only(graph: Graph) -> bool:
    """Return whether all that a run makes are remote clips, which have entries of their own from the ledger."""
    types = {node_type(node) for node in graph.values()}
    return bool(types & REMOTE_NODES) and not types & SAMPLERS


def request_of_graph(graph: Graph) -> list[dict[str, Any]]:
    """Return what a run asks of the pack's nodes, [{"type", "inputs"}], its links redacted."""
    return [{"type": node_type(node), "inputs": shown_inputs(node)} for node in graph.values() if is_ours(node)]


def _has_ours(graph: Graph) -> bool:
    return any(map(is_ours, graph.values()))


def _under_way(run: GraphRun, state: JobState) -> JobEntry:
    return replace(_entry(run, state), run=run.prompt_id,
                   nodes={name: node_type(node) for name, node in run.graph.items()})


def _entry(run: GraphRun, state: JobState) -> JobEntry:
    ours = [node.get("inputs", {}) for node in run.graph.values() if is_ours(node)]
    remote = next((node.get("inputs", {}) for node in run.graph.values() if node_type(node) == REMOTE_NODE), {})
    return JobEntry(id=run.prompt_id, remote=False, state=state.value, created=run.created,
                    prompt=next(filter(None, (_text(inputs.get("prompt")) for inputs in ours)), ""),
                    provider=_text(remote.get("provider")), model=_text(remote.get("provider.model")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _file(outputs: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the clip among a run's files, else a picture; saved files first. None when there is neither."""
    files = [item for shown in outputs.values() if isinstance(shown, Mapping) for items in shown.values()
             if isinstance(items, (list, tuple)) for item in items if isinstance(item, Mapping) and "filename" in item]
    files.sort(key=lambda file: file.get("type") != "output")
    for endings in (CLIPS, PICTURES):
        for file in files:
            if str(file["filename"]).lower().endswith(endings):
                return {name: file.get(name, "") for name in ("filename", "subfolder", "type")}
    return None
