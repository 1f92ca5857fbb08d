"""The alpha of a LoRA whose tensors have none: from the file's metadata, or from an adapter_config.json beside it.

diffusers writes the settings of PEFT's adapter as JSON into the metadata (src/diffusers/loaders/lora_base.py,
`lora_adapter_metadata`, with the component's name before each: `transformer_2.lora_alpha`), PEFT writes them beside the
file (src/peft/config.py). What they mean: src/peft/tuners/lora/model.py and layer.py of github.com/huggingface/peft.

kohya's `ss_network_alpha` is no such source: kohya's trainers always write alpha tensors, and converters that leave
them out have multiplied them into the matrices (convert_lora.py of github.com/kohya-ss/musubi-tuner).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.errors import quoted
from .adapters import WITH_MAGNITUDE, Adapter, Shape, adapter_of, patch_shape
from .names import LoraKey, Style, diffusers_name, without_prefix

if TYPE_CHECKING:
    import torch

BARE_ALPHAS = ("ss_network_alpha", "lora_alpha", "network_alpha", "alpha")
METADATA, SIDECAR = "lora_adapter_metadata", "adapter_config.json"
MAX_JSON = 500_000
"""Most characters of either that are read. Patterns that name every module of two experts take 100,000."""
FIELD = re.compile(r"(?:(?P<component>.+?)\.)?(?P<field>r|lora_alpha|alpha|use_rslora|use_dora|peft_type|bias"
                   r"|init_lora_weights|target_modules|(?P<pattern>rank_pattern|alpha_pattern)(?:\.(?P<module>.+))?)",
                   re.DOTALL)
OTHER_COMPONENTS = re.compile(r"text_encoder|image_encoder|vae|te\d?$")
COMPONENTS = ("transformer", "transformer_1", "transformer_2", "unet")
TYPES = ("LORA", "LOHA", "LOKR")
"""PEFT's adapter types whose weights alpha / r multiplies."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that take the adapter's first values off the base weights; `pissa_niter_4` is one too."""
LITERAL = re.compile(r"[\w.-]+")
MAX_EXPRESSIONS, MAX_REPEATS, MAX_GROUPS, MAX_CHOICES, LONGEST_EXPRESSION = 64, 2, 3, 16, 200
"""Bounds of the regular expressions in patterns, so that one from the internet cannot take for ever."""


Pattern = Mapping[str, tuple[int, float]]
"""End of a module's name, or a regular expression for it -> its place in the file, and its rank or alpha."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one PEFT adapter. `rank` and `alpha` are of the modules that no pattern names."""

    rank: int | None = None
    alpha: float | None = None
    rank_pattern: Pattern = field(default_factory=dict)
    alpha_pattern: Pattern = field(default_factory=dict)
    expressions: tuple[str, ...] = ()
    """Keys of both patterns that are regular expressions rather than names."""
    rank_stabilised: bool = False
    dora: bool = False
    biases: bool = False
    """Biases were trained, and saved whole."""
    targets: tuple[str, ...] = ()

    def rank_of(self, names: Names) -> int | None:
        """Return the rank of a module."""
        return _matching(self.rank_pattern, self.expressions, names, self.rank)

    def alpha_of(self, names: Names) -> float | None:
        """Return the alpha of a module."""
        return _matching(self.alpha_pattern, self.expressions, names, self.alpha)

    def factor_of(self, names: Names, rank: int | None) -> float | None:
        """Return what multiplies a module's change, None when alpha or rank is not known. `rank`: its tensors'."""
        alpha, rank = self.alpha_of(names), rank or self.rank_of(names)
        if alpha is None or rank is None:
            return None
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


Configs = Mapping[str, AdapterConfig]
"""By component, `transformer` or `transformer_2`; "" for all."""


Names = tuple[str, ...]
"""Names of one module: the file's, the official one and diffusers'."""


@dataclass(frozen=True)
class RankedPatch:
    """The patch of one module, for whose strength an alpha counts; `rank` is None where its tensors tell none."""

    key: LoraKey
    adapter: Adapter
    rank: int | None
    has_alpha: bool


@dataclass(frozen=True)
class AlphaSource:
    """Where the alpha of modules without an alpha tensor comes from."""

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
    if beside is not None and not own and not fits(beside, patches):
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
    key = next((key for key in BARE_ALPHAS if metadata.get(key)), None)
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


def _matching(pattern: Pattern, expressions: Sequence[str], names: Names, otherwise: float | None) -> float | None:
    """Return the value of the first key that matches the end of a module's name after a dot, as PEFT looks it up."""
    hits = [pattern[end] for name in names for end in _ends(name) if end in pattern]
    hits += [pattern[key] for key in expressions if key in pattern
             and any(re.match(rf"(.*\.)?({key})$", name) for name in names)]
    return min(hits)[1] if hits else otherwise


def _ends(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]


def read_metadata(metadata: Mapping[str, str]) -> dict[str, AdapterConfig]:
    """Return the adapters' settings in a file's metadata, none when there are none.

    Raises ValueError, with a clause that follows the file's name, for settings that cannot be read or followed.
    """
    text = metadata.get(METADATA)
    if text is None or text.strip() in ("", "null"):
        return {}
    return _configs(text, f"has metadata ({METADATA}) that")


