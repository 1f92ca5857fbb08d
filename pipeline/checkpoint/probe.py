"""Probe a weight file or folder: which model it holds and how its weights are stored.

Only headers are read, in milliseconds whatever the size. Legacy fp8 with scales (`scale_weight`, `scaled_fp8`):
comfy/utils.py `convert_old_quants` of ComfyUI 0.30. Its present form, a `comfy_quant` tensor of JSON beside each weight
or `_quantization_metadata` in the header: comfy/ops.py.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from .detect import PREFIX, detect
from .errors import CheckpointError, quoted
from .expert_name import expert_in_name
from .folder import is_pipeline
from .gguf_file import MAGIC, read_gguf_header
from .header import FileHeader, Header, read_opening
from .kinds import KeyLayout, ModelKind, TransformerShape
from .safetensors_file import read_header
from .scales import NAMES as SCALE_NAMES
from .scales import has_several, misfit
from .shards import files_of, parts_beside

DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2"}
"""safetensors' name of a dtype -> the one in file names and on widgets."""
QUANT_MARK, QUANT_METADATA = ".comfy_quant", "_quantization_metadata"
TITLE_KEYS = ("general.name", "general.basename", "modelspec.title")
"""Metadata with a model's name (ggml's docs/gguf.md; github.com/Stability-AI/ModelSpec)."""


class StorageFamily(str, Enum):
    """The ways of storing weights; SCALES has scales that are not ComfyUI's, OTHER what no loader here knows."""

    PLAIN = "plain"
    FP8_SCALED = "fp8_scaled"
    COMFY_QUANT = "comfy_quant"
    GGUF = "gguf"
    SCALES = "scales"
    OTHER = "other"


@dataclass(frozen=True)
class Storage:
    """A way to store weights; its name is fp16, fp8_e4m3fn_scaled, int8_tensorwise+convrot, nvfp4, Q4_K, ...

    `formats`: ComfyUI's names of the formats in a file of COMFY_QUANT.
    """

    family: StorageFamily
    name: str
    formats: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CheckpointFacts:
    """The model in a file or folder, and how it is stored.

    `noise`: "high", "low" or None, guessed from names. `shape`: of a whole transformer, else None. `size`: in bytes.
    `files`: those that hold the tensors. `besides`: of an all-in-one checkpoint, the beginnings of the names of its
    other models, such as vae.
    """

    header: Header
    kind: ModelKind
    noise: str | None
    layout: KeyLayout
    storage: Storage
    shape: TransformerShape | None
    odd_part: str | None
    size: int
    files: tuple[Path, ...]
    besides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return its name for messages."""
        return weights_name(self.header.path)


def probe_checkpoint(path: Path) -> CheckpointFacts:
    """Return the facts of a .safetensors or .gguf file, or of a folder of one model or of a whole pipeline.

    A pipeline is only recognised: probe its folders `transformer`, `transformer_2`, `vae` and `text_encoder`. Raises
    CheckpointError when the path is none of these, damaged or cut short.
    """
    if path.is_dir() and is_pipeline(path):
        return _pipeline(path)
    files = tuple(files_of(path))
    headers, ggufs = zip(*(_read(file) for file in files), strict=True)
    header = headers[0] if files == (path,) else _merged(path, list(headers))
    detected = detect(header.shapes)
    if detected.besides:
        header = _transformer_part(header)
    gguf = any(ggufs)
    return CheckpointFacts(
        header=header,
        kind=detected.kind,
        noise=_noise(path, header.metadata),
        layout=KeyLayout.GGUF if gguf else detected.layout,
        storage=storage_of(header, gguf=gguf),
        shape=detected.shape,
        odd_part=detected.odd_part,
        size=sum(file.stat().st_size for file in files),
        files=files,
        besides=detected.besides,
    )


def weights_name(path: Path) -> str:
    """Return a file's name for messages; for a part of a pipeline, the pipeline's folder and the part."""
    return f"{path.parent.name}/{path.name}" if is_pipeline(path.parent) else path.name


def _pipeline(folder: Path) -> CheckpointFacts:
    files = tuple(sorted(folder.glob("*/*.safetensors")))
    size = sum(file.stat().st_size for file in files)
    return CheckpointFacts(Header(folder, {}, {}, {}), ModelKind.PIPELINE, None, KeyLayout.DIFFUSERS,
                           Storage(StorageFamily.PLAIN, "empty"), None, None, size, files)


def _read(path: Path) -> tuple[FileHeader, bool]:
    """Return a file's header and True for GGUF; the content decides, not the suffix."""
    gguf = read_opening(path)[0].startswith(MAGIC)
    header = (read_gguf_header if gguf else read_header)(path)
    parts = header.metadata.get("split.count", "0") if gguf else "0"
    if parts not in ("0", "1") and len(parts_beside(path)) == 1:
        raise CheckpointError(f"{path.name} is one of {parts} parts of a split GGUF file under a name of its own. Give "
                              "the parts their names back, such as model-00001-of-00002.gguf, in one folder.")
    return header, gguf


