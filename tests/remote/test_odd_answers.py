"""Answers in sound JSON of types that no provider documents: an error that says what to do, or a state."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pipeline.remote.api import Reply
from pipeline.remote.errors import ErrorKind, RemoteError
from pipeline.remote.json_parts import number_part
from pipeline.remote.provider import JobStatus, Provider, RequestFlow
from pipeline.remote.providers import PROVIDERS

ODD: tuple[Any, ...] = (None, True, 5, "x", [], [[]], ["x"], {}, {"x": {}}, [{"x": []}], [{"msg": [], "loc": 5}])
FIELDS = ("status", "outputs", "output", "error", "error_code", "price", "video", "items", "results", "id", "detail",
          "model", "schema", "download_url", "queue_position", "code", "msg", "message", "prices", "currency")
KINDS = {200: ErrorKind.TRANSIENT, 401: ErrorKind.AUTH, 404: ErrorKind.LOST, 422: ErrorKind.VALIDATION,
         429: ErrorKind.RATE_LIMIT, 500: ErrorKind.TRANSIENT}
ADVICE = r"\b(Check|Choose|Change|Run again)\b.*\.$"
FOREIGN = r"[\[\]{}]|\b(True|False|None)\b|  |: *$"
"""Python's way to write a value, and the gaps that a missing one leaves."""


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("status", KINDS)
def test_no_type_surprises(name: str, odd: Any, status: int) -> None:
    provider = PROVIDERS[name]
    fields = dict.fromkeys(FIELDS, odd)
    for found in (odd, fields, fields | {"data": odd}, fields | {"data": fields}, {"data": fields, "code": 200}):
        reply = Reply(status, {}, json.dumps(found).encode())
        refusal = provider.refusal(reply)
        if refusal is None:
            assert status == 200 and isinstance(found, dict)
        else:
            exact = status != 200 and isinstance(found, dict)
            assert refusal.kind == KINDS[status] or not exact
            check_sentence(provider, refusal)
        for flow in (provider.poll("m", "id"), provider.fields("m"), provider.history("m", 0.0),
                     provider.upload(b"", "image/png")):
            answered(provider, flow, reply)


def check_sentence(provider: Provider, error: RemoteError) -> None:
    """The sentence says who, what and what to do, and nothing of how Python writes a value."""
    said = str(error)
    assert said.startswith(provider.title), said
    assert re.search(ADVICE, said), said
    assert not re.search(FOREIGN, said), said


def answered(provider: Provider, flow: RequestFlow[Any], reply: Reply) -> None:
    """Give a conversation this answer to everything it asks."""
    try:
        next(flow)
        while True:
            flow.send(reply)
    except StopIteration as end:
        if isinstance(end.value, JobStatus):
            assert not re.search(FOREIGN, end.value.message)
    except RemoteError as error:
        check_sentence(provider, error)


@pytest.mark.parametrize("found", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', "9" * 400, "true", "[]", '"x"'])
def test_no_number_that_a_budget_cannot_be_kept_with(found: str) -> None:
    assert number_part(json.loads(found)) is None
    assert number_part(json.loads('{"price": "0.25"}'), "price") == 0.25
