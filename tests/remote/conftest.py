"""Each loopback provider in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.providers.fal import FalServer
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.speaking import ALL, Asker, Speech


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
