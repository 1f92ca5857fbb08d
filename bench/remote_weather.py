"""Trouble at the loopback providers of bench/remote_crash.py: what becomes of a job, and how its requests go wrong."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from tests.support.api_server import Fault, Work
from tests.support.faults import answer, delay, malformed, reset
from tests.support.loopback_server import Request
from tests.support.providers.atlascloud import AtlasCloudServer
from tests.support.providers.job import FOREVER, Job, Script
from tests.support.providers.provider_server import ProviderServer

SLOWNESS = {"submit": 0.4, "upload": 0.1, "poll": 0.05}
"""Seconds that an answer takes, so that a kill can fall into the request."""
MISSING = answer(404, {"code": 404, "message": "no such job", "detail": "Not Found", "msg": "no such job"})
STORMS: dict[str, tuple[str, list[Fault]]] = {
    "a minute without answers": ("poll", [reset()] * 3 + [answer(503, "<html></html>")] * 4),
    "too many requests": ("poll", [answer(429, {"detail": "slow down"}, {"Retry-After": "0"})] * 3),
    "the job not found twice": ("poll", [MISSING] * 2),
    "answers broken off": ("poll", [malformed()] * 3),
    "the answer to a purchase lost": ("submit", [reset(after=True)]),
    "a gateway's page for a purchase": ("submit", [answer(502, "<html></html>", after=True)]),
    "a purchase that did not arrive": ("submit", [reset()]),
    "a purchase put off": ("submit", [answer(429, {"detail": "slow down"}, {"Retry-After": "0"})]),
    "the clip not there yet": ("download", [answer(404, "")]),
}
"""Name -> where, and the faults of the next requests there."""
COURSES = {"as usual": Script(queued=1, running=1), "long in the queue": Script(queued=8, running=1),
           "a link that has expired": Script(queued=1, running=1, expired=1),
           "failed": Script(queued=1, running=1, end="failed"),
           "cancelled there": Script(queued=1, running=1, end="cancelled")}
"""Name -> how the next job goes. Half of them go as usual."""


@dataclass
class Weather:
    """What goes wrong at one provider, drawn anew for each life of ComfyUI."""

    server: ProviderServer
    dice: random.Random
    seen: Counter[str] = field(default_factory=Counter)
    """Name of a trouble or a course -> how often it was drawn."""

    def __post_init__(self) -> None:
        self._coming: dict[str, deque[Fault]] = {}
        for server, points in ((self.server, ("submit", "upload", "poll")), (self.server.cdn, ("download",))):
            for point in points:
                server.fail(point, self._fault(point), times=FOREVER)
        if isinstance(self.server, AtlasCloudServer):
            self.server.bill_late = True

    def change(self) -> None:
        """Draw what the next life meets."""
        course = self.dice.choice(["as usual"] * 4 + list(COURSES))
        self.seen[course] += 1
        self.server.script = Script(queued=1, running=1)
        self.server.plan(COURSES[course])
        storm = self.dice.choice([*STORMS, ""])
        self._coming = {}
        if storm:
            self.seen[storm] += 1
            point, faults = STORMS[storm]
            self._coming[point] = deque(faults)

    def calm(self) -> None:
        """Let everything go well from now on."""
        self._coming = {}

    def _fault(self, point: str) -> Fault:
        slow = delay(SLOWNESS.get(point, 0.4))

        def fault(request: Request, work: Work) -> None:
            coming = self._coming.get(point)
            (coming.popleft() if coming else slow)(request, work)

        return fault


def billed(server: ProviderServer, job: Job) -> float:
    """Return what a provider bills for a job by its documents, in US dollars; a job under way is billed."""
    free = job.phase in ("failed", "cancelled") and server.provider in ("wavespeed", "atlascloud")
    free = free or (server.provider == "fal" and job.phase == "failed")
    return 0.0 if free or job.invalid else job.price


def counts_as_bought(job: Job) -> bool:
    """Return whether a job has brought its clip or may still do so: one that failed may be bought anew."""
    return job.phase not in ("failed", "cancelled")
