"""Probe a LoRA file by its header: its patches, the model it was made for, and whether it fits the experts.

A LoRA for another model is recognised by the modules that it changes. Their names are those of each model's code in
diffusers (src/diffusers/models/) and ComfyUI (comfy/ldm/), as LoRAs have them (diffusers'
src/diffusers/loaders/lora_conversion_utils.py; src/musubi_tuner/convert_lora.py of github.com/kohya-ss/musubi-tuner).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from ..checkpoint.detect import VARIANTS, detect
from ..checkpoint.errors import CheckpointError, quoted
from ..checkpoint.header import Header
from ..checkpoint.kinds import ModelKind
from ..checkpoint.library import CALLED
from .adapters import Adapter, Shape, adapter_of, patch_shape
from .alpha import AlphaSource, RankedPatch, alpha_source, ranked_patch
from .names import IMAGE_PROJECTION, LoraKey, Style, foreign_part, split

ENOUGH = 4_000
"""Most names to search; LoRAs have fewer modules."""
FAMILIES = tuple((family, re.compile(pattern, re.MULTILINE)) for family, pattern in (
    ("AnimateDiff", r"motion_modules_"),
    ("SDXL", r"lora_te2_|(?:input|output)_blocks_\d+_1_transformer_blocks_[1-9]"
             r"|middle_block_1_transformer_blocks_[1-9]|attentions_\d_transformer_blocks_[1-9]"),
    ("Stable Diffusion 1 or 2", r"(?:input|output)_blocks_\d+_|(?:down|up)_blocks_\d_|mid(?:dle)?_block_"
                                r"|lora_te_text_"),
    ("HunyuanVideo", r"token_refiner|img_mlp_fc1|img_mod_linear|single_(?:transformer_)?blocks_3[89]_"
                     r"|double_blocks_19_"),
    ("HiDream", r"(?:double|single)_stream_blocks_"),
    ("Flux.2", r"(?:double|single)_stream_modulation|to_qkv_mlp_proj"),
    ("Flux", r"single_transformer_blocks_|(?:img|txt)_mlp_[02]$|(?:img|txt)_mod_lin$|lora_te1_text_model"),
    ("Flux or HunyuanVideo", r"(?:double|single)_blocks_\d"),
    ("Qwen-Image", r"transformer_blocks_\d+_(?:img|txt)_m(?:lp|od)|transformer_blocks_[345]\d_attn_"),
    ("Stable Diffusion 3", r"joint_blocks_|transformer_blocks_\d+_attn_add_q_proj"),
    ("Kandinsky 5", r"(?:visual|text)_transformer_blocks_"),
    ("LTX-Video", r"patchify_proj|transformer_blocks_\d+_attn2_to_|transformer_blocks_\d+_audio_"),
    ("CogVideoX", r"transformer_blocks_\d+_attn1_to_"),
    ("Z-Image or Lumina", r"layers_\d+_(?:attention|feed_forward)_|(?:noise|context)_refiner_"),
    ("Mochi", r"blocks_\d+_attn_(?:qkv|proj)_[xy]"),
    ("Cosmos", r"blocks_\d+_(?:self|cross)_attn_(?:[qkv]|output)_proj|blocks_block\d"),
    ("a language model", r"layers_\d+_(?:self_attn_[qkvo]_proj|mlp_(?:gate|up|down)_proj)"),
    ("a text encoder", r"text_model_encoder|text_encoder|^lora_te"),
))
"""Family of models -> pattern of its module names; the first match decides."""


OTHER_FILES = tuple((called, re.compile(pattern, re.MULTILINE)) for called, pattern in (
    ("a textual-inversion embedding", r"^(?:emb_params|string_to_param|clip_[lg]|<[^>]{1,80}>)$"),
    ("a ControlNet", r"^(?:control_model\.|controlnet_|input_hint_block)"),
    ("a whole checkpoint", r"^(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\."),
    ("a whole model, or a part of one", r"^(?:(?:double|single|transformer|joint|down)_)?blocks\.\d"),
    ("a VAE", r"^(?:encoder|decoder)\.(?:conv_in|conv1|down|up|mid)"),
    ("a text encoder", r"text_model\.encoder|^(?:model\.)?layers\.\d|^encoder\.(?:block|layer)s?\."),
    ("an IP-Adapter", r"^(?:image_proj|ip_adapter)"),
))
"""A file that is no LoRA -> pattern of its tensors' names; the first match decides."""
SIZES = {5120: "14B", 3072: "5B", 2048: "1.7B", 1536: "1.3B"}
"""Width of a Wan model -> its size."""
TASKS = {16: "T2V", 36: "I2V", 48: "Fun-Control or 5B", 52: "Fun-Control"}
"""Channels of the patch embedding -> task of the model."""
BASE_KEYS = ("ss_sd_model_name", "ss_base_model_version", "base_model", "modelspec.title")
"""Metadata in which trainers name the base model. `modelspec.architecture` is left out: it is wan2.1 for 2.2 as well
(musubi-tuner's src/musubi_tuner/utils/sai_model_spec.py)."""
GENERATION = re.compile(r"wan[\s_.-]*(?:video[\s_.-]*)?2[._-]?([12])(?![0-9])", re.IGNORECASE)
TASK = re.compile(r"(?<![a-z0-9])(ti2v|i2v|t2v|vace|animate|s2v)(?![a-z0-9])", re.IGNORECASE)
ADVICE = "Choose a LoRA for Wan 2.2 I2V-A14B, or for Wan 2.1 14B."
DEMO_WIDTH = 256
"""Width of the experts in models/demo."""


