"""A LATENT as a file, with the state of a clip between two steps: what core's Save Latent leaves out.

The file is core's format with more in it (nodes.py, SaveLatent: safetensors with `latent_tensor`), so that core's
Load Latent opens it too, without the state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import advice_on, new_file
from ..request import RequestError
from .resume import STEPS_DONE, UNFINISHED, StepsDone, Unfinished, count_steps, is_whole, known_steps

SUFFIX = ".latent"
_SAMPLES, _VERSION = "latent_tensor", "latent_format_version_0"
_LATENTS, _HISTORY = "wan22.latents", "wan22.history."
_STEP, _SCHEDULE, _DONE = "wan22.step", "wan22.schedule", "wan22.steps_done"


def save_latent(new_path: Callable[[], Path], latent: dict[str, Any], metadata: dict[str, str]) -> Path:
    """Write a LATENT and text metadata under a name of `new_path`, which `new_file` calls; return the path.

    Raises RequestError when the disk refuses; nothing is left behind then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {_SAMPLES: latent["samples"], _VERSION: torch.tensor([])}
    unfinished = latent.get(UNFINISHED)
    if unfinished is not None and unfinished.latents.shape == latent["samples"].shape:  # else a node resized them
        tensors |= {_LATENTS: unfinished.latents}
        tensors |= {_HISTORY + name: value for name, value in unfinished.history.items()}
        metadata = {**metadata, _STEP: json.dumps(unfinished.step), _SCHEDULE: json.dumps(unfinished.schedule)}
    if known := known_steps(latent):
        metadata = {**metadata, _DONE: json.dumps([known.done, known.steps])}
    # Two names may share one tensor in memory, which the format cannot hold.
    apart = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    try:
        with new_file(new_path) as file:
            save_file(apart, file.unfinished, metadata)
    except (OSError, SafetensorError) as error:
        # safetensors tells of a full disk with an error of its own
        advice = advice_on(error) if isinstance(error, OSError) else "Free some space"
        raise RequestError(f"{new_path()} could not be written: {error}. {advice}; the latent is still in the "
                           "graph.") from error
    return file.path


def load_latent(path: Path) -> dict[str, Any]:
    """Return the LATENT in a file of `save_latent` or of core's Save Latent. Raises RequestError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{path.name} is no latent file or is damaged ({error}). Save it again.") from error
    if not {_SAMPLES, _VERSION} <= set(tensors):
        raise RequestError(f"{path.name} holds no latent of ComfyUI's. Choose a file of Save Latent (Wan 2.2).")
    latent: dict[str, Any] = {"samples": tensors[_SAMPLES]}
    if _LATENTS in tensors:
        history = {name.removeprefix(_HISTORY): value for name, value in tensors.items() if name.startswith(_HISTORY)}
        try:
            step, schedule = json.loads(metadata[_STEP]), json.loads(metadata[_SCHEDULE])
        except (KeyError, ValueError) as error:
            raise RequestError(f"{path.name} is a clip between two steps without the notes on how to go on. Save it "
                               "again with Save Latent (Wan 2.2).") from error
        unfinished = latent[UNFINISHED] = Unfinished(tensors[_LATENTS], step, history, schedule)
        if not is_whole(unfinished, tuple(latent["samples"].shape)):
            raise RequestError(f"{path.name} is a clip between two steps whose notes on how to go on are damaged, or "
                               "of another version of this pack. Save it again with Save Latent (Wan 2.2).")
        latent[STEPS_DONE] = StepsDone(step, count_steps(schedule), latent["samples"])
    if _DONE in metadata:
        try:
            done, steps = map(int, json.loads(metadata[_DONE]))
        except (TypeError, ValueError) as error:
            raise RequestError(f"{path.name} is a clip between two steps whose notes are damaged. Save it again with "
                               "Save Latent (Wan 2.2).") from error
        latent[STEPS_DONE] = StepsDone(done, steps, latent["samples"])
    return latent
