"""The bundled model does what it is for: prompts steer it, each expert matters, the LoRA pair bends it.

Small and quick here; bench/demo_model/evaluate.py measures it in full.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from devtools.paths import ROOT
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import Sampling
from pipeline.sampling.denoise import guided, velocity_of
from pipeline.sampling.hooks import NEGATIVE, POSITIVE, ModelInputs
from pipeline.sampling.sampler import sample

sys.path.insert(0, str(ROOT / "bench" / "demo_model"))
from clips import Scene, render
from measure import agrees, merge_lora, saturation
from pictures import procedural_canvas

from tests.support.lora_files import DRAIN

SIDE, FRAMES = 128, 33
LORAS = list(DRAIN.values())


@pytest.fixture(scope="module")
def loaded() -> tuple:
    return bundled.load(plain_host())


@pytest.fixture(scope="module")
def scene() -> Scene:
    g = torch.Generator().manual_seed(424242)
    return Scene.random(SIDE, SIDE, g, True, procedural_canvas(2 * SIDE, 2 * SIDE, g))


def image_of(scene: Scene) -> torch.Tensor:
    return ((render(scene, "still", "", 1)[:, 0] + 1) / 2).permute(1, 2, 0)[None]


def make(loaded: tuple, scene: Scene, prompt: str, steps: int = 12) -> torch.Tensor:
    """Frames (33, 3, 128, 128), 0..1, at the default guidance."""
    model, encoder, vae = loaded
    first = encode_first_frame(vae, image_of(scene), SIDE, SIDE, FRAMES)
    latents = sample(model, *encode_prompts(encoder, prompt, ""), first, Sampling(seed=1, num_inference_steps=steps))
    return vae.decode(latents)[0].movedim(-1, 1)


@pytest.fixture(scope="module")
def plain(loaded: tuple, scene: Scene) -> Callable[[str], torch.Tensor]:
    """Prompt -> the bundled model's frames, made once."""
    return functools.cache(lambda prompt: make(loaded, scene, prompt))


@pytest.mark.parametrize(("prompt", "motion"), [
    ("the camera pans left", "pan left"), ("the camera pans right", "pan right"), ("the camera pans up", "pan up"),
    ("everything turns red", "tint red"), ("the scene fades to black", "fade to black"), ("nothing moves", "still"),
])
def test_the_prompt_steers(plain: Callable[[str], torch.Tensor], scene: Scene, prompt: str, motion: str) -> None:
    frames = plain(prompt)
    good, figures = agrees(motion, frames, scene.ball)
    assert good, figures
    first = image_of(scene)[0].movedim(-1, 0)
    assert (frames[0] - first).pow(2).mean() < 10**-2.4, "the clip must start with the picture"


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both experts with their half of the LoRA pair merged in."""
    folder = tmp_path_factory.mktemp("bent")
    files = []
    for base, lora in zip((bundled.DEMO_HIGH, bundled.DEMO_LOW), LORAS, strict=True):
        files.append(folder / base.name)
        save_file(merge_lora(load_file(base), load_file(lora)), files[-1])
    return files


def test_the_lora_bends_the_clip(plain: Callable[[str], torch.Tensor], scene: Scene, bent: list[Path]) -> None:
    straight = plain("the camera pans left")
    drained = make(bundled.load(plain_host(), *bent), scene, "the camera pans left")
    assert saturation(drained[-1]) < 0.5 * saturation(straight[-1])
    assert saturation(drained[0]) > 0.7 * saturation(straight[0]), "only the end loses its colours"


def test_a_lora_changes_its_own_expert_alone(loaded: tuple, scene: Scene, bent: list[Path]) -> None:
    """The same noisy clip through each expert, with the high-noise half of the pair only."""
    model, encoder, vae = loaded
    changed, _, _ = bundled.load(plain_host(), bent[0])
    condition = encode_first_frame(vae, image_of(scene), SIDE, SIDE, FRAMES).channels()
    positive, negative = (c[0][0] for c in encode_prompts(encoder, "the camera pans left", ""))
    noise = torch.randn(1, 16, 9, 16, 16, generator=torch.Generator().manual_seed(0))

    def velocities(of: object) -> list[torch.Tensor]:
        with torch.no_grad():
            passes = (velocity_of(e.model, {POSITIVE: positive, NEGATIVE: negative}) for e in of.experts.values())
            return [guided(velocity, ModelInputs(condition), 5.0)(noise, torch.tensor(t))
                    for velocity, t in zip(passes, (950.0, 700.0), strict=True)]

    (high, low), (high_changed, low_changed) = velocities(model), velocities(changed)
    assert torch.equal(low, low_changed)
    assert (high - high_changed).pow(2).mean() > 0.01 * high.pow(2).mean()
