"""A longer clip from providers: clips bought one after another, each going on from the last frame of the one before.

Each clip is a job of its own, bought once and resumed as any other. What stands for its first picture in the ledger is
the job before it, so that a run that was interrupted takes up the chain where it broke off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..request import ClipRequest, RequestError
from ..segments import Segment, check_segments, repeated_seeds
from .budget import Cost, check_limits
from .client import ProviderClient
from .context import RemoteContext
from .errors import ErrorKind, RemoteError
from .job import UNSENT, Job
from .lora_links import with_files
from .plan import TRIM, Plan
from .price import find_price, listed_cost, sample_body
from .providers import Target
from .request import Picture, check_request
from .run import FinishedClip, jobs_so_far, make_clip, plan_targets

LastFrame = Callable[[Path, int | None], Picture]
"""The last frame of a file, or of the part that so many frames at 16 a second fill, as a picture to upload."""


@dataclass(frozen=True)
class Chain:
    """The clips to buy, in order, and how."""

    targets: Sequence[Target]
    clips: Sequence[ClipRequest]
    last_picture: Picture | None = None
    """Picture that the last clip ends with."""
    longer_clips: str = TRIM
    """One of plan.LONGER_CLIPS."""
    strict: bool = False

    def plans(self, number: int, context: RemoteContext) -> list[Plan]:
        """Return the plan of a clip, by its index, for each target. Raises as plan_targets does, naming the clip."""
        with self.named(number):
            check_request(self.clips[number])
            return plan_targets(self.targets, self.clips[number], self.longer_clips, self.strict, context.find_lora,
                                self.ending(number) is not None)

    def ending(self, number: int) -> Picture | None:
        """Return the picture that a clip, by its index, ends with; None for none."""
        return self.last_picture if number + 1 == len(self.clips) else None

    @contextmanager
    def named(self, number: int) -> Iterator[None]:
        """Have errors on a clip, by its index, say which one it is; the first is the node's own."""
        try:
            yield
        except RemoteError as error:
            if number == 0:
                raise
            raise RemoteError(error.kind, f"Segment {number}: {error}", retry_after=error.retry_after) from error
        except RequestError as error:
            raise (error if number == 0 else RequestError(f"Segment {number}: {error}")) from error


def chain_clips(clip: ClipRequest, segments: Sequence[Segment]) -> list[ClipRequest]:
    """Return the requests of a chain: the first clip's, then one a segment, with the first one's size and settings.

    Raises RequestError for segments out of their ranges.
    """
    check_segments(segments)
    return [clip, *(replace(clip, prompt=segment.prompt, seed=segment.seed, num_frames=segment.num_frames,
                            loras=(*clip.loras, *segment.loras)) for segment in segments)]


def chain_notes(clip: ClipRequest, segments: Sequence[Segment]) -> tuple[str, ...]:
    """Return sentences on what the user may not expect of these segments."""
    notes = []
    if seeds := repeated_seeds([Segment(clip.prompt, clip.seed), *segments]):
        notes.append(f"More than one clip has the seed {', '.join(map(str, seeds))}: they may repeat the same motion.")
    if any(segment.new_shot for segment in segments):
        notes.append("new_shot has no effect at a provider: each clip begins with the last frame of the one before.")
    return tuple(notes)


async def make_chain(chain: Chain, picture: Picture, context: RemoteContext, last_frame: LastFrame,
                     ) -> list[FinishedClip]:
    """Make the clips in order and return them, after the price of all of them was checked against the limits.

    Raises as make_clip does; what was bought until then is found by the next run.
    """
    plans = [chain.plans(number, context) for number in range(len(chain.clips))]
    context.check_sending_allowed()
    done: list[FinishedClip] = []
    priced = ""
    for number, clip in enumerate(chain.clips):
        ending = chain.ending(number)
        pictures = (picture,) if ending is None else (picture, ending)
        jobs = [] if priced else await jobs_so_far(chain.targets, clip, pictures, context)
        if not priced and all(job.unsent for job in jobs):
            context.show_text(f"Asking for the price of {_count(len(chain.clips) - number)}.")
            targets, priced = await _affordable(chain, plans[number:], _with_paid(context, done), jobs)
            chain = replace(chain, targets=targets)
        place = f"Clip {number + 1} of {len(chain.clips)}. {priced}".strip()
        with chain.named(number):
            done.append(await make_clip(
                chain.targets, clip, picture, _with_paid(context.with_notes((place,)), done),
                last_picture=ending, longer_clips=chain.longer_clips, strict=chain.strict))
        if number + 1 < len(chain.clips):
            frames = clip.num_frames if chain.longer_clips == TRIM else None
            found = await asyncio.to_thread(last_frame, done[-1].path, frames)
            picture = replace(found, identity=f"frame {frames} of the clip {done[-1].job.id}".encode())
    return done


def _with_paid(context: RemoteContext, done: Sequence[FinishedClip]) -> RemoteContext:
    """Return the context with what the clips so far have cost counted: a fallback may be dearer than was reckoned."""
    return replace(context, limits=replace(context.limits, paid=sum(clip.job.price or 0.0 for clip in done)))


async def _affordable(chain: Chain, plans: Sequence[Sequence[Plan]], context: RemoteContext, unsent: Sequence[Job],
                      ) -> tuple[list[Target], str]:
    """Return the targets whose price for the rest of the chain keeps to the limits, and a sentence on the first one's.

    plans: of the clips still to buy, each for all targets. unsent: jobs of the first of them that a run left behind.
    Raises RemoteError (BUDGET) when no target is left.
    """
    left, sentence, refusal = [], "", None
    reserved = next((job.id for job in unsent if job.state not in UNSENT), "")  # its price counts as spent already
    for target, own in zip(chain.targets, zip(*plans, strict=True), strict=True):
        cost = sum_costs([await _cost(target, plan, context) for plan in own])
        try:
            check_limits(cost, context.ledger.spent(except_job=reserved), context.limits, context.settings().budget)
        except RemoteError as error:
            refusal = refusal or error
            continue
        left.append(target)
        sentence = sentence or f"{target.provider.title}, {_count(len(own))} to buy: {cost}."
    if not left:
        raise refusal or RemoteError(ErrorKind.VALIDATION, "There is no provider. Nothing was bought.")
    return left, sentence


def _count(clips: int) -> str:
    return "1 clip" if clips == 1 else f"{clips} clips"


async def _cost(target: Target, plan: Plan, context: RemoteContext) -> Cost:
    """Return the cost of a clip; by the list where the key is missing or refused, which its purchase will tell."""
    provider = target.provider
    with suppress(RemoteError):
        key = context.keys.of(provider.name, provider.title, provider.variables, target.profile)
        client = ProviderClient(provider, key, context.policy, replace(context.timeouts, attempts=2), context.wait)
        found = await with_files(plan, context.policy, context.wait)
        return await find_price(found, sample_body(found, client), client, context.settings())
    return listed_cost(plan, context.settings())


def sum_costs(costs: Sequence[Cost]) -> Cost:
    """Return the cost of several clips: not known if one is not, and with a range if one has only estimates."""
    if any(cost.usd is None for cost in costs):
        return Cost(None, clips=len(costs))
    usd = sum(cost.usd for cost in costs)
    lowest = sum(cost.usd if cost.lowest is None else cost.lowest for cost in costs)
    sources = "; ".join(dict.fromkeys(cost.source for cost in costs))
    return Cost(usd, sources, lowest if any(cost.lowest is not None for cost in costs) else None, len(costs))
