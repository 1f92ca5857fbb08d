"""Run remote jobs against loopback providers, at a pace for tests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.http import policy as http
from pipeline.http.policy import JobTimeouts, Timeouts
from pipeline.remote.context import RemoteContext
from pipeline.remote.keys import KeyStore
from pipeline.remote.ledger import Ledger
from pipeline.remote.model import RemoteModel
from pipeline.remote.providers import PROVIDERS, Target
from pipeline.remote.run import FinishedClip, Picture, make_clip
from pipeline.remote.settings import Settings
from pipeline.request import ClipRequest, Lora
from pipeline.video.probe import probe_video
from tests.support.loopback import loopback_policy
from tests.support.providers.atlascloud import AtlasCloudServer
from tests.support.providers.comfyui import ComfyUIServer
from tests.support.providers.fal import FalServer
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.replicate import ReplicateServer
from tests.support.providers.wavespeed import WaveSpeedServer

SERVERS: dict[str, type[ProviderServer]] = {
    server.provider: server for server in (WaveSpeedServer, AtlasCloudServer, FalServer, ReplicateServer,
                                           ComfyUIServer)}
OWN = "another_comfyui"
"""The provider at which nothing is paid for, and no submit leaves anything unknown."""
CLIP = ClipRequest("the camera pans left", resolution="480p", num_frames=81, seed=7)
LORA = Lora("https://weights.example/pan_high_noise.safetensors")
PATIENT = JobTimeouts(request=120.0, submit=120.0, upload=120.0, download=120.0, deadline=10**6, pace=0.01, attempts=4)
"""No wait between requests to speak of, and more time for each than it needs on a machine that is busy otherwise."""
SLOW = Timeouts(connect=120.0, read=120.0)


class Stopped(BaseException):
    """The user pressed Stop, as ComfyUI says it."""


def picture(shade: int = 120) -> Picture:
    """A plain picture as a PNG file."""
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (90, shade, 150)).save(file, "PNG")
    return Picture(file.getvalue(), "image/png")


class Runner:
    """Runs jobs against some servers, with one ledger. Keeps the texts that the user was shown in `shown`."""

    def __init__(self, folder: Path, *servers: ProviderServer) -> None:
        self.folder, self.servers = folder, servers
        self.shown: list[str] = []
        self.stop: Callable[[], None] = lambda: None
        keys = {PROVIDERS[server.provider].variables[0]: server.key for server in servers}
        hosts = {host: place for server in servers for host, place in server.loopback().items()}
        own = next((server.address for server in servers if isinstance(server, ComfyUIServer)), "")
        self.settings = Settings(own_servers={"default": own})
        """The user's; to be changed with `set`."""
        self.context = RemoteContext(
            ledger=Ledger(folder / "ledger"), keys=KeyStore(environ=keys),
            policy=loopback_policy(http, hosts, str(servers[0].ca), timeouts=SLOW),
            timeouts=PATIENT, results=folder / "results", show_text=self.shown.append, stop=lambda: self.stop(),
            check_clip=probe_video, settings=lambda: self.settings)

    def change(self, **changes: Any) -> None:
        """Change the context."""
        self.context = replace(self.context, **changes)

    def set(self, **settings: Any) -> None:
        """Change the user's settings."""
        self.settings = replace(self.settings, **settings)

    def target(self, server: ProviderServer | None = None, model: RemoteModel | None = None) -> Target:
        provider = PROVIDERS[(server or self.servers[0]).provider]
        return Target(provider, model or provider.models[0], "default")

    def make(self, clip: ClipRequest = CLIP, *targets: Target, shade: int = 120, **options: Any) -> FinishedClip:
        """Have a clip made, in an event loop of its own as every prompt of ComfyUI has."""
        return asyncio.run(make_clip(targets or (self.target(),), clip, picture(shade), self.context, **options))

    def check(self) -> None:
        """Nothing happened that never may."""
        for server in self.servers:
            assert server.violations == []
            assert server.cdn.violations == []
