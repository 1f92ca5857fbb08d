"""Mutated answers of the providers' APIs: each must give a typed error with a sentence, or a state that is known.

usage: odd_answers.py [--cases 20000] [--seed 1]

Real answers (tests/remote/test_recorded_replies.py) and published ones (tests/support/providers/published.py) are
changed in one to three places: a part is missing, null, of another type, doubled or renamed, an error stands in a good
answer, the status is another, or the body is no JSON. Every flow of every adapter (poll, upload, price, schema,
history, submit) is given them. A case fails when anything but RemoteError comes out, when an error has no sentence of
the adapter's, when a number of a price is not finite, or when a flow asks on for more than ten requests. 0 fails the
run.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.remote.api import Reply  # noqa: E402
from pipeline.remote.errors import RemoteError  # noqa: E402
from pipeline.remote.job import OVER, JobState  # noqa: E402
from pipeline.remote.plan import TRIM, plan_clip  # noqa: E402
from pipeline.remote.provider import JobStatus, Provider, RequestFlow  # noqa: E402
from pipeline.remote.providers import PROVIDERS  # noqa: E402
from pipeline.request import ClipRequest  # noqa: E402
from tests.remote.test_odd_answers import check_sentence  # noqa: E402
from tests.remote.test_recorded_replies import DONE, POLLS, REFUSALS, SUBMITTED  # noqa: E402
from tests.support.providers.published import PUBLISHED  # noqa: E402

ODD = (None, True, -1, 0, 1e308, "", "x", "9" * 30, [], {}, [None], {"x": 1}, "<b>", "https://a.example/x", [[[]]])
STATUSES = (200, 200, 200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 408, 409, 410, 413, 418, 422, 425, 429, 451,
            499, 500, 502, 503, 504, 522, 599)
HEADERS = ({}, {"retry-after": "x"}, {"retry-after": "-5"}, {"x-fal-retryable": "true"}, {"x-fal-retryable": "maybe"},
           {"x-fal-request-id": "1"}, {"x-fal-error-type": "runner_disconnected"})
LONGEST_FLOW = 10


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(value: Any, random_: random.Random) -> Any:
    """Return the value with one part changed."""
    value = copy.deepcopy(value)
    path = random_.choice(list(places(value)))
    if not path:
        return random_.choice(ODD)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    change, key = random_.choice(("missing", "odd", "odd", "doubled", "renamed", "error")), path[-1]
    if change == "missing":
        del parent[key]
    elif change == "odd":
        parent[key] = random_.choice(ODD)
    elif change == "doubled":
        parent[key] = [parent[key], parent[key]]
    elif change == "renamed" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    else:
        parent[key] = {"error": {"message": "It went wrong.", "code": random_.choice(ODD)}}
    return value


def reply_of(base: Any, random_: random.Random) -> Reply:
    """Return an answer: the base with up to three changes, under some status and headers, rarely no JSON at all."""
    for _ in range(random_.choice((0, 1, 1, 2, 3))):
        base = mutated(base, random_)
    body = json.dumps(base).encode()
    kind = random_.random()
    if kind < 0.05:
        body = random_.choice((b"", b"<html>502</html>", body[:len(body) // 2], b"\xff\xfe", b"null", b"[" * 2000))
    status = 200 if random_.random() < 0.6 else random_.choice(STATUSES)
    return Reply(status, random_.choice(HEADERS), body)


def flows(provider: Provider) -> dict[str, RequestFlow[Any]]:
    """Return every flow of an adapter, not begun."""
    plan = plan_clip(provider.models[-1], ClipRequest("a ball", num_frames=81), TRIM)
    return {"poll": provider.poll("m", "id"), "upload": provider.upload(b"x", "image/png"),
            "price": provider.price(plan, {}), "fields": provider.fields("m"), "history": provider.history("m", 0.0)}


def run(provider: Provider, flow: RequestFlow[Any], bases: list[Any], random_: random.Random) -> str:
    """Give a flow mutated answers; return what came of it. Raises AssertionError for what never may."""
    try:
        request = next(flow)
        for _ in range(LONGEST_FLOW):
            reply = reply_of(random_.choice(bases), random_)
            refusal = None if (request.is_answer(reply) or (not request.json_answer and reply.good)
                               ) else provider.refusal(reply)
            if refusal is not None:
                check_sentence(provider, refusal)
                request = flow.throw(refusal)
            else:
                request = flow.send(reply)
        raise AssertionError("it asks on for ever")
    except StopIteration as end:
        check_value(end.value)
        return end.value.state.value if isinstance(end.value, JobStatus) else "value"
    except RemoteError as error:
        check_sentence(provider, error)
        return error.kind.value


def check_value(value: Any) -> None:
    """Raise AssertionError for a result that the rest cannot rely on."""
    if isinstance(value, JobStatus):
        assert value.price is None or math.isfinite(value.price)
        assert value.price is None or value.price > 0 or value.unbilled or value.state not in OVER
        assert isinstance(value.message, str) and isinstance(value.url, str)
        assert value.state != JobState.DOWNLOADING or value.url, "finished, and no clip"
    elif isinstance(value, float):
        assert math.isfinite(value) and value > 0


def submit(provider: Provider, bases: list[Any], random_: random.Random) -> str:
    """Read a mutated answer to the paid request."""
    reply = reply_of(random_.choice(bases), random_)
    refusal = provider.refusal(reply)
    if refusal is not None:
        check_sentence(provider, refusal)
        return refusal.kind.value
    try:
        assert provider.accepted(reply)
        return "accepted"
    except RemoteError as error:
        check_sentence(provider, error)
        return error.kind.value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random_, failed = random.Random(options.seed), 0
    counts: dict[str, Counter[str]] = {name: Counter() for name in PROVIDERS}
    for number in range(options.cases):
        name = list(PROVIDERS)[number % len(PROVIDERS)]
        provider = PROVIDERS[name]
        bases = [SUBMITTED[name][1], DONE[name][1], *PUBLISHED.get(name, ()),
                 *(poll for who, poll, _ in POLLS if who == name),
                 *(refusal for who, _, refusal, _ in REFUSALS if who == name)]
        kind = random_.choice(("submit", "poll", "poll", *flows(provider)))
        try:
            outcome = submit(provider, bases, random_) if kind == "submit" else run(
                provider, flows(provider)[kind], bases, random_)
        except Exception as error:
            failed += 1
            outcome = "FAILED"
            print(f"{name} {kind} case {number}: {type(error).__name__}: {error}", file=sys.stderr)
        counts[name][outcome] += 1
    outcomes = sorted({outcome for found in counts.values() for outcome in found})
    print(f"| outcome | {' | '.join(PROVIDERS[name].title for name in counts)} |\n|---|{'---|' * len(counts)}")
    for outcome in outcomes:
        print(f"| {outcome} | {' | '.join(str(counts[name][outcome]) for name in counts)} |")
    print(f"\n{options.cases} cases, {failed} failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
