"""The clip of warped pictures: against analytic warps, holes and objects included, and how it is measured."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.models.condition import fit
from pipeline.motion.camera import camera_of, seen_points
from pipeline.motion.measure import deviation
from pipeline.motion.motion import Motion, MovedObject, move_camera, move_object, stay
from pipeline.motion.path import CAMERA_FIELDS, read_camera_path, read_object_path
from pipeline.motion.presets import preset_json
from pipeline.motion.strength import FREE, Strength
from pipeline.motion.warp import nearest
from pipeline.request import RequestError
from tests.support.pictures import enlarged

WIDTH, HEIGHT, FRAMES = 96, 64, 9
STRENGTH = Strength(0.9, 0.3)


class NoVae:
    """Stands where a VAE is asked for that nothing encodes with."""


def waves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth picture as a function of pixels, (..., 3), 0..1: 0.03 px show as 1e-4."""
    return torch.stack([0.5 + 0.3 * torch.sin(x / 90 + phase) * torch.cos(y / 80 - phase) for phase in (0, 1, 2)], -1)


def picture(width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    xs, ys = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    return waves(*torch.meshgrid(xs, ys, indexing="xy"))[None].float()


def camera(path: Any, image: torch.Tensor | None = None, **options: Any) -> Motion:
    text = path if isinstance(path, str) else json.dumps(path)
    return move_camera(NoVae(), picture() if image is None else image, WIDTH, HEIGHT, FRAMES, read_camera_path(text),
                       STRENGTH, **options)


def to(**end: float) -> dict[str, Any]:
    return {"keyframes": [{"t": 0}, {"t": 1, **end}]}


@pytest.mark.parametrize("end", [
    {"x": 0.2}, {"y": -0.3}, {"x": -0.13, "y": 0.21}, {"zoom": 1.7}, {"zoom": 1.2, "roll": 25},
    {"x": 0.1, "y": 0.05, "zoom": 1.5, "roll": -40}])
def test_a_flat_path_against_the_analytic_warp(end: dict[str, float]) -> None:
    animatic = camera(to(**end)).animatic
    x, y = torch.meshgrid(torch.arange(WIDTH) + 0.5 - WIDTH / 2, torch.arange(HEIGHT) + 0.5 - HEIGHT / 2, indexing="xy")
    for index in range(1, FRAMES):
        t = index / (FRAMES - 1)
        zoom, roll = end.get("zoom", 1.0) ** t, math.radians(end.get("roll", 0.0) * t)
        px = WIDTH * (0.5 + t * end.get("x", 0.0)) + (math.cos(roll) * x - math.sin(roll) * y) / zoom
        py = HEIGHT * (0.5 + t * end.get("y", 0.0)) + (math.sin(roll) * x + math.cos(roll) * y) / zoom
        clear = (px > 2) & (px < WIDTH - 2) & (py > 2) & (py < HEIGHT - 2)
        assert (animatic.images[index] - waves(px, py))[clear].abs().max() < 1e-4
        there = (px > 0) & (px < WIDTH) & (py > 0) & (py < HEIGHT)
        assert (animatic.mask[index].bool() == there).float().mean() > 0.995  # but for rounding at the very edge


def test_tilt_and_orbit_against_a_camera_worked_out_by_hand() -> None:
    """50 degrees of view: the picture is 1 / (2 tan 25) widths away."""
    focal = 0.5 / math.tan(math.radians(25))
    middle = torch.tensor([[0.0, 0.0]], dtype=torch.float64)

    def seen(points: torch.Tensor, **fields: float) -> list[float]:
        return seen_points(camera_of({**CAMERA_FIELDS, **fields}, 50.0, 0.75), points)[0].tolist()

    looking_up = [0, -focal * math.tan(math.radians(10))]
    assert seen(middle, tilt=10) == pytest.approx(looking_up)
    assert seen(middle, orbit=25) == pytest.approx([0, 0])
    assert seen(middle, tilt=10, orbit=25, roll=70) == pytest.approx(looking_up), "from where it has gone"
    # From 25 degrees to the right, the ray of the frame's right edge (25 degrees as well) meets the plane head-on.
    right_edge = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    assert seen(right_edge, orbit=25) == pytest.approx([focal * math.sin(math.radians(25)), 0])
    assert seen(middle, x=0.1, y=0.2, zoom=3, roll=70, orbit=-30) == pytest.approx([0.1, 0.15])
    with pytest.raises(RequestError, match="looks past the horizon"):
        seen(torch.tensor([[0.0, -0.5]], dtype=torch.float64), tilt=75)


def test_at_rest_it_is_what_first_frame_crops_to() -> None:
    image = picture(151, 210)
    animatic = camera(preset_json("static"), image).animatic
    assert torch.equal(animatic.images, fit(image, WIDTH, HEIGHT).expand(FRAMES, -1, -1, -1))
    assert bool((animatic.until == STRENGTH.strong).all())
    nearly = camera({"keyframes": [{"t": 0, "x": 1e-9}]}, image).animatic
    assert (nearly.images - animatic.images).abs().max() < 2e-3, "the warp of large pictures meets the crop"


def test_a_large_picture_is_shown_beyond_the_first_frame_and_without_aliases() -> None:
    checks = ((torch.arange(800)[:, None] + torch.arange(1600)) % 2).float()[None, ..., None].expand(-1, -1, -1, 3)
    animatic = camera(to(x=0.15, zoom=1.3), checks).animatic
    assert bool((animatic.mask == 1).all())
    assert (animatic.images - 0.5).abs().max() < 0.02


def test_holes_show_the_nearest_pixels() -> None:
    image = picture()
    last = camera(to(x=0.25), image).animatic
    assert torch.allclose(last.images[-1, :, -24:], image[0, :, -1:].expand(-1, 24, -1), atol=2e-3)
    assert bool((last.mask[-1, :, -24:] == 0).all()) and bool((last.mask[-1, :, :-24] == 1).all())
    filled = replace(camera(to(x=0.25), image), strength=replace(STRENGTH, filled=0.6), _made={}).animatic
    assert filled.until[-1, 0].tolist() == pytest.approx([0.3] * (WIDTH - 24) + [0.6] * 24)
    assert torch.equal(filled.mask, last.mask)
    known = torch.rand(23, 37, generator=torch.Generator().manual_seed(1)) > 0.97
    places = known.nonzero().float()
    here = torch.stack(torch.meshgrid(torch.arange(23.0), torch.arange(37.0), indexing="ij"), -1).view(-1, 2)
    found = nearest(known)
    assert bool(known[found[..., 0], found[..., 1]].all())
    wanted = torch.cdist(here, places).amin(1)
    assert torch.allclose((found.view(-1, 2) - here).norm(dim=1), wanted, atol=0.5)


def test_what_is_near_moves_further() -> None:
    """A near square before a far ground: it moves by half as much again, and leaves a hole behind."""
    near = torch.zeros(1, HEIGHT, WIDTH, 3)
    near[:, 24:40, 40:56] = 1
    image = 0.2 + 0.6 * near
    motion = camera(to(x=-0.125), image, depth=near)
    last = motion.animatic.images[-1, :, :, 0]
    # 12 px, and of the square, which is 1.5 times as near as the ground, 18.
    assert last[32, 60:73].min() > 0.75 and last[32, 76:].max() < 0.25
    assert float(motion.animatic.mask[-1, 32, 52:58].sum()) == 0, "where it was the ground has not been seen"
    assert last[32, 40:57].max() < 0.25, "and is filled from the ground around"
    for _ in range(2):
        assert torch.equal(camera(to(x=-0.125), image, depth=near).animatic.images, motion.animatic.images)
    flat = camera(to(x=0.1), image, depth=torch.full_like(near, 0.3))
    with pytest.raises(RequestError, match=r"depth is the same everywhere \(0\.30\)"):
        _ = flat.animatic


@pytest.mark.parametrize("depth", ["slope", "ball"])
@pytest.mark.parametrize("zoom", [1.5, 3.0, 6.0])
def test_a_zoom_into_depth_shows_all_of_the_picture(depth: str, zoom: float) -> None:
    """No cracks where surfaces are seen close by, and no camera that goes through what is near."""
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    near = {"slope": (xs + 1) / 2, "ball": (xs**2 + ys**2 < 0.2).float()}[depth][None, ..., None].expand(-1, -1, -1, 3)
    animatic = camera(to(zoom=zoom), picture(), depth=near.contiguous()).animatic
    assert float(animatic.mask[-1].mean()) > 0.99
    assert float(animatic.mask[0].mean()) == 1.0


def test_of_a_long_picture_the_seen_part_alone_becomes_points(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture().repeat(1, 1, 12, 1)
    near = torch.linspace(0, 1, image.shape[2])[None, None, :, None].expand(1, image.shape[1], -1, 3).contiguous()
    usual = camera(to(x=1.0), image, depth=near).animatic
    monkeypatch.setattr("pipeline.motion.depth.MOST_POINTS", 8 * WIDTH * HEIGHT)
    few = camera(to(x=1.0), image, depth=near).animatic
    assert float(few.mask.mean()) > 0.99 and (few.images - usual.images).abs().mean() < 0.01


def square() -> torch.Tensor:
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[:, 16:32, 16:32] = 1
    return mask


RIGHT = read_object_path('{"keyframes": [{"t": 0}, {"t": 1, "x": 0.25, "y": 0.25}]}')


def test_an_object_is_cut_moved_and_joined_with_the_camera() -> None:
    mask, image = square(), picture()
    image[:, 16:32, 16:32] = 1
    alone = move_object(stay(NoVae(), image, WIDTH, HEIGHT, FRAMES, STRENGTH), mask, RIGHT, STRENGTH).animatic
    assert torch.equal(alone.images[0], image[0])
    assert alone.images[-1, 33:47, 41:55].min() > 0.99
    assert (alone.images[-1, 18:30, 18:30] - 1).abs().min() > 0.1, "what was behind it is filled in"
    assert bool((alone.images[-1, 50:] == image[0, 50:]).all()), "the ground does not move"
    assert [float(alone.mask[i].sum()) for i in (0, -1)] == [256, 256]
    assert bool((alone.mask[-1, 33:47, 41:55] == 1).all())
    panned = camera(to(x=0.125), image)
    joined = stay(NoVae(), image, WIDTH, HEIGHT, FRAMES, STRENGTH, panned)
    both = move_object(joined, mask, RIGHT, Strength(0.95, 0.2))
    assert both.weak == 0.95 and both.animatic.images[-1, 33:47, 29:43].min() > 0.99
    assert bool((both.animatic.until[-1, 33:47, 29:43] == 0.2).all())
    assert bool((both.animatic.until[-1, 17:31, 6:18] == FREE).all()), "the hole is left to the model"
    filled = replace(both, strength=replace(STRENGTH, filled=0.6), _made={}).animatic
    assert torch.allclose(filled.until[-1, 17:31, 6:18], torch.tensor(0.6)), "unless filled pixels are held"
    assert float(both.animatic.until[-1, 60, 60]) == pytest.approx(STRENGTH.strong)
    across = read_object_path('{"keyframes": [{"t": 0}, {"t": 1, "x": 0.25}]}')
    two = move_object(both, mask.flip(1), across, STRENGTH)
    assert [type(moved) for moved in two.objects] == [MovedObject] * 2
    assert two.animatic.images[-1, 34:46, 30:42].max() < 0.9, "the later one is in front"
    assert torch.allclose(two.animatic.until[-1, 34:46, 30:42], torch.tensor(STRENGTH.strong))


def test_a_soft_masks_background_is_not_the_object() -> None:
    """A segmenter's mask is nowhere quite 0: what was behind the object is still filled in from around it."""
    image = 0.2 + 0.6 * square()[..., None].expand(-1, -1, -1, 3)
    still = stay(NoVae(), image, WIDTH, HEIGHT, FRAMES, STRENGTH)
    hard, soft = (move_object(still, mask, RIGHT, STRENGTH).animatic for mask in (square(), square().clamp(min=0.01)))
    assert soft.images[-1, 18:30, 18:30].max() < 0.25
    assert torch.equal(soft.images, hard.images) and torch.equal(soft.mask, hard.mask)


def test_a_latent_is_held_where_most_of_its_pixels_are() -> None:
    until = camera(to(x=0.25)).animatic.until_in_latents()
    assert until.shape == (1, 1, 3, 8, 12)
    # The hole is 24 px wide in the last frame, and 12 to 21 in the three before.
    assert until[0, 0, -1, 0].tolist() == pytest.approx([0.3] * 10 + [1.0] * 2, abs=1e-5)
    assert torch.allclose(until[0, 0, 0], torch.tensor(0.3))


@pytest.mark.parametrize(("mask", "said"), [
    (torch.zeros(1, 64, 64), r"The mask is 64x64 pixels, the picture 96x64.* Load Image gives an empty mask of 64x64"),
    (torch.zeros(1, HEIGHT, WIDTH), "The mask is empty"),
    (torch.full((1, HEIGHT, WIDTH), torch.nan), "The mask is empty"),
    (torch.ones(1, HEIGHT, WIDTH), "covers the whole picture"),
    (torch.ones(2, HEIGHT, WIDTH), "a batch of 2"),
])
def test_a_mask_that_is_no_object(mask: torch.Tensor, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        move_object(camera(to()), mask, RIGHT, STRENGTH)


def test_what_does_not_belong_together_or_cannot_be_seen() -> None:
    with pytest.raises(RequestError, match=r"At t 0\.\d\d the camera shows nothing of the picture"):
        _ = camera(to(x=3)).animatic
    with pytest.raises(RequestError, match="for 9 frames of 96x64, this node for 13 of 96x64"):
        stay(NoVae(), picture(), WIDTH, HEIGHT, 13, STRENGTH, camera(to()))
    with pytest.raises(RequestError, match="of another picture"):
        stay(NoVae(), picture() * 0.5, WIDTH, HEIGHT, FRAMES, STRENGTH, camera(to()))
    with pytest.raises(RequestError, match=r"weak_sigma is 0\.3 and strong_sigma 0\.9"):
        Strength(0.3, 0.9).check()


@pytest.mark.parametrize(("end", "said"), [
    ({}, "no motion"), ({"x": 0.3, "y": -0.2}, r"2\d\.\d px right, 1\d\.\d px up"),
    ({"zoom": 1.4}, r"zoom 1\.(39|4\d)"), ({"zoom": 0.8, "roll": 12}, r"zoom 0\.(79|8\d), roll 1[12]\.\d°")])
def test_the_motion_of_a_clip_is_measured(end: dict[str, float], said: str) -> None:
    """Of the frames of a path beside a static one: what is asked is nothing, what is found is the path."""
    image = enlarged(torch.rand(1, 3, 12, 18, generator=torch.Generator().manual_seed(2)), 128, 192)
    motion = replace(camera(to(**end), image), num_frames=17, _made={})
    still = replace(camera(to(), image), num_frames=17, _made={})
    found = deviation(motion.animatic.images, still)
    assert found.asked.described(WIDTH) == "no motion"
    zoom, roll = end.get("zoom", 1.0), math.radians(end.get("roll", 0.0))
    assert [found.found.scale, found.found.turn] == pytest.approx([zoom, -roll], abs=0.015)
    assert [found.found.x, found.found.y] == pytest.approx([-end.get("x", 0.0), -end.get("y", 0.0) * HEIGHT / WIDTH],
                                                           abs=0.005)
    assert found.largest == pytest.approx(math.hypot(found.found.x, found.found.y), abs=0.01)
    assert re.fullmatch(said, found.found.described(WIDTH)), found.found.described(WIDTH)
    assert deviation(motion.animatic.images, motion).largest < 1e-4


def test_where_a_clip_strays_furthest_is_told_though_it_comes_back() -> None:
    astray = camera({"keyframes": [{"t": 0}, {"t": 0.5, "x": 0.1}, {"t": 1}]}).animatic.images
    found = deviation(astray, camera(to()))
    assert found.largest == pytest.approx(0.1, abs=0.01) and found.found.x == pytest.approx(0, abs=0.01)


def test_the_motion_of_a_very_wide_clip_is_measured() -> None:
    motion, still = (replace(camera(path, picture(704, 32)), width=704, height=32, num_frames=5, _made={})
                     for path in (to(x=0.05), to()))
    assert deviation(motion.animatic.images, still).found.x == pytest.approx(-0.05, abs=0.01)
