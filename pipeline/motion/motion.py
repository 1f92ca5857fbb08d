"""A motion that a clip is to follow: its recipe, the clip of warped pictures that shows it, and the latents of that.

The clip of warped pictures (the animatic) and the pixels of it that hold are what Time-to-Move steers with
(sampling/time_to_move.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from ..models.condition import encode_clip, fit
from ..models.latents import normalise
from ..models.vae import check_vae
from ..request import RequestError, check_image, check_num_frames, check_size
from .camera import Camera, Frame, cameras, seen_points
from .depth import MOST_DOLLY, nearness_of, shown_points
from .path import AT_REST, CAMERA_FIELDS, MotionPath
from .strength import FREE, Strength
from .warp import Picture, fill_holes, inside

HELD_SHARE = 0.5
"""A latent is held where more than this share of its pixels are."""
BACKGROUND = 0.05
"""Values of an object's mask below this are not of the object."""


@dataclass(frozen=True)
class MovedObject:
    """A part of the picture that moves in it."""

    mask: torch.Tensor
    """(H, W), 0..1, in the size of the picture."""
    path: MotionPath
    strength: Strength


def share_in_latents(clip: torch.Tensor) -> torch.Tensor:
    """Return the mean of (F, H, W) over the 4 frames and 8x8 pixels of every latent, (1, 1, T, h, w)."""
    return F.avg_pool3d(torch.cat([clip[:1].repeat(4, 1, 1), clip[1:]])[None, None], (4, 8, 8))


@dataclass(frozen=True)
class Animatic:
    """The clip of warped pictures."""

    images: torch.Tensor
    """(F, H, W, 3), 0..1."""
    until: torch.Tensor
    """(F, H, W): the sigma until which a pixel is held; FREE for one that is not."""
    mask: torch.Tensor
    """(F, H, W): 1 where a pixel is held and shows the picture, 0 where it is free or was filled in."""

    def until_in_latents(self) -> torch.Tensor:
        """Return `until` of every latent, (1, 1, T, h, w): held where most pixels of its 4 frames and 8x8 are."""
        held = (self.until < FREE).float()
        share, sums = share_in_latents(held), share_in_latents(held * self.until)
        return torch.where(share > HELD_SHARE, sums / share.clamp(min=1e-6), FREE)


