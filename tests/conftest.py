"""One real ComfyUI with this pack for local clips and one for remote ones: it takes seconds to start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from devtools.server import ComfyServer
from devtools.workflow import Workflow
from tests.support.canvas import CHROMIUM, FLAGS
from tests.support.comfy_client import ComfyClient, clip_workflow, sample_picture
from tests.support.comfy_launcher import put_on_loopback
from tests.support.comfy_outside import PACE, Outside
from tests.support.hostile_server import HostileServer

SLOW = ("nodes", "web")
"""Folders of tests that need a ComfyUI, and a browser too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, so that a mistake is seen early."""
    def slowness(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return SLOW.index(folder) + 1 if folder in SLOW else 0

    items.sort(key=slowness)


class OneBrowser(LoadScopeScheduling):
    """Tests of a file run in one process, and those of all files with a browser in one too: two browsers at once are
    too slow on two cores to play a clip or to draw with a mouse."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "browser" if "browser" in (self.config.rootpath / file).read_text("utf-8") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneBrowser | None:
    return OneBrowser(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """All of the internet that the session's ComfyUI can reach."""
    with closing(HostileServer(tmp_path_factory.mktemp("internet"))) as internet:
        yield internet


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, internet: HostileServer) -> Iterator[ComfyServer]:
    """ComfyUI as dev.py starts it, with folders of its own."""
    comfyui = local_comfyui()
    if not comfyui.is_dir():
        pytest.fail("There is no ComfyUI to test with. `python3 dev.py test` fetches it.")
    base = tmp_path_factory.mktemp("comfyui")
    server = ComfyServer(comfyui, base, base / "server.log")
    put_on_loopback(server, internet.environment())
    server.options.append("--cpu")  # float32 everywhere, which the comparisons of numbers rely on
    server.environ["CXX"] = "/no/such/compiler"
    with server:
        yield server


@pytest.fixture(scope="session")
def comfy(server: ComfyServer) -> Iterator[ComfyClient]:
    """A client that is connected for the whole session."""
    with closing(ComfyClient(server)) as client:
        yield client


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory, internet: HostileServer) -> Iterator[Outside]:
    """One ComfyUI for the remote nodes, that has no key yet, with all it can reach, at a pace for tests."""
    with Outside(tmp_path_factory.mktemp("outside") / "servers", PACE, internet) as outside:
        yield outside
        outside.check()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one on the machine its tests are skipped.

    As long as it lives, nothing else in this thread can use asyncio: tests that do come before all that need it.
    """
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (on Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def picture(comfy: ComfyClient) -> str:
    """Name of a picture of 96x64 pixels in the input folder."""
    return comfy.upload("blobs", sample_picture(96, 64))


@pytest.fixture
def clip(picture: str) -> Workflow:
    """The shipped workflow at 96x64 pixels, 5 frames and 10 steps; each test gets a copy of its own."""
    return clip_workflow(picture)


@pytest.fixture(scope="session")
def models_of_comfyui(server: ComfyServer) -> dict[str, str]:
    """The bundled weights as files of a person's own, in ComfyUI's model folders; keys: high, low, vae, text."""
    names = {}
    for file in sorted((ROOT / "models" / "demo").glob("*/*.safetensors")):
        if file.parent.name == "loras":
            continue
        folder = server.base / "models" / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
        kind = {"diffusion_models": "high" if "high" in file.name else "low", "text_encoders": "text", "vae": "vae"}
        names[kind[file.parent.name]] = file.name
    return names


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[HostileServer]:
    """An https server that pretends to be any host and does to downloads what a server may do."""
    with closing(HostileServer(tmp_path)) as hostile:
        yield hostile
