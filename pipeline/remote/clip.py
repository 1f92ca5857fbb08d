"""Remote clips as the nodes see them: a picture goes in, the file of the clip and a report come out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..http.threads import in_own_loop
from ..request import FPS, ClipRequest, RequestError, check_image
from ..segments import Segment
from ..video.join_files import join_files, last_frame
from ..video.picture import encode_picture
from ..video.probe import probe_video
from ..video.trim import trim
from .bill import BILLED
from .chain import Chain, chain_clips, chain_notes, make_chain
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
    last = _last_picture(last_image)
    work = make_clip(targets, clip, picture, context, last_picture=last, longer_clips=longer_clips, strict=strict)
    done = await in_own_loop(work, context.abandoned)
    return await asyncio.to_thread(_hand_over, done, clip.num_frames, longer_clips, context)


async def remote_chain(image: torch.Tensor, clip: ClipRequest, segments: Sequence[Segment], targets: Sequence[Target],
                       context: RemoteContext, *, longer_clips: str, strict: bool,
                       last_image: torch.Tensor | None = None) -> tuple[Path, str]:
    """Make a clip and go on from its last frame, segment by segment; return the file of the whole and a report in JSON.

    The arguments are those of remote_clip; last_image is for the end of the whole. Raises as make_chain does, and
    RequestError when the whole cannot be written; its parts stay.
    """
    check_image(image)
    last = _last_picture(last_image)
    context = context.with_notes(chain_notes(clip, segments))
    chain = Chain(targets, chain_clips(clip, segments), last, longer_clips, strict)
    work = make_chain(chain, Picture(*encode_picture(image)), context, _last_frame)
    done = await in_own_loop(work, context.abandoned)
    return await asyncio.to_thread(_hand_over_chain, done, chain, context)


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


def _last_picture(image: torch.Tensor | None) -> Picture | None:
    if image is None:
        return None
    check_image(image, "last_image")
    return Picture(*encode_picture(image))


def _last_frame(path: Path, num_frames: int | None) -> Picture:
    frames = None if num_frames is None else frames_at(num_frames, probe_video(path).rate)
    return Picture(*encode_picture(last_frame(path, frames)))


def frames_at(num_frames: int, rate: Fraction) -> int:
    """Return how many frames of a file show what so many do at 16 a second: more where a provider put some between."""
    return round((num_frames - 1) * rate / FPS) + 1 if rate else num_frames


def _hand_over_chain(done: Sequence[FinishedClip], chain: Chain, context: RemoteContext) -> tuple[Path, str]:
    """Return the file of a whole chain, and the report. Raises RequestError when it cannot be written."""
    parts = [_hand_over(clip, asked.num_frames, chain.longer_clips, context)
             for clip, asked in zip(done, chain.clips, strict=True)]
    paths = [path for path, _ in parts]
    name = hashlib.sha256("\0".join(path.name for path in paths).encode()).hexdigest()[:8]
    whole = context.results / f"chain_{name}.mp4"
    if not whole.is_file():
        join_files(paths, whole, context.show_text, context.check_wanted)
    prices = [clip.job.price for clip in done]
    usd = None if None in prices else round(sum(prices), 4)
    lines = [f"{len(done)} clips, {'price not known' if usd is None else f'about ${usd:.3f}'}",
             *dict.fromkeys(note for clip in done for note in clip.notes)]
    context.show_text("\n".join(lines))
    report = {"segments": [json.loads(report) for _, report in parts], "file": whole.name,
              "price": {"usd": usd, "source": "the sum of the clips"}}
    return whole, json.dumps(report, indent=1, ensure_ascii=False)


def _hand_over(done: FinishedClip, num_frames: int, longer_clips: str, context: RemoteContext) -> tuple[Path, str]:
    """Return the file, cut to the frames asked for where that was chosen, and the report. Raises as _cut does."""
    path, facts = done.path, probe_video(done.path)
    wanted = frames_at(num_frames, facts.rate)
    if longer_clips == TRIM and facts.frames > wanted:
        shorter = path.with_name(f"{path.stem}_{wanted}frames{path.suffix}")
        if not shorter.is_file():
            _cut(path, shorter, wanted)
        path = shorter
    elif facts.frames < wanted:
        done = replace(done, changes=(*done.changes, f"The clip has {facts.frames} frames; {wanted} were asked for."))
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
    cost = "price not known" if job.price is None else f"{_about(job)}${job.price:.3f}"
    return "\n".join((f"{PROVIDERS[job.provider].title}: done, {cost}, job {job.short_id}", *done.notes))


def _about(job: Job) -> str:
    """Return what goes before a price that is an estimate."""
    return "" if job.price_source.startswith((BILLED, "quoted")) else "about "


def _report(done: FinishedClip) -> dict[str, object]:
    """Return what became of a clip, for people and scripts: stable keys, no API key and no link."""
    job = done.job
    return {"job": job.id, "provider": job.provider, "model": job.model, "remote_id": job.remote_id,
            "seconds": round(job.updated - job.submitted, 1) if job.submitted else None,
            "price": {"usd": job.price, "source": job.price_source}, "asked": job.summary,
            "changed": list(done.changes), "settled": list(done.inferred), "file": done.path.name}
