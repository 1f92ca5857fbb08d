"""The alpha of modules without an alpha tensor: from the file's metadata, or from an adapter_config.json beside it.

kohya's `ss_network_alpha` is no such source: kohya's trainers always write alpha tensors, and converters that leave
them out have multiplied them into the matrices (convert_lora.py of github.com/kohya-ss/musubi-tuner).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.errors import quoted
from .adapters import WITH_MAGNITUDE, Adapter, Shape, adapter_of, patch_shape
from .names import LoraKey, Style, diffusers_name, without_prefix
from .peft_config import SIDECAR, AdapterConfig, Names, ends_of, read_metadata, read_sidecar

if TYPE_CHECKING:
    import torch

BARE_ALPHAS = ("ss_network_alpha", "lora_alpha", "network_alpha", "alpha")
Configs = Mapping[str, AdapterConfig]
"""By component, `transformer` or `transformer_2`; "" for all."""


@dataclass(frozen=True)
class RankedPatch:
    """The patch of one module, for whose strength an alpha counts; `rank` is None where its tensors tell none."""

    key: LoraKey
    adapter: Adapter
    rank: int | None
    has_alpha: bool


@dataclass(frozen=True)
class AlphaSource:
    """The source of the alpha of modules without an alpha tensor."""

    configs: Configs = field(default_factory=dict)
    where: str = ""
    """`its metadata` or `adapter_config.json`, for reports."""
    note: str = ""
    """A clause on what was left alone."""

    def factor_of(self, patch: RankedPatch) -> float | None:
        """Return alpha / rank, or alpha / sqrt(rank), of a patch without an alpha tensor; None when nothing tells."""
        config = config_of(self.configs, patch.key)
        return None if config is None else config.factor_of(names_of(patch.key), patch.rank)

    def alpha_of(self, patch: RankedPatch) -> float | None:
        """Return the alpha that is told of a patch, with an alpha tensor or without."""
        config = config_of(self.configs, patch.key)
        return None if config is None else config.alpha_of(names_of(patch.key))


def alpha_source(path: Path, metadata: Mapping[str, str], patches: Sequence[RankedPatch], local: bool) -> AlphaSource:
    """Return where a file's missing alphas come from, after a look at what contradicts.

    `local`: look for an adapter_config.json beside it too. One in a folder of several files counts when its ranks and
    modules are this file's. Raises ValueError, with a clause that follows the file's name, for settings that cannot be
    followed and for those that contradict each other or the tensors.
    """
    configs = read_metadata(metadata)
    sidecar, beside, own, note = path.parent / SIDECAR, None, False, ""
    if local and sidecar.is_file():
        own = path.stem.startswith("adapter_model") or not any(
            other != path and other.suffix == path.suffix for other in path.parent.iterdir())
        try:
            beside = read_sidecar(sidecar)
        except ValueError:
            if own:
                raise
    if beside is not None and not own and (configs or not fits(beside, patches)):
        beside = None
        note = "" if configs or all(patch.has_alpha for patch in patches) else f"{SIDECAR} beside it is of another file"
    if configs and beside is not None:
        _compare(configs, {"": beside}, patches)
    where = "its metadata" if configs else SIDECAR if beside is not None else ""
    source = AlphaSource(configs or ({} if beside is None else {"": beside}), where, note or _left_alone(metadata))
    for patch in patches:
        _check(source, patch)
    return source


def ranked_patch(key: LoraKey, shapes: Mapping[str, Shape]) -> RankedPatch | None:
    """Return what counts of one module's parts; None where alpha has no say. Raises ValueError as `patch_shape`."""
    kind = adapter_of(shapes)
    if kind not in (*WITH_MAGNITUDE, Adapter.DORA):
        return None
    return RankedPatch(key, kind, patch_shape(kind, shapes).rank, "alpha" in shapes)


