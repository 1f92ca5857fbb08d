"""The link to which we tell that a clip is done."""

from __future__ import annotations

from ..download.address import Url, may_be_public, parse_url
from ..download.errors import DownloadError
from .errors import Kind, RemoteError


def check_callback_url(text: str) -> Url:
    """The link, taken apart. Raises RemoteError (VALIDATION) unless it is https, without a user name, and of a host
    that can be on the public internet; what the host resolves to is checked with each connection."""
    if not text.strip():
        raise RemoteError(Kind.VALIDATION, "callback_url is empty. Give the https link of your receiver.")
    try:
        url = parse_url(text)
    except DownloadError as error:
        raise RemoteError(Kind.VALIDATION, f"callback_url: {error}") from None
    if not may_be_public(url.host):
        raise RemoteError(Kind.VALIDATION, f"callback_url: {url} is on this machine or its network, where callbacks "
                          "are not sent. Give a link that is open to the internet.")
    return url


def query_warning(url: Url) -> str:
    """A sentence for a link whose query may be a secret; else an empty string."""
    if "?" not in url.target:
        return ""
    return ("callback_url has a query (?...), which is saved with the workflow and in the clip. If it holds a token, "
            "leave it out: the signature proves where a callback comes from.")
