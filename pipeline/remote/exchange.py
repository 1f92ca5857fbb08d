"""Make one HTTPS request of an API, with what a paid request needs: knowing whether it can have arrived.

The connection is http/session.py's; its errors become those of a remote job here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from ..http.errors import ConnectionLostError, DownloadError, TransientError
from ..http.policy import Policy
from ..http.session import Body, Session
from .api import Reply, Request
from .errors import ErrorKind, NoAnswerError, NotSentError, RemoteError

HEADERS = {"Accept": "application/json", "Connection": "close"}


def _ignored() -> None:
    """Do nothing before the last byte of a request that nobody pays for."""


def exchange(request: Request, policy: Policy, timeout: float,
             before_last_byte: Callable[[], None] = _ignored) -> Reply:
    """Make the request and read the reply whole. Once connected, blocks for `timeout` seconds at most, and reads
    `request.limit` bytes. Redirects are not followed: an API that redirects a POST is not the API that was meant.

    before_last_byte: called when all of the body but its last byte is on its way; until then no server can have
        accepted it.
    Raises NotSentError when the server cannot have had the whole request, NoAnswerError when it may have;
    RemoteError for an address or a certificate that is refused.
    """
    # The answer to a paid request is worth all of its time: it may be silent longer than a download.
    session = Session(replace(policy, timeouts=replace(policy.timeouts, read=timeout)))
    watchdog = threading.Timer(timeout, session.abort)
    watchdog.daemon = True
    watchdog.start()
    body = Body(request.body, before_last_byte) if request.body else None
    try:
        url = policy.parse(request.url)
        response = session.send(request.method, url, {**HEADERS, **request.headers}, body)
        try:
            data = response.read(request.limit + 1)
            if len(data) <= request.limit and response.length:
                raise ConnectionLostError("It was cut short.")
        finally:
            response.close()
    except ConnectionLostError:
        if body is None or body.sent:
            raise NoAnswerError(f"{url.host} did not answer, or its answer broke off.") from None
        raise NotSentError(f"The connection to {url.host} broke off before the request was sent.") from None
    except TransientError as error:
        raise NotSentError(f"{error} Nothing was sent.") from None
    except DownloadError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"{error} Nothing was sent.") from None
    finally:
        watchdog.cancel()
        session.close()
    if len(data) > request.limit:
        raise NoAnswerError(f"{url.host} answers with more than {request.limit // 2**20} MB, which no answer of its "
                            "API is.")
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data)
