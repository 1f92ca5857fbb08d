"""ComfyUI's queue, folders and model files for the API. Its methods are called from threads beside ComfyUI's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from functools import cache
from typing import Any

import folder_paths

from ..graph.nodes import Graph
from ..graph.run import RunEnd, read_end
from ..serve.recipe import SAMPLERS
from ..serve.runs import Folders, QueueView, RunQueue
from ..serve.service import Service
from .folders import input_folder, output_folder, system_folder, upload_folder

CHECK_SECONDS = 60.0
"""Longest wait for ComfyUI's own check of a graph."""
OURS = "custom_validation_failed"
"""ComfyUI's type of an error with the sentence of a node's own check."""
_making = threading.Lock()


def service() -> Service:
    """Return this ComfyUI's service of the API; make it at the first call."""
    with _making:  # start-up and a request may ask at the same time
        return _service()


@cache
def _service() -> Service:
    folders = Folders(system_folder(), input_folder(), output_folder(), upload_folder())
    return Service(folders, RunQueue(_next_number, _check, _put, _stop, _view, _end), has_file)


def has_file(kind: str, name: str) -> bool:
    """Return whether ComfyUI has a model file of that name in its folders of a kind, such as "vae"."""
    return folder_paths.get_full_path(kind, name) is not None


def _server() -> Any:
    from server import PromptServer

    return PromptServer.instance


def _next_number() -> float:
    """Count as POST /prompt does, so that runs of the canvas and of the API go in one order."""
    server = _server()
    number = server.number
    server.number += 1
    return number


def _check(prompt_id: str, graph: Graph) -> list[str]:
    """See RunQueue.check; as POST /prompt checks a graph (server.py, post_prompt)."""
    import execution

    server = _server()
    server.node_replace_manager.apply_replacements(graph)
    checking = asyncio.run_coroutine_threadsafe(execution.validate_prompt(prompt_id, graph, None), server.loop)
    try:
        is_valid, error, outputs, node_errors = checking.result(CHECK_SECONDS)
    except concurrent.futures.TimeoutError:
        raise ValueError("ComfyUI did not check the graph in time. Send the request again.") from None
    if not is_valid or node_errors:
        raise ValueError(_sentence(error, node_errors))
    return list(outputs)


def _sentence(error: dict[str, Any] | None, node_errors: dict[str, Any]) -> str:
    """Return ComfyUI's errors, each once, for a stranger: ours as they are, which it repeats for every input as "input
    - sentence"; of its own the input alone, since their details list what files there are."""
    told = [one["details"].partition(" - ")[2] if one["type"] == OURS
            else f"{one['message']}: {one.get('extra_info', {}).get('input_name', '')}".rstrip(": ")
            for node in node_errors.values() for one in node["errors"]]
    return " ".join(dict.fromkeys(told)) or (error or {}).get("message", "ComfyUI refuses the graph.")


def _put(prompt_id: str, graph: Graph, outputs: list[str], number: float) -> None:
    """See RunQueue.put."""
    data = {"create_time": int(time.time() * 1000)}
    _server().prompt_queue.put((number, prompt_id, graph, data, outputs, {}))


def _stop(prompt_id: str) -> None:
    """See RunQueue.stop."""
    queue = _server().prompt_queue
    if not queue.delete_queue_item(lambda item: item[1] == prompt_id):
        queue.interrupt_if_running(prompt_id)


def _view() -> QueueView:
    """See RunQueue.view."""
    from comfy_execution.progress import get_progress_state

    running, pending = _server().prompt_queue.get_current_queue_volatile()
    waiting, progress = [item[1] for item in sorted(pending, key=lambda item: item[:2])], get_progress_state()
    steps = (0, 0)
    for _, name, graph, *_ in running:
        for node, shown in progress.nodes.copy().items() if name == progress.prompt_id else ():
            if node in graph and graph[node]["class_type"] in SAMPLERS and shown["max"] > 1:
                steps = (int(shown["value"]), int(shown["max"]))
    return QueueView(frozenset(item[1] for item in running), waiting, steps)


def _end(prompt_id: str) -> RunEnd | None:
    """See RunQueue.end."""
    found = _server().prompt_queue.get_history(prompt_id)
    return read_end(found[prompt_id]) if prompt_id in found else None
