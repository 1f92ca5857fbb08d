"""The answers of the API: predictions, uploads and models as JSON, in the forms of schemas.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from .links import signed_link
from .models import Model
from .operations import BASE
from .predictions import StoredPrediction
from .progress import StepClock
from .status import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING
from .uploads import Upload

GUIDE_STATUS = {QUEUED: "created", RUNNING: "processing", COMPLETED: "completed", FAILED: "failed",
                CANCELLED: "cancelled"}
"""Our status -> that of the hosted API."""


def prediction(one: StoredPrediction, link_secret: bytes, now: float, place: int | None = None,
               steps: StepClock | None = None) -> dict[str, Any]:
    """Return a prediction.

    now: seconds since 1970. place: in ComfyUI's queue, 0 being next. steps: of its run, once it runs.
    """
    is_running = one.status == RUNNING and steps is not None and steps.steps > 0
    return {
        "id": one.id, "model": one.order.model, "status": one.status,
        "queue_position": place if one.status == QUEUED else None,
        "progress": {"step": steps.step, "steps": steps.steps, "seconds_left": steps.seconds_left()} if is_running
        else None,
        "outputs": _outputs(one, link_secret, now),
        "error": {"code": one.fault, "message": one.error} if one.fault else None,
        "warnings": one.warnings.splitlines(), "request": one.order.shown(),
        "created_at": _time(one.created), "started_at": _time(one.started), "ended_at": _time(one.ended),
        "urls": _urls(one)}


def guide_envelope(one: StoredPrediction, link_secret: bytes, now: float) -> dict[str, Any]:
    """Return a prediction in the hosted API's envelope."""
    return {"code": 200, "message": "success", "data": {
        "id": one.id, "model": one.order.model, "status": GUIDE_STATUS[one.status],
        "outputs": _outputs(one, link_secret, now), "error": one.error,
        "created_at": _time(one.created), "urls": _urls(one)}}


def upload(found: Upload) -> dict[str, Any]:
    """Return an upload."""
    return {"id": found.name, "sha256": found.sha256, "kind": found.kind, "size": found.size}


def model_list(models: list[Model], fields: Iterable[str]) -> dict[str, Any]:
    """Return the models, the default first, and the names of a request's fields."""
    return {"fields": list(fields), "models": [
        {"id": model.id, "default": place == 0, "description": model.description, "defaults": {
            name: getattr(model.defaults, name) for name in ("negative_prompt", "num_frames", "resolution",
                                                             "num_inference_steps", "guidance_scale")}}
        for place, model in enumerate(models)]}


def _outputs(one: StoredPrediction, link_secret: bytes, now: float) -> list[str]:
    return [signed_link(one.base, link_secret, one.id, now)] if one.file else []


def _urls(one: StoredPrediction) -> dict[str, str]:
    whole = f"{one.base}{BASE}/predictions/{one.id}"
    return {"get": whole, "result": f"{whole}/result", "cancel": f"{whole}/cancel"}


def _time(seconds: float | None) -> str | None:
    """Return a time as RFC 3339 has it, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
