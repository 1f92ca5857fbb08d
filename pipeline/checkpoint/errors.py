"""Errors of reading weight files."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A weight file cannot be used; the message names the file, the fault and what to do."""


class PickleError(CheckpointError):
    """A weight file is a PyTorch pickle, which is never opened because that can run code."""


def quoted(name: str) -> str:
    """Return a name from an untrusted file as ASCII, in at most 80 characters of it, for a message."""
    return ascii(name[:80])[1:-1]


def mapping_error(file: str, error: Exception) -> CheckpointError:
    """Return the error for a file that exists, or did a moment ago, and cannot be memory-mapped."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return CheckpointError(f"{file} cannot be read any more: {error.strerror or error}. Put it back, or let "
                               "ComfyUI read it.")
    return CheckpointError(f"{file} cannot be mapped into memory: {error}. Close other programs, on Windows let the "
                           "paging file grow, or choose a smaller file, such as fp8 or GGUF.")
