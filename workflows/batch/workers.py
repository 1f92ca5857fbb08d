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
        self.session = aiohttp.ClientSession(timeout=TIMEOUT)
        self.comfy = Server(self.session, address)
        self.lost: set[str] = set()
        """Jobs that it may still have, and that others do by now."""

    async def close(self) -> None:
        await self.session.close()

    async def check(self, workflow: Workflow, places: Iterable[str]) -> Facts:
        """Return facts on the server. Raises ClipError when it cannot run the workflow, LostError without an answer."""
        try:
            async with self.comfy.get("/system_stats") as response:
                response.raise_for_status()
                system = (await response.json())["system"]
            classes = sorted({node["class_type"] for node in workflow.values()})
            found = {name: await node_info(self.comfy, name) for name in classes}
            if missing := [name for name, info in found.items() if not info]:
                raise ClipError(f"{self.name} does not have {', '.join(missing)}. Install the workflow's node packs"
                                " there (nodes that begin with Wan22 are of ComfyUI-Wan22), or leave this server out.")
            await check_places(self.comfy, workflow, places)
            for job in self.lost:
                await cancel(self.comfy, job)
            self.lost.clear()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError, KeyError) as error:
            raise LostError(f"{self.name}: {error or 'no answer'}") from None
        inputs = {name: sorted(key for group in info["input"].values() for key in group)
                  for name, info in found.items()}
        return Facts(inputs, f"ComfyUI {system.get('comfyui_version')}, PyTorch {system.get('pytorch_version')}")

    async def knows(self, job: str) -> bool:
        """Return whether the job of an earlier run waits, runs or has made its clip there."""
        try:
            await job_state(self.comfy, job)
        except (ClipError, aiohttp.ClientError, OSError, asyncio.TimeoutError):
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
            raise ClipError(f"{self.name}: {error.status} {error.message} for {error.request_info.url.path}") from None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            self.lost.add(job)
            raise LostError(f"{self.name}: {error or 'no answer'}") from None
        except asyncio.CancelledError:
            with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
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
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                silent += 1
                if silent == POLLS:
                    self.lost.add(job)
                    raise LostError(f"{self.name}: {error or 'no answer'}", running) from None
            else:
                if state["status"] == "completed":
                    return state
                running = state["status"] == "in_progress"
            await asyncio.sleep(POLL)


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


async def wait_for_answer(worker: Any, check: Any) -> bool:
    """Ask a lost worker again and again, with longer and longer pauses; return whether it came back.

    check: returns when the worker can go on. Raises ClipError when it came back and cannot.
    """
    pause, end = 1.0, time.monotonic() + worker.patience
    while time.monotonic() < end:
        await asyncio.sleep(pause)
        pause = min(2 * pause, 60.0)
        with contextlib.suppress(LostError):
            await check(worker)
            return True
    return False
