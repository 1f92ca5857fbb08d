"""A pinhole camera in front of a picture: which point of the picture each pixel of a frame shows.

Lengths are in widths of the frame at rest, x to the right, y down, z away from the viewer. The picture is the plane at
z = focal length, so that a camera at the origin that looks straight ahead shows it at its own size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..models.condition import crop_of
from ..request import RequestError
from .path import MotionPath


@dataclass(frozen=True)
class Frame:
    """The frame of a clip in a picture: sizes in pixels, and the part of the picture that is seen at rest."""

    width: int
    height: int
    picture_width: int
    picture_height: int

    @property
    def aspect(self) -> float:
        """Height of the frame in its widths."""
        return self.height / self.width

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, in pixels of the picture, of what is seen at rest: what First Frame crops to."""
        return crop_of(self.picture_width, self.picture_height, self.width, self.height)

    def pixels(self) -> torch.Tensor:
        """Return the centres of the frame's pixels in its widths, (H, W, 2), float64, 0 being the middle."""
        xs = (torch.arange(self.width, dtype=torch.float64) + 0.5) / self.width - 0.5
        ys = ((torch.arange(self.height, dtype=torch.float64) + 0.5) / self.height - 0.5) * self.aspect
        return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)

    def to_grid(self, points: torch.Tensor) -> torch.Tensor:
        """Convert points (..., 2) in widths of the frame to the picture's -1..1, as `grid_sample` reads them."""
        left, top, width, height = self.crop
        x = (left + (points[..., 0] + 0.5) * width) / self.picture_width
        y = (top + (points[..., 1] / self.aspect + 0.5) * height) / self.picture_height
        return torch.stack([x, y], -1) * 2 - 1

    def shift(self, x: float, y: float) -> torch.Tensor:
        """Return a move by widths and heights of the frame in the units of `to_grid`, (2,)."""
        _, _, width, height = self.crop
        return torch.tensor([2 * x * width / self.picture_width, 2 * y * height / self.picture_height],
                            dtype=torch.float64)


@dataclass(frozen=True)
class Camera:
    """Where a camera is and how it is turned."""

    position: torch.Tensor
    """(3,), float64."""
    rotation: torch.Tensor
    """(3, 3), float64: directions of the camera's own axes to those of the picture."""
    focal: float
    """Focal length, in widths of the frame."""
    plane: float
    """How far the picture's plane is from the camera at rest, in widths of the frame."""

    def homography(self) -> torch.Tensor:
        """Return the matrix (3, 3) from a frame's points (u, v, 1) to the picture's, up to a factor."""
        x, y, z = self.position.tolist()
        to_plane = torch.tensor([[self.plane - z, 0, x], [0, self.plane - z, y], [0, 0, 1]], dtype=torch.float64)
        rays = torch.diag(torch.tensor([1.0, 1.0, self.focal], dtype=torch.float64))
        return to_plane @ self.rotation @ rays

    def project(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where points in space (..., 3) are in the frame, (..., 2) in widths, and how far off, (...)."""
        seen = (points - self.position) @ self.rotation  # the inverse rotation, from the right
        depth = seen[..., 2]
        return seen[..., :2] * (self.focal / depth)[..., None], depth


def camera_of(view: Mapping[str, float], fov: float, aspect: float, most_dolly: float = math.inf) -> Camera:
    """Return the camera of a keyframe's fields (path.CAMERA_FIELDS) with a horizontal angle of view in degrees.

    It looks at the centre of its rectangle: orbit goes round that, then the camera tilts and rolls. It zooms by going
    closer, until what is `most_dolly` times as large, and from there on by its focal length.
    """
    plane = 0.5 / math.tan(math.radians(fov) / 2)
    dolly = min(view["zoom"], most_dolly)
    roll, tilt, orbit = (math.radians(view[name]) for name in ("roll", "tilt", "orbit"))
    about_z = [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    about_y = [[math.cos(orbit), 0, -math.sin(orbit)], [0, 1, 0], [math.sin(orbit), 0, math.cos(orbit)]]
    turn_y, turn_x, turn_z = (torch.tensor(turn, dtype=torch.float64) for turn in (about_y, about_x, about_z))
    centre = torch.tensor([view["x"], view["y"] * aspect, plane], dtype=torch.float64)
    back = torch.tensor([0, 0, plane / dolly], dtype=torch.float64)
    return Camera(centre - turn_y @ back, turn_y @ turn_x @ turn_z, plane * (view["zoom"] / dolly), plane)


def cameras(path: MotionPath, num_frames: int, aspect: float, most_dolly: float = math.inf) -> list[Camera]:
    """Return the camera of every frame of a clip; most_dolly: see camera_of."""
    return [camera_of(path.at(index / (num_frames - 1)), path.fov, aspect, most_dolly) for index in range(num_frames)]


def seen_points(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    """Return the points of the picture (..., 2) that a camera shows at points of its frame, both in widths.

    Raises RequestError when some of them look past the picture, at the horizon or behind it.
    """
    found = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ camera.homography().T
    if not bool((found[..., 2] > 1e-6).all()):
        raise RequestError("The camera looks past the horizon of the picture's plane. Choose smaller angles of tilt "
                           "and orbit, or a smaller fov.")
    return found[..., :2] / found[..., 2:]
