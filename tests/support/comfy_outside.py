"""A real ComfyUI, the providers and a receiver of callbacks, all of them on loopback."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from devtools.environment import local_comfyui
from devtools.server import ComfyServer
from pipeline.remote.ledger import DAY
from pipeline.remote.providers import PROVIDERS
from tests.support.comfy_client import ComfyClient, sample_picture
from tests.support.comfy_launcher import put_on_loopback
from tests.support.hook_server import HookServer
from tests.support.loopback_server import LoopbackServer
from tests.support.providers.provider_server import ProviderServer
from tests.support.runner import OWN, SERVERS

PUBLIC = "https://desk.example"
PACE = 0.02
"""Of the ComfyUI that the tests share."""


class Outside:
    """ComfyUI with no key in its environment, and everything that it can reach; a context manager."""

    def __init__(self, folder: Path, pace: float, *others: LoopbackServer) -> None:
        """pace: stretches every wait of the remote nodes and of callbacks. others: servers that it can reach too."""
        self._stack = ExitStack()
        folder.mkdir(exist_ok=True)
        self.hook = self._stack.enter_context(closing(HookServer(folder)))
        self.providers: dict[str, ProviderServer] = {
            name: self._stack.enter_context(closing(server(folder))) for name, server in SERVERS.items()}
        comfyui = local_comfyui()
        self.server = ComfyServer(comfyui, folder / "comfyui", folder / "server.log")
        self.server.base.mkdir()
        hosts = json.loads(self.hook.environment(*self.providers.values(), *others))
        put_on_loopback(self.server, json.dumps(hosts | {"pace": pace}))
        self.server.environ["WAN22_CALLBACK_SECRET"] = self.hook.secret

    @property
    def own(self) -> Path:
        """The pack's folder, which ComfyUI's server hands out to nobody."""
        return self.server.base / "user" / "__wan22"

    def spent_long_ago(self) -> None:
        """Have what was bought so far count to an earlier day's spending."""
        if (self.own / "jobs.sqlite").is_file():
            with closing(sqlite3.connect(self.own / "jobs.sqlite")) as base, base:
                base.execute("UPDATE jobs SET created = created - ?, submitted = submitted - ?", (2 * DAY, 2 * DAY))

    def __enter__(self) -> Outside:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def start(self) -> None:
        """Start ComfyUI; its log is of this start alone."""
        self.server.__enter__()
        self.comfy = ComfyClient(self.server)
        self.comfy.upload("still", sample_picture(96, 64))

    def stop(self) -> None:
        self.comfy.close()
        self.server.stop()

    @contextmanager
    def keys(self, keys: Mapping[str, str], address: str = "") -> Iterator[None]:
        """Provider -> the user's key, in the store meanwhile, and in the settings where the own server is.

        address: of another one than the loopback server.
        """
        own = {"own_servers": {"default": address or self.providers[OWN].address}}
        files = {"keys.json": {"profiles": {"default": dict(keys)}}, "remote.json": own}
        self.own.mkdir(exist_ok=True)
        for name, content in files.items():
            (self.own / name).touch(0o600)
            (self.own / name).write_text(json.dumps(content))
        try:
            yield
        finally:
            for name in files:
                (self.own / name).unlink(missing_ok=True)  # a test may have had settings of its own

    def check(self) -> None:
        """Nothing happened that never may."""
        for server in (self.hook, *self.providers.values(), *(provider.cdn for provider in self.providers.values())):
            assert server.violations == []


def remote_node(name: str, seed: int, **inputs: object) -> dict:
    """Remote Image to Video at a provider; its picture comes from the node `picture`."""
    return {"class_type": "Wan22RemoteImageToVideo", "inputs": {
        "image": ["picture", 0], "provider": PROVIDERS[name].title, "provider.model": PROVIDERS[name].models[0].id,
        "prompt": "the camera pans left", "negative_prompt": "", "resolution": "480p", "num_frames": 81,
        "num_inference_steps": 30, "guidance_scale": 5.0, "seed": seed, **inputs}}


PICTURE = {"class_type": "LoadImage", "inputs": {"image": "picture.png"}}
