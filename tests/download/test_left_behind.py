"""A server that sends a byte now and then, for ever: whoever leaves it leaves no thread and no connection behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.download import peek
from pipeline.download.fetch import fetch
from pipeline.download.picture import fetch_picture
from pipeline.http.errors import DownloadError
from pipeline.http.policy import Policy
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import QUICK, File, HostileServer, Request, status

LINK = "https://a.example/f"
SIZE = 3_000_000
BEGINNING = 2**16
LONG = 60.0
"""Seconds after which a thread that waits for a byte now and then is one that waits for ever."""
Leave = Callable[[Policy, Path, Callable[[], None]], object]


class StoppedError(BaseException):
    """As ComfyUI's interrupt is: not an Exception that a careless except catches."""


@dataclass
class Drip:
    """A route that sends `at_once`, then a byte now and then until the client hangs up."""

    at_once: bytes
    in_head: bool = False
    """It never comes to the end of its headers."""
    dripped: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request) -> None:
        if self.in_head:
            request.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
        else:
            request.head(200, {"Content-Length": str(SIZE)})
        request.wfile.write(self.at_once)
        try:
            while not request.server.closing.wait(0.02):
                request.wfile.write(b"x")
                self.dripped.set()
        except OSError:
            self.hung_up.set()
            raise


def picture(policy: Policy, folder: Path, stop: Callable[[], None]) -> object:
    return fetch_picture(LINK, policy=policy, tokens=Tokens({}), stop=stop)


def file(policy: Policy, folder: Path, stop: Callable[[], None]) -> object:
    return fetch(LINK, folder=folder / "cache", policy=policy, tokens=Tokens({}), stop=stop)


def file_looked_at(policy: Policy, folder: Path, stop: Callable[[], None]) -> object:
    return fetch(LINK, folder=folder / "cache", policy=policy, tokens=Tokens({}), stop=stop,
                 inspect=lambda read, size, name: read(0, SIZE))


def peeked(policy: Policy, folder: Path, stop: Callable[[], None]) -> object:
    """Nobody can stop a look at a file's beginning; it ends by itself, as one does that takes too long."""
    with pytest.raises(DownloadError, match="took more than"):
        peek.Peeks(lambda read, size, name: read(0, SIZE), lambda found: True).peek(
            LINK, folder=folder / "none", policy=policy, tokens=Tokens({}), ask=True)
    raise StoppedError


@pytest.mark.parametrize(("drip", "leave"), [
    (Drip(b"\x89PNG"), picture), (Drip(b"", in_head=True), picture), (Drip(b"\x89PNG"), file),
    (Drip(bytes(BEGINNING)), file_looked_at), (Drip(bytes(BEGINNING)), file), (Drip(bytes(BEGINNING)), peeked),
], ids=["picture", "picture, head", "file", "file, looked at", "file, body", "peek"])
def test_what_is_left_ends(hostile: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drip: Drip,
                           leave: Leave) -> None:
    monkeypatch.setattr(peek, "SECONDS", 0.5)
    hostile.routes["/f"] = drip
    _left(hostile, tmp_path, drip, leave)


def test_connections_that_wait_for_the_head_of_a_part_end(hostile: HostileServer, tmp_path: Path) -> None:
    drip, served = Drip(b"", in_head=True), File(bytes(SIZE))
    hostile.routes["/f"] = lambda request: (drip if "If-Range" in request.headers else served)(request)
    _left(hostile, tmp_path, drip, file)


def _left(hostile: HostileServer, folder: Path, drip: Drip, leave: Leave) -> None:
    """Stop once the drip has begun; every thread that this began ends while the server would drip on."""
    before = set(threading.enumerate())

    def stop() -> None:
        if drip.dripped.is_set():
            raise StoppedError

    with pytest.raises(StoppedError):
        leave(hostile.policy(replace(QUICK, window=600.0)), folder, stop)
    assert drip.hung_up.wait(LONG)
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
        assert not thread.is_alive(), thread
    assert not hostile.closing.is_set()


def test_a_download_goes_on_after_a_try_that_took_too_long(hostile: HostileServer, tmp_path: Path) -> None:
    """Nothing more can be had from the connections of a try that was given up, so that the next has its own."""
    served, drip = File(bytes(range(256)) * 4000), Drip(b"")
    hostile.routes["/f"] = lambda request: (served if len(hostile.seen) > 1 else drip)(request)
    path = fetch(LINK, folder=tmp_path / "cache", tokens=Tokens({}),
                 policy=hostile.policy(replace(QUICK, window=0.1)))
    assert path.read_bytes() == served.data and drip.hung_up.wait(LONG)


def test_a_picture_is_not_waited_for_beyond_the_time_of_all_its_tries(hostile: HostileServer) -> None:
    hostile.routes["/f"] = status(429, {"Retry-After": "9999"})
    with pytest.raises(DownloadError, match="status 429"):
        picture(hostile.policy(replace(QUICK, longest_wait=10**6)), Path(), lambda: None)
    assert len(hostile.seen) == 1
