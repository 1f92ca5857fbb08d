"""The work of the Notify node: checks before the run, a record as it begins, and the callback for its clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..graph.run import GraphRun, RunEnd
from ..http.address import Url, may_be_public, parse_url
from ..http.errors import DownloadError
from ..remote.errors import ErrorKind, RemoteError
from ..remote.keys import KeyStore
from ..remote.settings import check_sending_allowed, read_settings
from .event import failure_data, read_report
from .notifier import callback_secret, notifier
from .outbox import Recipient


def check_callback(folder: Path, url: str | None, signed: bool | None, profile: str | None) -> None:
    """Raise RemoteError for a refused link, a missing secret, or when nothing may leave this machine.

    None: the input is not known yet.
    """
    check_sending_allowed(folder)
    if url is not None:
        check_callback_url(url)
    if signed and profile is not None:
        callback_secret(KeyStore(folder / "keys.json"), profile)


def check_callback_url(text: str) -> Url:
    """Return the parsed link. Raises RemoteError (VALIDATION) unless it is https, without a user name, and of a host
    that can be on the public internet; the host's address is checked at each connection."""
    if not text.strip():
        raise RemoteError(ErrorKind.VALIDATION, "callback_url is empty. Give the https link of your receiver.")
    try:
        url = parse_url(text)
    except DownloadError as error:
        raise RemoteError(ErrorKind.VALIDATION, f"callback_url: {error}") from None
    if not may_be_public(url.host):
        raise RemoteError(ErrorKind.VALIDATION, f"callback_url: {url} is on this machine or its network, where "
                          "callbacks are not sent. Give a link that is open to the internet.")
    return url


def watch_run(folder: Path, run: GraphRun | None, node_id: str, to: Recipient, is_over: Callable[[str], bool],
              end: Callable[[str], RunEnd]) -> None:
    """Record a run that begins, so that its end is reported even when the node never gets its turn.

    is_over, end: called with the prompt's id; `end` once `is_over` is true.
    """
    if run is None or node_id not in run.outputs:
        return  # the node will not run, or nobody can tell what becomes of it
    found = notifier(folder)
    found.watch(found.begin(run, node_id, to), lambda: is_over(run.prompt_id),
                lambda: failure_data(end(run.prompt_id)))


def send_callback(folder: Path, run: GraphRun | None, node_id: str, to: Recipient, clip: dict[str, Any] | None,
                  report: str) -> str:
    """Send the callback of a finished clip; return a sentence for the user. Raises RemoteError.

    clip: width, height, frames, fps and file (as /view names it, or None); None without a video.
    """
    url = check_callback_url(to.url)
    check_callback(folder, None, to.signed, to.profile)
    if clip is None and not report.strip():
        raise RemoteError(ErrorKind.VALIDATION, "There is nothing to tell. Connect video, report, or both.")
    file = (clip or {}).get("file")
    found, price = read_report(report)
    notifier(folder).send_done(run, node_id, to, {
        "clip": None if clip is None else {name: value for name, value in clip.items() if name != "file"},
        "file": file, "url": _public_link(folder, file), "price": price, "report": found})
    no_file = "" if clip is None or file else ("The clip is not a file in the output folder, so the callback names "
                                               "none: take video from a node that saves it.")
    return "\n".join(filter(None, (f"Telling {url}.", no_file, query_warning(url))))


def query_warning(url: Url) -> str:
    """Return a sentence for a link whose query may be a secret; "" for others."""
    if "?" not in url.target:
        return ""
    return ("callback_url has a query (?...), which is saved with the workflow and in the clip. If it holds a token, "
            "leave it out: the signature proves where a callback comes from.")


def _public_link(folder: Path, file: dict[str, Any] | None) -> str | None:
    """Return the file's link on this server's public address; None without one."""
    base = read_settings(folder).public_url
    if not base or not file:
        return None
    return f"{base}/view?{urlencode({name: file[name] for name in ('filename', 'subfolder', 'type')})}"
