"""The one error of loading weights, and the rule that no weight may be left over or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

class CheckpointError(ValueError):
    """A weight file cannot be used. The message names the file, says what is wrong and what to do."""


class PickleError(CheckpointError):
    """A weight file is one of PyTorch's own, which is never opened. The same weights exist as safetensors."""


def quoted(name: str) -> str:
    """A name from a file that may be hostile, fit for a message: ASCII, and at most 80 characters of it."""
    return ascii(name[:80])[1:-1]


def not_mapped(file: str, error: Exception) -> CheckpointError:
    """For a file that was there a moment ago and does not come into memory."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return CheckpointError(f"{file} cannot be read any more: {error.strerror or error}. Put it back, or let "
                               "ComfyUI read it.")
    return CheckpointError(f"{file} cannot be brought into memory: {error}. Close other programs, on Windows let the "
                           "paging file grow, or choose a smaller file, such as fp8 or GGUF.")
