"""A provider's server, one after the other, and what runs jobs there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.providers.job import Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.runner import SERVERS, Runner


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderServer]:
    """Yield each provider's server, whose jobs are done at the first poll."""
    with closing(SERVERS[request.param](tmp_path)) as server:
        server.script = Script(queued=0, running=0)
        yield server


@pytest.fixture
def runner(server: ProviderServer, tmp_path: Path) -> Iterator[Runner]:
    """Yield what runs jobs at the server; fail when the server saw what never may be sent."""
    runner = Runner(tmp_path, server)
    yield runner
    runner.check()
