"""A worker that is a ComfyUI at an address: whether it can make the clips of a workflow, and making one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from run_headless import (
    ClipError,
    JobLostError,
    Server,
    Workflow,
    cancel,
    check_places,
    download,
    first_mp4,
    job_state,
    node_info,
    queue,
    upload,
)

POLL = 0.5
"""Seconds between two looks at a job."""
POLLS = 3
"""Looks without an answer after which a server counts as lost."""
CHECK, REPORT_OUTPUT = "Wan22CheckClip", 2
REPORT = "report of "
"""Beginning of the ids of nodes that show a report."""
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
AWAY = {429, 502, 503, 504, *range(520, 531)}
"""Statuses of what stands before a ComfyUI, such as nginx or Cloudflare, when it does not let a request through."""
EXPLAINED = {400: "/prompt", 404: "/api/jobs/"}
"""Errors with a reason of ComfyUI's own, which those who asked read: status -> what its path has."""
NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError)
"""What is raised when ComfyUI does not answer; ValueError for JSON that is cut off."""


class NotComfyUIError(aiohttp.ClientError):
    """An answer of what stands before a ComfyUI: it says that the server is away, and nothing about a clip."""


class LostError(Exception):
    """A worker does not answer, or has forgotten the job. `running`: whether it was at work on the clip."""

    def __init__(self, reason: str, running: bool = False) -> None:
        super().__init__(reason, running)
        self.reason, self.running = reason, running


@dataclass(frozen=True)
class Made:
    """A clip: the MP4, seconds of ComfyUI's work, and what Check Clip says, if the workflow has it."""

    data: bytes
    seconds: float | None
    passed: bool | None
    score: float | None


@dataclass(frozen=True)
class Facts:
    """What must be the same on all workers of a batch: the inputs of each node. Versions: what should be."""

    inputs: dict[str, list[str]]
    versions: str


class ServerWorker:
    """A ComfyUI at an address. `name` is that address."""

    patience = 600.0
    """Seconds without an answer after which the others go on alone."""

    def __init__(self, address: str) -> None:
        self.name = address
        self.session = aiohttp.ClientSession(timeout=TIMEOUT, raise_for_status=look_at)
        self.comfy = Server(self.session, address)
        self.lost: set[str] = set()
        """Jobs that it may still have, and that others do by now."""

    async def close(self) -> None:
        await self.session.close()

    async def check(self, workflow: Workflow, places: Iterable[str]) -> Facts:
        """Return facts on the server. Raises ClipError when it cannot run the workflow, LostError without an answer."""
        try:
            system = await self.system()
            classes = sorted({node["class_type"] for node in workflow.values()})
            found = {name: await node_info(self.comfy, name) for name in classes}
            if missing := [name for name, info in found.items() if not info]:
                raise ClipError(f"{self.name} does not have {', '.join(missing)}. Install the workflow's node packs"
                                " there (nodes that begin with Wan22 are of ComfyUI-Wan22), or leave this server out.")
            await check_places(self.comfy, workflow, places)
            for job in list(self.lost):  # others may come while this waits
                await cancel(self.comfy, job)
                self.lost.discard(job)
        except (*NO_ANSWER, KeyError) as error:
            raise LostError(f"{self.name}: {error or 'no answer'}") from None
        inputs = {name: sorted(key for group in info["input"].values() for key in group)
                  for name, info in found.items()}
        return Facts(inputs, f"ComfyUI {system.get('comfyui_version')}, PyTorch {system.get('pytorch_version')}")

    async def system(self) -> dict[str, Any]:
        async with self.comfy.get("/system_stats") as response:
            return (await response.json())["system"]

    async def answers(self) -> bool:
        """Return whether ComfyUI itself can be reached."""
        try:
            await self.system()
        except (*NO_ANSWER, KeyError):
            return False
        return True

    async def knows(self, job: str) -> bool:
        """Return whether the job of an earlier run waits, runs or has made its clip there."""
        try:
            await job_state(self.comfy, job)
        except (ClipError, *NO_ANSWER):
            return False
        return True

    async def make(self, graph: Workflow, pictures: Mapping[str, bytes], job: str, *, known: bool = False) -> Made:
        """Make a clip under the id of a job; a job that is known there already is only waited for.

        Raises ClipError when the clip fails, LostError when the server does. When cancelled, it cancels the job.
        """
        try:
            if not known:
                await queue(self.comfy, await self.with_pictures(graph, pictures), job, job)
            state = await self.end_of(job)
            data = await download(self.comfy, first_mp4(state["outputs"]))
        except aiohttp.ClientResponseError as error:
            reason = f"{self.name}: {error.status} {error.message} for {error.request_info.url.path}"
            if error.status >= 400 and await self.answers():
                raise ClipError(reason) from None
            self.lost.add(job)  # no JSON, or a proxy that refuses every request: the clip is not to blame
            raise LostError(reason) from None
        except NO_ANSWER as error:
            self.lost.add(job)
            raise LostError(f"{self.name}: {error or 'no answer'}") from None
        except asyncio.CancelledError:
            with contextlib.suppress(*NO_ANSWER):
                await asyncio.wait_for(cancel(self.comfy, job), 5)
            raise
        times = [state.get(f"execution_{end}_time") for end in ("start", "end")]
        seconds = (times[1] - times[0]) / 1000 if all(times) else None
        return Made(data, seconds, *verdict_of(state["outputs"]))

    async def with_pictures(self, graph: Workflow, pictures: Mapping[str, bytes]) -> Workflow:
        """Upload pictures, and return the graph with the names that they have on the server."""
        stored = {name: await upload(self.comfy, data, name) for name, data in pictures.items()}
        return {key: {**node, "inputs": {**node["inputs"], "image": stored[node["inputs"]["image"]]}}
                if node["inputs"].get("image") in list(stored) else node for key, node in graph.items()}

    async def end_of(self, job: str) -> dict[str, Any]:
        """Wait for the end of a job; return its state. Raises LostError when the server does not answer."""
        running, silent = False, 0
        while True:
            try:
                state = await job_state(self.comfy, job)
                silent = 0
            except JobLostError:
                raise LostError(f"{self.name}: it was restarted", running) from None
            except NO_ANSWER as error:
                silent += 1
                if silent == POLLS:
                    self.lost.add(job)
                    raise LostError(f"{self.name}: {error or 'no answer'}", running) from None
            else:
                if state["status"] == "completed":
                    return state
                running = state["status"] == "in_progress"
            await asyncio.sleep(POLL)


