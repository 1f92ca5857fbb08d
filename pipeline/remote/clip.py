"""Remote clips as the nodes see them: a picture goes in, the file of the clip and a report come out."""

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
from ..video.probe import probe_video
from ..video.trim import trim
from .context import RemoteContext
from .errors import ErrorKind, RemoteError
from .job import Job
from .plan import TRIM
from .providers import PROVIDERS, Target
from .request import Picture
from .run import FinishedClip, make_clip, resume

if TYPE_CHECKING:
    import torch


async def remote_clip(image: torch.Tensor, clip: ClipRequest, targets: Sequence[Target], context: RemoteContext, *,
                      longer_clips: str, strict: bool, last_image: torch.Tensor | None = None) -> tuple[Path, str]:
    """Make a clip; return its file and a report in JSON.

    image, last_image: IMAGE (1, H, W, 3), float 0..1; the clip ends with the last one. longer_clips: one of
    plan.LONGER_CLIPS. Raises as make_clip does.
    """
    check_image(image)
    picture = Picture(*encode_picture(image))
    last = None
    if last_image is not None:
        check_image(last_image)
        last = Picture(*encode_picture(last_image))
    work = make_clip(targets, clip, picture, context, last_picture=last, longer_clips=longer_clips, strict=strict)
    done = await in_own_loop(work, context.abandoned)
    return await asyncio.to_thread(_hand_over, done, clip.num_frames, longer_clips, context)


async def resumed_clip(name: str, remote_id: str, context: RemoteContext) -> tuple[Path, str]:
    """Continue a job of the ledger; return its file and a report. Raises as make_clip does, and for an unknown job.

    name: the job's id or the provider's. remote_id: the provider's id for a job of unknown outcome, when the user found
    it there; "" otherwise. A clip that is longer than asked is treated as was chosen when it was bought.
    """
    job = _find(name, context)
    if remote_id:
        job = context.ledger.attach(job, remote_id)
    done = await in_own_loop(resume(job, PROVIDERS[job.provider], context), context.abandoned)
    longer_clips = str(job.summary.get("longer_clips", TRIM))  # jobs of earlier versions have none
    return await asyncio.to_thread(_hand_over, done, int(job.summary["num_frames"]), longer_clips, context)


def give_up(name: str, context: RemoteContext) -> str:
    """Abandon a job, so that its request may be bought anew; return a sentence for the user. Raises RemoteError."""
    job = context.ledger.give_up(_find(name, context))
    return f"The job {job.short_id} is given up; the same request can be bought anew."


def _find(name: str, context: RemoteContext) -> Job:
    """Return a job by its id or the provider's. Raises RemoteError (VALIDATION) for an unknown one."""
    job = context.ledger.find(name.strip())
    if job is None:
        raise RemoteError(ErrorKind.VALIDATION, f"There is no job {name.strip()!r} in the ledger. Give the id that the "
                          "remote node showed, its first 8 letters at least, or the provider's own id.")
    return job


def _hand_over(done: FinishedClip, num_frames: int, longer_clips: str, context: RemoteContext) -> tuple[Path, str]:
    """Return the file, cut to the frames asked for where that was chosen, and the report. Raises as _cut does."""
    path, frames = done.path, probe_video(done.path).frames
    if longer_clips == TRIM and frames > num_frames:
        shorter = path.with_name(f"{path.stem}_{num_frames}frames{path.suffix}")
        if not shorter.is_file():
            _cut(path, shorter, num_frames)
        path = shorter
    elif frames < num_frames:
        done = replace(done, changes=(*done.changes, f"The clip has {frames} frames; {num_frames} were asked for."))
    done = replace(done, path=path)
    context.show_text(_status_text(done))
    return path, json.dumps(_report(done), indent=1, ensure_ascii=False)


def _cut(path: Path, shorter: Path, num_frames: int) -> None:
    """Raises RequestError when the disk does not take the shorter clip; the whole one stays."""
    try:
        trim(path, lambda: shorter, 0, num_frames)
    except OSError as error:
        if shorter.is_file():  # another run of the same job was quicker
            return
        raise RequestError(f"{shorter} could not be written: {error.strerror or error}. The whole clip is in {path}. "
                           "Free space there, and run again: the clip is cut then, and nothing is bought.") from error


def _status_text(done: FinishedClip) -> str:
    job = done.job
    cost = "price not known" if job.price is None else f"${job.price:.3f}"
    return "\n".join((f"{PROVIDERS[job.provider].title}: done, {cost}, job {job.short_id}", *done.notes))


def _report(done: FinishedClip) -> dict[str, object]:
    """Return what became of a clip, for people and scripts: stable keys, no API key and no link."""
    job = done.job
    return {"job": job.id, "provider": job.provider, "model": job.model, "remote_id": job.remote_id,
            "seconds": round(job.updated - job.submitted, 1) if job.submitted else None,
            "price": {"usd": job.price, "source": job.price_source}, "asked": job.summary,
            "changed": list(done.changes), "settled": list(done.inferred), "file": done.path.name}