@dataclass(frozen=True, eq=False)
class Motion:
    """The content of a WAN22_MOTION socket: a camera and objects in a picture, for a clip of a size and a length."""

    vae: Any
    image: torch.Tensor
    """IMAGE (1, H, W, 3): the whole picture."""
    width: int
    height: int
    num_frames: int
    path: MotionPath
    strength: Strength
    """Of what the camera shows. Strength(weak, FREE) leaves the background free."""
    depth: torch.Tensor | None = None
    """IMAGE (1, h, w, 3), bright being near."""
    objects: tuple[MovedObject, ...] = ()
    _made: dict[str, Any] = field(default_factory=dict, repr=False)
    """The animatic and its latents, once they are made."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the clip's latents, (1, 16, T, h, w)."""
        return (1, 16, (self.num_frames - 1) // 4 + 1, self.height // 8, self.width // 8)

    @property
    def weak(self) -> float:
        """The sigma that the clip starts at."""
        return max([self.strength.weak, *(moved.strength.weak for moved in self.objects)])

    @property
    def animatic(self) -> Animatic:
        """The clip of warped pictures."""
        return self.render()

    def render(self, on_frame: Callable[[int, int], None] = lambda done, total: None) -> Animatic:
        """Return the clip of warped pictures, which is made once; on_frame(done, total) counts its frames.

        Raises RequestError where the camera sees nothing of the picture.
        """
        if "animatic" not in self._made:
            self._made["animatic"] = animate(self, on_frame)
        return self._made["animatic"]

    def latents(self, on_piece: Callable[[int, int], None] = lambda done, total: None) -> torch.Tensor:
        """Return the normalised latents of the animatic (1, 16, T, h, w); the VAE encodes it once."""
        if "latents" not in self._made:
            self._made["latents"] = normalise(encode_clip(self.vae, self.animatic.images, on_piece))
        return self._made["latents"]


def move_camera(vae: Any, image: torch.Tensor | None, width: int, height: int, num_frames: int, path: MotionPath,
                strength: Strength, depth: torch.Tensor | None = None) -> Motion:
    """Return the motion of a camera over a picture. Raises RequestError for inputs that cannot be used."""
    check_image(image)
    check_size(width, height)
    check_num_frames(num_frames)
    check_vae(vae)
    strength.check()
    if depth is not None:
        check_image(depth, "depth")
        depth = depth.float().cpu()
    return Motion(vae, image.float().cpu(), width, height, num_frames, path, strength, depth)


def move_object(motion: Motion, mask: torch.Tensor, path: MotionPath, strength: Strength) -> Motion:
    """Return the motion with an object of the picture on a path of its own, in front of earlier ones.

    mask: MASK (1, H, W) in the size of the picture, 1 being the object. Raises RequestError for another.
    """
    strength.check()
    height, width = motion.image.shape[1:3]
    if mask.shape[-2:] != (height, width):
        raise RequestError(f"The mask is {mask.shape[-1]}x{mask.shape[-2]} pixels, the picture {width}x{height}. Draw "
                           "it on the same picture: right-click Load Image, Open in MaskEditor. (For a picture without "
                           "one, Load Image gives an empty mask of 64x64.)")
    mask = mask.float().cpu().reshape(-1, height, width)
    if len(mask) != 1:
        raise RequestError(f"The mask is a batch of {len(mask)}; an object has one. Use a Move Object for each.")
    if not bool(mask.isfinite().all()) or not bool((mask > 0.5).any()):
        raise RequestError("The mask is empty: there is no object to move. Draw it on the picture: right-click Load "
                           "Image, Open in MaskEditor.")
    if bool((mask > 0.5).all()):
        raise RequestError("The mask covers the whole picture. Draw it on the object alone, or move the camera with "
                           "Camera Path.")
    # The background of a soft mask (a segmenter's) is nearly 0, not 0: all of it would count as the object.
    mask = torch.where(mask < BACKGROUND, 0.0, mask)
    return replace(motion, objects=(*motion.objects, MovedObject(mask[0].clamp(0, 1), path, strength)), _made={})


def stay(vae: Any, image: torch.Tensor | None, width: int, height: int, num_frames: int, strength: Strength,
         motion: Motion | None = None) -> Motion:
    """Return what an object moves in: the given motion, else a camera at rest that leaves the background free.

    Raises RequestError when the given motion is of another picture, size or length.
    """
    at_rest = move_camera(vae, image, width, height, num_frames, AT_REST, strength)
    if motion is None:
        return replace(at_rest, strength=replace(strength, strong=FREE))
    if (motion.width, motion.height, motion.num_frames) != (width, height, num_frames):
        raise RequestError(f"The motion is for {motion.num_frames} frames of {motion.width}x{motion.height}, this node "
                           f"for {num_frames} of {width}x{height}. Give both the same resolution and num_frames.")
    if not torch.equal(motion.image, at_rest.image):
        raise RequestError("The motion is of another picture. Connect the same one to both nodes.")
    return replace(motion, vae=vae, _made={})


def animate(motion: Motion, on_frame: Callable[[int, int], None]) -> Animatic:
    """Return the animatic of a motion; on_frame(done, total) counts frames."""
    image = motion.image
    frame = Frame(motion.width, motion.height, image.shape[2], image.shape[1])
    nearness = None if motion.depth is None else nearness_of(motion.depth, frame)
    layers = _Layers(motion, frame)
    size = (motion.num_frames, motion.height, motion.width)
    images, until, mask = torch.empty(*size, 3), torch.empty(size), torch.empty(size)  # a long clip fits only once
    for index, camera in enumerate(cameras(motion.path, motion.num_frames, frame.aspect,
                                             math.inf if nearness is None else MOST_DOLLY)):
        t = index / (motion.num_frames - 1)
        images[index], until[index], mask[index] = layers.at(t, *_look(camera, frame, nearness, t))
        on_frame(index + 1, motion.num_frames)
    return Animatic(images.clamp_(0, 1), until, mask)


def _look(camera: Camera, frame: Frame, nearness: torch.Tensor | None, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a camera shows as points of the picture (H, W, 2), -1..1, and which of them are there, (H, W)."""
    if nearness is None:
        points, known = seen_points(camera, frame.pixels()), True
    else:
        points, known = shown_points(camera, frame, nearness)
    grid = frame.to_grid(points)
    there = inside(grid) & known
    if not bool(there.any()):
        raise RequestError(f"At t {t:.2f} the camera shows nothing of the picture: its path has left it. Keep a part "
                           "of the picture in the frame at every time.")
    return grid, there


class _Layers:
    """The picture, and the objects before it, to be shown through a camera."""

    def __init__(self, motion: Motion, frame: Frame) -> None:
        self.motion, self.frame = motion, frame
        self.picture = Picture(motion.image)
        self.at_rest = fit(motion.image, motion.width, motion.height)[0]
        self.masks = [Picture(moved.mask[None, ..., None]) for moved in motion.objects]
        if motion.objects:
            masks = torch.stack([moved.mask for moved in motion.objects]).amax(0, keepdim=True)
            rim = math.ceil(frame.crop[2] / frame.width)  # a pixel of the frame: edges of an object are half its own
            for size, padding in (((2 * rim + 1, 1), (rim, 0)), ((1, 2 * rim + 1), (0, rim))):  # one after the other:
                masks = F.max_pool2d(masks, size, 1, padding)  # a square at once takes minutes of a large picture
            cut = masks[0]
            self.cut = Picture(cut[None, ..., None])
            self.behind = Picture(fill_holes(motion.image[0], cut == 0)[None])

    def at(self, t: float, grid: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a frame (H, W, 3), and of its pixels until which sigma they are held and the mask, both (H, W)."""
        view = self.motion.path.at(t)
        scale = view["zoom"] * self.frame.width / self.frame.crop[2]
        shown = self.at_rest if view == CAMERA_FIELDS else self.picture.at(grid, scale)
        strength = self.motion.strength
        until = torch.where(there, strength.strong, strength.filled)
        shifts = [self.frame.shift(**moved.path.at(t)) for moved in self.motion.objects]
        moving = any(bool(shift.any()) for shift in shifts)
        if moving:
            hole = self.cut.at(grid, scale).clamp(0, 1)
            shown = torch.lerp(shown, self.behind.at(grid, scale), hole)
            there = there & (hole[..., 0] <= 0.5)
            until = torch.where(there, until, strength.filled)
        for moved, mask, shift in zip(self.motion.objects, self.masks, shifts, strict=True):
            source = grid - shift
            alpha = mask.at(source, scale).clamp(0, 1) * inside(source)[..., None]
            shown = torch.lerp(shown, self.picture.at(source, scale), alpha) if moving else shown
            covered = alpha[..., 0] > 0.5
            there = there | covered
            until = torch.where(covered, moved.strength.strong, until)
        return shown, until, there & (until < FREE)
