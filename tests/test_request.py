"""The ranges of a request, and that each error says what was given and what to do."""

from __future__ import annotations

import pytest
import torch

from pipeline import request
from pipeline.request import RequestError, Sampling


@pytest.mark.parametrize(("size", "said"), [
    ((830, 480), "multiple of 16. The nearest is 832"),
    ((832, 16), "height is 16 pixels; choose 32 to 4096"),
    ((8192, 480), "width is 8192 pixels"),
])
def test_sizes_that_do_not_fit(size: tuple[int, int], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        request.check_size(*size)


@pytest.mark.parametrize("size", request.RESOLUTIONS.values())
def test_named_resolutions_fit(size: tuple[int, int]) -> None:
    request.check_size(*size)


@pytest.mark.parametrize(("frames", "said"), [(32, "such as 29 or 33"), (34, "such as 33 or 37"), (1, "5 to 1025"),
                                              (-3, "5 to 1025"), (2000, "5 to 1025")])
def test_frame_counts_that_do_not_fit(frames: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        request.check_num_frames(frames)


@pytest.mark.parametrize("frames", [5, 33, 49, 81, 161])
def test_frame_counts_that_fit(frames: int) -> None:
    request.check_num_frames(frames)


@pytest.mark.parametrize(("settings", "said"), [
    ({"num_inference_steps": 0}, "num_inference_steps is 0; choose 1 to 100"),
    ({"num_inference_steps": 101}, "num_inference_steps is 101"),
    ({"sigma_schedule": "karras"}, "sigma_schedule is 'karras'; choose one of official, thinned 4 \\+ 14"),
    ({"sigma_schedule": "thinned 4 + 14", "sigmas": (1.0,)}, "sigmas is a list too. Empty sigmas, or set"),
    ({"sigmas": (1.0, 0.5, 0.6)}, "sigmas lists 0.6 after 0.5; each has to be below the one before it"),
    ({"sigmas": (1.0, 0.5, 0.5)}, "sigmas lists 0.5 after 0.5"),
    ({"sigmas": (0.5, 0.499999)}, "by at least 0.00001"),
    ({"sigmas": (1.5, 1.0)}, "sigmas lists 1.5; a step starts at 1 .* or below, and above 0"),
    ({"sigmas": (0.5, 0.0, -0.5)}, "sigmas lists 0; a step"),
    ({"sigmas": (1.0, float("nan"))}, "sigmas lists nan"),
    ({"sigmas": tuple(1 - i / 101 for i in range(101))}, "sigmas lists 101 steps; choose 1 to 100"),
    ({"guidance_scale": 0.5}, "guidance_scale is 0.5; choose 1 to 10"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ({"guidance_scale_2": 10.5}, "guidance_scale_2 is 10.5"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**64}, "seed is"),
    ({"shift": 0.0}, "shift is 0"),
    ({"boundary": 1.5}, "boundary is 1.5"),
    ({"denoise": 0.0}, "denoise is 0; choose 0.01 to 1"),
    ({"denoise": float("nan")}, "denoise is nan"),
    ({"scheduler": "heun"}, "scheduler is 'heun'; choose one of euler, unipc, dpmpp_2m, lcm"),
    ({"stage": "middle"}, "stage is 'middle'; choose one of both, high-noise only, low-noise only"),
])
def test_sampling_out_of_range(settings: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Sampling(**{"seed": 0, **settings}).check()


def test_low_noise_guidance_defaults_to_the_other() -> None:
    assert Sampling(seed=0, guidance_scale=4.0).guidance == {"high": 4.0, "low": 4.0}
    assert Sampling(seed=0, guidance_scale=4.0, guidance_scale_2=1.0).guidance == {"high": 4.0, "low": 1.0}


@pytest.mark.parametrize(("image", "said"), [
    (None, "There is no image"), ("picture.png", "There is no image"),
    (torch.zeros(1, 31, 64, 3), "64x31 pixels; each side must be at least 32"),
    (torch.zeros(1, 64, 64, 4), "alpha channel"),
    (torch.zeros(1, 64, 64, 1), "1 colour channels"),
    (torch.zeros(3, 64, 64, 3), "batch of 3 pictures"),
    (torch.zeros(64, 64, 3), "3 dimensions"),
    (torch.full((1, 64, 64, 3), float("nan")), "not numbers"),
    (torch.full((1, 64, 64, 3), 200, dtype=torch.uint8), r"whole numbers \(uint8\).* Divide them by 255"),
    (torch.full((1, 64, 64, 3), 255.0), "values up to 255; a ComfyUI IMAGE has 0 to 1. Divide them by 255"),
    (torch.full((1, 64, 64, 3), -1.0), "values down to -1;.* halve them and add 0.5"),
])
def test_pictures_that_cannot_start_a_clip(image: torch.Tensor | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        request.check_image(image)


def test_prompt_length() -> None:
    request.check_prompt_tokens(512, "prompt")
    with pytest.raises(RequestError, match=r"The prompt is 530 tokens long; .* at most 512. Shorten it by 18"):
        request.check_prompt_tokens(530, "prompt")
