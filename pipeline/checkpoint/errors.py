"""The one error of loading weights."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A weight file cannot be used. The message names the file, says what is wrong and what to do."""