async def look_at(response: aiohttp.ClientResponse) -> None:
    """Raise NotComfyUIError for an answer that no ComfyUI gives, ClientResponseError for an error without a reason.

    ComfyUI answers with JSON or with a file. A page in place of a clip would otherwise be kept as the clip.
    """
    if response.status in AWAY or (response.ok and response.content_type.startswith("text/")):
        response.close()
        raise NotComfyUIError(f"{response.status} {response.reason} ({response.content_type}) for {response.url.path},"
                              " which is not ComfyUI's answer")
    if EXPLAINED.get(response.status, "no path") not in response.url.path:
        response.raise_for_status()


def with_reports(workflow: Workflow) -> Workflow:
    """Return the workflow with a node behind each Check Clip that puts its report into the outputs of the run."""
    return workflow | {REPORT + key: {"class_type": "PreviewAny", "inputs": {"source": [key, REPORT_OUTPUT]}}
                       for key, node in workflow.items() if node["class_type"] == CHECK}


def verdict_of(outputs: Mapping[str, Any]) -> tuple[bool | None, float | None]:
    """Return whether a clip passed and its score, the worst of several Check Clips; None and None without one."""
    reports = [json.loads(shown["text"][0]) for node, shown in outputs.items() if node.startswith(REPORT)]
    if not reports:
        return None, None
    return all(report["pass"] for report in reports), min(report["score"] for report in reports)


@dataclass
class Absence:
    """The waiting for a worker since it last made a clip.

    That it answers does not end it: a proxy may let questions through and no clip, and would be asked without end.
    """

    pause: float = 1.0
    waited: float = 0.0

    async def end(self, worker: Any, check: Any) -> bool:
        """Ask a lost worker again and again, with longer and longer pauses; return whether it came back.

        check: returns when the worker can go on. Raises ClipError when it came back and cannot.
        """
        while self.waited < worker.patience:
            begun = time.monotonic()
            await asyncio.sleep(self.pause)
            self.pause = min(2 * self.pause, 60.0)
            try:
                await check(worker)
                return True
            except LostError:
                continue
            finally:
                self.waited += time.monotonic() - begun
        return False
