"""A path as JSON: keyframes over the clip's time, eased and interpolated.

{"keyframes": [{"t": 0, "x": 0, "y": 0, "zoom": 1, "roll": 0}, ...], "easing": "linear", "fov": 50}

A keyframe of a camera is the camera's frame, a rectangle in the picture. At rest (x = y = 0, zoom 1) it is the largest
one of the clip's aspect ratio, centred. `x` and `y`: how far its centre is from there, in widths and heights of that
largest rectangle, right and down being positive. `zoom`: above 1 for a smaller rectangle, closer by. `roll`: degrees
that it is turned clockwise on the screen. `tilt`, degrees: the camera looks up. `orbit`, degrees: it goes round its
centre to the right, still aimed at it. `fov`: its horizontal angle of view, which says how much perspective tilt and
orbit show. A keyframe of an object has `x` and `y` alone: how far it has moved, in widths and heights of the clip.

Nothing here knows tensors, so that a node can check a path before a run.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..request import RequestError

OBJECT_FIELDS: Mapping[str, float] = {"x": 0.0, "y": 0.0}
CAMERA_FIELDS: Mapping[str, float] = {**OBJECT_FIELDS, "zoom": 1.0, "roll": 0.0, "tilt": 0.0, "orbit": 0.0}
"""Field of a keyframe -> its value where it is not given."""
LIMITS: Mapping[str, tuple[float, float]] = {
    "t": (0.0, 1.0), "x": (-10.0, 10.0), "y": (-10.0, 10.0), "zoom": (0.1, 10.0), "roll": (-3600.0, 3600.0),
    "tilt": (-60.0, 60.0), "orbit": (-60.0, 60.0), "fov": (5.0, 90.0)}
DEFAULT_FOV = 50.0
MOST_KEYFRAMES = 1000
"""Of one path: far more than a person draws, and few enough for the editor to draw anew with every change."""
EASINGS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease-in": lambda t: t * t,
    "ease-out": lambda t: t * (2.0 - t),
    "ease-in-out": lambda t: t * t * (3.0 - 2.0 * t),
}
"""Name -> function of the clip's time 0..1 that gives the time on the path, 0..1."""


@dataclass(frozen=True)
class MotionPath:
    """Keyframes of one camera or object."""

    times: tuple[float, ...]
    """Ascending, 0..1 over the clip."""
    values: tuple[Mapping[str, float], ...]
    """Of every keyframe, all of its fields."""
    easing: str = "linear"
    """Over the whole path; one of EASINGS."""
    fov: float = DEFAULT_FOV
    """Horizontal angle of view, in degrees."""

    def at(self, t: float) -> dict[str, float]:
        """Return the fields at time t, 0..1: the zoom changes by the same factor in the same time, the rest evenly.

        Before the first keyframe and after the last one they stay as they are there.
        """
        eased = EASINGS[self.easing](t)
        after = bisect.bisect_right(self.times, eased)
        if after in (0, len(self.times)):
            return dict(self.values[min(after, len(self.times) - 1)])
        before, (start, end) = after - 1, self.times[after - 1 : after + 1]
        share = (eased - start) / (end - start)
        a, b = self.values[before], self.values[after]
        return {field: a[field] * (b[field] / a[field]) ** share if field == "zoom"
                else a[field] + (b[field] - a[field]) * share for field in a}


AT_REST = MotionPath((0.0,), (CAMERA_FIELDS,))
"""A camera that does not move."""


def read_camera_path(text: str) -> MotionPath:
    """Return the path of a camera in JSON. Raises RequestError, saying where and what, for anything else."""
    return _read(text, CAMERA_FIELDS, ("easing", "fov"))


def read_object_path(text: str) -> MotionPath:
    """Return the path of an object in JSON. Raises RequestError for anything else, and unless it starts at 0, 0.

    The clip starts with the picture, in which the object is where it is.
    """
    path = _read(text, OBJECT_FIELDS, ("easing",))
    start = path.at(0.0)
    if start["x"] or start["y"]:
        raise RequestError(f"The object's path starts at x {start['x']:g}, y {start['y']:g}, but the clip starts with "
                           "the picture, in which the object has not moved. Give the first keyframe x 0 and y 0.")
    return path


def _read(text: str, fields: Mapping[str, float], settings: tuple[str, ...]) -> MotionPath:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RequestError(f"path is no JSON ({error}). Write it as "
                           '{"keyframes": [{"t": 0}, {"t": 1, "x": 0.2}]}.') from error
    if not isinstance(found, dict) or not isinstance(found.get("keyframes"), list) or not found["keyframes"]:
        raise RequestError('path has no keyframes. Write it as {"keyframes": [{"t": 0}, {"t": 1, "x": 0.2}]}.')
    if (count := len(found["keyframes"])) > MOST_KEYFRAMES:
        raise RequestError(f"path has {count} keyframes; it may have {MOST_KEYFRAMES} at most.")
    _check_names(found, ("keyframes", *settings), "path")
    easing = found.get("easing", "linear")
    if not isinstance(easing, str) or easing not in EASINGS:
        raise RequestError(f"The easing of the path is {easing!r}; choose one of {', '.join(EASINGS)}.")
    times, values = [], []
    for number, keyframe in enumerate(found["keyframes"], 1):
        where = f"Keyframe {number} of the path"
        if not isinstance(keyframe, dict) or "t" not in keyframe:
            raise RequestError(f'{where} has no time. Give it "t", 0 for the start of the clip to 1 for its end.')
        _check_names(keyframe, ("t", *fields), where)
        times.append(_number(keyframe, "t", 0.0, where))
        values.append({field: _number(keyframe, field, default, where) for field, default in fields.items()})
        if number > 1 and times[-1] <= times[-2]:
            raise RequestError(f"{where} is at t {times[-1]:g}, and the one before it at {times[-2]:g}. Sort the "
                               "keyframes by t, and keep one of those at the same t.")
    return MotionPath(tuple(times), tuple(values), easing, _number(found, "fov", DEFAULT_FOV, "The path"))


def _check_names(found: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    """Raise RequestError for a name that is not read: a typing error would change the path in silence."""
    if unknown := [name for name in found if name not in allowed]:
        raise RequestError(f"{where} has {unknown[0]!r}, which is not read. It may have {', '.join(allowed)}.")


def _number(found: Mapping[str, Any], name: str, default: float, where: str) -> float:
    """Return a number in its limits, or the default. Raises RequestError for anything else, NaN too."""
    value = found.get(name, default)
    least, most = LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(f"{where} has {name} {_shown(value)}; choose a number from {least:g} to {most:g}.")
    return float(value)


def _shown(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
    return json.dumps(value)
