"""Workers on a Ray cluster: an actor for each GPU, with a ComfyUI of its own on its node.

Ray finds a node for each actor, asks for more nodes where the cluster scales itself, and starts an actor elsewhere when
its node dies. ComfyUI listens on its node's loopback address alone. Clips come back through Ray, so that the journal
and the results stay with the one program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp
from run_headless import ClipError, Workflow

from .workers import Facts, LostError, Made, ServerWorker

try:
    import ray
    from ray.exceptions import RayError
except ImportError:
    raise ClipError("--ray needs the package ray, here and on every node: pip install ray") from None

HERE = Path(__file__).resolve().parent
LAST_LINES = 2000
"""Characters of ComfyUI's log that are told when it does not start."""


class ComfyActor:
    """A ComfyUI on the node where this runs, and a worker that uses it."""

    def __init__(self, name: str, command: str) -> None:
        """Start ComfyUI. To the command, address, port, and folders of its own for pictures and clips are added.

        Those folders are removed in the end, and several ComfyUIs on a node do not meet in them.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.name, self.url, self.worker = name, f"http://127.0.0.1:{port}", None
        self.folder = tempfile.TemporaryDirectory(prefix="comfyui-")
        self.log = Path(self.folder.name, "log")
        words = [*shlex.split(command), "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch",
                 "--database-url", "sqlite:///:memory:"]
        for kind in ("input", "output", "temp"):
            Path(self.folder.name, kind).mkdir()
            words += [f"--{kind}-directory", str(Path(self.folder.name, kind))]
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen([sys.executable, str(HERE / "keep.py"), *words], stdin=subprocess.PIPE,
                                            stdout=sink, stderr=sink)

    async def ready(self) -> ServerWorker:
        """Wait until ComfyUI answers. Raises ClipError with the end of its log when it stopped."""
        self.worker = self.worker or ServerWorker(self.url)
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                async with self.worker.comfy.get("/system_stats") as response:
                    response.raise_for_status()
                    return self.worker
            if self.process.poll() is not None:
                text = self.log.read_text("utf-8", errors="replace")
                raise ClipError(f"{self.name}: ComfyUI stopped. The end of its log:\n{text[-LAST_LINES:]}")
            await asyncio.sleep(0.5)

    async def check(self, workflow: Workflow, places: Sequence[str]) -> Facts:
        return await (await self.ready()).check(workflow, places)

    async def make(self, graph: Workflow, pictures: Mapping[str, bytes], job: str) -> Made:
        try:
            return await (await self.ready()).make(graph, pictures, job)
        except LostError:
            if self.process.poll() is not None:
                os._exit(1)  # ComfyUI died alone: Ray starts this actor anew, and ComfyUI with it
            raise


class RayWorker:
    """An actor, seen from the program that makes the batch."""

    patience = float("inf")
    """Ray itself looks for another node, which may have to be rented first."""

    def __init__(self, name: str, actor: ray.actor.ActorHandle) -> None:
        self.name, self.actor = name, actor

    async def check(self, workflow: Workflow, places: Sequence[str]) -> Facts:
        with lost_as(self.name):
            return await self.actor.check.remote(workflow, places)

    async def knows(self, job: str) -> bool:
        """Return False: the ComfyUIs of an earlier run ended with it."""
        return False

    async def make(self, graph: Workflow, pictures: Mapping[str, bytes], job: str, *, known: bool = False) -> Made:
        with lost_as(self.name):
            return await self.actor.make.remote(graph, pictures, job)


@contextlib.contextmanager
def lost_as(name: str):
    """Turn Ray's errors of actors and nodes into LostError. An actor's own ClipError and LostError stay as they are."""
    try:
        yield
    except (ClipError, LostError):
        raise
    except RayError as error:
        raise LostError(f"{name}: {str(error).splitlines()[0]}", running=True) from None


@contextlib.asynccontextmanager
async def actors(address: str, command: str, count: int | None, gpus: float) -> AsyncIterator[list[RayWorker]]:
    """Start actors on a cluster: that of an address, or the one of this machine. Raises ClipError without one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address or None, log_to_driver=False, logging_level="ERROR", include_dashboard=None,
                 runtime_env={"working_dir": str(HERE.parent), "excludes": ["*.jpg", "*.json", "input"]})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClipError(f"--ray {address}: {error}") from None
    try:
        count = count or int(ray.cluster_resources().get("GPU", 0) / gpus if gpus else 0)
        if not count:
            raise ClipError("This Ray cluster has no GPU now. Say with --workers how many ComfyUIs to start, and with "
                            "--gpus 0 when they are to run on CPUs.")
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0, max_concurrency=8,
                            scheduling_strategy="SPREAD")(ComfyActor)
        names = [f"ray {number}" for number in range(1, count + 1)]
        yield [RayWorker(name, remote.remote(name, command)) for name in names]
    finally:
        ray.shutdown()
