"""The frames of a long clip, counted; what is refused and what is warned of before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.long_clip.plan import Plan, plan_long_clip, plan_warnings
from pipeline.long_clip.progress import Progress, time_text
from pipeline.request import RequestError
from pipeline.segments import FRAMES, LAST_FRAME, SVI, Extension, Segment, is_svi_lora


def planned(lengths: list[int], extension: Extension, cross_fade: int = 0, *, loop: bool = False) -> Plan:
    segments = [Segment("it moves", seed, length) for seed, length in enumerate(lengths)]
    return plan_long_clip(segments, extension, 832, 480, cross_fade=cross_fade, loop=loop)


@pytest.mark.parametrize("cross_fade", [0, 1, 4])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("extension", "new"), [
    (Extension(SVI), 28), (Extension(FRAMES, 5), 28), (Extension(FRAMES, 9), 24), (Extension(FRAMES, 13), 20),
    (Extension(LAST_FRAME), 32)])
def test_a_segment_of_33_adds_what_is_not_shared(extension: Extension, new: int, count: int, cross_fade: int) -> None:
    plan = planned([33] * count, extension, cross_fade)
    assert plan.num_frames == 33 + new * (count - 1)
    assert planned([33] * count, extension, cross_fade, loop=True).num_frames == plan.num_frames - 1
    shown = sum(one.stop - one.start for one in plan.segments)
    assert 0 <= plan.num_frames - shown == plan.segments[-1].ends <= min(cross_fade, extension.overlap)


def test_eighty_one_frames_are_76_new_ones_by_svi() -> None:
    assert planned([81] * 3, Extension(SVI)).num_frames == 81 + 2 * 76


@pytest.mark.parametrize(("lengths", "options", "said"), [
    ([33, 5], {"extension": Extension(SVI)}, "Segment 2 is 5 frames long, and segments share 5 here. Give it at least "
                                             "9."),
    ([9, 33], {"extension": Extension(FRAMES, 13)}, "Segment 1 is 9 frames long, and segments share 13"),
    ([33, 13], {"extension": Extension(FRAMES, 13)}, "Segment 2 is 13 frames long"),
    ([33, 34], {}, "Segment 2: num_frames is 34; it must be a multiple of 4 plus 1"),
    ([33], {"cross_fade": 5}, "cross_fade is 5; choose 0 to 4"),
    ([33], {"extension": Extension(FRAMES, 6)}, "known_frames is 6; choose one of 5, 9, 13."),
    ([33], {"extension": Extension("auto")}, "way is 'auto'"),
    ([], {}, "There are no segments. Connect at least one"),
    ([33] * 101, {}, "There are 101 segments; 100 are allowed."),
])
def test_what_is_refused(lengths: list[int], options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned(lengths, **{"extension": Extension(), **options})
    assert str(caught.value).startswith(said)


def test_what_is_warned_of() -> None:
    segments = [Segment("it moves", seed, length) for seed, length in ((7, 33), (8, 85), (7, 33))]
    beyond, repeated = plan_warnings(plan_long_clip(segments, Extension(), 832, 480))
    assert beyond.startswith("Segment 2: 85 frames in one go: beyond 81 Wan 2.2 tends to run back")
    assert "Long Clip" in beyond and "Extend Clip" in beyond
    assert repeated.startswith("Several segments have the seed 7:")
    assert plan_warnings(planned([81, 81], Extension())) == []


@pytest.mark.parametrize(("name", "expected"), [
    ("SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0_pro.safetensors", True),
    ("Stable-Video-Infinity/v2.0/SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors", True),
    ("wan2.2_i2v_demo_svi_high_noise.safetensors", True),
    ("svip_style.safetensors", False), ("lightx2v_4steps.safetensors", False),
])
def test_svi_is_told_by_the_name(name: str, expected: bool) -> None:
    assert is_svi_lora(name) is expected


def test_progress_tells_what_is_left() -> None:
    clock = iter(range(0, 1000, 30))
    progress = Progress({2: 2, 3: 2}, 3, now=lambda: float(next(clock)))
    assert progress.step(2, 0) == "segment 2 of 3, step 1 of 2"
    assert progress.step(2, 1) == "segment 2 of 3, step 2 of 2, 1 min left"
    assert progress.step(3, 0) == "segment 3 of 3, step 1 of 2, 30 s left"
    assert progress.step(3, 1) == "segment 3 of 3, step 2 of 2"
    assert [time_text(s) for s in (0.1, 59, 61, 3600, 7900)] == ["1 s", "59 s", "2 min", "1 h 0 min", "2 h 12 min"]
