"""A node's inputs as the canvas has them before a run: values of widgets, and those that come from other nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_BODY = 2**16
"""Bytes: two prompts of 10,000 characters in any script fit."""


@dataclass(frozen=True)
class NodeInputs:
    """`values`: by the input's name. `linked`: names of inputs that another node fills in; they have no value yet."""

    values: Mapping[str, Any]
    linked: frozenset[str]


def read_inputs(body: bytes, kinds: Mapping[str, type]) -> NodeInputs:
    """Return the inputs in {"inputs": {name: value}, "linked": [names]}, JSON.

    kinds: every input that there is -> str, int, float or bool. What is not in the body has no value either. Raises
    ValueError, with a sentence that repeats nothing of the body, for anything else.
    """
    try:
        found = json.loads(body, parse_constant=_no_number)
        values, linked = found.get("inputs", {}), found.get("linked", [])
        good = isinstance(values, dict) and isinstance(linked, list) and all(isinstance(name, str) for name in linked)
        if not good or not {*values, *linked} <= kinds.keys():
            raise ValueError
        return NodeInputs({name: _as(kinds[name], value) for name, value in values.items() if name not in linked},
                          frozenset(linked))
    except (ValueError, AttributeError, OverflowError, RecursionError):
        raise ValueError('The body is JSON such as {"inputs": {...}, "linked": [...]}, with inputs of this node: '
                         f"{', '.join(kinds)}.") from None


def _as(kind: type, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError
    return value


def _no_number(name: str) -> None:
    raise ValueError(name)
