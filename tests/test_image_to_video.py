"""The engine on the bundled model: equal to diffusers' pipeline, repeatable, and a real mixture of experts."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from safetensors.torch import load_file

from pipeline import load as bundled
from pipeline.first_frame import FirstFrame, encode_first_frame, fit
from pipeline.host import plain_host
from pipeline.image_to_video import Watch, sample
from pipeline.prompt import encode_prompts
from pipeline.request import RequestError, Sampling
from pipeline.sampling import schedule

SIDE, FRAMES = 64, 9


@pytest.fixture(scope="module")
def loaded() -> tuple:
    return bundled.load(plain_host())


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Soft coloured blobs, IMAGE (1, 80, 100, 3)."""
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (80, 100), mode="bicubic").clamp(0, 1).movedim(1, -1)


@pytest.fixture(scope="module")
def inputs(loaded: tuple, image: torch.Tensor) -> tuple:
    _, encoder, vae = loaded
    return *encode_prompts(encoder, "the camera pans right", ""), encode_first_frame(vae, image, SIDE, SIDE, FRAMES)


@pytest.mark.parametrize(("name", "low_guidance"), [("euler", 3.0), ("unipc", 3.0)])
def test_equal_to_the_diffusers_pipeline(loaded: tuple, image: torch.Tensor, inputs: tuple, name: str,
                                         low_guidance: float) -> None:
    """Same frames as WanImageToVideoPipeline given the same modules, schedule and noise."""
    model, _, vae = loaded
    positive, negative, first = inputs
    sampling = Sampling(seed=5, num_inference_steps=10, guidance_scale=4.0, guidance_scale_2=low_guidance,
                        scheduler=name)
    ours = vae.decode(sample(model, positive, negative, first, sampling))[0]

    scheduler = schedule.new_scheduler(name, 10, 5.0)
    table = schedule.sigma_table(10, 5.0)[:-1]
    set_timesteps = scheduler.set_timesteps
    scheduler.set_timesteps = lambda steps, device=None: set_timesteps(sigmas=table.copy(), device=device)
    pipe = WanImageToVideoPipeline(tokenizer=None, text_encoder=None, vae=vae.resident.module, scheduler=scheduler,
                                   transformer=model.high.model, transformer_2=model.low.model, boundary_ratio=0.9)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(first.latent_shape, generator=torch.Generator().manual_seed(5))
    picture = fit(image, SIDE, SIDE).movedim(-1, 1)
    theirs = pipe(image=picture, prompt_embeds=positive[0][0], negative_prompt_embeds=negative[0][0], height=SIDE,
                  width=SIDE, num_frames=FRAMES, num_inference_steps=10, guidance_scale=4.0,
                  guidance_scale_2=low_guidance, latents=noise, output_type="pt").frames[0].movedim(1, -1)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_same_seed_same_bytes(loaded: tuple, inputs: tuple) -> None:
    runs = [sample(loaded[0], *inputs, Sampling(seed=seed, num_inference_steps=10)) for seed in (7, 7, 8)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_which_expert_takes_which_step(loaded: tuple, inputs: tuple) -> None:
    """Two passes a step, one at guidance 1; the high-noise expert down to sigma 0.9 and the other from there."""
    calls: list[tuple[int, int]] = []
    watch = Watch(before_pass=lambda step, expert: calls.append((step, expert)))
    sample(loaded[0], *inputs, Sampling(seed=0, num_inference_steps=10, guidance_scale_2=1.0), watch)
    high = 4  # 1, .978, .952, .921 of the table are at least .9
    assert calls == [(s, schedule.HIGH) for s in range(high) for _ in range(2)] + [
        (s, schedule.LOW) for s in range(high, 10)]


def test_both_experts_and_the_boundary_matter(loaded: tuple, inputs: tuple) -> None:
    usual, early, late = (sample(loaded[0], *inputs, Sampling(seed=1, num_inference_steps=10, boundary=b))
                          for b in (0.9, 0.96, 0.7))
    assert not torch.allclose(usual, early, atol=1e-2)
    assert not torch.allclose(usual, late, atol=1e-2)


def test_experts_are_different(loaded: tuple) -> None:
    high, low = (load_file(f) for f in (bundled.DEMO_HIGH, bundled.DEMO_LOW))
    assert not torch.equal(high["blocks.0.ffn.0.weight"], low["blocks.0.ffn.0.weight"])


def test_stop_between_passes(loaded: tuple, inputs: tuple) -> None:
    class Stopped(BaseException):
        pass

    passes = 0

    def stop(step: int, expert: int) -> None:
        nonlocal passes
        passes += 1
        if passes == 6:
            raise Stopped

    with pytest.raises(Stopped):
        sample(loaded[0], *inputs, Sampling(seed=0, num_inference_steps=10), Watch(before_pass=stop))
    assert passes == 6


def test_text_of_another_model_is_refused(loaded: tuple, inputs: tuple) -> None:
    wide = [[torch.zeros(1, 512, 4096), {}]]
    with pytest.raises(RequestError, match="4096 wide, the experts read 128"):
        sample(loaded[0], wide, inputs[1], inputs[2], Sampling(seed=0))


def test_latents_that_are_not_numbers_are_reported(loaded: tuple, inputs: tuple) -> None:
    positive, negative, first = inputs
    broken = FirstFrame(torch.full_like(first.latents, float("nan")))
    said = r"high-noise expert \(.*high_noise_demo.*\) gave values that are not numbers at step 1"
    with pytest.raises(RuntimeError, match=said):
        sample(loaded[0], positive, negative, broken, Sampling(seed=0, num_inference_steps=10))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 48), (48, 96)])
def test_pictures_are_filled_and_cut_evenly(width: int, height: int) -> None:
    """A picture whose middle is white and whose rim is black keeps its white middle in the middle."""
    picture = torch.zeros(1, 90, 120, 3)
    picture[:, 40:50, 55:65] = 1
    fitted = fit(picture, width, height)[0, ..., 0]
    assert fitted.shape == (height, width)
    ys, xs = (fitted > 0.5).nonzero().float().T
    assert abs(ys.mean() - (height - 1) / 2) < 1 and abs(xs.mean() - (width - 1) / 2) < 1


def test_a_vae_of_another_model_is_refused(image: torch.Tensor) -> None:
    class OtherVAE:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, 48, 3, SIDE // 16, SIDE // 16)

    with pytest.raises(RequestError, match=r"Use wan_2\.1_vae"):
        encode_first_frame(OtherVAE(), image, SIDE, SIDE, FRAMES)
