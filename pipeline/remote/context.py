"""Everything a remote job needs from its host: storage, keys, limits, progress, cancellation; and its wake-up calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..graph.run import GraphRun
from ..http.policy import JobTimeouts, Policy, policy_from_environment
from ..http.threads import LOOK
from ..video.probe import probe_video
from .budget import NO_LIMITS, Limits
from .errors import RunEndedError
from .job_runs import JobRuns
from .keys import KeyStore
from .ledger import Ledger
from .settings import Settings, local_only_error, read_settings


@dataclass(frozen=True)
class RemoteContext:
    """The surroundings of one run's remote jobs."""

    ledger: Ledger
    keys: KeyStore
    policy: Policy
    timeouts: JobTimeouts
    results: Path
    """Folder of finished clips."""
    show_text: Callable[[str], None]
    """Show the user how things stand, in place of the text before."""
    stop: Callable[[], None]
    """Raise the host's interrupt when the user pressed Stop, RunEndedError when the run ended for another reason."""
    check_clip: Callable[[Path], object]
    """Raise ValueError for a file that is not a whole video."""
    limits: Limits = NO_LIMITS
    """The node's own limits."""
    settings: Callable[[], Settings] = Settings
    """Read the user's settings, which may change while a job waits. Raises RemoteError."""
    find_lora: Callable[[str], Path | None] = lambda source: None
    """A LoRA's source -> the file of this machine that it names; it takes precedence over a link of the same text."""
    record_run: Callable[[str, bool], None] = lambda job_id, requested: None
    """Record that this run works on a job; requested: its graph asks for the clip, and does not only resume it."""
    waits_here: Callable[[str], bool] = lambda remote_id: False
    """Return whether a job of an own server waits in this program's own queue: then that server is this one."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when the run no longer waits for this job, for any reason, which may be before `stop` can know."""

    def check_sending_allowed(self) -> None:
        """Raise RemoteError (REFUSED_HERE) when the user lets nothing leave this machine."""
        if self.settings().local_only:
            raise local_only_error("use a provider")

    def check_wanted(self) -> None:
        """Raise as `stop` does, and RunEndedError when nobody waits for the clip any more."""
        self.stop()
        if self.abandoned.is_set():
            raise RunEndedError

    def with_notes(self, notes: tuple[str, ...]) -> RemoteContext:
        """Return the same context, with these sentences below every text that is shown."""
        return replace(self, show_text=lambda text: self.show_text("\n".join((text, *notes))))

    async def wait(self, seconds: float) -> None:
        """Sleep, unless `stop` raises."""
        end = time.monotonic() + seconds
        while True:
            self.stop()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(LOOK, left))

    async def wait_for_wakeup(self, job_id: str, seconds: float, show_status: Callable[[], None]) -> None:
        """Sleep until `wake_up` is called for the job or the time is over, showing the status each second."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not take_wakeup(job_id):
            show_status()
            await self.wait(min(1.0, left))


def open_context(folder: Path, results: Path, run: GraphRun | None, limits: Limits, show_text: Callable[[str], None],
                 stop: Callable[[], None], on_change: Callable[[str], None],
                 find_lora: Callable[[str], Path | None], waits_here: Callable[[str], bool]) -> RemoteContext:
    """Return the context of a run, with the pack's own files and settings.

    folder: the pack's, with keys, settings and ledger. run: the one that asks; None when it cannot be told.
    on_change: called with the id of each job of which there is news. The others: see RemoteContext.
    """
    job_runs, policy = JobRuns(folder), policy_from_environment()

    def record_run(job_id: str, requested: bool) -> None:
        if run is not None:
            job_runs.record(job_id, run.prompt_id, run.workflow if requested else None)
            on_change(job_id)

    return RemoteContext(
        ledger=Ledger(folder, on_change), keys=KeyStore(folder / "keys.json"), policy=policy,
        timeouts=policy.job_timeouts, results=results, show_text=show_text, stop=stop, check_clip=probe_video,
        limits=limits, settings=lambda: read_settings(folder), find_lora=find_lora, record_run=record_run,
        waits_here=waits_here)


_wakeups: set[str] = set()
_lock = threading.Lock()


def wake_up(job_id: str) -> None:
    """Have a job polled now, in whichever thread of this process waits for it."""
    with _lock:
        _wakeups.add(job_id)


def take_wakeup(job_id: str) -> bool:
    """Return whether `wake_up` was called for a job since the last look."""
    with _lock:
        found = job_id in _wakeups
        _wakeups.discard(job_id)
        return found
