"""comfy_aimdo's library, ComfyUI's allocator for weights on a GPU, in plain memory.

After github.com/Comfy-Org/comfy-aimdo, src/. Weights are on pages of a pretended GPU that are taken away again, as
there is room or at random.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import random
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from tests.support.pretended_gpu import GPU, put_on_gpu

PAGE = 1 << 20
"""Bytes; the real one's are 32 MiB, for layers that are that much larger than the bundled model's."""
GARBAGE = 0xFF
"""Not a number in every float type, so that whoever reads memory that was taken away is seen."""
SUCCESS, OUT_OF_MEMORY = 0, 1
HANDLES = itertools.count(1)


class Memory:
    """Some bytes with an address."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, max(size, 1))
        self._view = (ctypes.c_uint8 * len(self._map)).from_buffer(self._map)
        self.address = ctypes.addressof(self._view)

    def spoil(self, begin: int, end: int) -> None:
        """Put garbage in place of some bytes."""
        ctypes.memset(self.address + begin, GARBAGE, end - begin)


@dataclass
class Page:
    serial: int = 0
    resident: bool = False
    pins: int = 0


@dataclass
class Vbar:
    """Virtual memory of a model's weights. Pages from the watermark on are out of use until ComfyUI loads the model."""

    memory: Memory
    pages: list[Page]
    watermark: int

    def evict(self, number: int) -> bool:
        """Take the memory of a page away; return whether it had some and could lose it."""
        page = self.pages[number]
        gone = page.resident and not page.pins
        if gone:
            page.resident = False
            self.memory.spoil(number * PAGE, (number + 1) * PAGE)
        return gone

    @property
    def resident(self) -> int:
        return sum(page.resident for page in self.pages)


@dataclass
class HostBuffer:
    memory: Memory
    reserved: int
    size: int = 0


@dataclass
class MappedFile:
    file: BinaryIO
    map: mmap.mmap
    address: int


@dataclass
class CastBuffer:
    memory: Memory
    size: int
    used: int = 0
    """Bytes from its start to the end of the last tensor in it."""


