"""One request of an API: how long it may take."""

from __future__ import annotations

import time
from dataclasses import replace

from pipeline.remote.api import post
from pipeline.remote.exchange import exchange
from tests.support.hostile_server import QUICK, HostileServer, Request


def test_an_api_may_be_silent_for_as_long_as_its_request_may_take(hostile: HostileServer) -> None:
    """A download may not: its seconds without a byte are no limit here. A paid job could be lost by it."""
    def think(request: Request) -> None:
        time.sleep(0.5)
        request.answer(200, body=b"{}")

    hostile.routes["/jobs"] = think
    policy = hostile.policy(replace(QUICK, read=0.05))
    assert exchange(post("https://a.example/jobs", {"prompt": "a cat"}), policy, 60.0).json() == {}
