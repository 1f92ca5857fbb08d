"""Make one clip at a provider, from the request to the file: paid at most once, whatever happens on the way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from filelock import Timeout

from ..http.errors import DownloadError, redact
from ..http.threads import in_thread
from ..request import ClipRequest, RequestError
from .client import ProviderClient, open_client
from .context import RemoteContext
from .errors import FALLBACK_KINDS, ErrorKind, NotAcceptedError, RemoteError
from .job import OVER, UNSENT, Job, JobState
from .lora_hash import file_sha256
from .plan import TRIM, FindLora, Plan, plan_clip, sent_loras
from .poll import poll_job
from .price import full_body
from .provider import Provider
from .providers import Target
from .request import Picture, check_request, request_digest
from .settings import Settings
from .submit import recover_submit, submit_job

LOOK = 0.5
"""Seconds between two looks for a lock or a free slot."""


@dataclass(frozen=True)
class FinishedClip:
    """A clip on the disk, and how it differs from the request."""

    job: Job
    path: Path
    changes: tuple[str, ...] = ()
    """Sentences on what was ignored or changed."""
    inferred: tuple[str, ...] = ()
    """Sentences on experts that were inferred from a LoRA's file name."""

    @property
    def notes(self) -> tuple[str, ...]:
        """All sentences for the user."""
        return (*self.changes, *self.inferred)


async def make_clip(targets: Sequence[Target], clip: ClipRequest, picture: Picture, context: RemoteContext, *,
                    last_picture: Picture | None = None, longer_clips: str = TRIM, strict: bool = False,
                    ) -> FinishedClip:
    """Make the clip at the first target that accepts it; the next is asked only when the one before provably did not.

    A job of the same request and picture at one of the targets that is under way or finished is continued instead.
    Raises RequestError or RemoteError with a sentence for the user, and what context.stop raises.
    """
    check_request(clip)
    plans = plan_targets(targets, clip, longer_clips, strict, context.find_lora, last_picture is not None)
    context.check_sending_allowed()
    pictures = (picture,) if last_picture is None else (picture, last_picture)
    hashes = await _lora_hashes(clip, context)
    planned = [(target, plan, _digest(clip, pictures, target, hashes))
               for target, plan in zip(targets, plans, strict=True)]

    def rank(target: Target, plan: Plan, digest: str) -> int:
        job = context.ledger.reusable(digest, [(target.provider.name, plan.model_name)])
        return 2 if job is None else int(job.state != JobState.DONE)

    planned.sort(key=lambda entry: rank(*entry))  # a clip that there is already goes first, then a job under way
    for number, (target, plan, digest) in enumerate(planned):
        try:
            return await _make_at(target, plan, digest, pictures, longer_clips, context)
        except RemoteError as error:
            if number + 1 == len(planned) or not _may_ask_next(error, target.provider):
                raise
            context.show_text(f"{error} Asking {planned[number + 1][0].provider.title} instead.")
    raise AssertionError("there is always a target")


def _may_ask_next(error: RemoteError, provider: Provider) -> bool:
    """Return whether another provider may be asked: nothing was bought, and the request is allowed.

    A job at a server of the user's own costs nothing, so that one which may be under way there is no hindrance.
    """
    if provider.own_server:
        return error.kind in (*FALLBACK_KINDS, ErrorKind.LOST, ErrorKind.SUBMIT_UNKNOWN)
    return isinstance(error, NotAcceptedError) and error.kind in FALLBACK_KINDS


async def _lora_hashes(clip: ClipRequest, context: RemoteContext) -> dict[str, str]:
    """Return source -> SHA-256 of the LoRAs that are files of this machine. Raises RequestError for an unread one."""
    files = {lora.source: path for lora in sent_loras(clip.loras)
             if (path := context.find_lora(lora.source)) is not None}
    try:
        return {source: await in_thread(partial(file_sha256, path), context.wait) for source, path in files.items()}
    except OSError as error:
        raise RequestError(f"The LoRA {error.filename} cannot be read: {error.strerror or error}. Choose another "
                           "file.") from error


def _digest(clip: ClipRequest, pictures: Sequence[Picture], target: Target, lora_hashes: Mapping[str, str]) -> str:
    return request_digest(clip, *(picture.mark for picture in pictures), options=target.options,
                          lora_files=lora_hashes)


async def jobs_so_far(targets: Sequence[Target], clip: ClipRequest, pictures: Sequence[Picture],
                      context: RemoteContext) -> list[Job]:
    """Return the jobs that make_clip would go on with, at most one a target; some may never have been sent.

    pictures: the first and perhaps the last.
    """
    hashes = await _lora_hashes(clip, context)
    found = (context.ledger.reusable(_digest(clip, pictures, target, hashes),
                                     [(target.provider.name, target.model.name(clip.resolution))])
             for target in targets)
    return [job for job in found if job is not None]


def plan_targets(targets: Sequence[Target], clip: ClipRequest, longer_clips: str, strict: bool,
                 find_lora: FindLora, last_image: bool = False) -> list[Plan]:
    """Return the plan for each target. Raises RemoteError when one cannot do it, or with `strict` would change it.

    longer_clips: one of plan.LONGER_CLIPS. last_image: whether a picture is given that the clip is to end with.
    """
    plans = [replace(plan_clip(target.model, clip, longer_clips, find_lora, last_image), options=target.options)
             for target in targets]
    for target, plan in zip(targets, plans, strict=True):
        full_body(target.provider, plan, "")  # its errors come before anything is sent
        if strict:
            check_strict(target.provider, tuple(plan.changes.values()))
    return plans


