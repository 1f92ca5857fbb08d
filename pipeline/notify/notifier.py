"""Tells receivers of clips that are done or have failed; keeps trying, also after a restart, and makes nobody wait.

The secret that our callbacks are signed with: the user's own, shared with the receiver."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..http.policy import Policy, patience_from_environment, policy_from_environment
from ..remote.api import Request, exchange
from ..remote.database import writing
from ..remote.errors import Kind, RemoteError
from ..remote.keys import NAME, VARIABLE, Keys
from ..remote.origins import without_queries
from ..remote.settings import check_may_leave
from ..remote.webhooks.signatures import PREFIX, signed_headers, unsigned_headers
from .event import DONE, FAILED, Graph, event_body, new_id, request_of
from .outbox import GIVEN_UP, SENT, Addressee, Message, Outbox, add
from .run_watch import Watch, Watches, end, mark_told

HOW = (f"Set {VARIABLE}, or save it as the key of {NAME!r}: {PREFIX} and 24 to 64 random bytes in base64, such as "
       f"`echo {PREFIX}$(openssl rand -base64 32)` prints. Give the receiver the same.")


def notify_secret(keys: Keys, profile: str) -> bytes:
    """The secret, of the environment or of a profile. Raises RemoteError (AUTH), which does not repeat it."""
    try:
        return keys.of(NAME, "the callbacks' signatures", (VARIABLE,), profile).signing_secret()
    except ValueError as error:
        raise RemoteError(Kind.AUTH, f"The callback cannot be signed: {str(error).rstrip('.')}. {HOW} Or switch "
                          "`signed` off.") from None

WAITS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 28800.0)
"""Seconds between the tries: eleven in about 24 hours (Standard Webhooks advises such a schedule)."""
PATIENCE = 15.0
"""Seconds for one try."""
MAX_ANSWER = 2**16
"""Bytes of an answer, which is not looked at."""
GONE = 410
"""The receiver wants to hear no more (Standard Webhooks)."""
WORKERS = 4
"""Messages on their way at the same time, so that one dead receiver does not hold up the others."""
LONGEST_SLEEP = 60.0
LOOK = 0.5
"""Seconds between two looks whether a run has ended."""
log = logging.getLogger("wan22")


@dataclass(frozen=True)
class GraphRun:
    """The run of a graph that a node is in."""

    prompt_id: str
    node_id: str
    graph: Graph
    outputs: tuple[str, ...]
    """Ids of the nodes that the run is for."""

    def takes(self, output: int) -> bool:
        """Whether anything in the graph takes this output of the node; True of a node that is not in it, made by
        another while the graph runs, since nobody can tell."""
        return self.node_id not in self.graph or any(
            value == [self.node_id, output] for node in self.graph.values() for value in node["inputs"].values())


class Notifier:
    """The outbox of one ComfyUI user directory, and what empties it."""

    def __init__(self, folder: Path, policy: Policy, *, pace: float = 1.0,
                 clock: Callable[[], float] = time.time) -> None:
        """pace: stretches the waits between the tries; 1 but in tests. clock: seconds since 1970."""
        self.folder, self.policy, self.pace, self.clock = folder, policy, pace, clock
        self.outbox, self.watches = Outbox(folder, clock), Watches(folder)
        self._news, self._started = threading.Condition(), False

    # ---- what there is to tell ---------------------------------------------------------------------------------

    def begin(self, run: GraphRun, to: Addressee) -> Watch:
        """Note that a run begins whose end is to be told."""
        watch = Watch(run.prompt_id, run.node_id, to, request_of(run.graph, run.node_id), self.clock())
        self.watches.begin(watch)
        return watch

    def tell_done(self, run: GraphRun, to: Addressee, data: dict[str, Any]) -> None:
        """Have it told that a clip is done; returns when that is noted on disk."""
        watch = self.watches.find(run.prompt_id, run.node_id)
        seconds = None if watch is None else round(self.clock() - watch.began, 2)
        request = request_of(run.graph, run.node_id) if watch is None else watch.request
        message = self._message(to, DONE, {"prompt_id": run.prompt_id, "node": run.node_id, "request": request,
                                           "seconds": seconds, **data})
        with writing(self.folder) as base:
            add(base, message, self.clock())
            mark_told(base, run.prompt_id, run.node_id)
        self._wake()

    def run_ended(self, watch: Watch, error: dict[str, Any]) -> None:
        """Have it told that a run has failed, unless its clip was told before."""
        message = self._message(watch.to, FAILED, {
            "prompt_id": watch.prompt_id, "node": watch.node_id, "request": watch.request,
            "seconds": round(self.clock() - watch.began, 2), "error": without_queries(error)})
        with writing(self.folder) as base:
            if end(base, watch):
                add(base, message, self.clock())
        self._wake()

    def follow(self, watch: Watch, is_over: Callable[[], bool], error: Callable[[], dict[str, Any]]) -> None:
        """Wait, in a thread, until a run has left the queue, and have it told if it failed."""

        def work() -> None:
            while not is_over():
                time.sleep(LOOK)
            self.run_ended(watch, error())

        threading.Thread(target=work, name="wan22-run", daemon=True).start()

    def tell_of_orphans(self) -> None:
        """Have it told that runs ended with the ComfyUI that they ran in."""
        for watch in self.watches.orphans():
            self.run_ended(watch, {"message": "ComfyUI ended before the run did.", "cancelled": False})

    def _message(self, to: Addressee, kind: str, data: dict[str, Any]) -> Message:
        name = new_id()
        return Message(name, to, event_body(name, kind, self.clock(), data))

    # ---- telling -----------------------------------------------------------------------------------------------

    def deliver_due(self) -> None:
        """Try every message that is due, one after the other."""
        while (message := self.outbox.claim()) is not None:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        asked = 0.0
        try:
            reply = exchange(self._request(message), self.policy, PATIENCE, MAX_ANSWER)
            if reply.good:
                self.outbox.end(message, SENT)
                return
            why, asked = f"status {reply.status}", reply.retry_after() or 0.0
        except RemoteError as error:
            why, reply = str(error), None
        if message.tried == len(WAITS) or (reply is not None and reply.status == GONE):
            self.outbox.end(message, GIVEN_UP, why)
            log.warning("Wan 2.2: the callback to %s was given up after %d tries: %s", without_queries(message.to.url),
                        message.tried + 1, why)
            return
        if message.tried == 0:
            log.warning("Wan 2.2: the callback to %s was not taken and is tried again for a day: %s",
                        without_queries(message.to.url), why)
        wait = max(WAITS[message.tried] * random.uniform(0.8, 1.2), asked)
        self.outbox.put_off(message, why, wait * self.pace)

    def _request(self, message: Message) -> Request:
        check_may_leave(self.folder)
        now = int(self.clock())
        if message.to.signed:
            secret = notify_secret(Keys(self.folder / "keys.json"), message.to.profile)
            headers = signed_headers(secret, message.id, now, message.body)
        else:
            headers = unsigned_headers(message.id, now)
        return Request("POST", message.to.url, {"Content-Type": "application/json", **headers}, message.body)

    def _wake(self) -> None:
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
                with self._news:  # what is added before this is seen, and what is added later wakes
                    wait = self.outbox.seconds_to_next()
                    self._news.wait(None if wait is None else min(wait, LONGEST_SLEEP))
            except Exception as error:  # the disk is full, for one; whatever it is, the others are still to be told
                log.warning("Wan 2.2: callbacks wait: %s", error)
                time.sleep(LONGEST_SLEEP)


@cache
def notifier(folder: Path) -> Notifier:
    """The notifier of this process for a ComfyUI user directory."""
    return Notifier(folder, policy_from_environment(), pace=patience_from_environment().pace)


def take_up(folder: Path) -> None:
    """Go on with what an earlier ComfyUI left untold."""
    found = notifier(folder)
    found.tell_of_orphans()
    if found.outbox.seconds_to_next() is not None:
        found._wake()
