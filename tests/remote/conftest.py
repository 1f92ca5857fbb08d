"""Each loopback provider in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.remote.comfy_outside import PACE, Outside
from tests.remote.fal_server import FalServer
from tests.remote.provider_server import ProviderServer
from tests.remote.speaking import ALL, Asker, Speech


@pytest.fixture(params=ALL)
def speech(request: pytest.FixtureRequest) -> Speech:
    return ALL[request.param]


@pytest.fixture
def provider(speech: Speech, tmp_path: Path) -> Iterator[ProviderServer]:
    with closing(speech.provider(tmp_path)) as provider:
        if isinstance(provider, FalServer):
            provider.validates_at_submit = True
        yield provider


@pytest.fixture
def ask(provider: ProviderServer) -> Asker:
    return Asker(provider)


@pytest.fixture(scope="package")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """One ComfyUI that has no key yet, with all it can reach, at a pace for tests."""
    with Outside(tmp_path_factory.mktemp("outside") / "servers", pace=PACE) as outside:
        yield outside
        outside.check()
