"""The engine on the bundled model: equal to diffusers' pipeline, repeatable, and a real mixture of experts."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from safetensors.torch import load_file

from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame, fit, known_ends
from pipeline.models.latents import denormalise, normalise
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import EXPERTS, HIGH, LOW, SCHEDULERS, RequestError, Sampling
from pipeline.sampling import schedule
from pipeline.sampling.denoise import guided, guided_in_one_pass, velocity_of
from pipeline.sampling.hooks import NEGATIVE, PAIR, POSITIVE, ModelInputs, observe
from pipeline.sampling.sampler import noise_of_steps, sample
from tests.support.pictures import enlarged

SIDE, FRAMES = 64, 9


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Soft coloured blobs, IMAGE (1, 80, 100, 3)."""
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    return enlarged(coarse, 80, 100)


@pytest.fixture(scope="module")
def inputs(loaded: tuple, image: torch.Tensor) -> tuple:
    _, encoder, vae = loaded
    return *encode_prompts(encoder, "the camera pans right", ""), encode_first_frame(vae, image, SIDE, SIDE, FRAMES)


def by_diffusers(loaded: tuple, image: torch.Tensor, inputs: tuple, sampling: Sampling,
                 last_image: torch.Tensor | None = None) -> torch.Tensor:
    """Normalised latents of WanImageToVideoPipeline, given the same modules, sigmas and noise."""
    model, _, vae = loaded
    positive, negative, first = inputs
    pictures = [None if i is None else fit(i, SIDE, SIDE).movedim(-1, 1) for i in (image, last_image)]
    scheduler = schedule.new_scheduler(sampling.scheduler, schedule.sigmas_of(sampling),
                                       noise_of_steps(first.latent_shape, sampling.seed, 0))
    scheduler.set_timesteps = lambda steps, device=None: None  # its sigmas are there; the pipeline knows no others
    pipe = WanImageToVideoPipeline(tokenizer=None, text_encoder=None, vae=vae.resident.module, scheduler=scheduler,
                                   transformer=model.high.model, transformer_2=model.low.model, boundary_ratio=0.9)
    pipe.set_progress_bar_config(disable=True)
    return pipe(image=pictures[0], last_image=pictures[1], prompt_embeds=positive[0][0],
                negative_prompt_embeds=negative[0][0], height=SIDE, width=SIDE, num_frames=FRAMES,
                num_inference_steps=sampling.num_inference_steps, guidance_scale=sampling.guidance[HIGH],
                guidance_scale_2=sampling.guidance[LOW], output_type="latent",
                latents=torch.randn(first.latent_shape, generator=torch.Generator().manual_seed(sampling.seed))).frames


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value: rounding alone is about 4e-6."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("guidance", [(4.0, 3.0), (4.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_equal_to_the_diffusers_pipeline(loaded: tuple, image: torch.Tensor, inputs: tuple, name: str,
                                         guidance: tuple[float, float]) -> None:
    """The pipeline asks only the high-noise guidance whether to run the negative pass, so (1, g) is none of its."""
    sampling = Sampling(seed=5, num_inference_steps=10, guidance_scale=guidance[0], guidance_scale_2=guidance[1],
                        scheduler=name)
    ours = normalise(sample(loaded[0], *inputs, sampling))
    assert apart(ours, by_diffusers(loaded, image, inputs, sampling)) < 1e-5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_last_picture_is_the_pipelines_last_image(loaded: tuple, image: torch.Tensor, inputs: tuple, name: str,
                                                    ) -> None:
    last_image = image.flip(2)
    first = encode_first_frame(loaded[2], image, SIDE, SIDE, FRAMES, last_image=last_image)
    sampling = Sampling(seed=5, num_inference_steps=10, guidance_scale=4.0, scheduler=name)
    ours = normalise(sample(loaded[0], *inputs[:2], first, sampling))
    theirs = by_diffusers(loaded, image, inputs, sampling, last_image)
    assert apart(ours, theirs) < 1e-5
    assert (ours - normalise(sample(loaded[0], *inputs, sampling))).abs().max() > 0.1


def test_one_step_is_the_same_step_by_every_scheduler(loaded: tuple, inputs: tuple) -> None:
    """x - v: none has an earlier step to go by, and no noise is left at the end."""
    found = [normalise(sample(loaded[0], *inputs, Sampling(seed=5, num_inference_steps=1, scheduler=name)))
             for name in SCHEDULERS]
    assert max(apart(other, found[0]) for other in found) < 1e-2, "UniPC cuts the timestep 999.999 to 999"
    assert apart(found[0], normalise(sample(loaded[0], *inputs, Sampling(seed=5, num_inference_steps=2)))) > 5e-2


def test_frames_are_those_of_the_diffusers_pipeline(loaded: tuple, image: torch.Tensor, inputs: tuple) -> None:
    """The pipeline's own decoding is the VAE's; what is left is its way from normalised latents to pictures."""
    sampling = Sampling(seed=5, num_inference_steps=10)
    ours = loaded[2].decode(sample(loaded[0], *inputs, sampling))[0]
    theirs = by_diffusers(loaded, image, inputs, sampling)
    frames = loaded[2].resident.module.decode(denormalise(theirs)).sample[0].permute(1, 2, 3, 0) / 2 + 0.5
    assert (ours - frames.clamp(0, 1)).abs().max() < 1e-5