@dataclass(frozen=True)
class LoraFacts:
    """The facts in a LoRA's header.

    `adapters`: its kinds of patch, most frequent first. `ranks`: lowest and highest; None when no patch has a rank.
    `modules`: number of changed modules by part of the model: self_attn, cross_attn, ffn, outside (the blocks), image
    (Wan 2.1's image projection), vace and unknown. `experts`: those that tensor names mention, "high" and "low".
    `width`: of the model; None when no module shows it. `blocks`: highest changed block plus one. `channels`: of the
    patch embedding, when it is changed. `made_for`: the model in words.
    """

    name: str
    style: Style
    adapters: tuple[Adapter, ...]
    ranks: tuple[int, int] | None
    modules: Mapping[str, int]
    experts: frozenset[str]
    width: int | None
    blocks: int
    channels: int | None
    made_for: str
    alphas: AlphaSource = field(default_factory=AlphaSource)
    """The source of the strength of modules without an alpha tensor."""


Group = dict[str, Shape]
"""Part of one module's patch -> its shape."""


def _grouped(header: Header, keys: Mapping[str, LoraKey]) -> dict[tuple[str | None, str], Group]:
    """Return the parts by (expert, module). Raises CheckpointError when a module has a part twice."""
    groups: dict[tuple[str | None, str], Group] = {}
    for name, key in keys.items():
        group = groups.setdefault((key.expert, key.module), {})
        if key.part in group:
            raise CheckpointError(f"{header.path.name} holds two patches for {quoted(key.module)}: it is several LoRAs "
                                  "in one file. Save each on its own.")
        group[key.part] = header.shapes[name]
    return groups


def _part_of_model(key: LoraKey) -> str:
    """Return the part of the model, as in LoraFacts.modules."""
    if not key.known:
        return "unknown"
    if key.module.startswith("vace_blocks."):
        return "vace"
    if IMAGE_PROJECTION.search(key.module):
        return "image"
    block = key.module.split(".")
    if block[0] != "blocks":
        return "outside"
    return block[2] if block[2] in ("self_attn", "cross_attn", "ffn") else "outside"


def _widths(module: str, sizes: tuple[int | None, int | None]) -> Iterator[int]:
    """Yield the model's width as far as a module's outputs and inputs show it."""
    tail = module.split(".")[2:]
    outputs, inputs = sizes
    if tail[:1] in (["self_attn"], ["cross_attn"]) and len(tail) == 2 and not tail[1].startswith("norm"):
        yield from (size for size in sizes if size is not None)
    elif tail == ["ffn", "0"] and inputs is not None:
        yield inputs
    elif tail == ["ffn", "2"] and outputs is not None:
        yield outputs


def _base(header: Header, facts: Mapping[str, int], width: int | None, channels: int | None,
          modules: Iterable[str]) -> str:
    """Describe the model that a LoRA was made for: tensors first, then the trainer's metadata."""
    if width == DEMO_WIDTH:
        return "the bundled demo model"
    notes = " ".join(header.metadata.get(key, "")[:300] for key in BASE_KEYS)
    generation = "2.1" if facts.get("image") else "2.2" if width == 3072 else None
    if generation is None and (match := GENERATION.search(notes)):
        generation = f"2.{match[1]}"
    parts = {module.partition(".")[0] for module in modules}
    variant = next((kind for part, kind in VARIANTS.items() if part in parts), None)
    task = match[1].upper() if (match := TASK.search(notes)) else None
    if variant is not None:
        task = variant.value.replace("_", " ").upper()
    elif facts.get("image"):
        task = "I2V"
    elif width == 3072:
        task = "TI2V"
    elif channels is not None:
        task = TASKS.get(channels, task)
    size = SIZES.get(width or 0, f"({width} wide)" if width else None)
    return " ".join(word for word in ("Wan", generation, task, size) if word)


