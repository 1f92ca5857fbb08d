"""Run a workflow on a server: queue it, show its progress, explain its errors, fetch its files."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from .server import ComfyServer
from .terminal import DevError, ProgressBar
from .websocket import WebSocket

HISTORY_SECONDS = 60.0
Workflow = dict[str, dict[str, Any]]  # the API format: node id to class, inputs and title


def title_of(workflow: Workflow, node_id: str) -> str:
    node = workflow.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type") or f"Node {node_id}"


def nodes_of_class(workflow: Workflow, class_type: str) -> list[str]:
    return [node_id for node_id, node in workflow.items() if node["class_type"] == class_type]


def run_workflow(server: ComfyServer, workflow: Workflow) -> dict[str, Any]:
    """Queue a workflow, wait for its end and return its outputs by node id. Raises DevError with its errors."""
    client, bar = uuid.uuid4().hex, ProgressBar()
    with contextlib.closing(WebSocket(server.port, f"/ws?clientId={client}")) as events:
        body = json.dumps({"prompt": workflow, "client_id": client}).encode()
        try:
            answer = json.loads(server.request("/prompt", body))
        except urllib.error.HTTPError as error:
            raise DevError(explain_rejection(json.loads(error.read()), workflow)) from None
        if answer["node_errors"]:  # one branch is refused although others may run
            raise DevError(explain_rejection(answer, workflow))
        try:
            show_progress(events.texts(), answer["prompt_id"], workflow, bar)
        finally:
            bar.end()
    return outputs_of(server, answer["prompt_id"])


def outputs_of(server: ComfyServer, prompt_id: str) -> dict[str, Any]:
    """Return the outputs of a run that has ended, by node id.

    The server puts the run into its history a moment after it has reported the end.
    """
    deadline = time.monotonic() + HISTORY_SECONDS
    while time.monotonic() < deadline:
        history = json.loads(server.request(f"/history/{prompt_id}"))
        if prompt_id in history:
            return history[prompt_id]["outputs"]
        time.sleep(0.05)
    raise DevError("The run has ended, but the server does not tell what came out of it.")


def show_progress(texts: Iterator[str], prompt_id: str, workflow: Workflow, bar: ProgressBar) -> None:
    """Show the progress of a queued workflow until it is done. Raises DevError with the node's message if it fails."""
    done: dict[str, float] = {}
    for event in map(json.loads, texts):
        kind, data = event["type"], event.get("data") or {}
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "execution_success":
            return bar.show(1.0, "done")
        if kind == "execution_error":
            raise DevError(explain_failure(data, workflow))
        if kind == "execution_interrupted":
            raise DevError("The run was cancelled.")
        for node_id, state in data["nodes"].items() if kind == "progress_state" else ():
            done[node_id] = 1.0 if state["state"] == "finished" else state["value"] / (state["max"] or 1)
            if state["state"] == "running":
                steps = f" {state['value']:.0f}/{state['max']:.0f}" if state["max"] > 1 else ""
                bar.show(min(sum(done.values()) / len(workflow), 0.99), title_of(workflow, node_id) + steps)
    raise ConnectionError("the connection was closed")


def explain_rejection(answer: dict[str, Any], workflow: Workflow) -> str:
    """Return the errors of POST /prompt, each once, a line each: ComfyUI repeats one for every input that is named."""
    lines = []
    for node_id, node in (answer.get("node_errors") or {}).items():
        for error in node["errors"]:
            text, details = error["message"], error.get("details", "")
            if error["type"] == "custom_validation_failed":  # our own sentence stands behind the input's name
                text, details = details.partition(" - ")[2] or details, ""
            lines.append(f"{title_of(workflow, node_id)}: {text}" + (f" ({details})" if details else ""))
    if not lines:
        error = answer.get("error") or {}
        lines = [f"ComfyUI refused the workflow: {error.get('message', answer)} {error.get('details', '')}".rstrip()]
    return "\n".join(dict.fromkeys(lines))


def explain_failure(data: dict[str, Any], workflow: Workflow) -> str:
    """Return a node's own message from an execution_error event, in at most two lines."""
    lines = [line.strip() for line in data.get("exception_message", "").splitlines() if line.strip()]
    message = "\n".join(lines[:2]) or data.get("exception_type", "unknown error")
    return f"{title_of(workflow, str(data.get('node_id')))}: {message}"


def download_video(server: ComfyServer, outputs: dict[str, Any], node_ids: Sequence[str]) -> bytes:
    for entry in (entry for node_id in node_ids for list_ in outputs.get(node_id, {}).values() for entry in list_):
        if isinstance(entry, dict) and str(entry.get("filename")).endswith(".mp4"):
            return server.request("/view?" + urllib.parse.urlencode(entry))
    raise DevError("The workflow ended without an MP4.")