def test_same_seed_same_bytes(loaded: tuple, inputs: tuple) -> None:
    runs = [sample(loaded[0], *inputs, Sampling(seed=seed, num_inference_steps=10)) for seed in (7, 7, 8)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_which_expert_takes_which_step(loaded: tuple, inputs: tuple) -> None:
    """Two passes a step, one at guidance 1; the high-noise expert down to sigma 0.9 and the other from there."""
    calls: list[tuple[int, str]] = []
    hooks = observe(before_pass=lambda step, expert: calls.append((step, expert)))
    sample(loaded[0], *inputs, Sampling(seed=0, num_inference_steps=10, guidance_scale_2=1.0), hooks)
    high = 4  # 1, .978, .952, .921 of the table are at least .9
    assert calls == [(s, HIGH) for s in range(high) for _ in range(2)] + [
        (s, LOW) for s in range(high, 10)]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("guidance", [(5.0, 5.0), (5.0, 1.0), (1.0, 5.0), (1.0, 1.0)])
def test_each_stage_runs_the_negative_pass_by_its_own_guidance(loaded: tuple, inputs: tuple,
                                                               guidance: tuple[float, float], batched: bool) -> None:
    calls: list[tuple[int, str]] = []
    sampling = Sampling(seed=0, num_inference_steps=4, guidance_scale=guidance[0], guidance_scale_2=guidance[1],
                        batched_guidance=batched)
    sample(loaded[0], *inputs, sampling, observe(before_pass=lambda step, expert: calls.append((step, expert))))
    passes = [1 if batched or scale == 1.0 else 2 for scale in guidance]
    assert calls == [(step, EXPERTS[i]) for step, i in enumerate([0, 0, 1, 1]) for _ in range(passes[i])]


@pytest.mark.parametrize("expert", [HIGH, LOW])
def test_guidance_in_one_pass_predicts_the_same(loaded: tuple, inputs: tuple, expert: str) -> None:
    positive, negative, first = inputs
    texts = {POSITIVE: positive[0][0], NEGATIVE: negative[0][0], PAIR: torch.cat([positive[0][0], negative[0][0]])}
    velocity = velocity_of(loaded[0].experts[expert].model, texts)
    latents = torch.randn(first.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        two, one = (guidance(velocity, ModelInputs(first.channels()), 5.0)(latents, torch.tensor(900.0))
                    for guidance in (guided, guided_in_one_pass))
    assert (one - two).abs().max() < 1e-5 * two.abs().max()


def test_guidance_in_one_pass_gives_the_same_clip(loaded: tuple, inputs: tuple) -> None:
    two, one = (normalise(sample(loaded[0], *inputs, Sampling(seed=2, num_inference_steps=10, guidance_scale=4.0,
                                                              batched_guidance=batched))) for batched in (False, True))
    assert (one - two).abs().max() < 1e-5 * two.abs().max()


@pytest.mark.parametrize("text", [(1, 600, 128), (1, 20, 128)])
def test_text_of_another_padding_reads_as_512_tokens(loaded: tuple, inputs: tuple, text: tuple[int, ...]) -> None:
    """Core's encoders pad longer, some nodes not at all; batched guidance needs one length."""
    values = torch.randn(text, generator=torch.Generator().manual_seed(0))
    values[:, 512:] = 0  # behind 512 tokens there is padding alone
    filled = torch.cat([values, torch.zeros(1, 512, 128)], 1)[:, :512]
    settings = Sampling(seed=0, num_inference_steps=4, batched_guidance=True)
    given, whole = (sample(loaded[0], [[t, {}]], *inputs[1:], settings) for t in (values, filled))
    assert torch.equal(given, whole)


def test_a_negative_prompt_that_is_not_read_may_be_anything(loaded: tuple, inputs: tuple) -> None:
    positive, _, first = inputs
    odd = [[torch.ones(1, 900, 7), {"mask": torch.ones(1, 4, 4)}]] * 2
    unread = Sampling(seed=0, num_inference_steps=4, guidance_scale=1.0)
    assert torch.equal(sample(loaded[0], positive, odd, first, unread), sample(loaded[0], *inputs, unread))
    with pytest.raises(RequestError, match="negative conditioning has 2 parts"):
        sample(loaded[0], positive, odd, first, Sampling(seed=0, num_inference_steps=4, guidance_scale_2=2.0))


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

    def stop(step: int, expert: str) -> None:
        nonlocal passes
        passes += 1
        if passes == 6:
            raise Stopped

    with pytest.raises(Stopped):
        sample(loaded[0], *inputs, Sampling(seed=0, num_inference_steps=10), observe(before_pass=stop))
    assert passes == 6


def test_text_of_another_model_is_refused(loaded: tuple, inputs: tuple) -> None:
    wide = [[torch.zeros(1, 512, 4096), {}]]
    with pytest.raises(RequestError, match="4096 wide, the experts read 128"):
        sample(loaded[0], wide, inputs[1], inputs[2], Sampling(seed=0))


def test_latents_that_are_not_numbers_are_reported(loaded: tuple, inputs: tuple) -> None:
    positive, negative, first = inputs
    broken = known_ends(torch.full_like(first.latents, float("nan")))
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


@pytest.mark.parametrize(("width", "height"), [(32, 4096), (4096, 32)])
def test_a_picture_for_a_ribbon_keeps_a_pixel(width: int, height: int) -> None:
    fitted = fit(torch.full((1, 32, 32, 3), 0.25), width, height)
    assert fitted.shape == (1, height, width, 3) and torch.allclose(fitted, torch.tensor(0.25))


def test_a_vae_of_another_model_is_refused(image: torch.Tensor) -> None:
    class OtherVAE:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, 48, 3, SIDE // 16, SIDE // 16)

    with pytest.raises(RequestError, match=r"Use wan_2\.1_vae"):
        encode_first_frame(OtherVAE(), image, SIDE, SIDE, FRAMES)