@dataclass
class Library:
    """comfy_aimdo's C functions, by their names.

    `room`: pages that weights may have, all models together. `loss`: probability that a page is taken away at a fault,
    as by activations that grow; `seed`: of that.
    """

    room: int = 1 << 20
    loss: float = 0.0
    seed: int = 0
    vbars: dict[int, Vbar] = field(default_factory=dict)
    """By handle, those first that lose their pages last."""
    host_buffers: dict[int, HostBuffer] = field(default_factory=dict)
    files: dict[int, MappedFile] = field(default_factory=dict)
    cast_buffers: dict[int, CastBuffer] = field(default_factory=dict)
    registered: dict[int, int] = field(default_factory=dict)
    """Pinned memory: address -> bytes."""
    refused: int = 0
    """Faults for which there was no room."""
    lost: int = 0
    """Pages that were taken away at a fault."""
    prepared: int = 0
    """Number of times that ComfyUI made a model ready to run."""
    events: list[tuple[str, ...]] = field(default_factory=list)
    """Operations in their order: ("fault", address), ("copy", stream), ("wait", stream, other stream)."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def pins(self) -> int:
        """Pages that nobody may take away now, each counted as often as it is held."""
        return sum(page.pins for vbar in self.vbars.values() for page in vbar.pages)

    def get_devctx(self, device: int) -> int:
        return 1 + device

    # vbars: src/model-vbar.c

    def vbar_allocate(self, context: int, size: int, device: int, *page_out: Any) -> int:
        pages = -(-size // PAGE)
        memory = Memory(pages * PAGE)
        return self._add_vbar(next(HANDLES), Vbar(memory, [Page() for _ in range(pages)], pages))

    def _add_vbar(self, handle: int, vbar: Vbar) -> int:
        self.vbars = {handle: vbar, **self.vbars}
        return handle

    def vbar_get(self, context: int, handle: int) -> int:
        return self.vbars[handle].memory.address

    def vbar_prioritize(self, context: int, handle: int, *clamp: int) -> None:
        self.prepared += 1
        vbar = self.vbars.pop(handle)
        vbar.watermark = len(vbar.pages)
        self._add_vbar(handle, vbar)

    def vbar_fault(self, context: int, handle: int, offset: int, size: int, signature: Any) -> int:
        vbar = self.vbars[handle]
        numbers = range(offset // PAGE, -(-(offset + size) // PAGE))
        self.events.append(("fault", vbar.memory.address + offset))
        for other in self.vbars.values():
            for number in range(len(other.pages)):
                if other.pages[number].resident and self._random.random() < self.loss:
                    self.lost += other.evict(number)
        if not self._make_room(vbar, numbers):
            self.refused += 1
            return OUT_OF_MEMORY
        for i, number in enumerate(numbers):
            page = vbar.pages[number]
            page.serial += not page.resident
            page.resident = True
            page.pins += 1
            signature[i] = page.serial
        return SUCCESS

    def _make_room(self, vbar: Vbar, numbers: range) -> bool:
        """Take pages away, of models that were loaded earlier first, then of this one behind those it needs."""
        absent = sum(not vbar.pages[number].resident for number in numbers)
        for other in reversed(self.vbars.values()):
            while other.watermark > (numbers.stop if other is vbar else 0):
                if sum(each.resident for each in self.vbars.values()) + absent <= self.room:
                    break
                other.watermark -= 1
                other.evict(other.watermark)
        if sum(each.resident for each in self.vbars.values()) + absent > self.room:
            vbar.watermark = min(vbar.watermark, numbers.start)
        return numbers.stop <= vbar.watermark

    def vbar_unpin(self, context: int, handle: int, offset: int, size: int) -> bool:
        vbar = self.vbars[handle]
        for number in range(offset // PAGE, min(-(-(offset + size) // PAGE), len(vbar.pages))):
            vbar.pages[number].pins = max(0, vbar.pages[number].pins - 1)
            if number >= vbar.watermark:
                vbar.evict(number)
        return True

    def vbar_loaded_size(self, context: int, handle: int) -> int:
        return self.vbars[handle].resident * PAGE

    def vbar_free_memory(self, context: int, handle: int, size: int) -> int:
        vbar, freed = self.vbars[handle], 0
        while freed < size and vbar.watermark > 0:
            vbar.watermark -= 1
            freed += PAGE * vbar.evict(vbar.watermark)
        return freed

    def vbar_get_nr_pages(self, context: int, handle: int) -> int:
        return len(self.vbars[handle].pages)

    def vbar_get_residency(self, context: int, handle: int, flags: Any, size: int) -> None:
        for number, page in enumerate(self.vbars[handle].pages[:size]):
            flags[number] = page.resident | 2 * (page.pins > 0)

    def vbar_free(self, context: int, handle: int) -> None:
        self.vbars.pop(handle, None)

    def vbars_analyze(self, context: int, only_dirty: bool) -> int:
        return sum(vbar.resident for vbar in self.vbars.values()) * PAGE

    def vbars_reset_watermark_limits(self, context: int) -> None:
        """There are no limits here: ComfyUI sets none."""

    # host buffers: src/hostbuf.c

    def hostbuf_allocate(self, prewarm: int, reserved: int, mark_cold: bool) -> int:
        handle = next(HANDLES)
        self.host_buffers[handle] = HostBuffer(Memory(reserved + prewarm), reserved + prewarm)
        return handle

    def hostbuf_get_raw_address(self, handle: int) -> int:
        return self.host_buffers[handle].memory.address

    def hostbuf_extend(self, handle: int, size: int, reallocate: bool, register: bool, delta: Any) -> int:
        buffer = self.host_buffers[handle]
        assert not reallocate and not register, "ComfyUI registers by cudaHostRegister"
        if buffer.size + size > buffer.reserved:
            return 0
        delta._obj.value = size
        buffer.size += size
        return buffer.memory.address + buffer.size - size

    def hostbuf_truncate(self, handle: int, size: int, unregister: bool) -> bool:
        buffer = self.host_buffers[handle]
        if size >= buffer.size or (unregister and self.cudaHostUnregister(buffer.memory.address + size)):
            return False
        buffer.memory.spoil(size, buffer.size)
        buffer.size = size
        return True

    def hostbuf_free(self, handle: int) -> None:
        self.host_buffers.pop(handle, None)

    def hostbuf_read_file_slice(self, handle: int, device: int, file: int, file_offset: int, size: int, offset: int,
                                stream: int | None, pointer: int) -> bool:
        host = self.host_buffers[handle].memory.address + offset
        ctypes.memmove(host, os.pread(file, size, file_offset), size)
        if pointer:
            ctypes.memmove(pointer, host, size)
        return True

    # files: src/model-mmap.c, src/hostbuf-file-reader.c

    def model_mmap_allocate(self, path: bytes) -> int:
        handle, file = next(HANDLES), open(path, "rb")  # noqa: SIM115
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.files[handle] = MappedFile(file, mapped, ctypes.addressof(ctypes.c_uint8.from_buffer(mapped)))
        return handle

    def model_mmap_get(self, handle: int) -> int:
        return self.files[handle].address

    def model_mmap_get_file_handle(self, handle: int) -> int:
        return self.files[handle].file.fileno()

    def model_mmap_bounce(self, handle: int) -> bool:
        return True

    def model_mmap_deallocate(self, handle: int) -> None:
        self.files.pop(handle, None)

    def hostbuf_file_reader_read(self, device: int, file: int, offset: int, size: int, stream: int | None, pointer: int,
                                 mark_cold: bool) -> bool:
        ctypes.memmove(pointer, os.pread(file, size, offset), size)
        return True

    # buffers for weights that find no room: src/vrambuf.c

    def vrambuf_create(self, device: int, size: int) -> int:
        handle = next(HANDLES)
        self.cast_buffers[handle] = CastBuffer(Memory(size), size)
        return handle

    def vrambuf_get(self, handle: int) -> int:
        return self.cast_buffers[handle].memory.address

    def vrambuf_grow(self, handle: int, size: int) -> bool:
        return size <= self.cast_buffers[handle].size

    def vrambuf_destroy(self, handle: int) -> bool:
        self.cast_buffers.pop(handle, None)
        return True

    def tensor_at(self, address: int, size: int, device: torch.device) -> torch.Tensor:
        """Return a tensor, as comfy_aimdo.torch.get_tensor_from_raw_ptr does."""
        assert device == GPU, device
        for buffer in self.cast_buffers.values():
            end = address + size - buffer.memory.address
            if size <= end <= buffer.size:
                buffer.used = max(buffer.used, end)
        return put_on_gpu(torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8))

    # of the CUDA runtime, by torch.cuda.cudart()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        if address in self.registered:
            return 712  # cudaErrorHostMemoryAlreadyRegistered
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        return 0 if self.registered.pop(address, None) else 713  # cudaErrorHostMemoryNotRegistered
