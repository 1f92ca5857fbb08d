"""A GPU pretended on the CPU: tensors in plain memory that say they are on `cuda:0`.

A storage is marked as the GPU's, and its tensors, views and parameters say `cuda:0`. What a function of torch returns
is where its inputs are, a tensor moves by `to` and by nothing else, and functions of tensors in two places fail, as on
a real GPU. The numbers are the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_iter, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")

MIXED = {torch.Tensor.copy_, torch.Tensor.__getitem__, torch.Tensor.__setitem__, torch.Tensor.data.__set__}
"""Functions that take tensors of two devices."""
TO_HOST = {torch.Tensor.cpu}
NOT_OF_GPUS = {torch.Tensor.numpy, torch.Tensor.__array__}


def put_on_gpu(tensor: torch.Tensor) -> torch.Tensor:
    """Mark the memory of a tensor as the GPU's; return the tensor."""
    for part in _parts(tensor):
        part.untyped_storage().pretended_gpu = True
    return tensor


def is_on_gpu(tensor: torch.Tensor) -> bool:
    """True for a tensor in memory that is marked as the GPU's."""
    return any(getattr(part.untyped_storage(), "pretended_gpu", False) for part in _parts(tensor))


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors that hold a tensor's memory: several for a quantised one."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    else:
        yield tensor


def _tensors(of: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(of) if isinstance(leaf, torch.Tensor))


def _storages(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {part.untyped_storage().data_ptr() for tensor in tensors for part in _parts(tensor)} - {0}


def _device(given: Any) -> torch.device | None:
    """Return a device among a function's arguments; None for anything else."""
    if isinstance(given, str) and given.partition(":")[0] in ("cuda", "cpu", "meta"):
        return torch.device(given)
    return given if isinstance(given, torch.device) else None


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Pretend a GPU in a block, for the thread that entered it."""
    make = torch.Tensor._make_wrapper_subclass

    def make_on_cpu(*args: Any, device: torch.device, **options: Any) -> torch.Tensor:
        return make(*args, device=_to_cpu(device), **options)

    with pytest.MonkeyPatch.context() as patch, _PretendedGPU():
        patch.setattr(torch.Tensor, "_make_wrapper_subclass", staticmethod(make_on_cpu))
        yield


class _PretendedGPU(TorchFunctionMode):

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return GPU if is_on_gpu(args[0]) else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return is_on_gpu(args[0])
        given = list(_tensors((args, kwargs)))
        on_gpu = [is_on_gpu(tensor) for tensor in given]
        if func in NOT_OF_GPUS and any(on_gpu):
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        asked = [device for device in map(_device, (*args, *kwargs.values())) if device is not None]
        moves = bool(asked) or func in TO_HOST
        target = asked[0] if asked else CPU if func in TO_HOST else GPU if any(on_gpu) else CPU
        if any(on_gpu) and not moves and func not in MIXED and not all(
                there or tensor.dim() == 0 for there, tensor in zip(on_gpu, given, strict=True)):
            raise RuntimeError(f"Expected all tensors to be on the same device, in {func}.")
        result = func(*tree_map(_to_cpu, args), **tree_map(_to_cpu, kwargs))
        return self._placed(result, given, target, moves)

    def _placed(self, result: Any, given: list[torch.Tensor], target: torch.device, moves: bool) -> Any:
        """Return a function's result in its place: copied when it is an input that moves, marked when it is new."""
        taken = _storages(given)

        def place(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or leaf.is_meta:
                return leaf
            if _storages([leaf]) & taken:
                if not moves or is_on_gpu(leaf) == (target.type == "cuda"):
                    return leaf
                leaf = leaf.clone()
            return put_on_gpu(leaf) if target.type == "cuda" else leaf

        return tree_map(place, result)


def _to_cpu(given: Any) -> Any:
    device = _device(given)
    return CPU if device is not None and device.type == "cuda" else given
