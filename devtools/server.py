"""Start and stop the real ComfyUI with this pack."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

from .paths import ROOT, VENV_PYTHON
from .processes import OPENMP, succeeds
from .terminal import DevError, tail


@functools.cache
def has_accelerator() -> bool:
    """Return whether the PyTorch of the virtual environment can use a GPU."""
    question = "import sys, torch; sys.exit(0 if torch.accelerator.is_available() else 1)"
    return succeeds([str(VENV_PYTHON), "-c", question])


def free_port(preferred: int = 0) -> int:
    """Return a loopback port nobody listens on: the preferred one, or any for 0. Raises OSError when it is taken."""
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
        self.environ: dict[str, str] = {}  # further environment variables
        self.launcher = ""  # a program that starts main.py in place of Python itself
        # Proxies from the environment are for the outside, never for a loopback address.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line; write the small file that shows ComfyUI this checkout without links or copies."""
        words = [str(VENV_PYTHON), *filter(None, [self.launcher]), str(self.comfyui / "main.py")]
        words += ["--base-directory", str(self.base)]
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
        environ = {**OPENMP, **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1",
                   **self.environ}
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

    def _wait_until_ready(self, timeout: float = 300) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.request("/system_stats", timeout=5)
                break
            except OSError:
                time.sleep(0.05)
            if not self.running():
                raise DevError(f"ComfyUI stopped while it was starting:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise DevError(f"ComfyUI did not start within {timeout:.0f} seconds:\n{tail(self.log)}")
        if self.with_pack and "(IMPORT FAILED)" in self.log.read_text("utf-8", errors="replace"):
            raise DevError(f"ComfyUI started but could not load this node pack:\n{tail(self.log, 40)}")

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server, by force if it lingers. Safe to call twice."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def request(self, path: str, body: bytes | None = None, kind: str = "application/json", timeout: int = 60) -> bytes:
        """Return the answer to a GET, or with a body to a POST. Raises urllib's HTTPError for an error status."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with self._http.open(request, timeout=timeout) as answer:
            return answer.read()

    def upload_picture(self, picture: Path) -> str:
        """Put a picture into the server's input folder; return the name that LoadImage knows it by."""
        boundary = uuid.uuid4().hex
        # A person's file name may hold anything; the server needs a plain one, and only the suffix tells it much.
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="picture{picture.suffix}"'
        body = f"{head}\r\n\r\n".encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))["name"]
