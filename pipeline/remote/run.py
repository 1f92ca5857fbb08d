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
from ..request import ClipRequest
from .client import Client
from .context import Desk
from .errors import ELSEWHERE, Kind, NotAcceptedError, RemoteError
from .job import OVER, UNSENT, Job, State
from .plan import Plan, RemoteModel, plan_clip
from .poll import follow
from .provider import Adapter
from .providers import ADAPTERS
from .request import check_request, request_digest
from .submit import buy, search

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
class Target:
    """A provider's model, and whose key to use for it."""

    adapter: Adapter
    model: RemoteModel
    profile: str


@dataclass(frozen=True)
class Delivery:
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
            check_strict(target.adapter, tuple(plan.changed.values()))
    return plans


def check_strict(adapter: Adapter, notes: Sequence[str]) -> None:
    """Raise RemoteError (VALIDATION) when there is anything that would be ignored or changed."""
    if notes:
        raise RemoteError(Kind.VALIDATION, f"strict is on, and {adapter.title} would not do all that is asked: "
                          f"{' '.join(notes)} Nothing was sent.")


async def make_clip(targets: Sequence[Target], clip: ClipRequest, picture: Picture, desk: Desk, *,
                    frames: str = "trim", strict: bool = False) -> Delivery:
    """Have the clip made by the first target that takes it; by the others only when the ones before provably did not.

    A job of the same request and picture at one of the targets that is under way or finished is taken up instead.
    Raises RequestError or RemoteError with a sentence for the user, and what desk.stop raises.
    """
    check_request(clip)
    plans = plans_for(targets, clip, frames, strict, desk.find_lora)
    desk.check_allowed()
    digest = request_digest(clip, picture.data)
    offers = list(zip(targets, plans, strict=True))
    known = desk.ledger.known(digest, [(target.adapter.name, plan.model_name) for target, plan in offers])
    if known is not None:  # whoever has it goes first
        offers.sort(key=lambda offer: (offer[0].adapter.name, offer[1].model_name) != (known.provider, known.model))
    for number, (target, plan) in enumerate(offers):
        try:
            return await _at(target, plan, digest, picture, frames, desk)
        except NotAcceptedError as error:
            if error.kind not in ELSEWHERE or number + 1 == len(offers):
                raise
            desk.say(f"{error} Asking {offers[number + 1][0].adapter.title} instead.")
    raise AssertionError("there is always a target")


async def _at(target: Target, plan: Plan, digest: str, picture: Picture, frames: str, desk: Desk) -> Delivery:
    adapter, clip = target.adapter, plan.clip
    desk = desk.noting(plan.notes)
    summary = {"prompt": clip.prompt, "negative_prompt": clip.negative_prompt, "resolution": clip.resolution,
               "num_frames": clip.num_frames, "num_inference_steps": clip.num_inference_steps,
               "guidance_scale": clip.guidance_scale, "seed": clip.seed, "longer_clips": frames,
               "loras": [{"source": redact(link), "scale": scale, "expert": expert}
                         for link, scale, expert in plan.loras]}
    wanted = Job("", adapter.name, plan.model_name, target.profile, digest, summary=summary)
    while True:
        job = desk.ledger.claim(wanted)
        async with _driving(job, desk):
            job = desk.ledger.get(job.id)
            if job.state in OVER:
                continue  # whoever drove it before has failed
            desk.drives(job.id, True)
            unbought = job.state in UNSENT or (job.state == State.SUBMITTING and not job.sent)
            if unbought:  # another account would not know a job that was bought before
                job = desk.ledger.update(job, profile=target.profile, summary=summary)
            client = _client(adapter, desk, job)
            most = desk.settings().concurrent.get(adapter.name, adapter.concurrent)
            async with slot(adapter.name, job.profile, most, desk.wait):
                if unbought:
                    job = await buy(job, plan, picture.data, picture.content_type, client, desk)
                done = await _finish(job, client, desk)
                return replace(done, changed=tuple(plan.changed.values()), settled=plan.settled)


async def resume(job: Job, adapter: Adapter, desk: Desk) -> Delivery:
    """Go on with a job of the ledger: wait for it, or fetch it again. Raises as make_clip does."""
    desk.check_allowed()
    async with _driving(job, desk):
        job = desk.ledger.get(job.id)
        desk.drives(job.id, False)
        if job.remote_id and job.state in (State.TIMED_OUT, State.LOST, State.FAILED, State.CANCELED):
            job = desk.ledger.reopen(job, state=State.RUNNING, error="", error_kind="")
        if not job.remote_id and not job.sent:
            raise RemoteError(Kind.LOST, f"The job {job.short_id} never reached {adapter.title}: there is nothing to "
                              "resume. Queue its workflow again.")
        return await _finish(job, _client(adapter, desk, job), desk)


async def _finish(job: Job, client: Client, desk: Desk) -> Delivery:
    if job.state == State.SUBMITTING:  # the program ended between the request and its answer
        job = desk.ledger.update(job, state=State.SUBMIT_UNKNOWN)
    if job.state == State.SUBMIT_UNKNOWN:
        job = await search(job, client, desk)
    job = await follow(job, client, desk)
    return Delivery(job, Path(job.result))


def _client(adapter: Adapter, desk: Desk, job: Job) -> Client:
    try:
        key = desk.keys.of(adapter.name, adapter.title, adapter.variables, job.profile)
    except RemoteError as error:
        if job.state not in UNSENT:
            raise
        desk.ledger.update(job, state=State.FAILED, error_kind=error.kind.value, error=str(error))
        raise NotAcceptedError(error) from None
    return Client(adapter, key, desk.policy, desk.patience, desk.wait)


@asynccontextmanager
async def _driving(job: Job, desk: Desk):
    """Be the only one, in this process and others, who drives the job."""
    lock = desk.ledger.driver(job)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            desk.say(f"Another run drives the job {job.short_id}; waiting for it.")
            await desk.wait(0.5)
    try:
        yield
    finally:
        lock.release()


def report(delivery: Delivery, adapter: Adapter) -> dict[str, object]:
    """What became of a clip, for people and scripts; holds no key and no link."""
    job = delivery.job
    return {"job": job.id, "provider": adapter.name, "model": job.model, "remote_id": job.remote_id,
            "seconds": round(job.updated - job.submitted, 1) if job.submitted else None,
            "price": {"usd": job.price, "source": job.price_source}, "asked": job.summary,
            "changed": list(delivery.changed), "settled": list(delivery.settled), "file": delivery.path.name}


@dataclass(frozen=True)
class Offer:
    """A provider's model and whose key to use: what a WAN22_PROVIDERS socket carries a tuple of."""

    provider: str
    """Its title, as the nodes show it."""
    model: str
    profile: str


def target_of(offer: Offer) -> Target:
    """What an offer names. Raises RemoteError (VALIDATION) for a name that nobody has."""
    adapter = next((adapter for adapter in ADAPTERS.values() if adapter.title == offer.provider), None)
    model = adapter and next((model for model in adapter.models if model.id == offer.model), None)
    if adapter is None or model is None:
        known = [model.id for model in adapter.models] if adapter else [a.title for a in ADAPTERS.values()]
        raise RemoteError(Kind.VALIDATION, f"{offer.model if adapter else offer.provider!r} is not known; choose one "
                          f"of {', '.join(known)}.")
    return Target(adapter, model, offer.profile)
