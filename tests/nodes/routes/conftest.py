"""The API of the session's ComfyUI, switched on with a key for one file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from pipeline.serve.api import OFF
from pipeline.serve.operations import BASE
from tests.support.api_client import PICTURE, Api, new_key, owner
from tests.support.comfy_outside import Outside
from tests.support.hostile_server import File, HostileServer


@pytest.fixture(scope="module")
def made(outside: Outside, internet: HostileServer) -> Iterator[dict[str, str]]:
    """The API is on, and has this key."""
    off = requests.get(f"{outside.server.url}{BASE}/models", timeout=60)
    assert off.status_code == 404 and off.json() == {"error": {"code": "not_found", "message": OFF}}
    assert owner(outside, "POST", json={"on": True, "per_minute": 100_000, "queue": 10_000}).json()["settings"]["on"][
        "value"] is True
    internet.routes["cdn.example/coffee.png"] = File(PICTURE.read_bytes())
    made = new_key(outside, "shop")
    yield made
    assert owner(outside, "DELETE", "/keys", json={"name": "shop"}).json()["keys"] == []
    owner(outside, "POST", json={"on": None, "per_minute": None, "queue": None})


@pytest.fixture(scope="module")
def api(outside: Outside, made: dict[str, str]) -> Api:
    return Api(outside.server.url, made["key"])
