"""A loopback https server of an API: requests find their route, and each can be made to fail.

The hosts of results, the providers and the receiver of callbacks are built on it. A route's `point` names the place at
which `ApiServer.fail` puts faults (see faults.py).
"""

from __future__ import annotations

import functools
import json
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.loopback_server import LoopbackServer, Request, Seen


@dataclass(frozen=True)
class Answer:
    """An answer in whole. Content-Length is added when it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, request: Request) -> None:
        request.answer(self.status, self.headers, self.body)


def json_answer(status: int, content: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


class Refused(Exception):  # noqa: N818  (not an error of the server)
    """A route's way to answer with a refusal from anywhere."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)
        self.answer = answer


Work = Callable[[], Answer]
"""Does what the request asks for, once, and gives the answer it would get."""
Fault = Callable[[Request, Work], None]
"""Answers a request in place of the server; see faults.py."""


@dataclass(frozen=True)
class Route:
    """An answer of a server: `function(request, **groups of the pattern)` returns an Answer or raises Refused."""

    method: str
    host: str
    pattern: str
    """Regular expression of the whole path, as it is sent (percent-encoded)."""
    point: str
    function: Callable[..., Answer]
    open: bool = False
    """Asked for without a key."""


@dataclass
class _Planned:
    point: str
    fault: Fault
    times: int
    skip: int


class ApiServer(LoopbackServer):
    """A server of `routes`, and of nothing else."""

    routes: list[Route]
    points: tuple[str, ...]
    """Names of the places at which faults can be put."""

    def __init__(self, folder: Path, hosts: tuple[str, ...]) -> None:
        self._faults: list[_Planned] = []
        super().__init__(folder, hosts)

    def fail(self, point: str, fault: Fault, *, times: int = 1, skip: int = 0) -> None:
        """Put a fault at a point: after `skip` requests there, the next `times` requests meet it.

        Faults of one point wait for one another in the order in which they were put.
        """
        if point not in self.points:
            raise ValueError(f"{type(self).__name__} has no point {point!r}, only {', '.join(self.points)}.")
        with self.lock:
            self._faults.append(_Planned(point, fault, times, skip))

    @property
    def faults_left(self) -> list[str]:
        """The points of faults that no request has met yet."""
        with self.lock:
            return [planned.point for planned in self._faults if planned.times]

    def asked(self, point: str) -> list[Seen]:
        """The requests at a point, in order, whatever they were answered."""
        with self.lock:
            return [seen for seen in self.seen if seen.point == point]

    def unknown(self, request: Request) -> Answer:
        """For a path, or a method on it, that nothing is at."""
        raise NotImplementedError

    def authorise(self, request: Request) -> None:
        """Raises Refused when the request may not have the route, which asks for a key."""

    def serve(self, request: Request) -> None:
        seen = request.seen
        seen.host = seen.host.removesuffix(":443")
        if seen.host not in self.hosts:
            self.violations.append(f"{seen.method} {seen.target} was asked of {seen.host!r}, which is not served here.")
            request.answer(421, body=b"Misdirected Request")
            return
        route, values = self._route(seen)
        work = functools.partial(self._work, request, route, values)
        fault = self._next_fault(seen.point)
        if fault:
            fault(request, work)
        else:
            work().send(request)

    def _route(self, seen: Seen) -> tuple[Route | None, dict[str, str]]:
        for route in self.routes:
            match = re.fullmatch(route.pattern, seen.path)
            if match and (route.method, route.host) == (seen.method, seen.host):
                seen.point = route.point
                return route, match.groupdict()
        return None, {}

    def _next_fault(self, point: str | None) -> Fault | None:
        with self.lock:
            for planned in (f for f in self._faults if f.point == point and (f.times or f.skip)):
                if planned.skip:
                    planned.skip -= 1
                    return None
                planned.times -= 1
                return planned.fault
        return None

    def _work(self, request: Request, route: Route | None, values: dict[str, str]) -> Answer:
        with self.lock:
            try:
                if route is None:
                    return self.unknown(request)
                if not route.open:
                    self.authorise(request)
                return route.function(request, **values)
            except Refused as refused:
                return refused.answer
            except Exception:
                self.violations.append(traceback.format_exc())
                return Answer(500, b"The test's server has a bug; see its violations.")
