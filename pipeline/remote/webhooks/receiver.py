"""Receive providers' webhooks: once one is proven to be the provider's, have its job polled now.

Nothing of its content is used: the state of a job is what polling says, so that a webhook that comes late, or is signed
well with a false content, changes nothing. Its address holds the job's id, which nobody can guess.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...http.policy import policy_from_environment
from ..context import wake_up
from ..database import create, writing
from ..job import ENDED, Job
from ..keys import KeyStore
from ..ledger import Ledger
from ..providers import PROVIDERS
from ..settings import read_settings
from ..signatures import UnknownKeyError, VerificationError, WebhookRequest
from .keys import KeysUnavailableError, SigningKeyCache, fetch_keys

MAX_BODY = 2**20
"""Bytes of a webhook."""
OK, FORGED, UNKNOWN, LATER = 200, 401, 404, 503
"""HTTP statuses. 503 makes the provider repeat the webhook."""


def is_on(folder: Path) -> bool:
    """Return whether webhooks are asked for: a public URL is set, and remote nodes may send. Raises RemoteError."""
    settings = read_settings(folder)
    return bool(settings.public_url) and not settings.local_only


def receive(folder: Path, provider: str, job_id: str, request: WebhookRequest) -> int:
    """Return the HTTP status for a webhook; see WebhookReceiver.receive. Raises RemoteError for an unusable ledger."""
    return _receiver(folder).receive(provider, job_id, request)


@cache
def _receiver(folder: Path) -> WebhookReceiver:
    """Return this process's receiver for the pack's folder."""
    keys, policy = KeyStore(folder / "keys.json"), policy_from_environment()
    return WebhookReceiver(Ledger(folder), SeenWebhooks(folder), SigningKeyCache(
        lambda provider, profile: fetch_keys(provider, profile, keys, policy)))


@dataclass(frozen=True)
class WebhookReceiver:
    """Verifies webhooks and wakes their jobs; safe for several threads."""

    ledger: Ledger
    seen: SeenWebhooks
    signing_keys: SigningKeyCache
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""

    def receive(self, provider: str, job_id: str, request: WebhookRequest) -> int:
        """Take a webhook that came to the address of a job; return the HTTP status to answer with.

        Blocks for a few seconds while the provider's keys are fetched. A webhook that was seen before, or of a job
        that has ended, gets 200 and has no effect.
        """
        job = self._job(provider, job_id)
        if job is None:
            return UNKNOWN
        try:
            event = self._verify(job, request)
        except KeysUnavailableError:
            return LATER
        except VerificationError:
            return FORGED
        if self.seen.add(provider, event) and job.state not in ENDED:
            wake_up(job.id)
        return OK

    def _job(self, provider: str, job_id: str) -> Job | None:
        try:
            job = self.ledger.get(job_id)
        except KeyError:
            return None
        known = PROVIDERS.get(provider)
        return job if job.provider == provider and known is not None and known.webhook is not None else None

    def _verify(self, job: Job, request: WebhookRequest) -> str:
        verify, now = PROVIDERS[job.provider].webhook.verify, self.clock()
        try:
            return verify(request, self.signing_keys.keys(job.provider, job.profile), now)
        except UnknownKeyError:
            return verify(request, self.signing_keys.keys(job.provider, job.profile, newer=True), now)


_SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (id TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS callbacks_by_at ON callbacks (at);
"""
KEPT = 24 * 3600.0
"""Seconds. Longer than the window of a signature: providers repeat a webhook, signed anew, for hours."""


class SeenWebhooks:
    """The table of webhooks that were taken, so that each has its effect once; safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def add(self, provider: str, event: str) -> bool:
        """Record an event; return whether it is the first time."""
        name = hashlib.sha256(f"{provider}\n{event}".encode(errors="surrogatepass")).hexdigest()
        with writing(self.folder) as base:
            base.execute("DELETE FROM callbacks WHERE at < ?", (time.time() - KEPT,))
            return base.execute("INSERT OR IGNORE INTO callbacks VALUES (?, ?)", (name, time.time())).rowcount == 1
