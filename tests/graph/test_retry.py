"""The part of a graph that is run again: what is copied, with which seeds, and what is not bought twice."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.graph.nodes import Graph
from pipeline.graph.retry import with_next_seed
from pipeline.request import MAX_SEED, RequestError


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH: Graph = {
    "load": node("Wan22Load"), "frame": node("Wan22FirstFrame", vae=["load", 2]),
    "number": node("PrimitiveInt", value=MAX_SEED),
    "high": node("Wan22Sampler", model=["load", 0], first_frame=["frame", 0], seed=7),
    "low": node("Wan22Sampler", model=["load", 0], latent=["high", 0], seed=["number", 0]),
    "decode": node("Wan22Decode", vae=["load", 2], latent=["low", 0]),
    "check": node("Wan22CheckClip", clip=["decode", 0]),
    "retry": node("Wan22Retry", clip=["decode", 0], passed=["check", 0], retries=3),
    "save": node("Wan22SaveMP4", images=["retry", 0]),
}


def test_what_depends_on_a_seed_is_copied_with_the_next_one() -> None:
    before = copy.deepcopy(GRAPH)
    made = with_next_seed(GRAPH, "retry", lambda name: f"2.{name}", {"retries": 2}, may_buy=False)
    assert set(made.graph) == {f"2.{name}" for name in ("number", "high", "low", "decode", "check", "retry")}
    assert made.seeds == [0, 8] and before == GRAPH
    assert made.graph["2.number"]["inputs"] == {"value": 0}
    assert made.graph["2.high"]["inputs"] == {"model": ["load", 0], "first_frame": ["frame", 0], "seed": 8}
    assert made.graph["2.low"]["inputs"] == {"model": ["load", 0], "latent": ["2.high", 0], "seed": ["2.number", 0]}
    assert made.graph["2.retry"]["inputs"] == {"clip": ["2.decode", 0], "passed": ["2.check", 0], "retries": 2}


@pytest.mark.parametrize(("bought", "may_buy", "said"), [
    ({"max_cost": 0.5}, False, "Turn on buy_again"), ({"max_cost": 0.0}, True, "Set max_cost"),
    ({}, True, "Set max_cost"), ({"max_cost": ["number", 0]}, True, "Set max_cost"), ({"max_cost": 0.5}, True, "")])
def test_a_clip_is_bought_again_only_when_that_is_wanted_and_limited(bought: dict, may_buy: bool, said: str) -> None:
    graph = {**GRAPH, "decode": node("Wan22RemoteImageToVideo", seed=3, **bought)}
    if said:
        with pytest.raises(RequestError, match=said):
            with_next_seed(graph, "retry", lambda name: f"2.{name}", {}, may_buy=may_buy)
    else:
        assert with_next_seed(graph, "retry", lambda name: f"2.{name}", {}, may_buy=may_buy).seeds == [4]


def test_without_a_seed_there_is_no_other_try() -> None:
    graph = {"file": node("LoadVideo", file="a.mp4"), "check": node("Wan22CheckClip", clip=["file", 0]),
             "retry": node("Wan22Retry", clip=["file", 0], passed=["check", 0])}
    with pytest.raises(RequestError, match="No node before this one has a seed"):
        with_next_seed(graph, "retry", lambda name: f"2.{name}", {}, may_buy=False)
