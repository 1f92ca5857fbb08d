"""Inputs of the nodes that draw a motion: how strongly it steers, their check, and the pictures of their editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io, ui

from ..pipeline.motion.path import MotionPath
from ..pipeline.motion.strength import STRENGTHS, Strength
from ..pipeline.request import RequestError
from .size_inputs import check_size_inputs

CUSTOM = "custom"


def strength_input() -> io.Input:
    """Return the choice of a pair of sigmas by name, or of custom ones."""
    sigma = {"min": 0.01, "max": 1.0, "step": 0.001}
    first = next(iter(STRENGTHS.values()))
    custom = io.DynamicCombo.Option(CUSTOM, [
        io.Float.Input("weak_sigma", default=first.weak, **sigma,
                       tooltip="Noise level that the clip starts at, from the moved picture with that much noise. "
                               "Lower follows it more closely."),
        io.Float.Input("strong_sigma", default=first.strong, **sigma,
                       tooltip="Noise level until which the moved pixels are put back after each step. Lower holds "
                               "them longer, and leaves less life in them."),
    ])
    return io.DynamicCombo.Input(
        "strength", options=[*(io.DynamicCombo.Option(name, []) for name in STRENGTHS), custom],
        tooltip="How strongly to steer, as two noise levels that belong to a model: where the clip starts, and until "
                "where it is held. Those of Wan 2.2 are the official ones of Time-to-Move.")


def validate_motion(read_path: Callable[[str], MotionPath], path: str | None, resolution: dict[str, Any] | None,
                    num_frames: int | None, strength: dict[str, Any] | None) -> bool | str:
    """Return True, or at /prompt the sentence of the first input that no motion has; what is linked is None.

    read_path: reads the path and raises RequestError for a bad one. Custom sigmas are checked when the node runs.
    """
    try:
        if path is not None:
            read_path(path)
        check_size_inputs(resolution, num_frames)
        if strength is None:  # ComfyUI drops a choice that it does not know
            raise RequestError(f"strength is not a known choice; choose one of {', '.join([*STRENGTHS, CUSTOM])}.")
    except RequestError as error:
        return str(error)
    return True


def strength_of(strength: dict[str, Any]) -> Strength:
    """Return a strength choice. Raises RequestError for one that is not on the list, or sigmas out of range."""
    choice = strength["strength"]
    if choice == CUSTOM:
        chosen = Strength(strength.get("weak_sigma", 0.0), strength.get("strong_sigma", 0.0))
    elif choice in STRENGTHS:
        chosen = STRENGTHS[choice]
    else:
        raise RequestError(f"strength is {choice!r}; choose one of {', '.join([*STRENGTHS, CUSTOM])}.")
    chosen.check()
    return chosen


def shown_in_editor(image: object, mask: object = None) -> dict[str, Any]:
    """Return the node's `ui` output: files of the picture and the mask of this run, as /view names them.

    web/js/camera/ shows them where they come from nodes other than Load Image, and are not known without a run.
    """
    shown = {"wan22_image": ui.PreviewImage(image).values}
    return shown if mask is None else {**shown, "wan22_mask": ui.PreviewMask(mask).values}
