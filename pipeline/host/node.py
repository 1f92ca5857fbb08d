"""The running node on the canvas: its progress bar, preview, text, errors and Stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import torch

from ..checkpoint.errors import CheckpointError
from ..http.errors import DownloadError
from ..models.expert import Expert
from ..models.latents import film_strip
from ..packages import package_fault
from ..remote.errors import RemoteError
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
        bar.update_absolute(step + 1, total, ("JPEG", film_strip(clean, factors, bias), PREVIEW_SIDE))

    return update


def say(node_id: str | None, text: str) -> None:
    """Show a line of text on the node, to the client that runs the graph."""
    speaker(node_id)(text)


def speaker(node_id: str | None) -> Callable[[str], None]:
    """As `say`, to the client whose graph runs now, also when another's does later."""
    from server import PromptServer

    server = PromptServer.instance
    if node_id is None or server is None:
        return lambda text: None
    client = server.client_id
    return lambda text: server.send_progress_text(text, node_id, client)


def errors_on_node(node_id: str | None) -> AbstractContextManager[None]:
    """Show the pack's own errors on the node too: ComfyUI's message box hides them behind a click."""
    return errors_said(lambda text: say(node_id, text))

OWN_ERRORS = (RequestError, CheckpointError, DownloadError, RemoteError)


@contextmanager
def errors_said(say: Callable[[str], None]) -> Iterator[None]:
    """Say the pack's own errors, and let them end the run as all others do."""
    try:
        yield
    except OWN_ERRORS as error:
        say(str(error))
        raise
    except Exception as error:
        fault = package_fault(error)
        if fault is None:
            raise
        say(str(fault))
        raise fault from error
