"""A CUDA device that is not there: tensors on it have a shape, a dtype and a place, but no numbers and no memory.

Tensors on the CPU stay real. Those on the device are PyTorch's FakeTensors (torch/_subclasses/fake_tensor.py): an
operation on them costs no arithmetic, and gives a tensor of the shape and dtype that a GPU would give. So a model of
any size runs in seconds. As on a GPU, operations that mix devices fail, and so do matrix products, convolutions and
attention of mixed dtypes. What is copied back to the CPU, or read as a number, is zero.

Every storage on the device is counted from the operation that makes it until nothing refers to it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

DEVICE = torch.device("cuda:0")
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default: 0, aten.is_nonzero.default: False, aten.equal.default: True}
"""Operations that read a number from the device -> what they find."""
ONE_DTYPE = ("mm", "addmm", "bmm", "baddbmm", "convolution", "native_layer_norm", "_scaled_dot_product")
"""Beginnings of the names of operations whose tensors must have one dtype on a GPU; shapes alone do not show it."""
PLAIN = (torch.Tensor, torch.nn.Parameter, FakeTensor)


FLASH_HEAD_DIM = 256
"""The widest head that PyTorch's flash attention takes (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""


class _FusedAttention(TorchFunctionMode):
    """scaled_dot_product_attention by the kernel that an NVIDIA GPU (compute capability 8.0 and up) would take.

    PyTorch asks the GPU that is not there, and would take the slow way, which holds the whole matrix.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention or args[0].device.type != "cuda":
            return func(*args, **kwargs)
        return _fused_attention(*args, **kwargs)


def _fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
                     dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                     enable_gqa: bool = False) -> torch.Tensor:
    half = query.dtype in (torch.float16, torch.bfloat16)
    if attn_mask is None and half and query.shape[-1] <= FLASH_HEAD_DIM:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    return aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, False, dropout_p, is_causal,
                                                        scale=scale)[0]


@dataclass
class Peak:
    """Memory of a part of a run, in bytes beside what was there before."""

    bytes: int = 0
    operation: str = ""
    """During which it was reached."""


class FakeCuda(TorchDispatchMode):
    """While it is entered, `cuda:0` exists."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        """Bytes on the device now."""
        self._fake, self._attention = FakeTensorMode(), _FusedAttention()
        self._storages: set[int] = set()
        self._peaks: list[tuple[int, Peak]] = []

    def __enter__(self) -> FakeCuda:
        self._fake.__enter__()
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)
        self._fake.__exit__(*error)

    @contextmanager
    def peak(self) -> Iterator[Peak]:
        """Measure the most memory that the block uses beside what is there when it begins."""
        found = Peak()
        entry = (self.live, found)
        self._peaks.append(entry)
        try:
            yield found
        finally:
            self._peaks.remove(entry)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not all(kind in PLAIN for kind in types):
            return NotImplemented  # such as ComfyUI's quantised tensors: their parts come here one by one
        leaves, tree = tree_flatten((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        there = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        if not there and (asked is None or asked.type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func in READS:
            return READS[func]
        self._check_dtypes(func, tensors)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            with unset_fake_temporarily():
                return args[0].zero_()
        args, kwargs = tree_unflatten([self._faked(leaf) for leaf in leaves], tree)
        found = func(*args, **kwargs)
        self._count(func, found)
        return self._brought_back(found) if asked is not None and asked.type == "cpu" else found

    def _faked(self, leaf: Any) -> Any:
        real = isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor)
        return self._fake.from_tensor(leaf) if real else leaf

    @staticmethod
    def _check_dtypes(func: Any, tensors: list[torch.Tensor]) -> None:
        dtypes = {tensor.dtype for tensor in tensors}
        if len(dtypes) > 1 and func.overloadpacket.__name__.startswith(ONE_DTYPE):
            raise RuntimeError(f"{func} of several dtypes: {', '.join(sorted(map(str, dtypes)))}")

    @staticmethod
    def _brought_back(found: torch.Tensor) -> torch.Tensor:
        with unset_fake_temporarily():
            return torch.zeros(found.shape, dtype=found.dtype)

    def _count(self, func: Any, found: Any) -> None:
        for tensor in tree_leaves(found):
            if not isinstance(tensor, FakeTensor) or tensor.device.type != "cuda":
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self._storages:
                continue
            self._storages.add(storage._cdata)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        for before, peak in self._peaks:
            if self.live - before > peak.bytes:
                peak.bytes, peak.operation = self.live - before, str(func)

    def _freed(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live -= size
