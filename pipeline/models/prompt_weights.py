"""Read the weights in a prompt, `(words:1.4)`, by the rules of ComfyUI's own tokenizers (comfy/sd1_clip.py).

Brackets alone multiply the weight around them by 1.1; a number replaces it. `\\(` and `\\)` are brackets of the text,
and so are those without a partner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

from ..request import RequestError

EMPHASIS = 1.1
ESCAPED = {"\\)": "\0\1", "\\(": "\0\2"}
"""Brackets of the text -> what stands for them while the others are read."""
DEEPEST = 100


def weighted_parts(text: str) -> list[tuple[str, float]]:
    """Return the parts of a prompt in their order, without the brackets and numbers, each with its weight.

    Raises RequestError for a weight that is not finite, and for brackets more than 100 deep.
    """
    for escaped, stand_in in ESCAPED.items():
        text = text.replace(escaped, stand_in)
    parts = []
    for part, weight in _parts(text, 1.0, 0):
        for escaped, stand_in in ESCAPED.items():
            part = part.replace(stand_in, escaped[1:])
        parts.append((part, weight))
    return parts


def _parts(text: str, weight: float, depth: int) -> Iterator[tuple[str, float]]:
    if depth > DEEPEST:
        raise RequestError(f"The prompt has brackets more than {DEEPEST} deep. Remove some, or write \\( and \\) for "
                           "brackets of the text.")
    for item in _top_level(text):
        if len(item) < 2 or (item[0], item[-1]) != ("(", ")"):
            yield item, weight
            continue
        words, own = item[1:-1], weight * EMPHASIS
        before, colon, number = words.rpartition(":")
        if colon and before:
            with suppress(ValueError):  # else it is a colon of the text
                own, words = float(number), before
        if not math.isfinite(own):
            raise RequestError(f"The prompt has the weight {number.strip()}. Use a number such as 1.2.")
        yield from _parts(words, own, depth + 1)


def _top_level(text: str) -> Iterator[str]:
    """Yield the texts between the outermost brackets, and these with their brackets."""
    item, depth = "", 0
    for letter in text:
        if letter == "(" and depth == 0 and item:
            yield item
            item = ""
        item += letter
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                yield item
                item = ""
    if item:
        yield item
