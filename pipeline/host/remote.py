"""The context of a remote job inside ComfyUI: its folders, its Stop, and the run that asks for the clip."""

from __future__ import annotations

import comfy.model_management

from ..graph.run import INTERRUPTED
from ..remote.budget import Limits
from ..remote.context import RemoteContext, open_context
from ..remote.errors import RunEndedError
from .folders import lora_file, output_folder, system_folder
from .node import bind_show_text
from .runs import graph_run, is_waiting, run_end, run_is_over
from .server import send_event

REMOTE_RESULTS = "wan22/remote"
"""Folder of clips that providers made, in ComfyUI's output folder."""


def remote_context(node_id: str | None, limits: Limits) -> RemoteContext:
    """Return the context of the running node: ComfyUI's folders, Stop, and the text on the node."""
    run = graph_run()
    return open_context(system_folder(), output_folder() / REMOTE_RESULTS, run, limits, bind_show_text(node_id),
                        lambda: _stop_or_end(run and run.prompt_id), _job_changed, lora_file, is_waiting)


def _stop_or_end(prompt_id: str | None) -> None:
    """Raise ComfyUI's interrupt when the user pressed Stop, RunEndedError when the run ended for another reason.

    For work beside a run, in a thread of its own. The flag of Stop is only read, so that a node which computes at this
    moment gets it, too. Once a run is over, its history alone tells why. When ComfyUI itself ends, the thread ends with
    it, and no job is cancelled.
    """
    if prompt_id is not None and run_is_over(prompt_id):
        if run_end(prompt_id).message != INTERRUPTED:
            raise RunEndedError
        raise comfy.model_management.InterruptProcessingException
    if comfy.model_management.processing_interrupted():
        raise comfy.model_management.InterruptProcessingException


def _job_changed(job_id: str) -> None:
    """Tell every open page that a remote job has changed; the pages then request it."""
    send_event("wan22.jobs", {"job": job_id})
