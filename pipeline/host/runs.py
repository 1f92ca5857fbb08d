"""ComfyUI's queue and history of runs, and the run that the running node belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..graph.run import GraphRun, RunEnd, read_end, read_item
from ..jobs.queue import QueueSnapshot

if TYPE_CHECKING:
    from execution import PromptQueue


def is_linked(output: int) -> bool:
    """Return True when anything in the running graph takes this output of the running node."""
    run = graph_run()
    return run is None or run.takes(running_node(), output)


def running_node() -> str:
    """Return the id of the running node; "" when there is none."""
    from comfy_execution.utils import get_executing_context

    node = get_executing_context()
    return "" if node is None else node.node_id


def sent_node(node_id: str) -> str:
    """Return the node of the sent graph that a node stands for: itself, unless another node made it during the run.

    Loops make copies of their nodes, under ids of their own: each copy is shown as the node it was copied from. A node
    that is shown as no node of the graph stands for the one that made it.
    """
    from comfy_execution.progress import get_progress_state

    graph = get_progress_state().dynprompt
    shown = graph.get_display_node_id(node_id)
    return shown if shown in graph.get_original_prompt() else graph.get_real_node_id(node_id)


def graph_run() -> GraphRun | None:
    """Return the run that the running node is in; None when it cannot be told."""
    from comfy_execution.utils import get_executing_context

    node = get_executing_context()
    return next((read_item(item) for item in _running_items() if node is not None and item[1] == node.prompt_id), None)


def run_is_over(prompt_id: str) -> bool:
    """Return True when a run that began has left ComfyUI's queue."""
    return all(item[1] != prompt_id for item in _running_items())


def is_waiting(prompt_id: str) -> bool:
    """Return True when a run waits for its turn in ComfyUI's queue."""
    return any(item[1] == prompt_id for item in _prompt_queue().get_current_queue_volatile()[1])


def run_end(prompt_id: str) -> RunEnd:
    """Return how a run ended, by ComfyUI's history."""
    return read_end(_prompt_queue().get_history(prompt_id).get(prompt_id, {}))


def read_queue() -> QueueSnapshot:
    """Return ComfyUI's queue and history as they stand, with the progress of the running graph."""
    from comfy_execution.progress import get_progress_state

    queue, progress = _prompt_queue(), get_progress_state()
    running, pending = queue.get_current_queue_volatile()
    nodes = {name: {**found, "state": found["state"].value} for name, found in progress.nodes.copy().items()
             if any(item[1] == progress.prompt_id for item in running)}
    return QueueSnapshot(running, pending, queue.get_history(), nodes)


def _running_items() -> list[tuple[Any, ...]]:
    return _prompt_queue().get_current_queue_volatile()[0]


def _prompt_queue() -> PromptQueue:
    from server import PromptServer

    return PromptServer.instance.prompt_queue
