"""Send requests to one provider: free ones with retries, and the paid one, which is never repeated on a guess.

Free requests run in a thread that Stop leaves behind (`wait` raises the host's interrupt). The paid one is awaited to
its end. Where it carries an idempotency key that the provider honours, repeating it is no guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..http.own_server import parse_own_server, with_own_server
from ..http.policy import SLOWEST, JobTimeouts, Policy
from ..http.secrets import Secret
from ..http.threads import in_thread
from .api import Reply, Request
from .errors import RETRYABLE, ErrorKind, NoAnswerError, NotAcceptedError, NotSentError, RemoteError
from .exchange import exchange
from .keys import KeyStore
from .provider import Provider, RequestFlow
from .settings import Settings

T = TypeVar("T")
Wait = Callable[[float], Awaitable[None]]
"""Sleep for so many seconds; raise the host's interrupt when the user pressed Stop."""
LARGE_BODY = 2**16
"""Bytes of a body from which a request has the time of an upload."""


@dataclass(frozen=True)
class ProviderClient:
    """A provider and the user's key for it."""

    provider: Provider
    key: Secret
    policy: Policy
    timeouts: JobTimeouts
    wait: Wait

    async def run(self, flow: RequestFlow[T]) -> T:
        """Send the free requests of a flow and return its result.

        Raises RemoteError (see Provider.refusal) once retries have not helped, unless the flow catches it.
        """
        try:
            request = next(flow)
            while True:
                try:
                    reply = await self.send(request)
                except RemoteError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(reply)
        except StopIteration as end:
            return end.value

    async def send(self, request: Request) -> Reply:
        """Send a free request, with retries; return the good reply. Raises RemoteError."""
        tried = 0
        timeout = self._timeout(request.body)
        while True:
            try:
                reply = await in_thread(lambda: exchange(self._with_key(request), self.policy, timeout), self.wait)
                refusal = self._refusal(request, reply)
                if refusal is None:
                    return reply
            except (NotSentError, NoAnswerError) as error:
                refusal = error
            tried += 1
            if refusal.kind not in RETRYABLE or tried >= self.timeouts.attempts:
                raise refusal
            await self.wait(self.timeouts.before_retry(tried, refusal.retry_after))

    def _timeout(self, body: bytes | Path | None) -> float:
        """Return the seconds that a free request may take."""
        if isinstance(body, Path):
            return self.timeouts.upload + body.stat().st_size / SLOWEST
        return self.timeouts.upload if body is not None and len(body) > LARGE_BODY else self.timeouts.request

    async def submit(self, request: Request, on_sent: Callable[[bool], None], on_accepted: Callable[[str], None],
                     ) -> str:
        """Send the paid request and return the job's id.

        on_sent: called with True before the last byte leaves, the point of no return; with False when the provider
            refused after all. on_accepted: called with the id. Both are called in the thread that sends, so that
            nothing can come between the reply and the record of it.
        Repeats the request only when it provably was not accepted, or where a repetition makes no second job. Raises
        NotAcceptedError when that does not help, RemoteError (SUBMIT_UNKNOWN) when it may have been accepted.
        """
        tried, unknown = 0, None
        while True:
            try:
                outcome = await _to_the_end(asyncio.to_thread(self._submit_once, request, on_sent, on_accepted))
            except RemoteError as error:
                if not self.provider.idempotent:
                    raise
                outcome = unknown = error
            if isinstance(outcome, str):
                return outcome
            tried += 1
            if outcome.kind not in (*RETRYABLE, ErrorKind.SUBMIT_UNKNOWN) or tried >= self.timeouts.attempts:
                raise unknown or NotAcceptedError(outcome)
            await self.wait(self.timeouts.before_retry(tried, outcome.retry_after))

    def _submit_once(self, request: Request, on_sent: Callable[[bool], None], on_accepted: Callable[[str], None],
                     ) -> str | RemoteError:
        """Return the job's id, or the error of a request that was not accepted. Raises RemoteError (SUBMIT_UNKNOWN)."""
        try:
            reply = exchange(self._with_key(request), self.policy, self.timeouts.submit,
                             before_last_byte=lambda: on_sent(True))
        except NotSentError as error:
            return error
        except NoAnswerError as error:
            raise self._unknown(str(error)) from None
        refusal = self.provider.refusal(reply)
        if refusal is not None:
            # A gateway's error, and a server's own, say nothing about what the request has started.
            if refusal.kind == ErrorKind.TRANSIENT or reply.status >= 500:
                raise self._unknown(str(refusal))
            on_sent(False)
            if refusal.kind == ErrorKind.LOST:  # no job exists yet, so it is the model that is missing
                return self.provider.model_gone("this model")
            return self._without_key(refusal)
        try:
            remote_id = self.provider.accepted(reply)
        except RemoteError as error:
            raise self._unknown(str(error)) from None
        on_accepted(remote_id)
        return remote_id

    def _refusal(self, request: Request, reply: Reply) -> RemoteError | None:
        if (not request.json_answer and reply.good) or request.is_answer(reply):
            return None
        refusal = self.provider.refusal(reply)
        if refusal is not None and refusal.kind == ErrorKind.AUTH and not request.auth:  # a file store, for one
            host = self.policy.parse(request.url).host
            return RemoteError(ErrorKind.PROVIDER_FAILED, f"{self.provider.title} failed: its host {host} refused a "
                               f"request ({reply.status}) that does not use your key.")
        return None if refusal is None else self._without_key(refusal)

    def _unknown(self, why: str) -> RemoteError:
        return RemoteError(ErrorKind.SUBMIT_UNKNOWN, self.key.hide_in(why))

    def _without_key(self, error: RemoteError) -> RemoteError:
        return RemoteError(error.kind, self.key.hide_in(str(error)), retry_after=error.retry_after)

    def _with_key(self, request: Request) -> Request:
        """Return the request with the key, if it is for one of the origins that the key may be sent to."""
        if not request.auth or self.policy.parse(request.url).origin not in self.provider.origins:
            return request
        return replace(request, headers={**request.headers, "Authorization": self.key.header(self.provider.scheme)})


def open_client(provider: Provider, profile: str, settings: Settings, keys: KeyStore, policy: Policy,
                timeouts: JobTimeouts, wait: Wait) -> ProviderClient:
    """Return the client of a provider for a profile; of an own server at the address that the settings name.

    Raises RemoteError (AUTH) when there is no key, or no address.
    """
    if provider.own_server:
        address = settings.own_server(provider.title, profile)
        provider, policy = provider.at(address), with_own_server(policy, parse_own_server(address))
    key = keys.of(provider.name, provider.title, provider.variables, profile)
    return ProviderClient(provider, key, policy, timeouts, wait)


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of work; when cancelled, raise only after the work has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
