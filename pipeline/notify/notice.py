"""What the Notify node does: checks before the run, a note as it begins, and the message when its clip is there.

The link to which we tell that a clip is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..http.address import Url, may_be_public, parse_url
from ..http.errors import DownloadError
from ..remote.errors import Kind, RemoteError
from ..remote.keys import Keys
from ..remote.settings import check_may_leave, read_settings
from .event import read_report
from .notifier import GraphRun, notifier, notify_secret
from .outbox import Addressee


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


def check_notice(folder: Path, url: str | None, signed: bool | None, profile: str | None) -> None:
    """Raise RemoteError for a link that is refused, when there is no secret to sign with, and when nothing may leave
    this machine; None is not known yet."""
    check_may_leave(folder)
    if url is not None:
        check_callback_url(url)
    if signed and profile is not None:
        notify_secret(Keys(folder / "keys.json"), profile)


def tell_if_it_fails(folder: Path, run: GraphRun | None, to: Addressee, is_over: Callable[[str], bool],
                     error: Callable[[str], dict[str, Any]]) -> None:
    """Note a run that begins, so that its end is told even when the node never gets its turn.

    is_over, error: of a prompt's id; the second is asked once the first is true, and gives message, cancelled, node.
    """
    if run is None or run.node_id not in run.outputs:
        return  # it will not run, or nobody can tell what becomes of it
    told = notifier(folder)
    told.follow(told.begin(run, to), lambda: is_over(run.prompt_id), lambda: error(run.prompt_id))


def tell_it_is_done(folder: Path, run: GraphRun | None, to: Addressee, clip: dict[str, Any] | None, report: str) -> str:
    """Have it told that a clip is done; returns a sentence for the user.

    clip: width, height, frames, fps and file (as /view names it, or None); None without a video. Raises RemoteError.
    """
    url = check_callback_url(to.url)
    check_notice(folder, None, to.signed, to.profile)
    if clip is None and not report.strip():
        raise RemoteError(Kind.VALIDATION, "There is nothing to tell. Connect video, report, or both.")
    file = (clip or {}).get("file")
    found, price = read_report(report)
    notifier(folder).tell_done(run or GraphRun("", "", {}, ()), to, {
        "clip": None if clip is None else {name: value for name, value in clip.items() if name != "file"},
        "file": file, "url": _link(folder, file), "price": price, "report": found})
    gone = "" if clip is None or file else ("The clip is not a file of the output folder, so none is named: take video "
                                            "from a node that saves it.")
    return "\n".join(filter(None, (f"Telling {url}.", gone, query_warning(url))))


def _link(folder: Path, file: dict[str, Any] | None) -> str | None:
    """Where the file can be had from outside, when this server has a public address."""
    base = read_settings(folder).public_url
    if not base or not file:
        return None
    return f"{base}/view?{urlencode({name: file[name] for name in ('filename', 'subfolder', 'type')})}"
