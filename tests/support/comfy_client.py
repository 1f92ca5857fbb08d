"""A client of a running ComfyUI that hears everything its canvas hears, behind plain synchronous calls.

Requests go over HTTP one at a time; a thread of its own listens to the websocket, text and binary messages alike, so
that nothing is missed while a test looks elsewhere. Every wait ends: with what was waited for or with an error.
"""

from __future__ import annotations

import asyncio
import copy
import io
import json
import queue
import struct
import threading
import time
import urllib.error
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from devtools.paths import DEMO_WORKFLOW
from devtools.server import ComfyServer
from devtools.terminal import tail
from devtools.workflow import Workflow

TIMEOUT = 180.0
"""Seconds that one run may take; far more than any needs, for machines that are busy otherwise."""
ENDS = ("execution_success", "execution_error", "execution_interrupted")
PROGRESS_TEXT, PREVIEW_WITH_METADATA = 3, 4
"""Kinds of binary messages (ComfyUI, protocol.py BinaryEventTypes)."""


@dataclass(frozen=True)
class Event:
    """One message: its type and data. Binary ones are named "text" (node, text) and "preview" (header and "image")."""

    kind: str
    data: dict[str, Any]


@dataclass
class Run:
    """Messages of the websocket on one run, in order."""

    prompt_id: str
    events: list[Event] = field(default_factory=list)

    def _data(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.kind == kind]

    @property
    def outcome(self) -> str:
        """The message that ended the run, one of ENDS."""
        return self.events[-1].kind

    @property
    def error(self) -> dict[str, Any]:
        """The data of execution_error: node_id, exception_message and more."""
        return self._data("execution_error")[0]

    @property
    def executed(self) -> list[str]:
        """Ids of the nodes that were executed, in order."""
        return [data["node"] for data in self._data("executing") if data["node"] is not None]

    @property
    def cached(self) -> set[str]:
        """Ids of the nodes whose results were there already."""
        return {node for data in self._data("execution_cached") for node in data["nodes"]}

    def progress(self, node: str) -> list[tuple[int, int]]:
        """(value, max) of each progress message of a node."""
        return [(data["value"], data["max"]) for data in self._data("progress") if data["node"] == node]

    def previews(self, node: str) -> list[bytes]:
        """The pictures that were shown while a node ran, as sent."""
        return [data["image"] for data in self._data("preview") if data["node_id"] == node]

    def texts(self, node: str) -> list[str]:
        """The texts that were shown on a node, without the spaces that end their lines in Markdown."""
        return [data["text"].replace("  \n", "\n") for data in self._data("text") if data["node"] == node]


