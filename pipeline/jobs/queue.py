"""The runs that ComfyUI's own queue and history know of, as lines of the list. Nothing of them is kept here.

Forms: execution.py (PromptQueue), server.py (post_prompt) and comfy_execution/jobs.py of ComfyUI 0.30.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..notify.event import OURS, Graph
from ..remote.job import State
from ..remote.origins import without_queries
from .entry import Entry

BUYERS = ("Wan22RemoteImageToVideo", "Wan22ResumeRemoteClip")
SAMPLERS = ("Wan22Sampler", "Wan22BridgeSampler")
CLIPS = (".mp4", ".webm", ".mkv", ".mov", ".webp", ".gif")
PICTURES = (".png", ".jpg", ".jpeg")
_ENDS = {"execution_success": State.DONE, "execution_error": State.FAILED, "execution_interrupted": State.CANCELED}

Item = tuple[Any, ...]
"""(number, prompt id, graph in API form, extra data, outputs, ...)"""


@dataclass(frozen=True)
class Queue:
    """ComfyUI's queue as it stands."""

    running: Sequence[Item]
    pending: Sequence[Item]
    history: Mapping[str, Mapping[str, Any]]
    """Run -> prompt (an Item), outputs, status."""
    progress: Mapping[str, Mapping[str, Any]]
    """Node id -> state ("running" and others), value and max; of the run at work."""

    def find(self, prompt_id: str) -> Item | None:
        """A run, wherever it stands."""
        for item in (*self.running, *self.pending):
            if item[1] == prompt_id:
                return item
        found = self.history.get(prompt_id)
        return None if found is None else tuple(found["prompt"])

    def error(self, prompt_id: str) -> str:
        """Why a run failed; "" when it did not, or is not known."""
        found = self.history.get(prompt_id)
        return "" if found is None else _end(found)[2]

    def entries(self, since: float) -> Iterator[Entry]:
        """The runs that hold nodes of ours: those under way, and those that ended since a time."""
        for item in self.running:
            if _is_ours(item[2]):
                yield _entry(item, State.RUNNING, run=item[1], progress=self._progress(item[2]))
        for item in self.pending:
            if _is_ours(item[2]):
                yield _entry(item, State.QUEUED, run=item[1])
        for found in self.history.values():
            item = found["prompt"]
            if not _is_ours(item[2]):
                continue
            state, times, error = _end(found)
            if times[1] >= since:
                yield _entry(item, state, began=times[0] or None, ended=times[1] or None, error=error,
                             file=_file(found.get("outputs") or {}))

    def _progress(self, graph: Graph) -> dict[str, Any] | None:
        running = [(node, found) for node, found in self.progress.items()
                   if found["state"] == "running" and node in graph]
        if not running:
            return None
        node, found = max(running, key=lambda one: one[1]["max"])
        return {"node": graph[node].get("class_type", ""), "value": found["value"], "max": found["max"]}


def only_buys(graph: Graph) -> bool:
    """Whether all that a run makes are remote clips, which the ledger has lines of its own for."""
    types = _types(graph)
    return any(name in types for name in BUYERS) and not any(name in types for name in SAMPLERS)


def workflow_of(item: Item) -> dict[str, Any]:
    """{"workflow": as the canvas saved it} or, for a run without a canvas, {"graph": in API form}."""
    drawn = ((item[3] or {}).get("extra_pnginfo") or {}).get("workflow")
    return {"workflow": drawn} if drawn else {"graph": item[2]}


def asked_in(graph: Graph) -> list[dict[str, Any]]:
    """What a run asks of our nodes, without its links' queries: [{type, inputs}]."""
    return [{"type": node["class_type"],
             "inputs": without_queries({name: value for name, value in node.get("inputs", {}).items()
                                        if not isinstance(value, list)})}
            for node in graph.values() if str(node.get("class_type")).startswith(OURS)]


def _types(graph: Graph) -> set[str]:
    return {str(node.get("class_type")) for node in graph.values()}


def _is_ours(graph: Graph) -> bool:
    return any(name.startswith(OURS) for name in _types(graph))


def _entry(item: Item, state: State, **more: Any) -> Entry:
    graph, extra = item[2], item[3] or {}
    buyer = next((node.get("inputs", {}) for node in graph.values() if node.get("class_type") == BUYERS[0]), {})
    prompts = (node.get("inputs", {}).get("prompt") for node in graph.values()
               if str(node.get("class_type")).startswith(OURS))
    nodes = {} if "ended" in more else {name: node.get("class_type", "") for name, node in graph.items()}
    return Entry(id=item[1], remote=False, state=state.value, created=extra.get("create_time", 0) / 1000,
                 prompt=next((text for text in prompts if isinstance(text, str)), ""),
                 provider=_text(buyer.get("provider")), model=_text(buyer.get("provider.model")), nodes=nodes, **more)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _end(found: Mapping[str, Any]) -> tuple[State, tuple[float, float], str]:
    """How a run ended, when it began and ended, and its error."""
    messages = dict((found.get("status") or {}).get("messages") or ())
    name = next((name for name in _ENDS if name in messages), "execution_success")
    times = [messages.get(kind, {}).get("timestamp", 0) / 1000 for kind in ("execution_start", name)]
    error = messages[name].get("exception_message", "").strip() if name == "execution_error" else ""
    return _ENDS[name], (times[0], times[1]), error


def _file(outputs: Mapping[str, Any]) -> dict[str, str] | None:
    """The clip among a run's files, saved ones first; else a picture."""
    files = [item for shown in outputs.values() if isinstance(shown, Mapping) for items in shown.values()
             if isinstance(items, (list, tuple)) for item in items if isinstance(item, Mapping) and "filename" in item]
    files.sort(key=lambda file: file.get("type") != "output")
    for kinds in (CLIPS, PICTURES):
        for file in files:
            if str(file["filename"]).lower().endswith(kinds):
                return {name: file.get(name, "") for name in ("filename", "subfolder", "type")}
    return None
