"""Deliver callbacks of clips that are done or have failed: in threads, with retries, also after a restart."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..graph.run import GraphRun
from ..http.errors import redact_links
from ..http.policy import Policy, policy_from_environment
from ..remote.api import Request
from ..remote.database import writing
from ..remote.errors import ErrorKind, RemoteError
from ..remote.exchange import exchange
from ..remote.keys import CALLBACK_OWNER, CALLBACK_VARIABLE, KeyStore
from ..remote.settings import check_sending_allowed
from ..remote.signatures import SECRET_PREFIX, read_secret, signed_headers, unsigned_headers
from .event import DONE, FAILED, event_body, new_id, request_data
from .outbox import GIVEN_UP, SENT, Message, Outbox, Recipient, add
from .run_watch import WatchedRun, WatchedRuns, mark_reported, remove

WAITS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 28800.0)
"""Seconds between the tries: eleven in about 24 hours (Standard Webhooks advises such a schedule)."""
TIMEOUT = 15.0
"""Seconds for one try."""
MAX_REPLY = 2**16
"""Bytes of a reply, whose content is ignored."""
GONE = 410
"""HTTP status: the receiver wants no more callbacks (Standard Webhooks)."""
WORKERS = 4
"""Messages delivered at the same time, so that one dead receiver does not hold up the others."""
LONGEST_SLEEP = 60.0
LOOK = 0.5
"""Seconds between two looks whether a run has ended."""
log = logging.getLogger("wan22")


@cache
def notifier(folder: Path) -> Notifier:
    """Return this process's notifier for the pack's folder."""
    policy = policy_from_environment()
    return Notifier(folder, policy, pace=policy.job_timeouts.pace)


def take_up(folder: Path) -> None:
    """Continue what an earlier ComfyUI left: tell of its runs, and deliver what waits."""
    found = notifier(folder)
    found.send_orphans()
    if found.outbox.seconds_to_next() is not None:
        found.wake_workers()


class Notifier:
    """The outbox of one ComfyUI user directory, and the threads that empty it."""

    def __init__(self, folder: Path, policy: Policy, *, pace: float = 1.0,
                 clock: Callable[[], float] = time.time) -> None:
        """pace: stretches the waits between the tries; 1 but in tests. clock: seconds since 1970."""
        self.folder, self.policy, self.pace, self.clock = folder, policy, pace, clock
        self.outbox, self.watched_runs = Outbox(folder, clock), WatchedRuns(folder)
        self._news, self._started = threading.Condition(), False

    # ---- messages ----------------------------------------------------------------------------------------------

    def begin(self, run: GraphRun, node_id: str, to: Recipient) -> WatchedRun:
        """Record a run that begins and whose end must be reported."""
        watched = WatchedRun(run.prompt_id, node_id, to, request_data(run.graph, node_id), self.clock())
        self.watched_runs.add(watched)
        return watched

    def watch(self, run: WatchedRun, is_over: Callable[[], bool], failure: Callable[[], dict[str, Any]]) -> None:
        """Wait in a thread until a run has left the queue; send its failure unless its clip was reported."""

        def work() -> None:
            while not is_over():
                time.sleep(LOOK)
            self.send_failed(run, failure())

        threading.Thread(target=work, name="wan22-run", daemon=True).start()

    def send_done(self, run: GraphRun | None, node_id: str, to: Recipient, data: dict[str, Any]) -> None:
        """Put the message of a finished clip into the outbox; return when it is on disk."""
        prompt_id, graph = ("", {}) if run is None else (run.prompt_id, run.graph)
        watched = self.watched_runs.find(prompt_id, node_id)
        seconds = None if watched is None else round(self.clock() - watched.began, 2)
        request = request_data(graph, node_id) if watched is None else watched.request
        message = self._message(to, DONE, {"prompt_id": prompt_id, "node": node_id, "request": request,
                                           "seconds": seconds, **data})
        with writing(self.folder) as base:
            add(base, message, self.clock())
            mark_reported(base, prompt_id, node_id)
        self.wake_workers()

    def send_failed(self, run: WatchedRun, failure: dict[str, Any]) -> None:
        """Put the message of a run that ended into the outbox, unless its clip was reported."""
        message = self._message(run.to, FAILED, {
            "prompt_id": run.prompt_id, "node": run.node_id, "request": run.request,
            "seconds": round(self.clock() - run.began, 2), "error": redact_links(failure)})
        with writing(self.folder) as base:
            if remove(base, run):
                add(base, message, self.clock())
        self.wake_workers()

    def send_orphans(self) -> None:
        """Send the failure of runs whose ComfyUI ended before they did."""
        for run in self.watched_runs.orphans():
            self.send_failed(run, {"message": "ComfyUI ended before the run did.", "cancelled": False})

    def _message(self, to: Recipient, kind: str, data: dict[str, Any]) -> Message:
        name = new_id()
        return Message(name, to, event_body(name, kind, self.clock(), data))

    # ---- delivery ----------------------------------------------------------------------------------------------

    def deliver_due(self) -> None:
        """Try every message that is due, one after the other."""
        while (message := self.outbox.claim()) is not None:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        asked = 0.0
        try:
            reply = exchange(replace(self._request(message), limit=MAX_REPLY), self.policy, TIMEOUT)
            if reply.good:
                self.outbox.end(message, SENT)
                return
            why, asked = f"status {reply.status}", reply.retry_after() or 0.0
        except RemoteError as error:
            why, reply = str(error), None
        url = redact_links(message.to.url)
        if message.tried == len(WAITS) or (reply is not None and reply.status == GONE):
            self.outbox.end(message, GIVEN_UP, why)
            log.warning("Wan 2.2: the callback to %s was given up after %d tries: %s", url, message.tried + 1, why)
            return
        if message.tried == 0:
            log.warning("Wan 2.2: the callback to %s failed and is retried for a day: %s", url, why)
        wait = max(WAITS[message.tried] * random.uniform(0.8, 1.2), asked)
        self.outbox.put_off(message, why, wait * self.pace)

    def _request(self, message: Message) -> Request:
        check_sending_allowed(self.folder)
        now = int(self.clock())
        if message.to.signed:
            secret = callback_secret(KeyStore(self.folder / "keys.json"), message.to.profile)
            headers = signed_headers(secret, message.id, now, message.body)
        else:
            headers = unsigned_headers(message.id, now)
        return Request("POST", message.to.url, {"Content-Type": "application/json", **headers}, message.body)

    def wake_workers(self) -> None:
        """Have the worker threads look into the outbox now; start them at the first call."""
        with self._news:
            if not self._started:
                self._started = True
                for _ in range(WORKERS):
                    threading.Thread(target=self._work, name="wan22-callbacks", daemon=True).start()
            self._news.notify_all()

    def _work(self) -> None:
        while True:
            try:
                self.deliver_due()
                with self._news:  # a message added before this is seen, and one added later wakes
                    wait = self.outbox.seconds_to_next()
                    self._news.wait(None if wait is None else min(wait, LONGEST_SLEEP))
            except Exception as error:  # a full disk, for one; whatever it is, the other messages must go out
                log.warning("Wan 2.2: callbacks wait: %s", error)
                time.sleep(LONGEST_SLEEP)


def callback_secret(keys: KeyStore, profile: str) -> bytes:
    """Return the user's secret that callbacks are signed with. Raises RemoteError (AUTH), which does not repeat it."""
    try:
        return keys.of(CALLBACK_OWNER, "the callbacks' signatures", (CALLBACK_VARIABLE,), profile).parsed(read_secret)
    except ValueError as error:
        raise RemoteError(ErrorKind.AUTH, (
            f"The callback cannot be signed: {str(error).rstrip('.')}. Set {CALLBACK_VARIABLE}, or save it as the key "
            f"of {CALLBACK_OWNER!r}: {SECRET_PREFIX} and 24 to 64 random bytes in base64, such as "
            f"`echo {SECRET_PREFIX}$(openssl rand -base64 32)` prints. Give the receiver the same. Or switch `signed` "
            "off.")) from None
