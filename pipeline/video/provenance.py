"""Metadata of an MP4 about its origin: that a model made it, which one, and from which graph or request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ..graph.nodes import node_type, typed_inputs, upstream

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media that a trained model made."""
WORKFLOW, REQUEST, NONE = METADATA = ("full workflow", "request only", "none")
_MODELS = ("high_noise_expert", "low_noise_expert", "unet_name", "ckpt_name", "model_name")
"""Widgets that name a diffusion model's file, on this pack's loader, ComfyUI's and those of other packs."""


def ai_generated(prompt: dict[str, Any] | None, node_id: str | None) -> dict[str, str]:
    """Return the note that the clip is AI-generated, with the names of the models in the graph before the node."""
    names = [value for values in _upstream(prompt, node_id) for key, value in values.items() if key in _MODELS]
    models = ", ".join(dict.fromkeys(map(str, names)))
    model = f"Wan 2.2 image-to-video{': ' if models else ''}{models}"
    return {"comment": f"AI-generated video ({model}; ComfyUI-Wan22)", "digital_source_type": SOURCE_TYPE}


def request_of(prompt: dict[str, Any] | None, node_id: str | None) -> dict[str, str]:
    """Return {"request": JSON} of the values that made the clip (prompt, seed, steps, models), without the graph."""
    values = _upstream(prompt, node_id)
    return {"request": json.dumps(values)} if values else {}


def without_faults(parts: Iterable[Callable[[], dict[str, str]]]) -> tuple[dict[str, str], str]:
    """Return the metadata of all parts that can be made, and a sentence on those that cannot.

    Nothing that other nodes put into a graph may cost a finished clip. Text that no file holds is made to fit.
    """
    found: dict[str, str] = {}
    faults = []
    for part in parts:
        try:
            found |= part()
        except Exception as error:  # of any kind: the values are other nodes'
            faults.append(str(error) or type(error).__name__)
    fitting = {key: value.replace("\0", "").encode("utf-8", "replace").decode() for key, value in found.items()}
    note = f"The file is whole, but tells less of its making: {'; '.join(faults)}." if faults else ""
    return fitting, note


def _upstream(prompt: dict[str, Any] | None, node_id: str | None) -> list[dict[str, Any]]:
    """Return the type, as `node`, and the typed values of every node that a node depends on, itself last.

    prompt: a graph in ComfyUI's API format, in which a list is a link, [node id, output].
    """
    graph = prompt or {}
    if node_id not in graph:
        return []
    names = [*reversed(upstream(graph, node_id)), node_id]
    return [{"node": node_type(graph[name]), **typed_inputs(graph[name])} for name in names]
