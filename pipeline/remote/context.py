"""What remote jobs need of this machine: where things are kept, who may spend what, and how the user is heard.

What a webhook has said of jobs: a hint to ask now, and nothing more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..http.policy import Patience, Policy
from ..http.threads import LOOK
from .errors import RunEndedError
from .keys import Keys
from .ledger import Ledger, Limits
from .settings import Settings, local_only_error

_waiting: set[str] = set()
_lock = threading.Lock()


def hint(job_id: str) -> None:
    """Somebody says that there is news of a job."""
    with _lock:
        _waiting.add(job_id)


def hinted(job_id: str) -> bool:
    """Whether there was a hint since the last call."""
    with _lock:
        found = job_id in _waiting
        _waiting.discard(job_id)
        return found


@dataclass(frozen=True)
class Desk:
    """The surroundings of a run."""

    ledger: Ledger
    keys: Keys
    policy: Policy
    patience: Patience
    results: Path
    """Folder of finished clips."""
    say: Callable[[str], None]
    """Shows a text to the user."""
    stop: Callable[[], None]
    """Raises the host's interrupt when the user pressed Stop, RunEndedError when the run is over for another reason."""
    check_clip: Callable[[Path], object]
    """Raises ValueError for a file that is no whole video."""
    limits: Limits = field(default_factory=Limits)
    settings: Callable[[], Settings] = Settings
    """What holds for all remote jobs, as it stands now: it may change while a job waits. Raises RemoteError."""
    find_lora: Callable[[str], Path | None] = lambda source: None
    """The file of this machine that a LoRA's source names, which goes before a link that reads the same."""
    drives: Callable[[str, bool], None] = lambda job_id, asks: None
    """Told that this run drives a job of this id from now on, and whether its graph is what asks for the clip."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the run no longer waits for this job, whatever the reason, before `stop` can know of it."""

    def check_allowed(self) -> None:
        """Raise RemoteError (REFUSED_HERE) when the user settled that nothing may leave this machine."""
        if self.settings().local_only:
            raise local_only_error("use a provider")

    def check_wanted(self) -> None:
        """Raise what stop raises, or RunEndedError when nobody waits for the clip any more."""
        self.stop()
        if self.left.is_set():
            raise RunEndedError

    def noting(self, notes: tuple[str, ...]) -> Desk:
        """The same, with these sentences below everything that is said."""
        return replace(self, say=lambda text: self.say("\n".join((text, *notes))))

    async def wait(self, seconds: float) -> None:
        """Sleep, unless stop raises."""
        end = time.monotonic() + seconds
        while True:
            self.stop()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(LOOK, left))

    async def wait_for_news(self, job_id: str, seconds: float, tell: Callable[[], None]) -> None:
        """Sleep, calling `tell` each second, until a webhook speaks of the job, or stop raises."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not hinted(job_id):
            tell()
            await self.wait(min(1.0, left))
