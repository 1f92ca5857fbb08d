"""The running node on the canvas: its progress bar, preview, text, errors, and Stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import torch
from comfy.cli_args import LatentPreviewMethod, args

from ..checkpoint.errors import CheckpointError
from ..http.errors import DownloadError
from ..models.expert import Expert
from ..models.latents import film_strip
from ..packages import package_fault
from ..remote.errors import RemoteError
from ..request import RequestError
from .runs import graph_run, sent_node

OWN_ERRORS = (RequestError, CheckpointError, DownloadError, RemoteError)


def stop_if_asked() -> None:
    """Raise ComfyUI's interrupt when the user has pressed Stop, so that the run counts as cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """Return update(done, total), which moves the running node's progress bar and raises the interrupt on Stop."""
    bar = comfy.utils.ProgressBar(1)

    def update(done: int, total: int) -> None:
        stop_if_asked()
        bar.update_absolute(done, total)

    return update


def progress_with_preview(expert: Expert, total: int) -> Callable[[int, torch.Tensor], None]:
    """Return update(step, clean latents), which moves the progress bar and shows the first, middle and last frame."""
    bar, preview = comfy.utils.ProgressBar(total), preview_of(expert)

    def update(step: int, clean: torch.Tensor) -> None:
        bar.update_absolute(step + 1, total, preview(clean))

    return update


def preview_of(expert: Expert) -> Callable[[torch.Tensor], tuple | None]:
    """Return a function from clean latents to what a progress bar shows of them: first, middle and last frame.

    It gives None when the user wants no previews.
    """
    stock = comfy.latent_formats.Wan21
    factors, bias = expert.latent_rgb or (stock.latent_rgb_factors, stock.latent_rgb_factors_bias)
    factors, bias = torch.tensor(factors), torch.tensor(bias)
    wanted = previews_wanted()

    def preview(clean: torch.Tensor) -> tuple | None:
        return ("JPEG", film_strip(clean, factors, bias), args.preview_size) if wanted else None

    return preview


def previews_wanted() -> bool:
    """Tell whether the sampler shows previews: yes, unless the run or ComfyUI's command line says none.

    ComfyUI's own default is none, which nobody has chosen, so that only the command line itself tells.
    """
    run = graph_run()
    method = "default" if run is None else run.extra_data.get("preview_method", "default")
    if method != "default":
        return method != LatentPreviewMethod.NoPreviews.value
    chosen = any(word.partition("=")[0] == "--preview-method" for word in sys.argv)
    return not chosen or args.preview_method is not LatentPreviewMethod.NoPreviews


def show_text(node_id: str | None, text: str) -> None:
    """Show a line of text on the node, to the client that runs the graph."""
    bind_show_text(node_id)(text)


def bind_show_text(node_id: str | None) -> Callable[[str], None]:
    """Return show_text for this node and the client whose graph runs now; it stays with that client."""
    from server import PromptServer

    server = PromptServer.instance
    if node_id is None or server is None:
        return lambda text: None
    client, shown = server.client_id, sent_node(node_id)
    # Nodes 2.0 shows it as Markdown, in which two spaces end a line.
    return lambda text: server.send_progress_text(text.replace("\n", "  \n"), shown, client)


@contextmanager
def errors_on_node(node_id: str | None) -> Iterator[None]:
    """Show the pack's own errors on the node and let them end the run; ComfyUI shows them only behind a click."""
    try:
        yield
    except OWN_ERRORS as error:
        show_text(node_id, str(error))
        raise
    except Exception as error:
        fault = package_fault(error)
        if fault is None:
            raise
        show_text(node_id, str(fault))
        raise fault from error