def _transformer_part(header: FileHeader) -> FileHeader:
    """Return an all-in-one checkpoint's header with the tensors of its transformer alone."""
    names = [name for name in header.shapes if name.startswith(PREFIX)]
    return replace(header, dtypes={name: header.dtypes[name] for name in names},
                   shapes={name: header.shapes[name] for name in names})


def _merged(folder: Path, headers: list[FileHeader]) -> Header:
    """Return one header for all shards."""
    dtypes = {name: dtype for header in headers for name, dtype in header.dtypes.items()}
    shapes = {name: shape for header in headers for name, shape in header.shapes.items()}
    metadata = {key: value for header in headers for key, value in header.metadata.items()}
    return Header(folder, dtypes, shapes, metadata)


def _noise(path: Path, metadata: dict[str, str]) -> str | None:
    if is_pipeline(path.parent):  # diffusers: `transformer` is the high-noise expert, where there are two
        names = ("transformer", "transformer_2")
        whole = all((path.parent / name).is_dir() for name in names)
        return dict(zip(names, ("high", "low"), strict=True)).get(path.name) if whole else None
    titles = [str(metadata.get(key, "")) for key in TITLE_KEYS]
    return next(filter(None, map(expert_in_name, [*titles, path.name, path.parent.name])), None)


def storage_of(header: Header, *, gguf: bool) -> Storage:
    """Return how most of the weights are stored. Reads a few dozen bytes of JSON when the settings are in tensors."""
    dominant = _dominant_dtype(header)
    if gguf:
        return Storage(StorageFamily.GGUF, dominant)
    quantised = QUANT_METADATA in header.metadata or any(name.endswith(QUANT_MARK) for name in header.shapes)
    if quantised and isinstance(header, FileHeader):
        return _comfy_quant(header)
    name = DTYPE_NAMES.get(dominant, dominant.lower())
    legacy = any(key.endswith((".scale_weight", "scaled_fp8")) for key in header.shapes)
    if legacy and not has_several(header.shapes):
        return Storage(StorageFamily.FP8_SCALED, f"{name}_scaled")
    if not any(key.endswith(SCALE_NAMES) for key in header.shapes):
        return Storage(StorageFamily.PLAIN, name)
    odd = misfit(header.dtypes, header.shapes)
    if odd is not None:
        return Storage(StorageFamily.OTHER, f"{name} with scales of a form that is not known ({quoted(odd)})")
    return Storage(StorageFamily.SCALES, f"{name} with a scale for each row or block")


def _comfy_quant(header: FileHeader) -> Storage:
    try:
        layers = list(_quantised_layers(header))
        counted = Counter(_format_name(layer) for layer in layers)
        formats = frozenset(str(layer["format"]) for layer in layers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Storage(StorageFamily.OTHER, "a quantisation whose settings name no format or are damaged")
    return Storage(StorageFamily.COMFY_QUANT, ", ".join(name for name, _ in counted.most_common()), formats)


def _quantised_layers(header: FileHeader) -> Iterator[dict[str, Any]]:
    """Yield the settings of quantised layers, one layer for each pair of (bytes of JSON, dtype of the weight).

    Layers with equal settings agree in both, and reading all of them would be hundreds of seeks.
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


def _format_name(layer: dict[str, Any]) -> str:
    params = layer.get("params")
    rotated = layer.get("convrot", params.get("convrot") if isinstance(params, dict) else None)
    return str(layer["format"]) + ("+convrot" if rotated else "")


def _dominant_dtype(header: Header) -> str:
    counted: Counter[str] = Counter()
    for name, dtype in header.dtypes.items():
        counted[dtype] += math.prod(header.shapes[name])
    return _most(counted)


def _most(counted: Counter[str]) -> str:
    """Return the most frequent name; "empty" when there is none."""
    return counted.most_common(1)[0][0] if counted else "empty"