def check_strict(provider: Provider, changes: Sequence[str]) -> None:
    """Raise RemoteError (VALIDATION) when anything would be ignored or changed."""
    if changes:
        raise RemoteError(ErrorKind.VALIDATION, f"strict is on, and {provider.title} would not honour the whole "
                          f"request: {' '.join(changes)} Nothing was sent.")


async def _make_at(target: Target, plan: Plan, digest: str, pictures: Sequence[Picture], longer_clips: str,
                   context: RemoteContext) -> FinishedClip:
    provider = target.provider
    context = context.with_notes((*plan.notes, *_proxy_note(provider, context)))
    summary = _summary(plan, longer_clips)
    wanted = Job("", provider.name, plan.model_name, target.profile, digest, summary=summary)
    while True:
        job = context.ledger.get_or_create(wanted)
        async with _locked(job, context):
            job = context.ledger.get(job.id)
            if job.state in OVER:
                continue  # the run that had the lock before has failed
            context.record_run(job.id, True)
            unsent = job.unsent
            if unsent and not job.sent:  # once it is sent, another profile's account would not know it
                job = context.ledger.update(job, profile=target.profile, summary=summary)
            settings = context.settings()
            client = _client(provider, context, job, settings)
            most = settings.concurrent.get(provider.name, provider.concurrent)
            async with account_slot(provider.name, job.profile, most, context.wait):
                if unsent or (provider.idempotent and not job.remote_id):
                    job = await submit_job(job, plan, pictures, client, context)
                done = await _finish(job, client, context)
                return replace(done, changes=(*plan.changes.values(), *done.changes), inferred=plan.inferred)


def _summary(plan: Plan, longer_clips: str) -> dict[str, object]:
    """Return Job.summary; its keys are stored and shown to scripts."""
    clip = plan.clip
    return {"prompt": clip.prompt, "negative_prompt": clip.negative_prompt, "resolution": clip.resolution,
            "num_frames": clip.num_frames, "num_inference_steps": clip.num_inference_steps,
            "guidance_scale": clip.guidance_scale, "seed": clip.seed, "longer_clips": longer_clips,
            "loras": [{"source": redact(link), "scale": scale, "expert": expert}
                      for link, scale, expert in plan.loras]}


async def resume(job: Job, provider: Provider, context: RemoteContext) -> FinishedClip:
    """Continue a job of the ledger: wait for it, or download it again. Raises as make_clip does."""
    context.check_sending_allowed()
    context = context.with_notes(_proxy_note(provider, context))
    async with _locked(job, context):
        job = context.ledger.get(job.id)
        context.record_run(job.id, False)
        if job.remote_id and job.state in (*OVER, JobState.TIMED_OUT):
            job = context.ledger.reopen(job, state=JobState.RUNNING, error="", error_kind="", **job.estimate())
        if not job.remote_id and not job.sent:
            raise RemoteError(ErrorKind.LOST, f"The job {job.short_id} never reached {provider.title}: there is "
                              "nothing to resume. Queue its workflow again.")
        return await _finish(job, _client(provider, context, job, context.settings()), context)


def _proxy_note(provider: Provider, context: RemoteContext) -> tuple[str, ...]:
    """Return a sentence on the proxy that the provider is reached through; none without one."""
    with suppress(DownloadError, RemoteError):  # the first request raises it, with its sentence
        if provider.own_server:
            return ()  # no proxy stands before it
        if proxy := context.policy.through_proxy(provider.origins[0]):
            return (f"All requests go{proxy}.",)
    return ()


async def _finish(job: Job, client: ProviderClient, context: RemoteContext) -> FinishedClip:
    if job.state == JobState.SUBMITTING:  # the program ended between the request and its reply
        job = context.ledger.update(job, state=JobState.SUBMIT_UNKNOWN)
    if job.state == JobState.SUBMIT_UNKNOWN:
        job = await recover_submit(job, client, context)
    job = await poll_job(job, client, context)
    return FinishedClip(job, Path(job.result), tuple(job.summary.get("warnings", ())))


def _client(provider: Provider, context: RemoteContext, job: Job, settings: Settings) -> ProviderClient:
    try:
        return open_client(provider, job.profile, settings, context.keys, context.policy, context.timeouts,
                           context.wait)
    except RemoteError as error:
        if job.state not in UNSENT:
            raise
        context.ledger.update(job, state=JobState.FAILED, error_kind=error.kind.value, error=str(error))
        raise NotAcceptedError(error) from None


@asynccontextmanager
async def _locked(job: Job, context: RemoteContext) -> AsyncIterator[None]:
    """Hold the job's lock, so that one run alone, in this process and others, works on it."""
    lock = context.ledger.lock(job)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            context.show_text(f"Another run is working on the job {job.short_id}; waiting for it.")
            await context.wait(LOOK)
    try:
        yield
    finally:
        lock.release()


_slots_taken: Counter[tuple[str, str]] = Counter()
_slots_lock = threading.Lock()


@asynccontextmanager
async def account_slot(provider: str, profile: str, most: int, wait: Callable[[float], Awaitable[None]],
                       ) -> AsyncIterator[None]:
    """Wait for one of `most` slots of an account, and hold it.

    Not an asyncio.Semaphore: every prompt of ComfyUI has an event loop of its own.
    """
    account = (provider, profile)
    while not _take_slot(account, most):
        await wait(LOOK)
    try:
        yield
    finally:
        with _slots_lock:
            _slots_taken[account] -= 1


def _take_slot(account: tuple[str, str], most: int) -> bool:
    with _slots_lock:
        if _slots_taken[account] >= most:
            return False
        _slots_taken[account] += 1
        return True
