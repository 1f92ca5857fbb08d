"""The one error of loading weights, and the rule that no weight may be left over or missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .quantised import Weight


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


def check_keys(file: str, what: str, expected: Collection[str], found: Collection[str]) -> None:
    """Raise CheckpointError unless `found` holds the expected names, all of them and no other."""
    said = []
    for problem, names in (("missing", set(expected) - set(found)), ("not known", set(found) - set(expected))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            said.append(f"{min(names)}{more} {problem}")
    if said:
        raise CheckpointError(f"{file} is not a whole {what}: {'; '.join(said)}. Fetch it again, or choose another.")


def check_weights(file: str, what: str, wanted: Mapping[str, torch.Tensor], found: Mapping[str, Weight]) -> None:
    """Raise CheckpointError unless the weights found have the wanted names, all of them and no other, and shapes."""
    check_keys(file, what, wanted, found)
    for name, weight in found.items():
        if tuple(weight.shape) != tuple(wanted[name].shape):
            raise CheckpointError(f"{file} is not a usable {what}: {name} is {tuple(weight.shape)} and should be "
                                  f"{tuple(wanted[name].shape)}. Fetch it again, or choose another.")


def load_exactly(file: str, what: str, module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Make the tensors the module's own. Raises CheckpointError when a name or a shape does not fit."""
    check_weights(file, what, module.state_dict(), tensors)
    module.load_state_dict(tensors, assign=True)
