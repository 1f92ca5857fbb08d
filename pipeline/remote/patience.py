"""How long and how often a provider is asked."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from ..download.policy import LOOPBACK_VARIABLE


@dataclass(frozen=True)
class Patience:
    """Seconds and counts. `pace` stretches every wait between requests; 1 but in tests."""

    request: float = 30.0
    submit: float = 60.0
    upload: float = 120.0
    """For one request, its answer included."""
    download: float = 600.0
    """For the finished file."""
    attempts: int = 6
    """Tries of a request that costs nothing, or that was provably not accepted."""
    first_wait: float = 1.0
    longest_wait: float = 30.0
    polls: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Seconds before the first polls; the last one is repeated."""
    deadline: float = 1800.0
    """After which a job is no longer waited for; it can be resumed."""
    pace: float = 1.0

    def before_retry(self, tried: int, asked: float | None) -> float:
        """Seconds before the next try: what the server asked, else up to twice as long each time ("full jitter")."""
        if asked is not None:
            return asked * self.pace
        return random.uniform(0, min(self.longest_wait, self.first_wait * 2**tried)) * self.pace

    def before_poll(self, polled: int) -> float:
        """Seconds before the next poll: growing steps, spread by half either way so that jobs do not poll at once."""
        return self.polls[min(polled, len(self.polls) - 1)] * random.uniform(0.5, 1.5) * self.pace


def patience_from_environment(environ: Mapping[str, str] = os.environ) -> Patience:
    """The patience of normal use; tests on loopback may set another pace beside their hosts, as `"pace"`."""
    given = environ.get(LOOPBACK_VARIABLE)
    return Patience(pace=float(json.loads(given).get("pace", 1.0))) if given else Patience()
