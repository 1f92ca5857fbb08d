"""Check the LoRAs of a node by their headers alone, before a run and without a model.

The result is what a sampler would report: for the bundled model when a LoRA has its width, else for Wan 2.2
I2V-A14B, whose modules and sizes are those of wan/modules/model.py and wan/configs/wan_i2v_A14B.py of
github.com/Wan-Video/Wan2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

from ..checkpoint.header import FileHeader
from ..checkpoint.kinds import PATCH, TransformerShape
from ..checkpoint.safetensors_file import read_header, read_remote_header
from ..download.fetch import Read
from ..download.peek import NotAskedError, Peeks
from ..download.source import is_remote
from ..http.policy import policy_from_environment
from ..http.secrets import Tokens
from ..node_inputs import NodeInputs
from ..request import AUTO, DEFAULT_MIN_MATCH, DEFAULT_SCALE, Lora
from .adapters import Shape, used_parts
from .expert import choose_expert
from .lora import new_loras
from .match import ExpertKeys, LoraFile, Match, check_match, experts_of, keys_for_expert, parts_of
from .names import split
from .probe import DEMO_WIDTH, check_fits, probe_lora
from .source import Find, no_such_file

A14B = TransformerShape(dim=5120, ffn_dim=13824, num_layers=40, in_channels=36, out_channels=16, text_dim=4096,
                        freq_dim=256, cross_attn_norm=True)
DEMO = TransformerShape(dim=DEMO_WIDTH, ffn_dim=768, num_layers=5, in_channels=36, out_channels=16, text_dim=128,
                        freq_dim=256, cross_attn_norm=True)
"""The experts in models/demo."""


def expert_shapes(sizes: TransformerShape) -> dict[str, Shape]:
    """Return {module, or bias with `.bias`: shape of its parameter}, with the keys of changes.Targets."""
    dim, text, freq = sizes.dim, sizes.text_dim, sizes.freq_dim
    with_bias: dict[str, Shape] = {
        "patch_embedding": (dim, sizes.in_channels, *PATCH),
        "text_embedding.0": (dim, text), "text_embedding.2": (dim, dim),
        "time_embedding.0": (dim, freq), "time_embedding.2": (dim, dim), "time_projection.1": (6 * dim, dim),
        "head.head": (4 * sizes.out_channels, dim),
    }
    alone: dict[str, Shape] = {"head.modulation": (1, 2, dim)}
    for block in (f"blocks.{number}" for number in range(sizes.num_layers)):
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            with_bias |= {f"{attention}.{part}": (dim, dim) for part in "qkvo"}
            alone |= {f"{attention}.norm_q": (dim,), f"{attention}.norm_k": (dim,)}
        with_bias |= {f"{block}.ffn.0": (sizes.ffn_dim, dim), f"{block}.ffn.2": (dim, sizes.ffn_dim),
                      f"{block}.norm3": (dim,)}
        alone[f"{block}.modulation"] = (1, 6, dim)
    return {**with_bias, **alone, **{f"{module}.bias": shape[:1] for module, shape in with_bias.items()}}


@cache
def _shapes(demo: bool) -> dict[str, Shape]:
    return expert_shapes(DEMO if demo else A14B)


def _used(chosen: ExpertKeys, shapes: Mapping[str, Shape], targets: Mapping[str, Shape]) -> set[str]:
    """Return the parts that would be used, each `module.part`."""
    return {f"{module}.{part}" for module, parts in parts_of(chosen.keys, shapes).items() if module in targets
            for part in used_parts(parts, f"{module}.bias" in targets)}


def predict_match(lora: Lora, header: FileHeader, name: str, local: bool = False) -> tuple[LoraFile, dict[str, Match]]:
    """Return the LoRA with its expert chosen, and its match with each expert that it is for, by HIGH and LOW.

    name: the file's, with the folders before it. local: see `probe_lora`. Raises CheckpointError or RequestError for a
    file that is no LoRA, or no LoRA for these models; `match.check_match` decides whether enough matches.
    """
    facts = probe_lora(header, local)
    demo = facts.width == DEMO_WIDTH
    sizes, targets = DEMO if demo else A14B, _shapes(demo)
    check_fits(facts, sizes.dim, sizes.num_layers)
    file = LoraFile(lora, header.path, facts)
    if lora.expert == AUTO:
        expert, why = choose_expert(facts, name, header.metadata)
        file = replace(file, lora=replace(lora, expert=expert), why=why)
    named, matches = split(header.shapes), {}
    for expert in experts_of(file.lora):
        chosen = keys_for_expert(file.name, named, header.shapes, expert, targets)
        matches[expert] = chosen.match(_used(chosen, header.shapes, targets))
    return file, matches


INPUTS = {"source": str, "source_low": str, "expert": str, "sha256": str, "sha256_low": str, "min_match": float,
          "ask": bool, "ask_low": bool}
"""Inputs of the node, and `ask`, `ask_low`: whether the server of each link may be asked."""
DECIDING = ("source", "source_low", "expert", "sha256", "sha256_low")
KEPT_HEADER = 2 * 2**20
"""Most bytes of a header that is cached."""


@dataclass(frozen=True)
class LoraCheck:
    """The result for one file: `fault`, or `host` for a link that may not be asked yet, or everything else."""

    fault: str = ""
    host: str = ""
    """The server that would have to be asked."""
    local_only: bool = False
    """True when the settings forbid to ask any server."""
    name: str = ""
    size: int | None = None
    """In bytes; None when its server does not say."""
    kinds: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None
    made_for: str = ""
    expert: str = ""
    why: str = ""
    """The reason for the expert, when it was AUTO."""
    keys: tuple[tuple[str, int, int], ...] = ()
    """(expert, keys that fit, all keys)."""
    notes: tuple[str, ...] = ()
    warning: str = ""
    """Why the run will be refused."""


@dataclass(frozen=True)
class _Header:
    header: FileHeader
    size: int | None
    name: str
    """The file's name, with the folders before it."""
    local: bool = False
    """The file is in the loras folder."""