def probe_lora(header: Header, local: bool = False) -> LoraFacts:
    """Return the facts of a LoRA for Wan. `local`: an adapter_config.json beside the file counts.

    Raises CheckpointError for a file that is no LoRA, for a LoRA of another family of models, and for a damaged one: a
    part without its counterpart, or modules of models of different widths.
    """
    name = header.path.name
    keys = split(header.shapes)
    groups = _grouped(header, keys)
    kinds = {place: adapter_of(parts) for place, parts in groups.items()}
    if foreign := next(filter(None, map(foreign_part, header.shapes)), None):
        raise CheckpointError(f"{name} is of an adapter type that is not applied here: it has {foreign}. Choose a "
                              "LoRA, DoRA, LoHa, LoKr, GLoRA, OFT or BOFT as LyCORIS and kohya write them, or have its "
                              "trainer merge it into a whole difference (diff).")
    if not any(kinds.values()):
        raise CheckpointError(f"{name} is {describe_other_file(header)}, not a LoRA. {ADVICE}")
    by_place = {(key.expert, key.module): key for key in keys.values()}
    known = [key.module for key in by_place.values() if key.known]
    in_blocks = any("blocks." in module for module in known)
    family = None if in_blocks else family_of(key.module for key in by_place.values())
    if family or not known:
        called = f"a LoRA for {family}" if family else "a LoRA for a model that is not known here"
        raise CheckpointError(f"{name} is {called}, not for Wan. {ADVICE}")
    ranks: set[int] = set()
    widths: Counter[int] = Counter()
    channels = None
    ranked: list[RankedPatch] = []
    for place, parts in groups.items():
        adapter = kinds[place]
        if adapter is None:
            continue
        try:
            found = patch_shape(adapter, parts)
        except ValueError as error:
            raise CheckpointError(f"{name} is damaged: {quoted(place[1])} {error}. Fetch it again.") from error
        ranks |= {found.rank} if found.rank is not None else set()
        ranked += filter(None, [ranked_patch(by_place[place], parts)])
        if by_place[place].known:
            widths.update(_widths(place[1], found.sizes))
        if place[1] == "patch_embedding":
            channels = found.channels
    if len(widths) > 1:
        two = " and ".join(map(str, sorted(widths)[:2]))
        raise CheckpointError(f"{name} is damaged: its modules are for models of different widths, {two}. "
                              "Fetch it again.")
    try:
        alphas = alpha_source(header.path, header.metadata, ranked, local)
    except ValueError as error:
        raise CheckpointError(f"{name} {error}. Choose another file, or save it anew with its trainer.") from error
    _check_biases(header, keys, alphas)
    width = next(iter(widths), None)
    changed = [by_place[place] for place, adapter in kinds.items() if adapter is not None]
    modules = Counter(_part_of_model(key) for key in changed)
    blocks = [int(key.module.split(".")[1]) for key in changed if key.known and key.module.startswith("blocks.")]
    return LoraFacts(
        name=name,
        style=Counter(key.style for key in keys.values()).most_common(1)[0][0],
        adapters=tuple(kind for kind, _ in Counter(filter(None, kinds.values())).most_common()),
        ranks=(min(ranks), max(ranks)) if ranks else None,
        modules=modules,
        experts=frozenset(key.expert for key in changed if key.expert is not None),
        width=width,
        blocks=max(blocks, default=-1) + 1,
        channels=channels,
        made_for=_base(header, modules, width, channels, (key.module for key in changed)),
        alphas=alphas,
    )


def _check_biases(header: Header, keys: Mapping[str, LoraKey], alphas: AlphaSource) -> None:
    """Raise CheckpointError for biases saved whole, as PEFT's `bias` setting does."""
    whole = next((name for name in header.shapes if name.endswith(".bias") and name not in keys), None)
    if whole is not None and any(config.biases for config in alphas.configs.values()):
        raise CheckpointError(f"{header.path.name} holds whole biases, such as {quoted(whole)}, because it was trained "
                              "with PEFT's bias setting; they are not applied here. Save it anew with bias='none'.")


def check_fits(facts: LoraFacts, width: int, num_layers: int) -> None:
    """Raise CheckpointError unless a LoRA fits experts of this width and number of blocks.

    A LoRA for Wan 2.1 or for text to video fits when the sizes are equal, because most of its modules exist.
    """
    advice = "Choose one that was made for these experts." if width == DEMO_WIDTH else ADVICE
    if facts.width is not None and facts.width != width:
        raise CheckpointError(f"{facts.name} is a LoRA for {facts.made_for} ({facts.width} wide); these experts are "
                              f"{width} wide. {advice}")
    if facts.blocks > num_layers:
        raise CheckpointError(f"{facts.name} is a LoRA for {facts.made_for} with {facts.blocks} blocks or more; these "
                              f"experts have {num_layers}. {advice}")


def family_of(modules: Iterable[str]) -> str | None:
    """Return the family of models that has these modules; None when none is recognised."""
    names = "\n".join(islice(modules, ENOUGH)).replace(".", "_")
    return next((family for family, pattern in FAMILIES if pattern.search(names)), None)


def describe_other_file(header: Header) -> str:
    """Return what a file that is no LoRA holds, for a message."""
    names = "\n".join(islice(header.shapes, ENOUGH))
    kind = detect(header.shapes).kind
    if kind is ModelKind.LORA:
        return "a LoRA without its patches"
    return CALLED.get(kind) or next((what for what, pattern in OTHER_FILES if pattern.search(names)), "something else")
