"""What a prediction is at: the words of the API, and of the table of predictions."""

from __future__ import annotations

QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = STATUSES = ("queued", "running", "completed", "failed", "cancelled")
OPEN = (QUEUED, RUNNING)

IMAGE_FAULT, RUN_FAULT, REMOVED = FAULTS = ("image", "failed", "removed")
"""Why there is no clip: the picture could not be fetched or read; the run failed; somebody removed it from ComfyUI's
queue."""
