"""ComfyUI's queue and history of runs, and the run that the running node belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..jobs.queue import Queue
from ..notify.event import failure_of
from ..notify.notifier import GraphRun

if TYPE_CHECKING:
    from execution import PromptQueue


def is_linked(output: int) -> bool:
    """Return whether anything in the running graph takes this output of the running node."""
    run = graph_run()
    return run is None or run.takes(output)


def graph_run() -> GraphRun | None:
    """Return the run that the running node is in; None when that cannot be told."""
    from comfy_execution.utils import get_executing_context

    item = running_item()
    return None if item is None else GraphRun(item[1], get_executing_context().node_id, item[2], tuple(item[4]))


def running_item() -> tuple[Any, ...] | None:
    """Return the queue's entry of the run that the running node is in.

    It holds: number, prompt id, graph in API form, extra data, ids of the output nodes.
    """
    from comfy_execution.utils import get_executing_context

    node = get_executing_context()
    return next((item for item in _running_items() if node is not None and item[1] == node.prompt_id), None)


def run_is_over(prompt_id: str) -> bool:
    """Return whether a run that began has left ComfyUI's queue."""
    return all(item[1] != prompt_id for item in _running_items())


def run_error(prompt_id: str) -> dict[str, Any]:
    """Return why a run that is over brought no clip, by its history: message, whether it was cancelled, the node."""
    return failure_of(_prompt_queue().get_history(prompt_id).get(prompt_id, {}))


def read_queue() -> Queue:
    """Return ComfyUI's queue and history as they stand, with the progress of the run at work."""
    from comfy_execution.progress import get_progress_state

    queue, progress = _prompt_queue(), get_progress_state()
    running, pending = queue.get_current_queue_volatile()
    nodes = {name: {**found, "state": found["state"].value} for name, found in progress.nodes.copy().items()
             if any(item[1] == progress.prompt_id for item in running)}
    return Queue(running, pending, queue.get_history(), nodes)


def _running_items() -> list[tuple[Any, ...]]:
    return _prompt_queue().get_current_queue_volatile()[0]


def _prompt_queue() -> PromptQueue:
    from server import PromptServer

    return PromptServer.instance.prompt_queue
