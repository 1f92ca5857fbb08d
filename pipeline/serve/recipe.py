"""A model's workflow, and the graph that a request makes of it: picture, prompts, size, settings and LoRAs are put in.

The workflow stays as it is beside that: its weights, its scheduler, its own LoRAs, everything between the nodes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..graph.nodes import Graph, is_link, node_type, upstream
from ..request import RESOLUTIONS, ClipRequest, Lora

PICTURES = ("LoadImage", "Wan22ImageFromURL")
PROMPT, FRAME, LORA = "Wan22EncodePrompt", "Wan22FirstFrame", "Wan22Lora"
SAMPLERS = ("Wan22Sampler", "Wan22BridgeSampler")
SAVERS = ("Wan22SaveMP4", "Wan22DecodeToMP4")
CUSTOM = "custom"
"""The choice of First Frame that has a width and a height."""
PARTS = {"a picture (Load Image)": PICTURES, "Encode Prompt": (PROMPT,), "First Frame": (FRAME,),
         "a Wan 2.2 sampler": SAMPLERS, "Save MP4 or Decode to MP4": SAVERS}
"""What a workflow needs exactly one of -> node types."""


def check_recipe(graph: Any) -> None:
    """Raise ValueError, with a sentence, unless this is a workflow in API form that a request can be put into."""
    if not isinstance(graph, dict) or not graph or not all(
            isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
            for node in graph.values()):
        raise ValueError("This is not a workflow in API format.")
    for called, types in PARTS.items():
        count = len(_nodes(graph, types))
        if count != 1:
            raise ValueError(f"The workflow has {count} nodes of the kind: {called}. A request needs exactly one.")
    saver = _one(graph, SAVERS)
    lacking = [called for called, types in PARTS.items()
               if _one(graph, types) not in (saver, *upstream(graph, saver))]
    if lacking:
        raise ValueError(f"The MP4 does not depend on {lacking[0]}. Connect it.")
    linked = [f"{name} of {node_type(graph[node])}" for node, names in _replaced(graph).items()
              for name in names if is_link(graph[node]["inputs"].get(name))]
    if linked:
        raise ValueError(f"{linked[0]} comes from another node, so that a request cannot set it. Disconnect it.")


def _replaced(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return node -> the inputs that a request sets."""
    return {_one(graph, (PROMPT,)): ("prompt", "negative_prompt"), _one(graph, (FRAME,)): ("resolution", "num_frames"),
            _one(graph, SAMPLERS): ("seed", "num_inference_steps", "guidance_scale"),
            _one(graph, SAVERS): ("filename_prefix", "metadata")}


def defaults_of(graph: Graph) -> ClipRequest:
    """Return the workflow's own values, for what a request leaves out."""
    prompt, frame = graph[_one(graph, (PROMPT,))]["inputs"], graph[_one(graph, (FRAME,))]["inputs"]
    sampler, standard = graph[_one(graph, SAMPLERS)]["inputs"], ClipRequest("")
    named = RESOLUTIONS.get(frame.get("resolution", ""))
    width, height = named or (frame.get("resolution.width", 832), frame.get("resolution.height", 480))
    return ClipRequest(
        prompt=prompt.get("prompt", ""), negative_prompt=prompt.get("negative_prompt", ""),
        resolution=f"{width}x{height}", num_frames=frame.get("num_frames", standard.num_frames),
        num_inference_steps=sampler.get("num_inference_steps", standard.num_inference_steps),
        guidance_scale=float(sampler.get("guidance_scale", standard.guidance_scale)))


def fill_in(recipe: Graph, clip: ClipRequest, size: tuple[int, int], pictures: Sequence[str], prefix: str) -> Graph:
    """Return the graph of a clip.

    size: width and height, pixels. pictures: names in ComfyUI's input folder of the first one, and of the last if there
    is one. prefix: of the MP4 in the output folder.
    """
    graph = copy.deepcopy(recipe)
    graph[_one(graph, PICTURES)] |= {"class_type": "LoadImage", "inputs": {"image": pictures[0]}}
    for picture in pictures[1:]:
        _set(graph, (FRAME,), {"last_image": _add(graph, "api-last-image", "LoadImage", {"image": picture},
                                                  "Last picture of the request")})
    _set(graph, (PROMPT,), {"prompt": clip.prompt, "negative_prompt": clip.negative_prompt})
    _set(graph, (FRAME,), {"resolution": CUSTOM, "resolution.width": size[0], "resolution.height": size[1],
                           "num_frames": clip.num_frames})
    _set(graph, SAMPLERS, {"seed": clip.seed, "num_inference_steps": clip.num_inference_steps,
                           "guidance_scale": clip.guidance_scale})
    _set(graph, SAVERS, {"filename_prefix": prefix, "metadata": "request only"})
    _add_loras(graph, clip.loras)
    return graph


def _add_loras(graph: Graph, loras: tuple[Lora, ...]) -> None:
    """Chain the request's LoRAs in front of the sampler, behind the workflow's own."""
    inputs = graph[_one(graph, SAMPLERS)]["inputs"]
    for place, lora in enumerate(loras):
        node: dict[str, Any] = {"source": lora.source, "scale": min(max(lora.scale, 0.0), 1.0), "expert": lora.expert,
                                "sha256": lora.sha256 or "", "min_match": lora.min_match, **asdict(lora.schedule)}
        if not 0.0 <= lora.scale <= 1.0:
            node["exact_scale"] = lora.scale
        if "loras" in inputs:
            node["loras"] = inputs["loras"]
        inputs["loras"] = _add(graph, f"api-lora-{place}", LORA, node, f"LoRA {place + 1} of the request")


def _add(graph: Graph, name: str, kind: str, inputs: dict[str, Any], title: str) -> list[str | int]:
    """Add a node under a name, with dashes behind it where that is taken; return the link of its first output."""
    free = next(free for free in (name + "-" * more for more in range(len(graph) + 1)) if free not in graph)
    graph[free] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    return [free, 0]


def _set(graph: Graph, types: tuple[str, ...], values: Mapping[str, Any]) -> None:
    graph[_one(graph, types)]["inputs"].update(values)


def _nodes(graph: Graph, types: tuple[str, ...]) -> list[str]:
    return [name for name, node in graph.items() if node_type(node) in types]


def _one(graph: Graph, types: tuple[str, ...]) -> str:
    """Return the id of the one node of these types."""
    return _nodes(graph, types)[0]
