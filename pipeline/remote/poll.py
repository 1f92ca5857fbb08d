"""From an accepted job to the file: polling, the download, and what Stop does to it.

The finished clip: off the provider's file host, checked, onto the disk. Never half a file.

Where jobs that this process drives stand in their provider's queue; as of the last poll, and in memory alone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..files.atomic import clear_away, retried
from ..http.errors import DownloadError, TransientError
from ..http.policy import Policy
from ..http.secrets import Tokens
from ..http.session import Answer
from ..http.session import Client as DownloadClient
from ..http.threads import in_thread
from .client import Client
from .context import Desk
from .errors import PASSING, Kind, RemoteError, RunEndedError
from .job import Job, State
from .provider import Progress

_places: dict[str, int] = {}


def note_place(job_id: str, place: int | None) -> None:
    """Note a place, 0 for the next one; None when the job is not in a queue, or nobody says where."""
    if place is None:
        _places.pop(job_id, None)
    else:
        _places[job_id] = place


def place_of(job_id: str) -> int | None:
    """The place that was told last."""
    return _places.get(job_id)

MAX_CLIP = 512 * 2**20
"""Bytes of a clip; 8 seconds of 720p are some 10 MB."""
PIECE = 2**18
GONE = (401, 403, 404, 410)


class _NoTokens(Tokens):
    """Nobody's token goes to a file host."""

    def of(self, service: object) -> None:
        return None


def fetch_clip(link: str, path: Path, policy: Policy, patience: float) -> None:
    """Fetch a finished clip to `path`. Once its server has answered, reads for `patience` seconds at most.

    Raises RemoteError: DOWNLOAD_EXPIRED when the link no longer works, TRANSIENT when another try may help, INTEGRITY
    for what is no whole MP4, REFUSED_HERE for an address that is refused; OSError when the disk fails.
    """
    client, end = DownloadClient(policy, _NoTokens()), time.monotonic() + patience
    unfinished = path.with_name(f".{path.name}.part")
    try:
        answer = client.get(link, {})
        watchdog = threading.Timer(end - time.monotonic(), answer.abort)  # a read of a piece may take hours
        watchdog.daemon = True
        watchdog.start()
        try:
            _check(answer)
            _write(answer, unfinished, end)
        finally:
            watchdog.cancel()
            answer.close()
        check_boxes(unfinished)
        retried(lambda: os.replace(unfinished, path))
    except TransientError as error:
        raise RemoteError(Kind.TRANSIENT, str(error), retry_after=error.wait) from None
    except DownloadError as error:
        raise RemoteError(Kind.REFUSED_HERE, str(error)) from None
    finally:
        client.close()
        clear_away(unfinished)


def _check(answer: Answer) -> None:
    if answer.status == 200:
        return
    if answer.status in GONE:
        raise RemoteError(Kind.DOWNLOAD_EXPIRED, f"The link of the finished clip no longer works (status "
                          f"{answer.status}).")
    raise RemoteError(Kind.TRANSIENT, f"{answer.url.host} does not hand out the finished clip (status "
                      f"{answer.status}).")


def _write(answer: Answer, path: Path, end: float) -> None:
    size, done = answer.response.length, 0
    if size is not None and size > MAX_CLIP:
        raise _too_long(answer)
    buffer = memoryview(bytearray(PIECE))
    with path.open("wb") as file:
        while True:
            count = answer.read_into(buffer)
            file.write(buffer[:count])
            done += count
            if done > MAX_CLIP:
                raise _too_long(answer)
            if time.monotonic() > end:
                raise RemoteError(Kind.TRANSIENT, f"{answer.url.host} sends the finished clip too slowly.")
            if count < len(buffer):
                break
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done != size:
        raise RemoteError(Kind.INTEGRITY, f"{answer.url.host} sent {done} of the {size} bytes of the clip.")


def _too_long(answer: Answer) -> RemoteError:
    return RemoteError(Kind.INTEGRITY, f"{answer.url.host} sends more than {MAX_CLIP // 2**20} MB, which no clip is.")


