"""Read the settings of PEFT's adapters: from a LoRA file's metadata, or from an adapter_config.json.

diffusers writes them as JSON into the metadata (src/diffusers/loaders/lora_base.py, `lora_adapter_metadata`), with the
component's name before each, `transformer_2.lora_alpha`; PEFT writes them beside the file (src/peft/config.py). Their
meaning: src/peft/tuners/lora/model.py and layer.py of github.com/huggingface/peft.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

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
Names = tuple[str, ...]
"""Names of one module: the file's, the official one and diffusers'."""


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


def _matching(pattern: Pattern, expressions: Sequence[str], names: Names, otherwise: float | None) -> float | None:
    """Return the value of the first key that matches the end of a module's name after a dot, as PEFT looks it up."""
    hits = [pattern[end] for name in names for end in ends_of(name) if end in pattern]
    hits += [pattern[key] for key in expressions if key in pattern
             and any(re.match(rf"(.*\.)?({key})$", name) for name in names)]
    return min(hits)[1] if hits else otherwise


def ends_of(name: str) -> Iterator[str]:
    """Yield a dotted name, and what is left of it after each dot."""
    while name:
        yield name
        name = name.partition(".")[2]


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
        if not _is_quick(key):
            raise ValueError(f"has the regular expression {key[:80]!r} in {name}, which is not read here")
    return {key: (place, read(value, key)) for place, (key, value) in enumerate(pattern.items())}


def _is_quick(expression: str) -> bool:
    """Tell whether a regular expression is one, and so simple that it cannot take for ever on a module's name."""
    if len(expression) > LONGEST_EXPRESSION:
        return False
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", expression).replace("(?:", "(")
    with suppress(re.error):
        return (re.compile(expression) is not None and sum(map(bare.count, "*+{?")) <= MAX_REPEATS
                and bare.count("(") <= MAX_GROUPS and bare.count("|") <= MAX_CHOICES
                and not re.search(r"\)[*+{?]|[*+?}][*+{]", bare))
    return False


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
