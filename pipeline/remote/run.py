"""A provider's model as a node names it.

One clip from a provider, from the request to the file: bought at most once, whatever happens on the way.

How many jobs of a provider this process has under way, so that an account's limit is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

from ..http.errors import redact
from .client import ProviderClient
from .context import RemoteContext
from .errors import FALLBACK_KINDS, ErrorKind, NotAcceptedError, RemoteError
from .job import OVER, UNSENT, Job, JobState
from .plan import Plan, plan_clip
from .poll import poll_job
from .provider import Provider
from .providers import Target
from .request import ClipRequest
from .submit import search, submit

LOOK = 0.5
"""Seconds between two looks for a free slot."""
_taken: Counter[tuple[str, str]] = Counter()
_lock = threading.Lock()


def _take(account: tuple[str, str], most: int) -> bool:
    with _lock:
        if _taken[account] >= most:
            return False
        _taken[account] += 1
        return True


@asynccontextmanager
async def slot(provider: str, profile: str, most: int, wait: Callable[[float], Awaitable[None]]) -> AsyncIterator[None]:
    """Wait for one of `most` slots of an account, and hold it. Not an asyncio.Semaphore: every prompt of ComfyUI has
    an event loop of its own."""
    account = (provider, profile)
    while not _take(account, most):
        await wait(LOOK)
    try:
        yield
    finally:
        with _lock:
            _taken[account] -= 1


@dataclass(frozen=True)
class Picture:
    """The picture as it is uploaded: a JPEG or PNG file without metadata."""

    data: bytes
    content_type: str


@dataclass(frozen=True)
class FinishedClip:
    """A finished clip."""

    job: Job
    path: Path
    changed: tuple[str, ...] = ()
    """Sentences on what was ignored or changed."""
    settled: tuple[str, ...] = ()
    """Sentences on what was settled by a name alone."""

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.changed, *self.settled)


def plans_for(targets: Sequence[Target], clip: ClipRequest, frames: str, strict: bool,
              find_lora: Callable[[str], Path | None]) -> list[Plan]:
    """What each target would be asked. Raises RemoteError when one cannot, or when `strict` and something is changed.

    `frames` is one of plan.FRAME_CHOICES; find_lora as Desk has it.
    """
    plans = [plan_clip(target.model, clip, frames, find_lora) for target in targets]
    for target, plan in zip(targets, plans, strict=True):
        if strict:
            check_strict(target.provider, tuple(plan.changed.values()))
    return plans


def check_strict(provider: Provider, notes: Sequence[str]) -> None:
    """Raise RemoteError (VALIDATION) when there is anything that would be ignored or changed."""
    if notes:
        raise RemoteError(ErrorKind.VALIDATION, f"strict is on, and {provider.title} would not do all that is asked: "
                          f"{' '.join(notes)} Nothing was sent.")


async def make_clip(targets: Sequence[Target], clip: ClipRequest, picture: Picture, context: RemoteContext, *,
                    frames: str = "trim", strict: bool = False) -> FinishedClip:
    """Have the clip made by the first target that takes it; by the others only when the ones before provably did not.

    A job of the same request and picture at one of the targets that is under way or finished is taken up instead.
    Raises RequestError or RemoteError with a sentence for the user, and what desk.stop raises.
    """
    clip.check()
    plans = plans_for(targets, clip, frames, strict, context.find_lora)
    context.check_allowed()
    digest = clip.digest(picture.data)
    offers = list(zip(targets, plans, strict=True))
    known = context.ledger.known(digest, [(target.provider.name, plan.model_name) for target, plan in offers])
    if known is not None:  # whoever has it goes first
        offers.sort(key=lambda offer: (offer[0].provider.name, offer[1].model_name) != (known.provider, known.model))
    for number, (target, plan) in enumerate(offers):
        try:
            return await _at(target, plan, digest, picture, frames, context)
        except NotAcceptedError as error:
            if error.kind not in FALLBACK_KINDS or number + 1 == len(offers):
                raise
            context.say(f"{error} Asking {offers[number + 1][0].provider.title} instead.")
    raise AssertionError("there is always a target")


async def _at(target: Target, plan: Plan, digest: str, picture: Picture, frames: str, context: RemoteContext) -> FinishedClip:
    provider, clip = target.provider, plan.clip
    context = context.noting(plan.notes)
    summary = {"prompt": clip.prompt, "negative_prompt": clip.negative_prompt, "resolution": clip.resolution,
               "num_frames": clip.num_frames, "num_inference_steps": clip.num_inference_steps,
               "guidance_scale": clip.guidance_scale, "seed": clip.seed, "longer_clips": frames,
               "loras": [{"source": redact(link), "scale": scale, "expert": expert}
                         for link, scale, expert in plan.loras]}
    wanted = Job("", provider.name, plan.model_name, target.profile, digest, summary=summary)
    while True:
        job = context.ledger.claim(wanted)
        async with _driving(job, context):
            job = context.ledger.get(job.id)
            if job.state in OVER:
                continue  # whoever drove it before has failed
            context.drives(job.id, True)
            unbought = job.state in UNSENT or (job.state == JobState.SUBMITTING and not job.sent)
            if unbought:  # another account would not know a job that was bought before
                job = context.ledger.update(job, profile=target.profile, summary=summary)
            client = _client(provider, context, job)
            most = context.settings().concurrent.get(provider.name, provider.concurrent)
            async with slot(provider.name, job.profile, most, context.wait):
                if unbought:
                    job = await submit(job, plan, picture.data, picture.content_type, client, context)
                done = await _finish(job, client, context)
                return replace(done, changed=tuple(plan.changed.values()), settled=plan.settled)


async def resume(job: Job, provider: Provider, context: RemoteContext) -> FinishedClip:
    """Go on with a job of the ledger: wait for it, or fetch it again. Raises as make_clip does."""
    context.check_allowed()
    async with _driving(job, context):
        job = context.ledger.get(job.id)
        context.drives(job.id, False)
        if job.remote_id and job.state in (JobState.TIMED_OUT, JobState.LOST, JobState.FAILED, JobState.CANCELED):
            job = context.ledger.reopen(job, state=JobState.RUNNING, error="", error_kind="")
        if not job.remote_id and not job.sent:
            raise RemoteError(ErrorKind.LOST, f"The job {job.short_id} never reached {provider.title}: there is nothing to "
                              "resume. Queue its workflow again.")
        return await _finish(job, _client(provider, context, job), context)


async def _finish(job: Job, client: ProviderClient, context: RemoteContext) -> FinishedClip:
    if job.state == JobState.SUBMITTING:  # the program ended between the request and its answer
        job = context.ledger.update(job, state=JobState.SUBMIT_UNKNOWN)
    if job.state == JobState.SUBMIT_UNKNOWN:
        job = await search(job, client, context)
    job = await poll_job(job, client, context)
    return FinishedClip(job, Path(job.result))


def _client(provider: Provider, context: RemoteContext, job: Job) -> ProviderClient:
    try:
        key = context.keys.of(provider.name, provider.title, provider.variables, job.profile)
    except RemoteError as error:
        if job.state not in UNSENT:
            raise
        context.ledger.update(job, state=JobState.FAILED, error_kind=error.kind.value, error=str(error))
        raise NotAcceptedError(error) from None
    return ProviderClient(provider, key, context.policy, context.patience, context.wait)


@asynccontextmanager
async def _driving(job: Job, context: RemoteContext):
    """Be the only one, in this process and others, who drives the job."""
    lock = context.ledger.driver(job)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            context.say(f"Another run drives the job {job.short_id}; waiting for it.")
            await context.wait(0.5)
    try:
        yield
    finally:
        lock.release()


def report(delivery: FinishedClip, provider: Provider) -> dict[str, object]:
    """What became of a clip, for people and scripts; holds no key and no link."""
    job = delivery.job
    return {"job": job.id, "provider": provider.name, "model": job.model, "remote_id": job.remote_id,
            "seconds": round(job.updated - job.submitted, 1) if job.submitted else None,
            "price": {"usd": job.price, "source": job.price_source}, "asked": job.summary,
            "changed": list(delivery.changed), "settled": list(delivery.settled), "file": delivery.path.name}