def check_boxes(path: Path) -> None:
    """Raise RemoteError (INTEGRITY) unless the file is a row of whole MP4 boxes with ftyp and moov (ISO 14496-12)."""
    size, seen = path.stat().st_size, []
    with path.open("rb") as file:
        position = 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:
                length = size - position
            if length < 8 or position + length > size:
                break
            seen.append(name)
            position += length
    if position != size or seen[:1] != [b"ftyp"] or b"moov" not in seen:
        raise RemoteError(Kind.INTEGRITY, "What came is no whole MP4 file.")

DOWNLOADS = 4
"""Tries to fetch a finished clip before the run ends."""
AFTER_CANCEL = (0.0, 1.0, 2.0)
"""Seconds before the polls after a cancel; the user waits for them."""
ENDS = {State.FAILED: "could not make the clip of", State.CANCELED: "has cancelled", State.LOST: "has lost"}


async def follow(job: Job, client: Client, desk: Desk) -> Job:
    """Wait for an accepted job and fetch its clip; returns it done, with the path of the file.

    Raises RemoteError; the interrupt that desk.stop raises, once the job was called off where the provider can. Any
    other end leaves the job as it is, to be taken up again: nobody has said that the clip is not wanted.
    """
    if job.state == State.DONE:
        if Path(job.result).is_file():
            return job
        job = desk.ledger.reopen(job, state=State.RUNNING)
    try:
        progress = await _wait(job, client, desk)
        return await _fetch(desk.ledger.update(job, state=State.DOWNLOADING), progress.url, client, desk)
    except RunEndedError:
        desk.say(f"The run has ended. {client.adapter.title} goes on with the job, and it is billed. {_again(job)}")
        raise
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException:  # the host's interrupt
        await _call_off(job, client, desk)
        raise


async def _wait(job: Job, client: Client, desk: Desk) -> Progress:
    """Poll until the clip is finished."""
    began, polled = time.monotonic(), 0
    told = Progress(job.state)
    fresh = time.time() - job.submitted < client.patience.polls[0]
    while True:
        if polled or fresh:
            await desk.wait_for_news(job.id, client.patience.before_poll(polled),
                                     partial(_tell, told, job, client, desk))
        polled += 1
        told = await _poll(job, client)
        note_place(job.id, told.place)
        if told.price is not None:
            desk.ledger.update(job, price=told.price, price_source=f"billed by {client.adapter.title}")
        if told.state == State.DOWNLOADING:
            return told
        if told.state in ENDS:
            why = told.message.rstrip(".") or "no reason given"
            sentence = f"{client.adapter.title} {ENDS[told.state]} the job {job.short_id}: {why}."
            desk.ledger.update(job, state=told.state, error_kind=told.kind.value, error=sentence)
            raise RemoteError(told.kind, sentence)
        job = desk.ledger.update(job, state=told.state)
        if time.monotonic() - began > client.patience.deadline * client.patience.pace:
            desk.ledger.update(job, state=State.TIMED_OUT)
            raise RemoteError(Kind.TIMEOUT, f"{client.adapter.title} has not finished the job {job.short_id} after "
                              f"{client.patience.deadline / 60:.0f} minutes. It goes on there: run again, or resume it "
                              f"with the id {job.short_id}.")


async def _poll(job: Job, client: Client) -> Progress:
    try:
        return await client.converse(client.adapter.poll(job.model, job.remote_id))
    except RemoteError as error:
        if error.kind == Kind.LOST:
            if time.time() - job.submitted < client.adapter.patient:
                return Progress(job.state)  # not known there yet
            return Progress(State.LOST, kind=Kind.LOST, message=str(error))
        raise RemoteError(error.kind, f"{error} The job {job.short_id} goes on there: run again to go on "
                          "waiting for it.") from None


def _tell(told: Progress, job: Job, client: Client, desk: Desk) -> None:
    words = {State.QUEUED: "queued", State.RUNNING: "at work"}
    place = "" if told.place is None else f", place {told.place + 1} in the queue"
    odd = f" ({told.message})" if told.message else ""
    seconds = max(0, round(time.time() - job.submitted))
    word = words.get(told.state, told.state.value)
    desk.say(f"{client.adapter.title}: {word}{place}{odd}, {seconds} s")


