"""The context of a remote job inside ComfyUI: its folders, its Stop, and the run that asks for the clip."""

from __future__ import annotations

import comfy.model_management

from ..remote.context import RemoteContext
from ..remote.errors import RunEndedError
from ..remote.ledger import Limits
from ..remote.open_context import Driver, open_context
from .folders import lora_file, output_folder, system_folder
from .node import speaker
from .runs import run_error, run_is_over, running_item
from .server import send_event

REMOTE_RESULTS = "wan22/remote"
"""Folder of clips that providers made, in ComfyUI's output folder."""


def remote_context(node_id: str | None, limits: Limits) -> RemoteContext:
    """The surroundings of a remote job: ComfyUI's folders, Stop, and the text on the node."""
    run = running_item()
    return open_context(system_folder(), output_folder() / REMOTE_RESULTS,
                     None if run is None else Driver(*run[1:3], run[3] or {}), limits,
                     speaker(node_id), lambda: _stop_or_end(run and run[1]), _job_changed, lora_file)


def _stop_or_end(prompt_id: str | None) -> None:
    """For work beside a run, in a thread of its own: raise ComfyUI's interrupt when the user pressed Stop,
    RunEndedError when the run is over for another reason.

    The sign of Stop is only looked at, so that a node which computes at this moment hears it too. Once a run is over,
    its history alone tells why. When ComfyUI itself ends, the thread ends with it, and no job is called off.
    """
    if prompt_id is not None and run_is_over(prompt_id):
        if not run_error(prompt_id)["cancelled"]:
            raise RunEndedError
        raise comfy.model_management.InterruptProcessingException
    if comfy.model_management.processing_interrupted():
        raise comfy.model_management.InterruptProcessingException


def _job_changed(job_id: str) -> None:
    """Tell every open page that there is news of a remote job; what it is, the pages ask for."""
    send_event("wan22.jobs", {"job": job_id})
