"""The errors that the pack raises for its user, each with a sentence that can stand on a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .checkpoint.errors import CheckpointError
from .download.errors import DownloadError
from .remote.errors import RemoteError
from .request import RequestError

OWN_ERRORS = (RequestError, CheckpointError, DownloadError, RemoteError)


@contextmanager
def errors_said(say: Callable[[str], None]) -> Iterator[None]:
    """Say the pack's own errors, and let them end the run as all others do."""
    try:
        yield
    except OWN_ERRORS as error:
        say(str(error))
        raise
