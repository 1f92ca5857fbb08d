"""People's files through the node and the whole graph: the clip is the fp16 one within the layout's own error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from devtools.server import ComfyServer
from devtools.workflow import Workflow
from pipeline.models import load as bundled
from tests.support import layouts
from tests.support.comfy_client import ComfyClient, added, changed, clip_workflow, without

# layout, suffix, largest difference from the fp16 clip's latents (root mean square, in standard deviations)
LAYOUTS = {
    "fp8_scaled": (layouts.fp8_legacy, ".safetensors", 0.05),
    "fp8_comfy": (layouts.fp8_comfy(torch.float8_e4m3fn), ".safetensors", 0.05),
    "q8_0": (layouts.gguf_file("Q8_0"), ".gguf", 0.02),
    "folder": (layouts.diffusers_folder(2), "", 0.0),
}


@pytest.fixture(scope="module")
def models(server: ComfyServer) -> Iterator[Path]:
    """A folder of experts in every layout, below the server's diffusion_models."""
    folder = server.base / "models" / "diffusion_models" / "layouts"
    folder.mkdir(parents=True)
    for noise, file in (("high", bundled.DEMO_HIGH), ("low", bundled.DEMO_LOW)):
        for name, (write, suffix, _) in LAYOUTS.items():
            write(load_file(file), folder / f"{name}_{noise}_noise{suffix}")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def graph(picture: str) -> Workflow:
    graph = changed(without(clip_workflow(picture, steps=4), "decode", "save"), "sampler", guidance_scale=1.0)
    return added(graph, "latents", "SaveLatent", samples=["sampler", 0], filename_prefix="latents/layouts")


def latents(comfy: ComfyClient, graph: Workflow) -> np.ndarray:
    return comfy.latents(comfy.finish(graph), "latents")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_through_the_node(comfy: ComfyClient, graph: Workflow, models: Path, name: str) -> None:
    _, suffix, most = LAYOUTS[name]
    high, low = (str(Path("layouts", f"{name}_{noise}_noise{suffix}")) for noise in ("high", "low"))
    wanted = latents(comfy, graph)
    found = latents(comfy, changed(graph, "load", high_noise_expert=high, low_noise_expert=low))
    assert np.sqrt(np.square(found - wanted).mean()) / wanted.std() <= most


def test_lists_show_them(comfy: ComfyClient, models: Path) -> None:
    (node,) = comfy.get("/object_info/Wan22Load").values()
    shown = [n for n in node["input"]["required"]["high_noise_expert"][1]["options"] if n.startswith("layouts")]
    assert len(shown) == 2 * len(LAYOUTS)
