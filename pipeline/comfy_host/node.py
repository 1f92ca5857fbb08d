"""What a running node shows and hears: progress, previews, text, errors and Stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import torch
from PIL import Image

from ..checkpoint.errors import CheckpointError
from ..checkpoint.expert import Expert
from ..request import RequestError

PREVIEW_SIDE = 512


def stop_if_asked() -> None:
    """Raise ComfyUI's own interrupt when the user pressed Stop, so that the run reads as cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """(done, total) -> shown as the running node's progress bar. Raises the interrupt on Stop."""
    bar = comfy.utils.ProgressBar(1)

    def update(done: int, total: int) -> None:
        stop_if_asked()
        bar.update_absolute(done, total)

    return update


def progress_with_preview(expert: Expert, total: int) -> Callable[[int, torch.Tensor], None]:
    """(step index, clean latents) -> progress bar and a film strip of the clip's begin, middle and end."""
    bar = comfy.utils.ProgressBar(total)
    stock = comfy.latent_formats.Wan21
    factors, bias = expert.latent_rgb or (stock.latent_rgb_factors, stock.latent_rgb_factors_bias)
    factors, bias = torch.tensor(factors), torch.tensor(bias)

    def update(step: int, clean: torch.Tensor) -> None:
        frames = clean[0][:, [0, clean.shape[2] // 2, clean.shape[2] - 1]].float().cpu()
        rgb = torch.einsum("cfhw,cd->hfwd", frames, factors) + bias
        strip = rgb.flatten(1, 2).add(1).mul(127.5).clamp(0, 255).byte().numpy()
        image = Image.fromarray(strip).resize((strip.shape[1] * 4, strip.shape[0] * 4), Image.Resampling.BILINEAR)
        bar.update_absolute(step + 1, total, ("JPEG", image, PREVIEW_SIDE))

    return update


def say(node_id: str | None, text: str) -> None:
    """Show a line of text on the node, to the client that runs the graph."""
    from server import PromptServer

    server = PromptServer.instance
    if node_id is not None and server is not None:
        server.send_progress_text(text, node_id, server.client_id)


@contextmanager
def errors_on_node(node_id: str | None) -> Iterator[None]:
    """Show the pack's own errors on the node too: ComfyUI's message box hides them behind a click."""
    try:
        yield
    except (RequestError, CheckpointError) as error:
        say(node_id, str(error))
        raise
