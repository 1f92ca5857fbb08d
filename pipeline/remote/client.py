"""Talking to one provider: every conversation's requests and retries, and the one paid request that is never repeated.

Requests run in a thread, and the user's Stop, which `wait` raises, is heard during them as between them. The paid
request alone is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..http.address import parse_url
from ..http.policy import Patience, Policy
from ..http.threads import in_thread
from .api import Reply, Request, exchange
from .errors import PASSING, Kind, NoAnswerError, NotAcceptedError, NotSentError, RemoteError
from .keys import Key
from .provider import Adapter, Steps

T = TypeVar("T")
Wait = Callable[[float], Awaitable[None]]
"""Seconds -> done when they have passed; raises the host's interrupt when the user pressed Stop."""


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns; when this is cancelled, not before the work has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@dataclass(frozen=True)
class Client:
    """One provider, with the user's key for it."""

    adapter: Adapter
    key: Key
    policy: Policy
    patience: Patience
    wait: Wait

    async def converse(self, steps: Steps[T]) -> T:
        """Make the requests of a conversation that costs nothing; returns what it finds.

        Raises RemoteError as the adapter's `refusal` states it, once trying again has not helped.
        """
        try:
            request = next(steps)
            while True:
                try:
                    reply = await self.ask(request)
                except RemoteError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(reply)
        except StopIteration as end:
            return end.value

    async def ask(self, request: Request, attempts: int | None = None) -> Reply:
        """A good answer to a request that costs nothing, tried again as far as that may help."""
        tried = 0
        long = request.body is not None and len(request.body) > 2**16
        while True:
            try:
                reply = await self._exchange(request, self.patience.upload if long else self.patience.request)
                refusal = self._refusal(request, reply)
                if refusal is None:
                    return reply
            except (NotSentError, NoAnswerError) as error:
                refusal = error
            tried += 1
            if refusal.kind not in PASSING or tried >= (attempts or self.patience.attempts):
                raise refusal
            await self.wait(self.patience.before_retry(tried, refusal.retry_after))

    async def buy(self, request: Request, note_sent: Callable[[bool], None], note_accepted: Callable[[str], None],
                  ) -> str:
        """Make the paid request; returns the job's id, which `note_accepted` was given as soon as it was known.

        note_sent: called with True before the last byte leaves, which is the point of no return, and with False when
            the provider said no after all. Both are called in the thread that makes the request, so that nothing can
            come between the answer and the note of it.
        Tried again only when it provably was not accepted. Raises NotAcceptedError in the end, or RemoteError
        (SUBMIT_UNKNOWN) when it may have been.
        """
        tried = 0
        while True:
            outcome = await _to_the_end(asyncio.to_thread(self._buy_once, request, note_sent, note_accepted))
            if isinstance(outcome, str):
                return outcome
            tried += 1
            if outcome.kind not in PASSING or tried >= self.patience.attempts:
                raise NotAcceptedError(outcome)
            await self.wait(self.patience.before_retry(tried, outcome.retry_after))

    def _buy_once(self, request: Request, note_sent: Callable[[bool], None], note_accepted: Callable[[str], None],
                  ) -> str | RemoteError:
        """The job's id, or the error of a request that was not accepted. Raises RemoteError (SUBMIT_UNKNOWN)."""
        try:
            reply = exchange(self._signed(request), self.policy, self.patience.submit,
                             before_last_byte=lambda: note_sent(True))
        except NotSentError as error:
            return error
        except NoAnswerError as error:
            raise self._unknown(str(error)) from None
        refusal = self.adapter.refusal(reply)
        if refusal is not None:
            if refusal.kind == Kind.TRANSIENT:  # an error of the gateway says nothing of what stands behind it
                raise self._unknown(str(refusal))
            note_sent(False)
            if refusal.kind == Kind.LOST:  # there is no job yet that could be unknown
                return RemoteError(Kind.VALIDATION, f"{self.adapter.title} does not offer this model any more. Choose "
                                   "another. Nothing was bought.")
            return self._without_key(refusal)
        try:
            remote_id = self.adapter.accepted(reply)
        except RemoteError as error:
            raise self._unknown(str(error)) from None
        note_accepted(remote_id)
        return remote_id

    def _unknown(self, why: str) -> RemoteError:
        return RemoteError(Kind.SUBMIT_UNKNOWN, self.key.hide_in(why))

    def _refusal(self, request: Request, reply: Reply) -> RemoteError | None:
        if not request.json_answer and reply.good:
            return None
        refusal = self.adapter.refusal(reply)
        if refusal is not None and refusal.kind == Kind.AUTH and not request.auth:  # a file store's, or a page's
            host = parse_url(request.url).host
            return RemoteError(Kind.PROVIDER_FAILED, f"{self.adapter.title} is in trouble: {host} refuses what was "
                               f"asked (status {reply.status}), and your key has no part in it.")
        return None if refusal is None else self._without_key(refusal)

    def _without_key(self, error: RemoteError) -> RemoteError:
        return RemoteError(error.kind, self.key.hide_in(str(error)), retry_after=error.retry_after)

    async def _exchange(self, request: Request, patience: float) -> Reply:
        return await in_thread(lambda: exchange(self._signed(request), self.policy, patience), self.wait)

    def _signed(self, request: Request) -> Request:
        if not request.auth or parse_url(request.url).origin not in self.adapter.origins:
            return request
        return replace(request, headers={**request.headers, "Authorization": self.key.header(self.adapter.scheme)})
