"""Read a .gguf file: its header alone, or its tensors as memory-mapped bytes.

Format, versions 2 and 3: github.com/ggml-org/ggml, docs/gguf.md. The converter of image models,
github.com/city96/ComfyUI-GGUF (tools/convert.py), stores the shape of a tensor that it has reshaped in the metadata,
as `comfy.gguf.orig_shape.` and the tensor's name.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, mapping_error
from .header import FileHeader, read_opening
from .kinds import PATCH

if TYPE_CHECKING:
    import torch

    from .mmap import MapFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
PATCH_EMBEDDING = "patch_embedding.weight"
MAX_DIMS = 8
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Value types of the metadata -> format characters of the struct module."""
STRING, ARRAY = 8, 9
READABLE = ("F64", "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL",
            "IQ4_XS", "Q3_K", "Q2_K")
"""Usable tensor types: plain dtypes (read.py), and those that diffusers' GGUF loader dequantises."""


GGUFValue = str | tuple[Any, ...]
"""A value of the metadata: one number or text as text, an array as a tuple of numbers or texts."""


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as stored: quantisation type, shape in torch's order, and its bytes (1-D uint8, memory-mapped)."""

    type: str
    shape: tuple[int, ...]
    data: torch.Tensor


def read_gguf_header(path: Path) -> FileHeader:
    """Read and check the header of a .gguf file, without the metadata's arrays, such as vocabularies.

    Raises CheckpointError for a file that is missing, empty, cut short, of another version or format, or that the
    system does not map.
    """
    size = _size(path)
    header = _mapped(path, lambda data: _parse(path, data))
    end = max((offset + tensor_bytes(header.dtypes[name], header.shapes[name])
               for name, offset in header.offsets.items()), default=0)
    if end > size:
        raise CheckpointError(f"{path.name} is cut short: it should hold {end:,} bytes and holds {size:,}. "
                              "Fetch it again.")
    return header


def read_gguf_values(path: Path, prefix: str) -> dict[str, GGUFValue]:
    """Return the metadata whose names begin with `prefix`, arrays included. Raises as `read_gguf_header` does."""
    _size(path)

    def values(data: mmap.mmap) -> dict[str, GGUFValue]:
        reader, _, count = _start(path, data)
        found = {}
        for _ in range(count):
            key = reader.text()
            value = reader.value(reader.numbers("I")[0], keep_array=key.startswith(prefix))
            if value is not None and key.startswith(prefix):
                found[key] = value
        return found

    return _mapped(path, values)


def _size(path: Path) -> int:
    """Return the size in bytes of a GGUF file. Raises CheckpointError for another file."""
    start, size = read_opening(path)
    if not start.startswith(MAGIC):
        raise CheckpointError(f"{path.name} is not a GGUF file, or it is damaged ({size:,} bytes). Fetch it again.")
    return size