class RejectedError(Exception):
    """POST /prompt answered 400: nothing ran. `errors` lists the faults of each node, as ComfyUI tells them."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer, indent=1))
        self.errors: dict[str, list[dict[str, Any]]] = {
            node: found["errors"] for node, found in (answer.get("node_errors") or {}).items()
        }


class ComfyClient:
    """One canvas, so to speak, connected to a server until it is closed."""

    def __init__(self, server: ComfyServer) -> None:
        self.server = server
        self.client_id = uuid.uuid4().hex
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._connected = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._listener = self._loop.create_task(self._listen())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        if not self._connected.wait(30):
            self.close()
            raise ConnectionError("the server's websocket did not answer")

    def close(self) -> None:
        """Leave the server. Safe to call twice."""
        with suppress(RuntimeError):  # the loop is closed: the server went, and the listener with it
            self._loop.call_soon_threadsafe(self._listener.cancel)
        self._thread.join(10)

    # ---- listening ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._listener)
        except asyncio.CancelledError:
            pass
        finally:
            self._events.put(None)
            self._loop.close()

    async def _listen(self) -> None:
        address = f"{self.server.url}/ws?clientId={self.client_id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as ws:
            await ws.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            async for message in ws:
                event = _event_of(message)
                if event.kind == "feature_flags":  # the answer to ours: from here on previews come with metadata
                    self._connected.set()
                self._events.put(event)

    def _next(self, deadline: float) -> Event:
        try:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"the run did not end in time; the server's log:\n{tail(self.server.log)}") from None
        if event is None:
            raise ConnectionError(f"the server hung up; its log:\n{tail(self.server.log)}")
        return event

    # ---- running ------------------------------------------------------------------------------------------------

    def submit(self, workflow: Workflow, canvas: dict[str, Any] | None = None) -> str:
        """Queue a workflow and return its id. Raises RejectedError when any part of it is refused.

        `canvas` is the drawn workflow that a browser sends along, for the metadata of results.
        """
        body: dict[str, Any] = {"prompt": workflow, "client_id": self.client_id}
        if canvas is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": canvas}}
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise RejectedError(json.loads(error.read())) from None
        if answer["node_errors"]:  # ComfyUI drops a refused branch and runs the others; no test wants that
            self.cancel(answer["prompt_id"])
            raise RejectedError(answer)
        return answer["prompt_id"]

    def follow(self, prompt_id: str, on_event: Callable[[Event], None] = lambda event: None) -> Run:
        """Listen until a run has ended, and until the server has put it into its history.

        `on_event` hears each message of the run as it arrives, so that it can act in the middle of it.
        """
        run, deadline = Run(prompt_id), time.monotonic() + TIMEOUT
        while not run.events or run.outcome not in ENDS:
            event = self._next(deadline)
            if event.data.get("prompt_id", prompt_id) == prompt_id:
                run.events.append(event)
                on_event(event)
        while self.job(prompt_id)["status"] in ("pending", "in_progress"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {prompt_id} ended but stays in the queue")
            time.sleep(0.01)
        return run

    def run(self, workflow: Workflow, on_event: Callable[[Event], None] = lambda event: None,
            canvas: dict[str, Any] | None = None) -> Run:
        """Queue a workflow and follow it to its end, whichever that is."""
        return self.follow(self.submit(workflow, canvas), on_event)

    def finish(self, workflow: Workflow) -> Run:
        """Run a workflow that has to succeed."""
        run = self.run(workflow)
        assert run.outcome == "execution_success", run.events[-1]
        return run

    def cancel(self, prompt_id: str) -> None:
        """Stop a run, as the canvas's Stop does."""
        self.post(f"/api/jobs/{prompt_id}/cancel", {})

    def interrupt(self) -> None:
        """Stop whatever runs, as older clients do."""
        self.post("/interrupt", {}, parse=False)

    def forget(self) -> None:
        """Empty the caches of results and models.

        The server does so between two runs; a run of its own after the request makes sure that this has happened.
        """
        self.post("/free", {"free_memory": True, "unload_models": True}, parse=False)
        value = uuid.uuid4().hex
        self.finish({"1": {"class_type": "PreviewAny", "inputs": {"source": value}}})

    # ---- results ------------------------------------------------------------------------------------------------

    def post(self, path: str, body: dict[str, Any], *, parse: bool = True) -> Any:
        """POST a JSON body; the answer's JSON."""
        answer = self.server.request(path, json.dumps(body).encode())
        return json.loads(answer) if parse else None

    def get(self, path: str) -> Any:
        """GET a path; the answer's JSON."""
        return json.loads(self.server.request(path))

    def job(self, prompt_id: str) -> dict[str, Any]:
        """Return the jobs API's answer on a run: status and more."""
        return self.get(f"/api/jobs/{prompt_id}")

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The history's entry of a run: prompt, outputs, status."""
        return self.get(f"/history/{prompt_id}")[prompt_id]

    def files(self, run: Run, node: str) -> list[bytes]:
        """The files that an output node made, as /view and so the canvas gets them."""
        output = self.history(run.prompt_id)["outputs"][node]
        found = [entry for value in output.values() for entry in value if isinstance(entry, dict)]
        return [self.server.request("/view?" + urllib.parse.urlencode(entry)) for entry in found]

    def latents(self, run: Run, node: str) -> np.ndarray:
        """The tensor that core's SaveLatent wrote."""
        from safetensors.numpy import load

        (file,) = self.files(run, node)
        return load(file)["latent_tensor"]

    def frames(self, run: Run, node: str) -> np.ndarray:
        """The pictures that core's SaveImage or PreviewImage made, (F, H, W, 3) uint8."""
        return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in self.files(run, node)])

    def upload(self, name: str, pixels: np.ndarray) -> str:
        """Upload a picture, (H, W, 3) uint8, as `name`.png; returns the name that Load Image knows it by."""
        file = self.server.base / f"{name}.png"
        Image.fromarray(pixels).save(file)
        return self.server.upload_picture(file)


