"""Size and length of a clip, as the nodes show them that prepare one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request

CUSTOM = "custom"


def resolution_input() -> io.Input:
    """Return the choice of a named size, or of a custom one with width and height."""
    side = {"min": request.MIN_IMAGE_SIDE, "max": request.MAX_SIDE, "step": request.SIZE_MULTIPLE}
    custom = io.DynamicCombo.Option(CUSTOM, [
        io.Int.Input("width", default=192, tooltip="Width of the clip in pixels, a multiple of 16.", **side),
        io.Int.Input("height", default=128, tooltip="Height of the clip in pixels, a multiple of 16.", **side),
    ])
    return io.DynamicCombo.Input(
        "resolution", options=[*(io.DynamicCombo.Option(name, []) for name in request.RESOLUTIONS), custom],
        tooltip="Size of the clip in pixels. Wan 2.2 was trained for 480p and 720p, the bundled model for 128x128.")


def num_frames_input() -> io.Input:
    """Return the length of the clip."""
    return io.Int.Input("num_frames", default=33, min=5, max=request.MAX_FRAMES, step=4,
                        tooltip="Length of the clip: 33, 49 or 81 frames (2, 3 or 5 seconds at 16 frames per second), "
                                "or any multiple of 4 plus 1.")


def size_of(resolution: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of a resolution choice. Raises RequestError for one that is not on the list."""
    choice = resolution["resolution"]
    if choice == CUSTOM:
        return resolution.get("width", 0), resolution.get("height", 0)
    if not isinstance(choice, str) or choice not in request.RESOLUTIONS:
        raise request.RequestError(f"resolution is {choice!r}; choose one of "
                                   f"{', '.join([*request.RESOLUTIONS, CUSTOM])}.")
    return request.RESOLUTIONS[choice]


def check_size_inputs(resolution: dict[str, Any] | None, num_frames: int | None) -> None:
    """Raise RequestError, at /prompt, for a size or a length that no clip has; what is linked is not known yet."""
    if isinstance(num_frames, int):  # ComfyUI itself has said of what is no number
        request.check_num_frames(num_frames)
    if resolution is None:  # ComfyUI drops a choice that it does not know
        raise request.RequestError("resolution is not a known choice; choose one of "
                                   f"{', '.join([*request.RESOLUTIONS, CUSTOM])}.")
    size = size_of(resolution)
    # ComfyUI keeps a choice's own inputs from validation; execute checks them.
    if all(isinstance(side, int) for side in size):
        request.check_size(*size)
