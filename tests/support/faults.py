"""Faults of one request, for `ApiServer.fail(point, fault)`.

A fault is given the request and `work`, which does what the request asks for (a submit: the job exists and is paid
for) and gives the honest answer. Faults with `after=True`, and all that only spoil the answer, do the work first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from urllib.parse import urlencode

from tests.support.api_server import Answer, Fault, Work
from tests.support.loopback_server import Request

BLOCK = 2**14


def answer(status: int, body: bytes | str | dict | list = b"", headers: dict[str, str] | None = None, *,
           after: bool = False) -> Fault:
    """Another answer in place of the honest one. A dict or list is sent as JSON."""
    kind = "text/html"
    if isinstance(body, (dict, list)):
        body, kind = json.dumps(body), "application/json"
    whole = Answer(status, body.encode() if isinstance(body, str) else body, {"Content-Type": kind, **(headers or {})})

    def fault(request: Request, work: Work) -> None:
        if after:
            work()
        whole.send(request)

    return fault


def reset(*, after: bool = False) -> Fault:
    """A TCP reset before a single byte of the answer."""

    def fault(request: Request, work: Work) -> None:
        if after:
            work()
        request.reset()

    return fault


def cut(sent: float = 0.5) -> Fault:
    """The head, this share of the body, and a TCP reset."""

    def fault(request: Request, work: Work) -> None:
        whole = work()
        _head(request, whole)
        request.wfile.write(whole.body[:int(len(whole.body) * sent)])
        request.reset()

    return fault


def shortened(sent: float = 0.5) -> Fault:
    """This share of the body, with the length that it has: nothing of HTTP tells that the rest is missing."""
    return changed(lambda whole: replace(whole, body=whole.body[:int(len(whole.body) * sent)]))


def malformed() -> Fault:
    """JSON that breaks off, with the right Content-Length."""
    return shortened()


def wrong_type(content: object = (1, "two", None)) -> Fault:
    """Sound JSON of another type than documented."""
    return changed(lambda whole: replace(whole, body=json.dumps(content).encode()))


def changed(change: Callable[[Answer], Answer]) -> Fault:
    """The honest answer, changed by a function."""
    return lambda request, work: change(work()).send(request)


def drip(rate: float) -> Fault:
    """The honest answer at so many bytes a second."""

    def fault(request: Request, work: Work) -> None:
        whole = work()
        _head(request, whole)
        began, block = time.monotonic(), max(1, min(BLOCK, int(rate / 20)))
        for start in range(0, len(whole.body), block):
            request.wfile.write(whole.body[start:start + block])
            if request.server.closing.wait(max(0.0, (start + block) / rate - (time.monotonic() - began))):
                return

    return fault


def endless(block: bytes = b" " * BLOCK) -> Fault:
    """The honest answer without a length, and then this block again and again until the client goes away."""

    def fault(request: Request, work: Work) -> None:
        whole = work()
        request.close_connection = True
        request.head(whole.status, {**whole.headers, "Connection": "close"})
        request.wfile.write(whole.body)
        while not request.server.closing.is_set():
            request.wfile.write(block)

    return fault


def delay(seconds: float, *, after: bool = True) -> Fault:
    """The honest answer so much later; the work is done before the wait, or only then."""

    def fault(request: Request, work: Work) -> None:
        whole = work() if after else None
        request.server.closing.wait(seconds)
        (whole or work()).send(request)

    return fault


def hold(release: Event, *, after: bool = True) -> Fault:
    """The honest answer when the event is set; what a test needs that acts while a request is under way."""

    def fault(request: Request, work: Work) -> None:
        whole = work() if after else None
        while not (release.is_set() or request.server.closing.wait(0.005)):
            pass
        (whole or work()).send(request)

    return fault


def redirect(location: str, code: int = 302) -> Fault:
    """Sent elsewhere. Several in a row, at a point whose host the locations stay on, make a chain."""
    return answer(code, b"", {"Location": location})


def chain(hops: int, target: str | None = None, code: int = 302) -> Fault:
    """So many redirects to the same address (?hop=1, ?hop=2, ...), then one to `target`, or else the honest answer.

    To be put with `times` of at least hops + 1.
    """

    def fault(request: Request, work: Work) -> None:
        hop = int(request.seen.query.get("hop", 0))
        if hop < hops:
            query = urlencode({**request.seen.query, "hop": hop + 1})
            redirect(f"{request.seen.path}?{query}", code)(request, work)
        elif target:
            redirect(target, code)(request, work)
        else:
            work().send(request)

    return fault


def _head(request: Request, whole: Answer) -> None:
    request.head(whole.status, {"Content-Length": str(len(whole.body)), **whole.headers})
