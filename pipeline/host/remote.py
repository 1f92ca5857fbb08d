"""The context of a remote job inside ComfyUI: its folders, its Stop, and the run that asks for the clip."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import folder_paths

from ..remote.context import Desk
from ..remote.errors import RunEndedError
from ..remote.ledger import Limits
from ..remote.open_context import Driver, open_desk
from .files import system_folder
from .loras import lora_file
from .node import speaker
from .runs import run_error, run_is_over, running_item

REMOTE_RESULTS = "wan22/remote"
"""Folder of clips that providers made, in ComfyUI's output folder."""


def remote_desk(node_id: str | None, limits: Limits) -> Desk:
    """The surroundings of a remote job: ComfyUI's folders, Stop, and the text on the node."""
    run = running_item()
    return open_desk(system_folder(), Path(folder_paths.get_output_directory(), REMOTE_RESULTS),
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
    from server import PromptServer

    PromptServer.instance.send_sync("wan22.jobs", {"job": job_id})
