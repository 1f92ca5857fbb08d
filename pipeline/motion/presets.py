"""Camera paths by name, for the editor on the node, for `dev.py demo --camera`, and as examples."""

from __future__ import annotations

import json
from typing import Any

PAN = 0.25
"""Widths or heights of the frame that a pan goes."""


def _move(easing: str = "linear", **end: float) -> dict[str, Any]:
    """Return a path from rest to one keyframe at the end."""
    return {"keyframes": [{"t": 0}, {"t": 1, **end}], "easing": easing}


def _handheld() -> dict[str, Any]:
    """Return a path that wavers as a camera in the hand: some hundredths of the frame, slightly closer for room."""
    wavering = ((0.006, -0.004, 0.3), (-0.008, 0.006, -0.4), (0.01, 0.008, 0.2), (0.002, -0.01, 0.5),
                (-0.01, -0.002, -0.3), (0.007, 0.009, -0.5), (-0.004, -0.007, 0.4), (0.009, 0.003, -0.2))
    steps = [{"t": round((number + 1) / len(wavering), 3), "x": x, "y": y, "zoom": 1.06, "roll": roll}
             for number, (x, y, roll) in enumerate(wavering)]
    return {"keyframes": [{"t": 0, "zoom": 1.06}, *steps], "easing": "linear"}


PRESETS: dict[str, dict[str, Any]] = {
    "static": {"keyframes": [{"t": 0}], "easing": "linear"},
    "pan left": _move(x=-PAN),
    "pan right": _move(x=PAN),
    "pan up": _move(y=-PAN),
    "pan down": _move(y=PAN),
    "zoom in": _move(zoom=1.4),
    "zoom out": {"keyframes": [{"t": 0, "zoom": 1.4}, {"t": 1}], "easing": "linear"},
    "tilt up": _move(tilt=12),
    "tilt down": _move(tilt=-12),
    "orbit left": _move(orbit=-20),
    "orbit right": _move(orbit=20),
    "roll": _move(roll=10, zoom=1.2),
    "handheld": _handheld(),
}
"""Name -> the path. "zoom out" starts close by, so that it shows what is in the picture to its end."""


def preset_json(name: str) -> str:
    """Return a preset as the text of a node's `path`."""
    return json.dumps(PRESETS[name])