async def _fetch(job: Job, link: str, client: Client, desk: Desk) -> Job:
    desk.say(f"{client.adapter.title}: fetching the clip.")
    desk.results.mkdir(parents=True, exist_ok=True)
    path = desk.results / f"{job.provider}_{job.short_id}.mp4"
    tried, expired = 0, False
    while True:
        try:
            await in_thread(partial(_bring, link, path, client, desk), desk.wait)
            return desk.ledger.update(job, state=State.DONE, result=str(path), error="", error_kind="")
        except RemoteError as error:
            tried += 1
            if error.kind == Kind.DOWNLOAD_EXPIRED and not expired:
                expired = True
                link = (await _poll(job, client)).url or link
                continue
            if error.kind == Kind.DOWNLOAD_EXPIRED:
                desk.ledger.update(job, state=State.LOST, error_kind=error.kind.value, error=str(error))
                raise RemoteError(error.kind, f"{error} {client.adapter.title} keeps clips for a short time only, and "
                                  f"that of the job {job.short_id} is gone.") from None
            if error.kind not in (*PASSING, Kind.INTEGRITY) or tried >= DOWNLOADS:
                raise RemoteError(error.kind, f"{error} The clip of the job {job.short_id} is paid and still at "
                                  f"{client.adapter.title}: run again to fetch it.") from None
            await desk.wait(client.patience.before_retry(tried, error.retry_after))


def _bring(link: str, path: Path, client: Client, desk: Desk) -> None:
    # A run that was stopped may still be at it, so that each try has a file of its own.
    arriving = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.arriving{path.suffix}")
    try:
        _sweep(path, client.patience.download)
        fetch_clip(link, arriving, desk.policy, client.patience.download)
        try:
            desk.check_clip(arriving)
        except ValueError as error:
            raise RemoteError(Kind.INTEGRITY, f"What came is no whole clip: {error}") from None
        retried(lambda: os.replace(arriving, path))
    except OSError as error:
        raise RemoteError(Kind.REFUSED_HERE, f"The clip cannot be written to {path.parent}: {error.strerror or error}. "
                          "Free some space there, or let ComfyUI write to it.") from None
    finally:
        clear_away(arriving)


def _sweep(path: Path, patience: float) -> None:
    """Remove what tries for this clip left behind that were killed: none writes for longer than `patience` seconds."""
    for left in path.parent.glob(f".*{path.stem}.*.arriving*"):
        with suppress(OSError):  # another try may have removed it, or on Windows still hold it
            if time.time() - left.stat().st_mtime > patience:
                left.unlink()


def _again(job: Job) -> str:
    return f"Resume it with the id {job.short_id}, or run again."


async def _call_off(job: Job, client: Client, desk: Desk) -> None:
    """Cancel the job at the provider, where that can be; tell the user how it stands.

    Only what a poll says afterwards counts: providers acknowledge a cancel that comes too late, and a clip that is paid
    must not be bought again.
    """
    title, again = client.adapter.title, _again(job)
    if desk.ledger.get(job.id).state == State.DOWNLOADING:
        desk.say(f"Stopped. {title} has finished the job, and it is billed. {again}")
        return
    request = client.adapter.cancel(job.model, job.remote_id)
    if request is None:
        desk.say(f"Stopped waiting. {title} cannot cancel: the job goes on and is billed. {again}")
        return
    once = replace(client, patience=replace(client.patience, attempts=1), wait=asyncio.sleep)  # Stop was heard
    try:
        await once.ask(request)
        told = await _after_cancel(job, once)
    except RemoteError as error:
        desk.say(f"Stopped waiting, but the job could not be cancelled: {error} It may be billed. {again}")
        return
    if told.state in ENDS:
        desk.ledger.update(job, state=State.CANCELED, error="cancelled by the user")
        desk.say(f"{title}: the job {job.short_id} is cancelled.")
    elif told.state == State.DOWNLOADING:
        desk.say(f"Stopped. {title} had finished the job before it could be cancelled, and it is billed. {again}")
    else:
        desk.say(f"Stopped waiting. {title} was asked to cancel the job and is still at it. It may be billed. {again}")


async def _after_cancel(job: Job, client: Client) -> Progress:
    """How the job stands once its end had a moment to be noted."""
    for seconds in AFTER_CANCEL:
        await asyncio.sleep(seconds * client.patience.pace)
        told = await client.converse(client.adapter.poll(job.model, job.remote_id))
        if told.state == State.DOWNLOADING or told.state in ENDS:
            break
    return told
