"""The bundled model, as this pack opens it and as ComfyUI does. Each test file gets one of its own."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.models.load import Wan22Model
from pipeline.request import HIGH, LOW
from tests.support.comfy_in_process import import_comfyui


@pytest.fixture(scope="module")
def loaded() -> tuple:
    """Return the model, its text encoder and its VAE, on plain torch."""
    return bundled.load(plain_host())


@pytest.fixture(scope="module")
def model(loaded: tuple) -> Wan22Model:
    """Return both experts."""
    return loaded[0]


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    """Return both experts as MODELs of ComfyUI, by HIGH and LOW."""
    import_comfyui()
    import comfy.sd

    return {HIGH: comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH)),
            LOW: comfy.sd.load_diffusion_model(str(bundled.DEMO_LOW))}
