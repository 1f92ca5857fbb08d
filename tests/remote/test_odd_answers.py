"""Answers in sound JSON of types that no provider documents: an error with a sentence, or a state, and no traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.remote.api import Reply
from pipeline.remote.errors import RemoteError
from pipeline.remote.json_parts import number_part
from pipeline.remote.provider import Provider, RequestFlow
from pipeline.remote.providers import PROVIDERS

ODD: tuple[Any, ...] = (None, True, 5, "x", [], [[]], ["x"], {}, {"x": {}}, [{"x": []}], [{"msg": [], "loc": 5}])
FIELDS = ("status", "outputs", "output", "error", "error_code", "price", "video", "items", "results", "id", "detail",
          "model", "schema", "download_url", "queue_position", "code", "msg", "message", "prices", "currency")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("status", [200, 422])
def test_no_type_surprises(name: str, odd: Any, status: int) -> None:
    provider: Provider = PROVIDERS[name]
    fields = dict.fromkeys(FIELDS, odd)
    for found in (odd, fields, fields | {"data": odd}, fields | {"data": fields}, {"data": fields, "code": 200}):
        reply = Reply(status, {}, json.dumps(found).encode())
        refusal = provider.refusal(reply)
        assert refusal is None or str(refusal)
        answered(provider.poll("m", "id"), reply)
        answered(provider.fields("m"), reply)
        answered(provider.history("m", 0.0), reply)
        answered(provider.upload(b"", "image/png"), reply)


def answered(steps: RequestFlow[Any], reply: Reply) -> None:
    """Give a conversation this answer to everything it asks."""
    try:
        next(steps)
        while True:
            steps.send(reply)
    except (StopIteration, RemoteError):
        pass


@pytest.mark.parametrize("found", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', "9" * 400, "true", "[]", '"x"'])
def test_no_number_that_a_budget_cannot_be_kept_with(found: str) -> None:
    assert number_part(json.loads(found)) is None
    assert number_part(json.loads('{"price": "0.25"}'), "price") == 0.25