def _mapped(path: Path, parse: Callable[[mmap.mmap], Any]) -> Any:
    """Return what `parse` makes of the mapped file. Raises CheckpointError for what cannot be mapped or parsed."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(data)
    except CheckpointError:
        raise
    except OSError as error:
        raise mapping_error(path.name, error) from error
    except (ValueError, KeyError, ArithmeticError, struct.error) as error:
        raise CheckpointError(f"{path.name} is cut short ({path.stat().st_size:,} bytes) or damaged: its header cannot "
                              f"be read ({error}). Fetch it again.") from error


def read_gguf(path: Path, map_file: MapFile | None = None) -> dict[str, GGUFTensor]:
    """Map every tensor of a .gguf file into memory; the disk is read when a page is first used.

    The tensors share one mapping; never write to them. `map_file` is the host's way to map it, if it has one. Raises
    CheckpointError as `read_gguf_header` does.
    """
    import torch

    from .mmap import map_read_only

    header = read_gguf_header(path)
    try:
        mapped = (map_file or map_read_only)(path)
    except (OSError, RuntimeError, MemoryError) as error:
        raise mapping_error(path.name, error) from error
    tensors = {}
    for name, kind in header.dtypes.items():
        shape = header.shapes[name]
        tensors[name] = GGUFTensor(kind, shape, mapped.tensor(torch.uint8, (tensor_bytes(kind, shape),),
                                                              header.offsets[name]))
    return tensors


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor of a quantisation type in the file (block sizes: ggml-common.h, via `gguf`)."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size


def _start(path: Path, data: mmap.mmap) -> tuple[HeaderReader, int, int]:
    """Return a reader that stands before the metadata, and the numbers of tensors and of metadata values.

    Raises CheckpointError for another version.
    """
    reader = HeaderReader(data, len(MAGIC))
    (version,) = reader.numbers("I")
    if version not in VERSIONS:
        raise CheckpointError(f"{path.name} is a GGUF file of version {version}; versions 2 and 3 are read. Fetch a "
                              "newer one, or choose another.")
    return reader, *reader.numbers("QQ")


def _parse(path: Path, data: mmap.mmap) -> FileHeader:
    """Parse a mapped file's header. Raises CheckpointError for another version, ValueError and others for damage."""
    from gguf import GGMLQuantizationType

    reader, tensor_count, value_count = _start(path, data)
    metadata: dict[str, str] = {}
    original: dict[str, tuple[int, ...]] = {}
    for _ in range(value_count):
        key = reader.text()
        shape_of = key.removeprefix(ORIGINAL_SHAPE) if key.startswith(ORIGINAL_SHAPE) else None
        value = reader.value(reader.numbers("I")[0], keep_array=shape_of is not None)
        if shape_of is not None and isinstance(value, tuple) and all(isinstance(size, int) for size in value):
            original[shape_of] = value
        elif isinstance(value, str):
            metadata[key] = value
    stored: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    starts: dict[str, int] = {}
    for _ in range(tensor_count):
        name = reader.text()
        (dims,) = reader.numbers("I")
        if dims > MAX_DIMS:
            raise ValueError(f"{name} has {dims} dimensions")
        stored[name] = reader.numbers(f"{dims}Q")[::-1]
        kind, starts[name] = reader.numbers("IQ")
        dtypes[name] = GGMLQuantizationType(kind).name
    alignment = int(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    begin = -(-reader.position // alignment) * alignment
    shapes = stored | _wan_patch_embedding(stored) | {k: v for k, v in original.items() if k in stored}
    for name, shape in shapes.items():
        if math.prod(shape) != math.prod(stored[name]):
            raise ValueError(f"{name} is {stored[name]} and cannot be {shape}")
    return FileHeader(path, dtypes, shapes, metadata, {name: begin + start for name, start in starts.items()})


def _wan_patch_embedding(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the patch embedding's 5-D shape when a converter has flattened it (ggml has 4 dimensions), else {}."""
    name = next((key for key in shapes if key.rpartition("diffusion_model.")[2] == PATCH_EMBEDDING), None)
    if name is None or len(shapes[name]) == 2 + len(PATCH):
        return {}
    bias = shapes.get(name.replace(".weight", ".bias"))
    dim = bias[0] if bias else shapes[name][0]
    channels = math.prod(shapes[name]) // (dim * math.prod(PATCH))
    return {name: (dim, channels, *PATCH)}


class HeaderReader:
    """Reads the header piece by piece. Raises ValueError when the file ends inside it."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data, self.position = data, position

    def skip(self, count: int) -> int:
        """Skip `count` bytes and return the position of the first."""
        begin = self.position
        if count > len(self.data) - begin:
            raise ValueError("it ends inside the header")
        self.position += count
        return begin

    def numbers(self, letters: str) -> tuple[int, ...]:
        """Read little-endian numbers; `letters` are struct's format characters."""
        layout = "<" + letters
        return struct.unpack_from(layout, self.data, self.skip(struct.calcsize(layout)))

    def text(self) -> str:
        """Read a string: its length in bytes (uint64), then UTF-8."""
        begin = self.skip(self.numbers("Q")[0])
        return self.data[begin:self.position].decode("utf-8")

    def _skip_strings(self, count: int) -> None:
        """Skip `count` strings fast: a vocabulary has 250,000."""
        data, position, end = self.data, self.position, len(self.data)
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if position > end - 8:
                raise ValueError("it ends inside the header")
            position += 8 + length_at(data, position)[0]
        self.position = position
        self.skip(0)

    def value(self, kind: int, *, keep_array: bool) -> GGUFValue | None:
        """Read a metadata value as text; an array gives its numbers or texts with keep_array, else None.

        An array may be a whole vocabulary.
        """
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return str(self.numbers(SCALARS[kind])[0])
        item, count = self.numbers("IQ")
        if item == STRING and keep_array:
            return tuple(self.text() for _ in range(count))
        if item == STRING:
            self._skip_strings(count)
            return None
        if keep_array:
            return self.numbers(f"{count}{SCALARS[item]}")
        self.skip(count * struct.calcsize(SCALARS[item]))
        return None
