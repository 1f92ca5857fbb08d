"""The part of a graph that is run again with another seed, copied as a graph of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..request import MAX_SEED, RequestError
from .nodes import Graph, is_link, upstream

SEEDS = ("seed", "noise_seed")
"""Names of the inputs that are seeds."""
BOUGHT = "Wan22RemoteImageToVideo"
"""Type of the node that buys a clip each time it runs with another seed."""


@dataclass(frozen=True)
class Copy:
    """A part of a graph, copied under new ids."""

    graph: Graph
    new_ids: dict[str, str]
    """Id of a node of the whole graph -> id of its copy."""
    seeds: list[int]
    """The new seeds."""


def with_next_seed(graph: Graph, node_id: str, new_id: Callable[[str], str], changes: dict[str, Any],
                   *, may_buy: bool) -> Copy:
    """Return a copy of a node and of all before it that depends on a seed, with each seed one higher.

    What does not depend on a seed stays what it is, and is linked to. new_id(id): the id of a copy. changes: inputs of
    the node itself in the copy. Raises RequestError when there is no seed, and for a node that buys clips, unless it
    may be run again and has a price limit.
    """
    before = [name for name in upstream(graph, node_id) if name != node_id]
    seeded = _seeds_of(graph, before)
    if not seeded:
        raise RequestError("No node before this one has a seed, so that another try would give the same clip. Connect "
                           "the clip of a sampler, and the pass of Check Clip for that clip.")
    copied = [name for name in before if name in seeded or seeded.keys() & set(upstream(graph, name))] + [node_id]
    for name in copied:
        if graph[name]["class_type"] == BOUGHT:
            _check_purchase(graph[name]["inputs"], may_buy)
    ids = {name: new_id(name) for name in copied}
    parts: Graph = {}
    for name in copied:
        inputs = {key: [ids[value[0]], value[1]] if is_link(value) and value[0] in ids else value
                  for key, value in graph[name]["inputs"].items()}
        parts[ids[name]] = {**graph[name], "inputs": {**inputs, **seeded.get(name, {})}}
    parts[ids[node_id]]["inputs"].update(changes)
    return Copy(parts, ids, sorted({seed for seeds in seeded.values() for seed in seeds.values()}))


def _seeds_of(graph: Graph, names: list[str]) -> dict[str, dict[str, int]]:
    """Return for each node that has a seed its inputs with the next one. A seed that is linked is its source's."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        for key in SEEDS:
            value, owner, of_owner = graph[name]["inputs"].get(key), name, key
            if is_link(value) and value[0] in graph:
                owner, of_owner = value[0], "value" if "value" in graph[value[0]]["inputs"] else key
                value = graph[owner]["inputs"].get(of_owner)
            if isinstance(value, int) and not isinstance(value, bool):
                found.setdefault(owner, {})[of_owner] = (value + 1) % (MAX_SEED + 1)
    return found


def _check_purchase(inputs: dict[str, Any], may_buy: bool) -> None:
    if not may_buy:
        raise RequestError("The clip failed, and another try would buy another one. Turn on buy_again to allow that.")
    limit = inputs.get("max_cost", 0)
    if not isinstance(limit, int | float) or limit <= 0:
        raise RequestError("The clip failed, and another try would buy another one without a price limit. Set max_cost "
                           "of Remote Image to Video: the most that each try may cost.")
