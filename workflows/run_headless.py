#!/usr/bin/env python3
"""Make a clip on a running ComfyUI, without the canvas.

    python3 run_headless.py cat.png "the camera zooms in"
    python3 run_headless.py cat.png "she smiles" --workflow api/image-to-video-demo.json --set Wan22Sampler.seed=7 \\
        --server http://192.168.1.20:8188 --out cat.mp4

Uploads the picture, queues a workflow in API format, shows its progress and downloads the MP4. Runs on its own: Python
3.10 and aiohttp, which ComfyUI's Python has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import aiohttp
except ImportError:
    sys.exit("This needs the package aiohttp. Run it with ComfyUI's own Python, or: pip install aiohttp")

WORKFLOW = Path(__file__).resolve().parent / "api" / "image-to-video-demo.json"
Workflow = dict[str, dict[str, Any]]


class ClipError(Exception):
    """Why there is no clip, as the user reads it."""


class JobLostError(ClipError):
    """ComfyUI does not know the job: it was restarted."""


def read_workflow(path: Path) -> Workflow:
    """Return the graph in API format. Raises ClipError for any other file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found or not all(
            isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
            for node in found.values()):
        raise ClipError(f"{path} is not a workflow in API format. Save it on the canvas with File > Export (API).")
    return found


def fill_in(workflow: Workflow, picture: str, prompt: str | None, settings: list[str]) -> None:
    """Set the picture, the prompt and settings such as "Wan22Sampler.seed=7" on the nodes that have such inputs."""
    for node in workflow.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = picture
        if prompt is not None and isinstance(node["inputs"].get("prompt"), str):
            node["inputs"]["prompt"] = prompt
    for setting in settings:
        place, equals, text = setting.partition("=")
        nodes, name = nodes_at(workflow, place)
        if not nodes or not equals:
            raise ClipError(f"--set {setting}: write it as NODE.INPUT=VALUE, where NODE is an id or a class of the "
                            f"workflow: {list_of_nodes(workflow)}")
        for node in nodes.values():
            node["inputs"][name] = value_for(node, name, text)


def nodes_at(workflow: Workflow, place: str) -> tuple[Workflow, str]:
    """Return the nodes of the id or class in "NODE.INPUT", and the input; no node for a place without an input."""
    kind, _, name = place.partition(".")
    return {key: node for key, node in workflow.items() if name and kind in (key, node["class_type"])}, name


def list_of_nodes(workflow: Workflow) -> str:
    return ", ".join(f"{key} ({node['class_type']})" for key, node in workflow.items())


def value_for(node: dict[str, Any], name: str, text: str) -> Any:
    """Return what a text stands for: itself where the input holds text (a camera path is JSON), else JSON if it is."""
    if not isinstance(node["inputs"].get(name), str):
        with contextlib.suppress(ValueError):  # a plain word stays text
            return json.loads(text)
    return text


async def check_places(comfy: Server, workflow: Workflow, places: Iterable[str]) -> None:
    """Raise ClipError when a place names an input that its node does not have: ComfyUI would ignore it in silence."""
    for place in places:
        nodes, name = nodes_at(workflow, place)
        for class_type in {node["class_type"] for node in nodes.values()}:
            groups = (await node_info(comfy, class_type)).get("input", {})
            known = {key: spec for group in ("required", "optional") for key, spec in groups.get(group, {}).items()}
            first, _, nested = name.partition(".")  # such as resolution.width, which the choice of resolution brings
            if known and (first not in known or (nested and json.dumps(nested) not in json.dumps(known[first]))):
                raise ClipError(f"{place}: {class_type} has no input {name!r}. It has {', '.join(known)}.")


async def node_info(comfy: Server, class_type: str) -> dict[str, Any]:
    """Return what ComfyUI tells of a node; nothing of one that it does not have."""
    async with comfy.get(f"/object_info/{class_type}") as response:
        response.raise_for_status()
        return (await response.json()).get(class_type, {})


class Server:
    """A ComfyUI at an address, which may have a path of its own behind the host."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session, self.address = session, address.rstrip("/")

    def get(self, path: str, **options: Any) -> Any:
        return self.session.get(self.address + path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self.session.post(self.address + path, **options)

    def ws_connect(self, path: str, **options: Any) -> Any:
        return self.session.ws_connect(self.address + path, **options)


async def upload(comfy: Server, picture: bytes, name: str) -> str:
    """Upload the picture and return its name for Load Image. An earlier picture of that name is kept."""
    form = aiohttp.FormData()
    form.add_field("image", picture, filename=name)
    async with comfy.post("/upload/image", data=form) as response:
        response.raise_for_status()
        return (await response.json())["name"]


async def queue(comfy: Server, workflow: Workflow, client: str, job: str) -> None:
    """Queue the graph under an id, a UUID. Raises ClipError with ComfyUI's messages if it refuses even one branch."""
    async with comfy.post("/prompt", json={"prompt": workflow, "client_id": client, "prompt_id": job}) as response:
        reply = await response.json()
    faults: dict[tuple[str, str], str] = {}
    for node in (reply.get("node_errors") or {}).values():
        for error in node["errors"]:
            details = error["details"]  # "input - sentence", the same for all inputs of a check; or the input alone
            sentence = details.partition(" - ")[2]
            said = details if sentence else ": ".join(filter(None, (error["message"], details)))
            fault = node["class_type"], sentence or said
            faults[fault] = f"{node['class_type']}: {fault[1] if fault in faults else said}"
    if faults or "prompt_id" not in reply:
        error = reply.get("error")  # a proxy's own is of another shape than ComfyUI's
        said = error.get("message") if isinstance(error, dict) else error
        raise ClipError("\n".join(faults.values()) or f"{said or 'The workflow was refused'} "
                        f"(status {response.status})")


