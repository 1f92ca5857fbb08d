"""What a weight file or folder holds, told from its header alone: milliseconds, whatever its size.

How weights are stored: plainly in a dtype, or quantised, and then in which of the ways in use.

Legacy fp8 with scales (`scale_weight`, `scaled_fp8`): comfy/utils.py `convert_old_quants` of ComfyUI 0.30. Its present
form, a `comfy_quant` tensor of JSON beside each weight or `_quantization_metadata` in the header: comfy/ops.py.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from .detect import tell
from .folder import is_pipeline, weight_files
from .gguf_file import MAGIC, read_gguf_header
from .header import FileHeader, Header, opening
from .kinds import Kind, Layout, Told, TransformerShape
from .safetensors_file import read_header

DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2"}
"""safetensors' names of dtypes -> those in file names and on widgets."""
QUANT_MARK, QUANT_METADATA = ".comfy_quant", "_quantization_metadata"
SCALE_MARKS = (".weight_scale", ".weight_scale_inv")


class SchemeFamily(str, Enum):
    """The ways of storing weights. OTHER has scales that no loader here knows."""

    PLAIN = "plain"
    FP8_SCALED = "fp8_scaled"
    COMFY_QUANT = "comfy_quant"
    GGUF = "gguf"
    OTHER = "other"


@dataclass(frozen=True)
class Scheme:
    """A way of storing weights, and its name: fp16, fp8_e4m3fn_scaled, int8_tensorwise+convrot, nvfp4, Q4_K, ..."""

    family: SchemeFamily
    name: str


def _most(counted: Counter[str]) -> str:
    """The name that holds most; `empty` when there is none."""
    return counted.most_common(1)[0][0] if counted else "empty"


def _dominant_dtype(header: Header) -> str:
    counted: Counter[str] = Counter()
    for name, dtype in header.dtypes.items():
        counted[dtype] += math.prod(header.shapes[name])
    return _most(counted)


def _format_name(layer: dict[str, Any]) -> str:
    params = layer.get("params")
    rotated = layer.get("convrot", params.get("convrot") if isinstance(params, dict) else None)
    return str(layer.get("format")) + ("+convrot" if rotated else "")


def _quantised_layers(header: FileHeader) -> Iterator[dict[str, Any]]:
    """The settings of the quantised layers: one of each pair of a length of JSON and a dtype of weights.

    Layers of the same settings agree in both, and a file has hundreds of layers, whose settings lie far apart.
    """
    if QUANT_METADATA in header.metadata:
        yield from json.loads(header.metadata[QUANT_METADATA])["layers"].values()
        return
    marks = [name for name in header.shapes if name.endswith(QUANT_MARK)]
    kinds = {(header.shapes[name], header.dtypes.get(name.removesuffix(QUANT_MARK) + ".weight")): name
             for name in marks}
    with header.path.open("rb") as file:
        for shape, dtype in kinds:
            file.seek(header.offsets[kinds[shape, dtype]])
            yield json.loads(file.read(math.prod(shape)))


def _comfy_quant(header: FileHeader) -> Scheme:
    try:
        counted = Counter(_format_name(layer) for layer in _quantised_layers(header))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Scheme(SchemeFamily.OTHER, "damaged quantisation settings")
    return Scheme(SchemeFamily.COMFY_QUANT, ", ".join(name for name, _ in counted.most_common()))


def scheme_of(header: Header, *, gguf: bool) -> Scheme:
    """The scheme of most of the weights. Reads a few dozen bytes of JSON where a file keeps its settings in tensors."""
    dominant = _dominant_dtype(header)
    if gguf:
        return Scheme(SchemeFamily.GGUF, dominant)
    quantised = QUANT_METADATA in header.metadata or any(name.endswith(QUANT_MARK) for name in header.shapes)
    if quantised and isinstance(header, FileHeader):
        return _comfy_quant(header)
    name = DTYPE_NAMES.get(dominant, dominant.lower())
    if any(key.endswith((".scale_weight", "scaled_fp8")) for key in header.shapes):
        return Scheme(SchemeFamily.FP8_SCALED, f"{name}_scaled")
    if any(key.endswith(SCALE_MARKS) for key in header.shapes):
        return Scheme(SchemeFamily.OTHER, f"{name} with scales of its own")
    return Scheme(SchemeFamily.PLAIN, name)

