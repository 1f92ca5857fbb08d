"""What a sampler will say of a LoRA, told from the file's header alone, before the run and without the model.

Of the bundled model for a LoRA of its width, else of Wan 2.2 I2V-A14B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from ..checkpoint.header import FileHeader
from .adapters import DIFFERENCES, DOWN, GLORA_PARTS, HADA, MID, UP, Adapter, Shape, adapter_of
from .expert import choose_expert
from .lora import AUTO, Lora
from .match import Fitting, LoraFile, Match, experts_of, fitting, parts_of
from .names import split
from .probe import DEMO_WIDTH, check_fits, probe_lora
from .wan_shapes import A14B, DEMO, expert_shapes

TAKEN = {
    Adapter.LORA: (UP, DOWN, MID, "reshape_weight"),
    Adapter.DORA: (UP, DOWN, MID, "reshape_weight"),
    Adapter.LOHA: (*HADA, "hada_t1", "hada_t2"),
    Adapter.LOKR: ("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    Adapter.OFT: ("oft_blocks", "rescale"),
    Adapter.GLORA: GLORA_PARTS,
    Adapter.DIFFERENCE: (),
}
"""The parts that ComfyUI's comfy/weight_adapter/ takes of each kind, beside those that it takes of all."""
OF_ALL = ("alpha", "dora_scale", *DIFFERENCES)
OF_BIAS = ("diff_b", "b_norm")


@cache
def _shapes(demo: bool) -> dict[str, Shape]:
    return expert_shapes(DEMO if demo else A14B)


def _used(chosen: Fitting, shapes: Mapping[str, Shape], targets: Mapping[str, Shape]) -> set[str]:
    """What ComfyUI's load_lora would use, each `module.part`."""
    used = set()
    for module, parts in parts_of(chosen.keys, shapes).items():
        kind = adapter_of(parts) if module in targets else None
        if kind is not None:
            used |= {f"{module}.{part}" for part in parts if part in (*TAKEN[kind], *OF_ALL)
                     and (part not in OF_BIAS or f"{module}.bias" in targets)}
    return used


def foresee(lora: Lora, header: FileHeader, name: str) -> tuple[LoraFile, dict[int, Match]]:
    """The LoRA with its expert settled, and how much of it finds its place on each expert that it goes to
    (schedule.HIGH, LOW).

    name: the file's, with the folders before it. Raises CheckpointError or RequestError for a file that is no LoRA or
    none for these models. Whether enough matches is for `match.check_match` to say.
    """
    facts = probe_lora(header)
    demo = facts.width == DEMO_WIDTH
    sizes, targets = DEMO if demo else A14B, _shapes(demo)
    check_fits(facts, sizes.dim, sizes.num_layers)
    file = LoraFile(lora, header.path, facts)
    if lora.expert == AUTO:
        expert, why = choose_expert(facts, name, header.metadata)
        file = replace(file, lora=replace(lora, expert=expert), why=why)
    named, matches = split(header.shapes), {}
    for index in experts_of(file.lora):
        chosen = fitting(file.name, named, header.shapes, index, targets)
        matches[index] = chosen.match(_used(chosen, header.shapes, targets))
    return file, matches
