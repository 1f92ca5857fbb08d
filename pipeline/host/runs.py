"""The run of a graph that the running node belongs to, in ComfyUI's queue and history."""

from __future__ import annotations

from ..graph.run import GraphRun, RunEnd, read_end, read_item


def is_linked(output: int) -> bool:
    """Return whether anything in the running graph takes this output of the running node."""
    run = graph_run()
    return run is None or run.takes(running_node(), output)


def running_node() -> str:
    """Return the id of the running node; "" when there is none."""
    from comfy_execution.utils import get_executing_context

    node = get_executing_context()
    return "" if node is None else node.node_id


def graph_run() -> GraphRun | None:
    """Return the run that the running node is in; None when it cannot be told."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    node = get_executing_context()
    return next((read_item(item) for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0]
                 if node is not None and item[1] == node.prompt_id), None)


def run_is_over(prompt_id: str) -> bool:
    """Return whether a run that began has left ComfyUI's queue."""
    from server import PromptServer

    return all(item[1] != prompt_id for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0])


def run_end(prompt_id: str) -> RunEnd:
    """Return how a run ended, by ComfyUI's history."""
    from server import PromptServer

    return read_end(PromptServer.instance.prompt_queue.get_history(prompt_id).get(prompt_id, {}))