async def show_progress(comfy: Server, workflow: Workflow, client: str) -> None:
    """Print the steps that ComfyUI reports. `outputs_of` waits for the end: a socket may break."""
    with contextlib.suppress(aiohttp.ClientError):
        async with comfy.ws_connect("/ws", params={"clientId": client}) as socket:
            async for message in socket:
                event = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
                if event.get("type") == "progress":
                    step = event["data"]
                    name = workflow.get(step["node"], {}).get("class_type", "")
                    print(f"\r{name:24} {step['value']:.0f}/{step['max']:.0f} ", end="", flush=True)


async def job_state(comfy: Server, job: str) -> dict[str, Any]:
    """Return what ComfyUI tells of a job: its status, and outputs when that is "completed".

    Raises JobLostError for a job that it does not know, ClipError with the node's message for one that failed.
    """
    async with comfy.get(f"/api/jobs/{job}") as response:
        if response.status == 404:
            raise JobLostError("ComfyUI no longer knows the job: it was restarted. Run this again.")
        response.raise_for_status()
        state = await response.json()
    if state["status"] in ("failed", "cancelled"):
        error = state.get("execution_error") or {"node_type": "The run", "exception_message": "was cancelled"}
        raise ClipError(f"{error['node_type']}: {error['exception_message']}".rstrip())
    return state


async def cancel(comfy: Server, job: str) -> None:
    """Take the job out of the queue, or stop it."""
    async with comfy.post(f"/api/jobs/{job}/cancel"):
        pass


async def outputs_of(comfy: Server, job: str) -> dict[str, Any]:
    """Wait for the job and return its outputs. Ctrl-C cancels the job."""
    try:
        while (state := await job_state(comfy, job))["status"] != "completed":
            await asyncio.sleep(1)
    except asyncio.CancelledError:
        await cancel(comfy, job)
        raise
    return state["outputs"]


def first_mp4(outputs: dict[str, Any]) -> dict[str, str]:
    """Return filename, subfolder and type of the first MP4. Raises ClipError without one."""
    files = [file for node in outputs.values() for files in node.values() for file in files
             if isinstance(file, dict) and str(file.get("filename")).endswith(".mp4")]
    if not files:
        raise ClipError("The workflow ended without an MP4: it needs Save MP4, Decode to MP4 or Save Video.")
    return {key: files[0][key] for key in ("filename", "subfolder", "type")}


async def download(comfy: Server, file: dict[str, str]) -> bytes:
    async with comfy.get("/view", params=file) as response:
        response.raise_for_status()
        return await response.read()


async def make_clip(options: argparse.Namespace) -> None:
    workflow = read_workflow(options.workflow)
    client, job = uuid.uuid4().hex, str(uuid.uuid4())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=10)) as session:
        comfy = Server(session, options.server)
        fill_in(workflow, options.picture.name, options.prompt, options.set)
        await check_places(comfy, workflow, [setting.partition("=")[0] for setting in options.set])
        name = await upload(comfy, options.picture.read_bytes(), options.picture.name)
        fill_in(workflow, name, options.prompt, options.set)
        await queue(comfy, workflow, client, job)
        watching = asyncio.create_task(show_progress(comfy, workflow, client))
        try:
            outputs = await outputs_of(comfy, job)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            print()
        file = first_mp4(outputs)
        out = options.out or Path()
        out = out / file["filename"] if out.is_dir() else out
        out.write_bytes(await download(comfy, file))
    print(out)


def address(text: str) -> str:
    """Return the server's address, with http:// unless https:// is given. Raises ArgumentTypeError for another."""
    found = text if "://" in text else f"http://{text}"
    with contextlib.suppress(ValueError):  # of a port that is no number, or over 65535
        parts = urlsplit(found)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8188")


def picture_file(text: str) -> Path:
    """Return the path of a file that is there. Raises ArgumentTypeError for another."""
    if not (path := Path(text)).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def output_file(text: str) -> Path:
    """Return a path whose folder is there: of a file, or of a folder for it. Raises ArgumentTypeError for another."""
    path = Path(text)
    if not (path.is_dir() or path.absolute().parent.is_dir()):
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=picture_file, metavar="PICTURE", help="a file")
    parser.add_argument("prompt", nargs="?", help="default: the workflow's own")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="in API format (default: the bundled model's)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="may be repeated")
    parser.add_argument("--server", type=address, default="http://127.0.0.1:8188")
    parser.add_argument("--out", type=output_file, metavar="FILE",
                        help="or a folder that is there; default: the file's name on the server, here")
    options = parser.parse_args()
    try:
        asyncio.run(make_clip(options))
    except ClipError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nCancelled.")
    except aiohttp.ClientError as error:
        sys.exit(f"{options.server}: {error}. Is ComfyUI running there?")
    except OSError as error:
        sys.exit(f"{error.filename or options.server}: {error.strerror or error}.")


if __name__ == "__main__":
    main()
