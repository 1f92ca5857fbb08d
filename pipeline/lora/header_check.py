"""Whether the LoRAs that a node names are what they should be: each file's header read, and nothing else.

What a sampler will say of a LoRA, told from the file's header alone, before the run and without the model.

Of the bundled model for a LoRA of its width, else of Wan 2.2 I2V-A14B.


The parameters of a Wan 2.2 I2V-A14B expert that a LoRA can change, by the official names, without any weights.

Modules and sizes: wan/modules/model.py and wan/configs/wan_i2v_A14B.py of github.com/Wan-Video/Wan2.2.
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
"""Of the experts in models/demo."""


def expert_shapes(sizes: TransformerShape) -> dict[str, Shape]:
    """Name of a module, of a bias with `.bias` -> shape of its parameter; the keys of host.Targets."""
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
    """The parts that would be used, each `module.part`."""
    return {f"{module}.{part}" for module, parts in parts_of(chosen.keys, shapes).items() if module in targets
            for part in used_parts(parts, f"{module}.bias" in targets)}


def predict_match(lora: Lora, header: FileHeader, name: str, local: bool = False) -> tuple[LoraFile, dict[str, Match]]:
    """The LoRA with its expert settled, and how much of it finds its place on each expert that it goes to
    (HIGH, LOW).

    name: the file's, with the folders before it. local: the files beside it are its own. Raises CheckpointError or
    RequestError for a file that is no LoRA or none for these models. Whether enough matches is for `match.check_match`
    to say.
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
"""Of the node, and whether the server of each link may be asked."""
DECIDING = ("source", "source_low", "expert", "sha256", "sha256_low")
KEPT_HEADER = 2 * 2**20
"""Bytes of the longest header that is kept in memory."""


@dataclass(frozen=True)
class LoraCheck:
    """What a chip says of one file. `fault`, or `host` for a link that was not asked for, or all the rest."""

    fault: str = ""
    host: str = ""
    """Whose server would have to be asked."""
    local_only: bool = False
    """Why it may not be asked at all: it is so set."""
    name: str = ""
    size: int | None = None
    """Bytes; None: its server does not say."""
    kinds: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None
    made_for: str = ""
    expert: str = ""
    why: str = ""
    """The reason for the expert, when that was left to the file."""
    keys: tuple[tuple[str, int, int], ...] = ()
    """(expert, keys that find their place, keys in all)."""
    notes: tuple[str, ...] = ()
    warning: str = ""
    """Why the run will stop."""


@dataclass(frozen=True)
class _Header:
    header: FileHeader
    size: int | None
    name: str
    """With the folders before it."""
    local: bool = False
    """In the loras folder."""


def _look(read: Read, size: int | None, name: str) -> _Header:
    return _Header(read_remote_header(PurePosixPath(name).name or "The file", read, size), size, name)


_PEEKS: Peeks[_Header] = Peeks(_look, lambda seen: min(seen.header.offsets.values(), default=0) <= KEPT_HEADER)


def check_loras(inputs: NodeInputs, find: Find, downloads: Path, own: Path, local_only: bool) -> dict[str, object]:
    """{"unknown": inputs of other nodes} or {"files": one Checked, those of the pair, or none where nothing is
    given yet}.

    downloads: the folder of the download cache. own: the pack's, with its keys. local_only: ask no server. Raises
    RequestError or DownloadError for inputs that go together badly.
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
            files.append(_checked(lora, _opened(lora, find, downloads, own, ask and not local_only)))
        except NotAskedError as error:
            files.append(LoraCheck(host=error.host, local_only=local_only))
        except (ValueError, OSError) as error:
            files.append(LoraCheck(fault=str(error)))
    return {"files": files}


def _opened(lora: Lora, find: Find, downloads: Path, own: Path, ask: bool) -> _Header:
    path = find(lora.source)
    if path is not None:
        return _Header(read_header(path), path.stat().st_size, lora.source, local=True)
    if not is_remote(lora.source):
        raise no_such_file(lora.source)
    return _PEEKS.peek(lora.source, folder=downloads, policy=policy_from_environment(),
                       tokens=Tokens(store=own / "keys.json"), sha256=lora.sha256, ask=ask)


def _checked(lora: Lora, there: _Header) -> LoraCheck:
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