def _event_of(message: aiohttp.WSMessage) -> Event:
    if message.type == aiohttp.WSMsgType.TEXT:
        content = json.loads(message.data)
        return Event(content["type"], content.get("data") or {})
    kind, length = struct.unpack(">II", message.data[:8])
    head, rest = message.data[8 : 8 + length], message.data[8 + length :]
    if kind == PROGRESS_TEXT:
        return Event("text", {"node": head.decode(), "text": rest.decode()})
    if kind == PREVIEW_WITH_METADATA:
        return Event("preview", {**json.loads(head), "image": rest})
    return Event(f"binary {kind}", {})


# ---- workflows --------------------------------------------------------------------------------------------------

NAMES = {
    "LoadImage": "picture",
    "Wan22Load": "load",
    "Wan22EncodePrompt": "prompt",
    "Wan22FirstFrame": "frame",
    "Wan22Sampler": "sampler",
    "Wan22Decode": "decode",
    "Wan22SaveMP4": "save",
}
"""Node ids of `clip_workflow`, which say more than the numbers in the file."""


def clip_workflow(picture: str, width: int = 96, height: int = 64, num_frames: int = 5, steps: int = 10,
                  ) -> Workflow:
    """The workflow that the pack ships, for a clip that takes a second."""
    shipped: Workflow = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
    names = {node_id: NAMES[node["class_type"]] for node_id, node in shipped.items()}
    workflow = {names[node_id]: node for node_id, node in shipped.items()}
    for node in workflow.values():
        node["inputs"] = {key: [names[value[0]], value[1]] if isinstance(value, list) else value
                          for key, value in node["inputs"].items()}
    workflow["picture"]["inputs"]["image"] = picture
    workflow["frame"]["inputs"].update({
        "resolution": "custom", "resolution.width": width, "resolution.height": height, "num_frames": num_frames,
    })
    workflow["sampler"]["inputs"]["num_inference_steps"] = steps
    return workflow


def changed(workflow: Workflow, node: str, **inputs: Any) -> Workflow:
    """A copy of a workflow with some inputs of one node replaced."""
    copied = copy.deepcopy(workflow)
    copied[node]["inputs"].update(inputs)
    return copied


def added(workflow: Workflow, node: str, class_type: str, **inputs: Any) -> Workflow:
    """A copy of a workflow with one node more."""
    return {**copy.deepcopy(workflow), node: {"class_type": class_type, "inputs": inputs}}


def without(workflow: Workflow, *nodes: str) -> Workflow:
    """A copy of a workflow without some nodes; nothing may be left that is linked to them."""
    return {name: copy.deepcopy(node) for name, node in workflow.items() if name not in nodes}


def sample_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with a few coloured blobs, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    picture = np.full((height, width, 3), 96.0)
    for _ in range(5):
        centre, radius = rng.uniform(0, (width, height)), rng.uniform(0.1, 0.3) * max(width, height)
        blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2)
        picture += blob[..., None] * rng.uniform(-80, 120, 3)
    return picture.clip(0, 255).astype(np.uint8)


def messages(errors: Sequence[dict[str, Any]]) -> set[str]:
    """The sentences of a node's validation errors, each once: ComfyUI repeats ours for every input that a check names.

    A sentence of ours stands in `details` behind the input's name; one of ComfyUI's own in `message`.
    """
    return {error["details"].partition(" - ")[2] if error["type"] == "custom_validation_failed" else error["message"]
            for error in errors}
