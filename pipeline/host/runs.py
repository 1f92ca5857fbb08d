"""The run of a graph in ComfyUI's queue and history that the running node belongs to."""

from __future__ import annotations

from typing import Any

from ..notify.event import failure_of
from ..notify.notifier import GraphRun


def is_linked(output: int) -> bool:
    """Whether anything in the running graph takes this output of the running node."""
    run = graph_run()
    return run is None or run.takes(output)


def graph_run() -> GraphRun | None:
    """The run that the running node is in; None when that cannot be told."""
    from comfy_execution.utils import get_executing_context

    item = running_item()
    return None if item is None else GraphRun(item[1], get_executing_context().node_id, item[2], tuple(item[4]))


def running_item() -> tuple[Any, ...] | None:
    """The queue's entry of the run that the running node is in: number, prompt id, graph, extra data, outputs."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    node = get_executing_context()
    return next((item for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0]
                 if node is not None and item[1] == node.prompt_id), None)


def run_is_over(prompt_id: str) -> bool:
    """Whether a run that began has left ComfyUI's queue."""
    from server import PromptServer

    return all(item[1] != prompt_id for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0])


def run_error(prompt_id: str) -> dict[str, Any]:
    """Why a run that is over brought no clip, as its history tells: message, whether it was cancelled, the node."""
    from server import PromptServer

    return failure_of(PromptServer.instance.prompt_queue.get_history(prompt_id).get(prompt_id, {}))
