"""What a provider's callback leads to: once it is proven to be the provider's, a hint to poll the job now.

Nothing of its content is used. The state of a job is what polling says, so that even a callback with a good signature
and a false content, or one that comes late, changes nothing. The address holds the job's id, which nobody can guess.


Callbacks that were taken already, so that each has its effect once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...http.policy import policy_from_environment
from ..context import hint
from ..database import create, writing
from ..job import OVER, Job, State
from ..keys import Keys
from ..ledger import Ledger
from ..providers import ADAPTERS
from ..settings import read_settings
from .keys import KeyRing, NoKeysError, fetch_keys
from .signatures import Callback, ForgedError, UnknownKeyError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (id TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS callbacks_by_at ON callbacks (at);
"""
KEPT = 24 * 3600.0
"""Seconds. Longer than the window of a signature, since providers repeat a callback, signed anew, for hours."""


class Replays:
    """The table; for several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def is_new(self, provider: str, event: str) -> bool:
        """Whether this is the first time that the event is told; notes it."""
        name = hashlib.sha256(f"{provider}\n{event}".encode(errors="surrogatepass")).hexdigest()
        with writing(self.folder) as base:
            base.execute("DELETE FROM callbacks WHERE at < ?", (time.time() - KEPT,))
            return base.execute("INSERT OR IGNORE INTO callbacks VALUES (?, ?)", (name, time.time())).rowcount == 1

MAX_BODY = 2**20
"""Bytes of a callback."""
OK, FORGED, UNKNOWN, LATER = 200, 401, 404, 503
"""HTTP statuses. 503 makes the provider repeat the callback."""


@dataclass(frozen=True)
class Receiver:
    """Takes callbacks; for several threads."""

    ledger: Ledger
    replays: Replays
    ring: KeyRing
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""

    def receive(self, provider: str, job_id: str, callback: Callback) -> int:
        """Take a callback that came to the address of a job; returns the HTTP status to answer with.

        Blocks while the provider's keys are fetched, a few seconds at most. A callback that came before, or of a job
        that has ended, gets 200 and has no effect.
        """
        job = self._job(provider, job_id)
        if job is None:
            return UNKNOWN
        try:
            event = self._verify(job, callback)
        except NoKeysError:
            return LATER
        except ForgedError:
            return FORGED
        if self.replays.is_new(provider, event) and job.state not in (*OVER, State.DONE):
            hint(job.id)
        return OK

    def _job(self, provider: str, job_id: str) -> Job | None:
        try:
            job = self.ledger.get(job_id)
        except KeyError:
            return None
        return job if job.provider == provider and provider in ADAPTERS else None

    def _verify(self, job: Job, callback: Callback) -> str:
        verify, now = ADAPTERS[job.provider].webhook.verify, self.clock()
        try:
            return verify(callback, self.ring.keys(job.provider, job.profile), now)
        except UnknownKeyError:
            return verify(callback, self.ring.keys(job.provider, job.profile, newer=True), now)


def is_on(folder: Path) -> bool:
    """Whether callbacks are asked for: a public URL is set, and remote nodes may send. Raises RemoteError."""
    settings = read_settings(folder)
    return bool(settings.public_url) and not settings.local_only


def receive(folder: Path, provider: str, job_id: str, callback: Callback) -> int:
    """See Receiver.receive. Raises RemoteError when the ledger cannot be used."""
    return _receiver(folder).receive(provider, job_id, callback)


@cache
def _receiver(folder: Path) -> Receiver:
    """The receiver of this process for a ComfyUI user directory."""
    keys, policy = Keys(folder / "keys.json"), policy_from_environment()
    return Receiver(Ledger(folder), Replays(folder),
                    KeyRing(lambda provider, profile: fetch_keys(provider, profile, keys, policy)))
