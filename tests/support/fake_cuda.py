"""A CUDA device that is not there: tensors on it have a shape, a dtype and a place, but no numbers and no memory.

Tensors on the CPU stay real. Those on the device are PyTorch's FakeTensors (torch/_subclasses/fake_tensor.py): an
operation on them costs no arithmetic, and gives a tensor of the shape and dtype that a GPU would give. So a model of
any size runs in seconds. As on a GPU, operations that mix devices fail, and so do matrix products, convolutions,
layer norms and attention of mixed dtypes. What is copied back to the CPU, or read as a number, is zero.

Every storage on the device is counted from the operation that makes it until nothing refers to it; an operation for
which there is no room fails as on a GPU. Not counted: what a kernel uses inside (cuDNN's and cuBLAS's workspaces), what
is lost between the blocks of PyTorch's allocator, and the 0.3 to 0.5 GB of the CUDA context.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
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


@dataclass
class Peak:
    """Memory of a part of a run, in bytes."""

    before: int
    """On the device when it began."""
    bytes: int = 0
    """Most beside that."""
    operation: str = ""
    """During which it was reached."""


class FakeCuda(TorchDispatchMode):
    """A device of `total` bytes, `cuda:0`, that exists while this is entered; compute capability 8.6 or another."""

    def __init__(self, total: int = 10**12, capability: tuple[int, int] = (8, 6)) -> None:
        super().__init__()
        self.total, self.capability = total, capability
        self.live = 0
        """Bytes on the device now."""
        self._fake = FakeTensorMode()
        self._storages: set[int] = set()
        self._peaks: list[Peak] = []
        self._entered = ExitStack()

    def __enter__(self) -> FakeCuda:
        self._entered.enter_context(mock.patch.multiple(torch.cuda, **self._answers()))
        self._entered.enter_context(self._fake)
        self._entered.enter_context(_Functions())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    def _answers(self) -> dict[str, Any]:
        """Return functions of torch.cuda about the device; the driver that they ask is not there."""
        major, minor = self.capability
        facts = SimpleNamespace(name="fake", major=major, minor=minor, total_memory=self.total,
                                multi_processor_count=100)

        def memory(device: object = None) -> int:
            return self.live

        def statistics(device: object = None) -> dict[str, int]:
            return {"active_bytes.all.current": self.live, "reserved_bytes.all.current": self.live}

        return {"get_device_properties": lambda device=None: facts, "current_device": lambda: 0,
                "get_device_capability": lambda device=None: self.capability,
                "mem_get_info": lambda device=None: (self.total - self.live, self.total),
                "memory_allocated": memory, "memory_reserved": memory, "memory_stats": statistics,
                "synchronize": lambda device=None: None, "empty_cache": lambda: None}

    @contextmanager
    def peak(self) -> Iterator[Peak]:
        """Measure the most memory that the block uses beside what is there when it begins."""
        found = Peak(self.live)
        self._peaks.append(found)
        try:
            yield found
        finally:
            self._peaks = [peak for peak in self._peaks if peak is not found]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not all(kind in PLAIN for kind in types):
            return NotImplemented  # such as ComfyUI's quantised tensors: their parts come here one by one
        leaves, tree = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        there = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        if not there and (asked is None or asked.type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func in READS:
            return READS[func]
        _check_dtypes(func, tensors)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            with unset_fake_temporarily():
                return args[0].zero_()
        args, kwargs = tree_unflatten([_without_numbers(leaf) for leaf in leaves], tree)
        found = func(*args, **kwargs)
        self._fake.fake_tensor_converter.meta_converter.tensor_memo.clear()  # its weak references forbid to swap
        self._count(func, found)
        if asked is None or asked.type != "cpu":
            return found
        with unset_fake_temporarily():  # numpy's zeros take no memory before they are written
            zeros = torch.from_numpy(np.zeros(found.numel() * found.dtype.itemsize, np.uint8))
            return zeros.view(found.dtype).view(found.shape)

    def _count(self, func: Any, found: Any) -> None:
        """Count the storages that an operation made. Raises OutOfMemoryError when there is no room for one."""
        for tensor in tree_leaves(found):
            if not isinstance(tensor, FakeTensor) or tensor.device.type != "cuda":
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self._storages:
                continue
            size = storage.nbytes()
            if self.live + size > self.total:
                raise torch.OutOfMemoryError(f"CUDA out of memory. {func} tried to allocate {size:,} bytes.")
            self._storages.add(storage._cdata)
            self.live += size
            weakref.finalize(storage, self._freed, storage._cdata, size)
        for peak in self._peaks:
            if self.live - peak.before > peak.bytes:
                peak.bytes, peak.operation = self.live - peak.before, str(func)

    def _freed(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live -= size


def _check_dtypes(func: Any, tensors: list[torch.Tensor]) -> None:
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1 and func.overloadpacket.__name__.startswith(ONE_DTYPE):
        raise RuntimeError(f"{func} of several dtypes: {', '.join(sorted(map(str, dtypes)))}")


def _without_numbers(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor) or isinstance(leaf, FakeTensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="cpu")


class _Functions(TorchFunctionMode):
    """Functions above PyTorch's operations: attention by the kernel that an NVIDIA GPU would take, and `.data`.

    PyTorch asks the GPU that is not there for its kernels, and would take the slow way, which holds the whole matrix.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.data.__set__ and isinstance(args[1], FakeTensor):
            return _set_data(*args)
        if func is torch.nn.functional.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            func = _fused_attention if query.device.type == "cuda" else func
        return func(*args, **kwargs)


def _set_data(tensor: torch.Tensor, data: torch.Tensor) -> None:
    """Do `tensor.data = data`, which PyTorch knows for two real tensors only."""
    if isinstance(tensor, FakeTensor) and tensor.untyped_storage()._cdata == data.untyped_storage()._cdata:
        return
    new = torch.nn.Parameter(data, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else data
    torch.utils.swap_tensors(tensor, new)


def _fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
                     dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                     enable_gqa: bool = False) -> torch.Tensor:
    half = query.dtype in (torch.float16, torch.bfloat16)
    if attn_mask is None and half and query.shape[-1] <= FLASH_HEAD_DIM:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    return aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, False, dropout_p, is_causal,
                                                        scale=scale)[0]