def missing_factors(source: AlphaSource, keys: Iterable[LoraKey], modules: Mapping[str, Mapping[str, torch.Tensor]],
                    ) -> tuple[dict[str, float], str]:
    """Return alpha / rank of the modules whose tensors have no alpha, and clauses on which alpha counts.

    modules: module -> its parts' tensors; keys: one of each at least.
    """
    factors: dict[str, float] = {}
    in_tensors: set[float] = set()
    told: set[float] = set()
    unknown = 0
    for module, key in {key.module: key for key in keys}.items():
        parts = modules[module]
        patch = ranked_patch(key, {part: tuple(tensor.shape) for part, tensor in parts.items()})
        if patch is None:
            continue
        alpha, factor = source.alpha_of(patch), source.factor_of(patch)
        told |= set() if alpha is None else {alpha}
        if patch.has_alpha:
            in_tensors.add(parts["alpha"].item())
        elif factor is None:
            unknown += 1
        else:
            factors[module] = factor
    said = [f"alpha {_range(in_tensors)} from its tensors"] if in_tensors else []
    if factors:
        stabilised = any(config.rank_stabilised for config in source.configs.values())
        said.append(f"alpha {_range(told)} from {source.where}" + (", rank-stabilised" if stabilised else ""))
    elif told - in_tensors:
        said.append(f"{source.where} says alpha {_range(told)}, but the tensors count")
    if unknown:
        said += ["no alpha, so taken as the rank", *filter(None, [source.note])]
    return factors, "".join(f"; {clause}" for clause in said)


def _range(values: set[float]) -> str:
    return f"{min(values):g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}"


def _left_alone(metadata: Mapping[str, str]) -> str:
    """Return a clause on an alpha in the metadata that says nothing of whether it is multiplied in already."""
    key = next((key for key in BARE_ALPHAS if metadata.get(key, "None") not in ("", "None", "null")), None)
    return "" if key is None else (f"{key} {metadata[key][:20]} in its metadata is left alone, because converters that "
                                   "drop alphas multiply them in")


def _check(source: AlphaSource, patch: RankedPatch) -> None:
    """Raise ValueError when the settings and a patch without an alpha tensor contradict each other."""
    config = config_of(source.configs, patch.key)
    if config is None:
        return
    if config.dora and patch.adapter is Adapter.LORA:
        raise ValueError(f"is a DoRA by {source.where} (use_dora), but its {quoted(patch.key.module)} has no "
                         "magnitudes")
    told = config.rank_of(names_of(patch.key))
    if not patch.has_alpha and None not in (told, patch.rank) and told != patch.rank:
        raise ValueError(f"contradicts itself: {source.where} says rank {told} for {quoted(patch.key.module)}, whose "
                         f"matrices have rank {patch.rank}, so that its strength cannot be told")


def _compare(one: Configs, other: Configs, patches: Sequence[RankedPatch]) -> None:
    """Raise ValueError when two sources tell different strengths for a patch without an alpha tensor."""
    for patch in patches:
        factors = {source.factor_of(patch) for source in (AlphaSource(one), AlphaSource(other))} - {None}
        if len(factors) > 1 and not patch.has_alpha:
            said = " and ".join(f"{factor:g}" for factor in sorted(factors))
            raise ValueError(f"has contradicting alphas: alpha / rank of {quoted(patch.key.module)} is {said} by its "
                             f"metadata and by {SIDECAR} beside it. Take {SIDECAR} away, or get both again")


def names_of(key: LoraKey) -> Names:
    """Return what the module of a tensor is called: in the file, without its prefix, officially and by diffusers."""
    return tuple(dict.fromkeys((key.name, without_prefix(key.name), key.module, diffusers_name(key.module))))


def config_of(configs: Configs, key: LoraKey) -> AdapterConfig | None:
    """Return the settings that are for the module of a tensor, by its component."""
    own = [name for name in configs if name and key.name.startswith(f"{name}.")]
    named = max(own, key=len, default={"low": "transformer_2", "high": "transformer"}.get(key.expert or "", ""))
    if named in configs:
        return configs[named]
    if "" in configs or key.expert is not None or key.style is Style.DIFFUSERS:
        return configs.get("")
    # A file whose names were converted: `diffusion_model.` for `transformer.`.
    return configs.get("transformer") or (next(iter(configs.values())) if len(configs) == 1 else None)


def fits(config: AdapterConfig, patches: Sequence[RankedPatch]) -> bool:
    """Tell whether settings can be those of a file with these patches: their type, ranks and modules."""
    return config.alpha is not None and all(
        patch.rank in (None, config.rank_of(names_of(patch.key))) and config.dora == (patch.adapter is Adapter.DORA)
        and (not config.targets or any(end in config.targets for name in names_of(patch.key) for end in ends_of(name)))
        for patch in patches)
