"""Time-to-Move: exact where it must be, the same in two runs and in the bridge, and a clip that follows its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.paths import SAMPLE_PICTURES
from pipeline.models.condition import encode_first_frame, known_ends
from pipeline.models.latents import denormalise, normalise
from pipeline.models.text_encoder import encode_prompts
from pipeline.motion.measure import deviation
from pipeline.motion.motion import Motion, move_camera, move_object, stay
from pipeline.motion.path import read_camera_path, read_object_path
from pipeline.motion.presets import preset_json
from pipeline.motion.strength import STRENGTHS, Strength
from pipeline.request import HIGH, HIGH_ONLY, LOW, LOW_ONLY, SCHEDULERS, RequestError, Sampling
from pipeline.sampling.bridge import sample_stages
from pipeline.sampling.denoise import guided, velocity_of
from pipeline.sampling.hooks import NEGATIVE, POSITIVE, Hooks, ModelInputs, combine
from pipeline.sampling.latent_file import load_latent, save_latent
from pipeline.sampling.sampler import new_noise, noise_of_steps, sample, sample_latent
from pipeline.sampling.schedule import new_scheduler, sigmas_of
from pipeline.sampling.time_to_move import steered_steps, time_to_move
from tests.support.pictures import enlarged

SIDE, FRAMES = 32, 9
SAMPLING = Sampling(seed=4, num_inference_steps=10)
"""Sigmas 1, .978, .952, .921, .882 ...: four steps of the high-noise expert."""
STRENGTH = Strength(0.96, 0.9)
"""Starts at step 2 and is held until step 4, the first of the low-noise expert."""


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return enlarged(coarse, 48, 48)


@pytest.fixture(scope="module")
def motion(loaded: tuple, picture: torch.Tensor) -> Motion:
    path = read_camera_path(preset_json("pan right"))
    return move_camera(loaded[2], picture, SIDE, SIDE, FRAMES, path, STRENGTH)


@pytest.fixture(scope="module")
def inputs(loaded: tuple, picture: torch.Tensor) -> tuple:
    _, encoder, vae = loaded
    return *encode_prompts(encoder, "nothing moves", ""), encode_first_frame(vae, picture, SIDE, SIDE, FRAMES)


def following(motion: Motion, inputs: tuple, sampling: Sampling = SAMPLING) -> Hooks:
    return time_to_move(motion, sampling, inputs[-1])


def by_the_paper(loaded: tuple, inputs: tuple, motion: Motion, sampling: Sampling) -> torch.Tensor:
    """Raw latents of the algorithm written down anew: Euler in the span, behind it the chosen scheduler from its start.
    """
    model, (positive, negative, condition) = loaded[0], inputs
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    texts = {POSITIVE: positive[0][0], NEGATIVE: negative[0][0]}
    z, noise = motion.latents(), new_noise(condition.latent_shape, sampling.seed)
    held = motion.animatic.until_in_latents() < 1
    weak, strong = (int((sigmas > sigma).sum()) for sigma in (STRENGTH.weak, STRENGTH.strong))
    x = (1 - sigmas[weak]) * z + sigmas[weak] * noise
    drawn = noise_of_steps(condition.latent_shape, sampling.seed, strong) if sampling.scheduler == "lcm" else None
    scheduler = new_scheduler(sampling.scheduler, sigmas_of(sampling), drawn)
    scheduler.set_begin_index(strong)
    with torch.no_grad():
        for step in range(weak, sampling.num_inference_steps):
            expert = model.experts[HIGH if sigmas[step] >= 0.9 else LOW]
            predict = guided(velocity_of(expert.model, texts), ModelInputs(condition.channels()), 5.0)
            if step < strong:
                v = predict(x, sigmas[step] * 1000)
                x = x + (sigmas[step + 1] - sigmas[step]) * v
                x = x * ~held + held * ((1 - sigmas[step + 1]) * z + sigmas[step + 1] * noise)
            else:
                v = predict(x, scheduler.timesteps[step])
                x = scheduler.step(v, scheduler.timesteps[step], x, return_dict=False)[0]
    return denormalise(x)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_as_the_paper_has_it_and_in_two_runs_to_the_same_bits(loaded: tuple, inputs: tuple, motion: Motion, name: str,
                                                               tmp_path: Path) -> None:
    sampling = replace(SAMPLING, scheduler=name)
    assert steered_steps(motion, torch.from_numpy(sigmas_of(sampling))) == range(2, 4)
    found = sample(loaded[0], *inputs, sampling, following(motion, inputs, sampling))
    assert torch.allclose(found, by_the_paper(loaded, inputs, motion, sampling), atol=2e-4)
    longer = replace(motion, strength=Strength(0.96, 0.85), _made={})  # held beyond the change of experts
    whole = sample(loaded[0], *inputs, sampling, following(longer, inputs, sampling))
    assert not torch.equal(whole, found)
    for one, wanted in ((motion, found), (longer, whole)):
        hooks = following(one, inputs, sampling)
        half = sample_latent(loaded[0], *inputs, replace(sampling, stage=HIGH_ONLY), hooks)
        save_latent(lambda: tmp_path / "half.latent", half, {})
        rest = sample_latent(loaded[0], *inputs, replace(sampling, stage=LOW_ONLY), hooks,
                             load_latent(tmp_path / "half.latent"))
        assert torch.equal(rest["samples"], wanted)
        with pytest.raises(RequestError, match="begun with seed"):  # whose noise is put back after the boundary too
            sample_latent(loaded[0], *inputs, replace(sampling, stage=LOW_ONLY, seed=99), hooks,
                          load_latent(tmp_path / "half.latent"))
        (tmp_path / "half.latent").unlink()


def test_what_steers_nothing_changes_no_bit(loaded: tuple, inputs: tuple, motion: Motion, picture: torch.Tensor,
                                            ) -> None:
    plain = sample(loaded[0], *inputs, SAMPLING)
    off = replace(motion, strength=Strength(1.0, 1.0), _made={})
    empty = stay(loaded[2], picture, SIDE, SIDE, FRAMES, STRENGTH)
    for nothing in (off, empty):
        assert torch.equal(sample(loaded[0], *inputs, SAMPLING, following(nothing, inputs)), plain)
    steered = sample(loaded[0], *inputs, SAMPLING, following(motion, inputs))
    assert not torch.equal(steered, plain)
    assert torch.equal(sample(loaded[0], *inputs, SAMPLING, following(motion, inputs)), steered)


@torch.inference_mode()
def test_the_same_on_comfyuis_own_sampling(loaded: tuple, core: dict[str, Any], inputs: tuple, motion: Motion) -> None:
    """Also with a multistep solver: it takes the steps behind the span, as its own program has it."""
    from pipeline.host.sampling import stage_runner

    plain = normalise(sample(loaded[0], *inputs, SAMPLING))
    for name, close in (("euler", 0.02), ("lcm", 0.02), ("unipc", 0.3), ("dpmpp_2m", 0.3)):
        sampling = replace(SAMPLING, scheduler=name)
        hooks = following(motion, inputs, sampling)
        found = normalise(sample_stages(stage_runner(core, sampling), *inputs, sampling, hooks=hooks)["samples"])
        wanted = normalise(sample(loaded[0], *inputs, sampling, hooks))
        assert (found - wanted).abs().mean() < close * (plain - wanted).abs().mean()


def test_each_pixel_is_held_until_its_own_sigma(motion: Motion, inputs: tuple) -> None:
    """What is filled in at the edge until 0.95, the rest until 0.85."""
    two = replace(motion, strength=Strength(0.96, 0.85, 0.95), _made={})
    nothing, until = torch.zeros(two.latent_shape), two.animatic.until_in_latents().expand(two.latent_shape)
    after_step, sigmas = following(two, inputs).after_step, sigmas_of(SAMPLING)
    held = [after_step(step, float(sigmas[step + 1]), nothing, nothing) != 0 for step in (1, 2, 3, 5)]
    assert [float(part.float().mean()) for part in held[::3]] == [0, 0] and bool(held[1].all())
    assert torch.equal(held[2], until < 0.92) and 0 < held[2].float().mean() < 1


def test_a_motion_that_no_step_would_follow(motion: Motion, inputs: tuple, picture: torch.Tensor) -> None:
    camera = replace(motion, strength=STRENGTHS["Wan 2.2, camera (0.986, 0.964)"], _made={})
    following(camera, inputs, replace(SAMPLING, num_inference_steps=20))
    four = Sampling(seed=0, num_inference_steps=4, guidance_scale=1.0)
    with pytest.raises(RequestError, match=r"from sigma 0\.986 to 0\.964, and no step starts there: they start at 1, "
                                           r"0\.938, 0\.833, 0\.625\. Choose custom weak_sigma"):
        following(camera, inputs, four)
    following(replace(motion, strength=Strength(0.95, 0.7), _made={}), inputs, four)
    at_steps = replace(motion, strength=Strength(0.9375, 0.625), _made={})
    assert steered_steps(at_steps, torch.from_numpy(sigmas_of(four)).float()) == range(1, 3)
    with pytest.raises(RequestError, match="for 9 frames of 32x32, first_frame for 13 of 48x32"):
        time_to_move(motion, SAMPLING, known_ends(torch.zeros(1, 16, 4, 4, 6)))
    closer = read_camera_path('{"keyframes": [{"t": 0, "zoom": 1.3}]}')
    moved = move_camera(motion.vae, picture, SIDE, SIDE, FRAMES, closer, STRENGTH)
    with pytest.raises(RequestError, match="first_frame shows another picture than the motion starts with"):
        following(moved, inputs).start(torch.zeros(motion.latent_shape), torch.ones(2))


def test_an_object_that_no_latent_would_hold(motion: Motion, inputs: tuple, picture: torch.Tensor) -> None:
    """Of the frame of 32x32, a pixel is 1.5 of the picture's."""
    def moved(side: int, x: float, strength: Strength = STRENGTH) -> Motion:
        mask = torch.zeros(1, 48, 48)
        mask[:, 12:12 + side, 12:12 + side] = 1
        path = read_object_path(f'{{"keyframes": [{{"t": 0}}, {{"t": 1, "x": {x}}}]}}')
        still = stay(motion.vae, picture, SIDE, SIDE, FRAMES, strength)
        return move_object(still, mask, path, strength)

    for lost in (moved(3, 0), moved(3, 0, replace(STRENGTH, filled=0.93)), moved(10, 0.8), moved(1, 0)):
        with pytest.raises(RequestError, match=r"too small or too fast to be held: at frame \d of 9 it covers \d+ "
                                               "pixels of the 32x32 clip"):
            following(lost, inputs)
    leaving = moved(18, 1.0)
    for held in (moved(10, 0), moved(18, 0.2), leaving, moved(3, 0, Strength(1.0, 1.0))):
        following(held, inputs)


