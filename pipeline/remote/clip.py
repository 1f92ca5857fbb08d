"""A clip from a provider, as the nodes hand it on: the picture goes out as a file, the finished file comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..http.threads import in_own_loop
from ..request import ClipRequest, RequestError, check_image
from ..video.picture import encode_picture
from ..video.probe import probe
from ..video.trim import trim
from .context import Desk
from .errors import Kind, RemoteError
from .job import Job
from .plan import TRIM
from .providers import ADAPTERS
from .run import Delivery, Offer, Picture, make_clip, report, resume, target_of

if TYPE_CHECKING:
    import torch

async def remote_clip(image: torch.Tensor, clip: ClipRequest, offers: Sequence[Offer], desk: Desk, *, frames: str,
                      strict: bool) -> tuple[Path, str]:
    """Have a clip made; returns the file and a report in JSON.

    image: IMAGE (1, H, W, 3), float 0..1. Raises as make_clip does.
    """
    check_image(image)
    picture = Picture(*encode_picture(image))
    delivery = await in_own_loop(make_clip([target_of(offer) for offer in offers], clip, picture, desk, frames=frames,
                                           strict=strict), desk.left)
    return await asyncio.to_thread(_handed_over, delivery, clip.num_frames, frames, desk)


async def resumed_clip(name: str, remote_id: str, desk: Desk) -> tuple[Path, str]:
    """Go on with a job of the ledger by its id or the provider's; a clip that is longer than asked is treated as was
    chosen when it was bought. Raises RemoteError for a job that is not there.

    remote_id: what the provider calls a job of unknown outcome, when the user found it there; "" otherwise.
    """
    job = _find(name, desk)
    if remote_id:
        job = desk.ledger.attach(job, remote_id)
    delivery = await in_own_loop(resume(job, ADAPTERS[job.provider], desk), desk.left)
    frames = str(job.summary.get("longer_clips", TRIM))  # jobs of earlier versions do not tell
    return await asyncio.to_thread(_handed_over, delivery, int(job.summary["num_frames"]), frames, desk)


def give_up(name: str, desk: Desk) -> str:
    """Note that a job is not wanted any more; returns a sentence for the user. Raises as _find does."""
    job = desk.ledger.give_up(_find(name, desk))
    return f"The job {job.short_id} is given up; the same request can be bought anew."


def _find(name: str, desk: Desk) -> Job:
    """A job by its id or the provider's. Raises RemoteError (VALIDATION) when there is none."""
    job = desk.ledger.find(name.strip())
    if job is None:
        raise RemoteError(Kind.VALIDATION, f"There is no job {name.strip()!r} in the ledger. Give the id that the "
                          "remote node showed, its first 8 letters at least, or the provider's own id.")
    return job


def _handed_over(delivery: Delivery, num_frames: int, frames: str, desk: Desk) -> tuple[Path, str]:
    """The file, cut to the frames that were asked for where that was chosen, and the report. Raises as _cut does."""
    path, there = delivery.path, probe(delivery.path).frames
    if frames == TRIM and there > num_frames:
        shorter = path.with_name(f"{path.stem}_{num_frames}frames{path.suffix}")
        if not shorter.is_file():
            _cut(path, shorter, num_frames)
        path = shorter
    elif there < num_frames:
        note = f"{there} frames came, of {num_frames} that were asked for."
        delivery = replace(delivery, changed=(*delivery.changed, note))
    desk.say(_summary(delivery))
    told = report(replace(delivery, path=path), ADAPTERS[delivery.job.provider])
    return path, json.dumps(told, indent=1, ensure_ascii=False)


def _cut(path: Path, shorter: Path, num_frames: int) -> None:
    """Raises RequestError when the disk does not take the shorter clip; the whole one stays."""
    try:
        trim(path, lambda: shorter, 0, num_frames)
    except OSError as error:
        if shorter.is_file():  # another run of the same job was quicker
            return
        raise RequestError(f"{shorter} could not be written: {error.strerror or error}. The whole clip is in {path}. "
                           "Make room there, and run again: it is cut then, and nothing is bought.") from error


def _summary(delivery: Delivery) -> str:
    job = delivery.job
    cost = "price unknown" if job.price is None else f"${job.price:.3f}"
    return "\n".join((f"{ADAPTERS[job.provider].title}: done, {cost}, job {job.short_id}", *delivery.notes))