TITLE_KEYS = ("general.name", "general.basename", "modelspec.title")
"""Where converters and publishers put a model's name (ggml's docs/gguf.md; github.com/Stability-AI/ModelSpec)."""
EXPLICIT = re.compile(r"(high|low)[\s_.-]*noise", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
NOT_NOISE = {"vram", "ram", "memory", "res", "resolution", "quality"}
"""Words that make another word of `high` or `low` before them."""


@dataclass(frozen=True)
class Found:
    """What a file or folder holds. `noise` is "high", "low" or None, guessed from names; `size` is in bytes.

    `shape` is of a transformer that has every tensor that tells a size; `files` are those to read tensors from.
    """

    header: Header
    kind: Kind
    noise: str | None
    layout: Layout
    scheme: Scheme
    shape: TransformerShape | None
    odd_part: str | None
    size: int
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """How messages call it."""
        return shown_name(self.header.path)


def shown_name(path: Path) -> str:
    """A file's name; the name of a part of a pipeline with that of the pipeline's folder before it."""
    return f"{path.parent.name}/{path.name}" if is_pipeline(path.parent) else path.name


def noise_in(text: str) -> str | None:
    """The expert that a name speaks of, "high" or "low"; None when it speaks of neither or of both."""
    explicit = {match.lower() for match in EXPLICIT.findall(text)}
    if explicit:
        return explicit.pop() if len(explicit) == 1 else None
    words = [*(word.lower() for word in WORD.findall(text)), ""]
    found = {word for word, after in pairwise(words) if word in ("high", "low") and after not in NOT_NOISE}
    return found.pop() if len(found) == 1 else None


def _noise(path: Path, metadata: dict[str, str]) -> str | None:
    if is_pipeline(path.parent):  # diffusers: `transformer` is the high-noise expert, where there are two
        names = ("transformer", "transformer_2")
        whole = all((path.parent / name).is_dir() for name in names)
        return dict(zip(names, ("high", "low"), strict=True)).get(path.name) if whole else None
    titles = [str(metadata.get(key, "")) for key in TITLE_KEYS]
    return next(filter(None, map(noise_in, [*titles, path.name, path.parent.name])), None)


def _read(path: Path) -> tuple[FileHeader, bool]:
    """A file's header, and whether it is GGUF: the content decides, whatever the name ends in."""
    gguf = opening(path)[0].startswith(MAGIC)
    return (read_gguf_header if gguf else read_header)(path), gguf


def _merged(folder: Path, headers: list[FileHeader]) -> Header:
    """One header for all shards."""
    dtypes = {name: dtype for header in headers for name, dtype in header.dtypes.items()}
    shapes = {name: shape for header in headers for name, shape in header.shapes.items()}
    metadata = {key: value for header in headers for key, value in header.metadata.items()}
    return Header(folder, dtypes, shapes, metadata)


def _pipeline(folder: Path) -> Found:
    files = tuple(sorted(folder.glob("*/*.safetensors")))
    size = sum(file.stat().st_size for file in files)
    return Found(Header(folder, {}, {}, {}), Kind.PIPELINE, None, Layout.DIFFUSERS,
                 Scheme(SchemeFamily.PLAIN, "empty"), None, None, size, files)


def probe(path: Path) -> Found:
    """What a .safetensors or .gguf file, or a folder of one model or of a whole pipeline, holds.

    A pipeline is told as such; its parts, `transformer`, `transformer_2`, `vae` and `text_encoder`, are folders to
    probe. Raises CheckpointError when the path is none of these, damaged or cut short.
    """
    if path.is_dir() and is_pipeline(path):
        return _pipeline(path)
    files = tuple(weight_files(path)) if path.is_dir() else (path,)
    headers, ggufs = zip(*(_read(file) for file in files), strict=True)
    header = _merged(path, list(headers)) if path.is_dir() else headers[0]
    told: Told = tell(header.shapes)
    gguf = any(ggufs)
    return Found(
        header=header,
        kind=told.kind,
        noise=_noise(path, header.metadata),
        layout=Layout.GGUF if gguf else told.layout,
        scheme=scheme_of(header, gguf=gguf),
        shape=told.shape,
        odd_part=told.odd_part,
        size=sum(file.stat().st_size for file in files),
        files=files,
    )
