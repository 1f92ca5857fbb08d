"""Paths as JSON: what they mean, and a sentence for each that means nothing."""

from __future__ import annotations

import json

import pytest

from pipeline.motion.path import AT_REST, read_camera_path, read_object_path
from pipeline.motion.presets import PRESETS, preset_json
from pipeline.request import RequestError

REST = {"x": 0.0, "y": 0.0, "zoom": 1.0, "roll": 0.0, "tilt": 0.0, "orbit": 0.0}


def path_of(*keyframes: dict, **settings: object) -> str:
    return json.dumps({"keyframes": keyframes, **settings})


def test_keyframes_are_interpolated_and_held_at_the_ends() -> None:
    path = read_camera_path(path_of({"t": 0.25}, {"t": 0.75, "x": 0.4, "zoom": 4, "roll": -90}))
    assert path.at(0) == path.at(0.25) == REST
    assert path.at(0.5) == pytest.approx({**REST, "x": 0.2, "zoom": 2.0, "roll": -45.0})
    assert path.at(0.75) == path.at(1) == {**REST, "x": 0.4, "zoom": 4.0, "roll": -90.0}
    assert AT_REST.at(0.3) == REST


@pytest.mark.parametrize(("easing", "at_quarter", "at_half"), [
    ("linear", 0.25, 0.5), ("ease-in", 0.0625, 0.25), ("ease-out", 0.4375, 0.75), ("ease-in-out", 0.15625, 0.5)])
def test_easing_is_over_the_whole_path(easing: str, at_quarter: float, at_half: float) -> None:
    path = read_object_path(path_of({"t": 0}, {"t": 0.5, "x": 0.5}, {"t": 1, "x": 1}, easing=easing))
    assert [path.at(t)["x"] for t in (0, 0.25, 0.5, 1)] == pytest.approx([0, at_quarter, at_half, 1])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_path(name: str) -> None:
    path = read_camera_path(preset_json(name))
    assert (path.at(1) != path.at(0)) == (name != "static")


@pytest.mark.parametrize(("text", "said"), [
    ("zoom in", "path is no JSON"),
    ("[]", "path has no keyframes"),
    ('{"keyframes": []}', "path has no keyframes"),
    ('{"keyframes": {"t": 0}}', "path has no keyframes"),
    (path_of(*({"t": n / 1000} for n in range(1001))), "path has 1001 keyframes; it may have 1000 at most."),
    (path_of({"x": 1}), 'Keyframe 1 of the path has no time. Give it "t"'),
    (path_of(3), "Keyframe 1 of the path has no time"),
    (path_of({"t": 0}, {"t": 0.5, "zooom": 2}), "Keyframe 2 of the path has 'zooom', which is not read. It may have t"),
    (path_of({"t": 0}, easing="bounce"), "The easing of the path is 'bounce'; choose one of linear, ease-in"),
    (path_of({"t": 0}, easing=["linear"]), "The easing of the path is"),
    (path_of({"t": 0}, speed=2), "path has 'speed', which is not read"),
    (path_of({"t": 0.5}, {"t": 0.2}), "Keyframe 2 of the path is at t 0.2, and the one before it at 0.5. Sort the"),
    (path_of({"t": 0.5}, {"t": 0.5}), "Keyframe 2 of the path is at t 0.5, and the one before it at 0.5"),
    (path_of({"t": 1.5}), "Keyframe 1 of the path has t 1.5; choose a number from 0 to 1"),
    (path_of({"t": 0, "x": float("nan")}), "Keyframe 1 of the path has x NaN; choose a number from -10 to 10"),
    (path_of({"t": 0, "y": float("inf")}), "has y infinite"),
    (path_of({"t": 0, "zoom": 0}), "has zoom 0; choose a number from 0.1 to 10"),
    (path_of({"t": 0, "zoom": True}), "has zoom true"),
    (path_of({"t": 0, "roll": "left"}), 'has roll "left"'),
    (path_of({"t": 0, "tilt": 90}), "has tilt 90; choose a number from -60 to 60"),
    (path_of({"t": 0}, fov=170), "The path has fov 170; choose a number from 5 to 90"),
])
def test_a_path_that_means_nothing(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_camera_path(text)
    assert said in str(caught.value)


def test_as_many_keyframes_as_a_path_may_have() -> None:
    path = read_camera_path(path_of(*({"t": n / 1000, "x": n / 1000} for n in range(1000))))
    assert path.at(0.5)["x"] == 0.5


def test_an_object_starts_where_it_is_and_only_moves() -> None:
    with pytest.raises(RequestError, match=r"starts at x 0\.1, y 0, but the clip starts with the picture"):
        read_object_path(path_of({"t": 0, "x": 0.1}, {"t": 1, "x": 0.3}))
    with pytest.raises(RequestError, match=r"has 'zoom', which is not read\. It may have t, x, y\."):
        read_object_path(path_of({"t": 0}, {"t": 1, "zoom": 2}))