def _look(read: Read, size: int | None, name: str) -> _Header:
    return _Header(read_remote_header(PurePosixPath(name).name or "The file", read, size), size, name)


_PEEKS: Peeks[_Header] = Peeks(_look, lambda seen: min(seen.header.offsets.values(), default=0) <= KEPT_HEADER)


def check_loras(inputs: NodeInputs, find: Find, downloads: Path, own: Path, local_only: bool) -> dict[str, object]:
    """Return {"unknown": linked inputs} or {"files": a LoraCheck for each file, of none to two}.

    downloads: the download cache's folder. own: the pack's folder with its keys. local_only: ask no server. Raises
    RequestError or DownloadError for inputs that contradict each other.
    """
    if unknown := [name for name in DECIDING if name in inputs.linked]:
        return {"unknown": unknown}
    given = inputs.values
    if not any(given.get(name, "").strip() for name in DECIDING if name != "expert"):
        return {"files": []}
    loras = new_loras(given.get("source", ""), DEFAULT_SCALE, given.get("expert", AUTO),
                      given.get("min_match", DEFAULT_MIN_MATCH), given.get("sha256", ""), given.get("source_low", ""),
                      given.get("sha256_low", ""))
    files = []
    for lora, ask in zip(loras, (given.get("ask", False), given.get("ask_low", False)), strict=False):
        try:
            files.append(_check(lora, _open_header(lora, find, downloads, own, ask and not local_only)))
        except NotAskedError as error:
            files.append(LoraCheck(host=error.host, local_only=local_only))
        except (ValueError, OSError) as error:
            files.append(LoraCheck(fault=str(error)))
    return {"files": files}


def _open_header(lora: Lora, find: Find, downloads: Path, own: Path, ask: bool) -> _Header:
    path = find(lora.source)
    if path is not None:
        return _Header(read_header(path), path.stat().st_size, lora.source, local=True)
    if not is_remote(lora.source):
        raise no_such_file(lora.source)
    return _PEEKS.peek(lora.source, folder=downloads, policy=policy_from_environment(),
                       tokens=Tokens(store=own / "keys.json"), sha256=lora.sha256, ask=ask)


def _check(lora: Lora, there: _Header) -> LoraCheck:
    file, matches = predict_match(lora, there.header, there.name, there.local)
    facts, warning = file.facts, ""
    try:
        for expert, match in matches.items():
            check_match(file, expert, match)
    except ValueError as error:
        warning = str(error)
    notes = dict.fromkeys(f"{count} are {why}" for match in matches.values() for why, count in match.no_place.items())
    return LoraCheck(name=facts.name, size=there.size if there.size is not None else there.header.whole,
                     kinds=tuple(kind.value for kind in facts.adapters), ranks=facts.ranks, made_for=facts.made_for,
                     expert=file.lora.expert, why=file.why,
                     keys=tuple((expert, match.used, match.total) for expert, match in matches.items()),
                     notes=tuple(notes), warning=warning)