def read_sidecar(path: Path) -> AdapterConfig | None:
    """Return the settings of an adapter_config.json; None when there is none. Raises ValueError as `read_metadata`."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"has {SIDECAR} beside it that cannot be read ({error})") from error
    return _configs(text, f"has {SIDECAR} beside it that").get("", AdapterConfig())


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
    """Tell whether settings can be those of a file with these patches: their ranks and modules."""
    return config.alpha is not None and all(
        patch.rank in (None, config.rank_of(names_of(patch.key)))
        and (not config.targets or any(end in config.targets for name in names_of(patch.key) for end in _ends(name)))
        for patch in patches)


def _configs(text: str, where: str) -> dict[str, AdapterConfig]:
    """Return the settings by component. `where` is for messages."""
    if len(text) > MAX_JSON:
        raise ValueError(f"{where} is longer than {MAX_JSON:,} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({str(error)[:100]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} is not a JSON object")
    fields: dict[str, dict[str, object]] = {}
    for name, value in found.items():
        if name in COMPONENTS and isinstance(value, dict):  # the settings of a component as an object
            for inner, setting in value.items():
                _put(fields, f"{name}.{inner}", setting)
        else:
            _put(fields, name, value)
    try:
        return {component: _config(settings) for component, settings in fields.items()
                if not OTHER_COMPONENTS.match(component)}
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error


def _put(fields: dict[str, dict[str, object]], name: str, value: object) -> None:
    match = FIELD.fullmatch(name)
    if match is None:
        return
    settings = fields.setdefault(match["component"] or "", {})
    if match["module"]:
        pattern = settings.setdefault(match["pattern"], {})
        if isinstance(pattern, dict):
            pattern[match["module"]] = value
    else:
        settings[match["field"]] = value


def _config(settings: Mapping[str, object]) -> AdapterConfig:
    """Return one adapter's settings. Raises ValueError, with a clause, for those that cannot be followed."""
    peft_type = str(settings.get("peft_type") or "LORA").rpartition(".")[2].upper()
    if peft_type not in TYPES:
        raise ValueError(f"is of a {peft_type[:40]} adapter, which is not applied here; choose a LoRA, LoHa or LoKr")
    start = str(settings.get("init_lora_weights")).lower()
    if start.startswith(CHANGES_BASE):
        raise ValueError(f"says init_lora_weights {start[:40]!r}: it was trained on base weights that it changed "
                         "first, so that it does not fit the model as it is; save it with PEFT's "
                         "path_initial_model_for_weight_conversion")
    alpha, targets = settings.get("lora_alpha", settings.get("alpha")), settings.get("target_modules")
    ranks, alphas = _pattern(settings, "rank_pattern", _rank), _pattern(settings, "alpha_pattern", _number)
    return AdapterConfig(
        rank=None if settings.get("r") is None else _rank(settings["r"], "r"),
        alpha=None if alpha is None else _number(alpha, "lora_alpha"),
        rank_pattern=ranks, alpha_pattern=alphas,
        expressions=tuple(key for key in {**ranks, **alphas} if not LITERAL.fullmatch(key)),
        rank_stabilised=settings.get("use_rslora") in (True, "true", "True"),
        dora=settings.get("use_dora") in (True, "true", "True"),
        biases=settings.get("bias") in ("all", "lora_only"),
        targets=tuple(name for name in targets if isinstance(name, str)) if isinstance(targets, list) else (),
    )


def _pattern(settings: Mapping[str, object], name: str, read: Callable[[object, str], float]) -> Pattern:
    pattern = settings.get(name) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"has a {name} that is not an object")
    pattern = {plain if LITERAL.fullmatch(plain := key.replace("\\.", ".")) else key: value
               for key, value in pattern.items()}
    expressions = [key for key in pattern if not LITERAL.fullmatch(key)]
    if len(expressions) > MAX_EXPRESSIONS:
        raise ValueError(f"has more than {MAX_EXPRESSIONS} regular expressions in {name}")
    for key in expressions:
        bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", key).replace("(?:", "(")
        simple = (sum(map(bare.count, "*+{?")) <= MAX_REPEATS and bare.count("(") <= MAX_GROUPS
                  and bare.count("|") <= MAX_CHOICES and not re.search(r"\)[*+{?]|[*+?}][*+{]", bare))
        with suppress(re.error):
            if len(key) <= LONGEST_EXPRESSION and simple and re.compile(key):
                continue
        raise ValueError(f"has the regular expression {key[:80]!r} in {name}, which is not read here")
    return {key: (place, read(value, key)) for place, (key, value) in enumerate(pattern.items())}


def _number(value: object, name: str) -> float:
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < 1e9:  # NaN fails too
        raise ValueError(f"has the value {str(value)[:40]!r} for {name[:80]}, where a number is wanted")
    return float(number)


def _rank(value: object, name: str) -> int:
    number = _number(value, name)
    if number < 1 or number != int(number):
        raise ValueError(f"has the rank {number:g} for {name[:80]}")
    return int(number)