def test_two_that_choose_the_scheduler() -> None:
    idea = Hooks(scheduler=lambda step, chosen: "euler")
    with pytest.raises(RequestError, match="2 inputs of the sampler decide the scheduler"):
        combine(idea, replace(idea, scheduler=lambda step, chosen: "unipc"))


def clip_of(loaded: tuple, motion: Motion, prompt: str, steps: int = 10) -> torch.Tensor:
    """Frames (17, 128, 128, 3)."""
    model, encoder, vae = loaded
    sampling = replace(SAMPLING, seed=1, num_inference_steps=steps)
    first = encode_first_frame(vae, motion.animatic.images[:1], 128, 128, 17)
    hooks = following(motion, (first,), sampling)
    latents = sample(model, *encode_prompts(encoder, prompt, ""), first, sampling, hooks)
    return vae.decode(latents)[0]


def test_a_clip_follows_its_path_against_its_prompt(loaded: tuple) -> None:
    """A pan to the left and down, which the prompt contradicts, and an object that moves before a static camera."""
    g = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 20, 24, generator=g)
    image = enlarged(coarse, 160, 192)
    strength: Any = STRENGTHS["bundled demo model (0.9, 0.1)"]
    path = read_camera_path('{"keyframes": [{"t": 0, "x": 0.1}, {"t": 1, "x": -0.1, "y": 0.1}]}')
    panned = move_camera(loaded[2], image, 128, 128, 17, path, strength)
    found = deviation(clip_of(loaded, panned, "the camera pans right"), panned)
    assert found.asked.x * 128 == pytest.approx(25.6, abs=0.5) and found.largest * 128 < 0.15 * 28

    mask = torch.zeros(1, 160, 192)
    mask[:, 60:100, 60:100] = 1
    ground = 0.5 * enlarged(coarse[..., :5, :6], 160, 192)
    image = torch.where(mask[..., None] > 0, torch.tensor([1.0, 0.9, 0.1]), ground)
    still = stay(loaded[2], image, 128, 128, 17, strength)
    moved = move_object(still, mask, read_object_path('{"keyframes": [{"t": 0}, {"t": 1, "x": 0.234375}]}'), strength)
    clip = clip_of(loaded, moved, "nothing moves")
    yellow = (clip[..., 0] > 0.6) & (clip[..., 1] > 0.5) & (clip[..., 2] < 0.4)
    middles = [frame.nonzero()[:, 1].float().mean() for frame in yellow[[0, -1]]]
    assert float(middles[1] - middles[0]) == pytest.approx(30, abs=4)


def test_a_zoom_is_still_there_after_thirty_steps(loaded: tuple) -> None:
    """As many as the template has: the bundled model, let go too early, goes back to its first picture in the last."""
    with Image.open(SAMPLE_PICTURES / "wan22_coffee.png") as opened:
        picture = torch.from_numpy(np.asarray(opened.convert("RGB"))[None].astype(np.float32) / 255)
    path = read_camera_path('{"keyframes": [{"t": 0}, {"t": 1, "zoom": 1.4}]}')
    zoomed = move_camera(loaded[2], picture, 128, 128, 17, path, STRENGTHS["bundled demo model (0.9, 0.1)"])
    found = deviation(clip_of(loaded, zoomed, "nothing moves", steps=30), zoomed).found
    assert found.scale == pytest.approx(1.4, abs=0.05) and abs(found.turn) < 0.02
