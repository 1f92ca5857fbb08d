"""The places that a model's weights go to, what fits each, and one sentence for what does not."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from .errors import CheckpointError
from .folder import is_component, is_pipeline, vocabulary_file
from .gguf_file import READABLE
from .kinds import I2V_IN_CHANNELS, Kind, Layout
from .probe import Found, shown_name
from .scheme import SchemeFamily


class Slot(str, Enum):
    """A place in Load Wan 2.2; the value is the input's name."""

    HIGH = "high_noise_expert"
    LOW = "low_noise_expert"
    TEXT = "text_encoder"
    VAE = "vae"


EXPERTS = (Slot.HIGH, Slot.LOW)
WANTED = {Slot.HIGH: Kind.WAN22_I2V_EXPERT, Slot.LOW: Kind.WAN22_I2V_EXPERT, Slot.TEXT: Kind.UMT5,
          Slot.VAE: Kind.VAE_WAN21}
ADVICE = {
    Slot.HIGH: "Choose a Wan 2.2 I2V-A14B expert such as wan2.2_i2v_high_noise_14B_fp16.safetensors.",
    Slot.LOW: "Choose a Wan 2.2 I2V-A14B expert such as wan2.2_i2v_low_noise_14B_fp16.safetensors.",
    Slot.TEXT: "Choose a text encoder such as umt5_xxl_fp16.safetensors.",
    Slot.VAE: "Choose wan_2.1_vae.safetensors.",
}
NEEDED = {Slot.HIGH: "a Wan 2.2 I2V-A14B expert", Slot.LOW: "a Wan 2.2 I2V-A14B expert",
          Slot.TEXT: "a UMT5 text encoder", Slot.VAE: "the VAE of Wan 2.1 (16 channels), which the 14B models use"}
NOTHING_FOR = {Slot.HIGH: "Wan transformer", Slot.LOW: "Wan transformer", Slot.TEXT: "UMT5 encoder",
               Slot.VAE: "Wan VAE"}
PARTS = {Slot.HIGH: "transformer", Slot.LOW: "transformer_2", Slot.TEXT: "text_encoder", Slot.VAE: "vae"}
"""The folder of each in a diffusers pipeline."""
CALLED = {
    Kind.WAN22_I2V_EXPERT: "a Wan 2.2 I2V-A14B expert",
    Kind.WAN21_I2V: "a Wan 2.1 image-to-video model (it has an image projection)",
    Kind.T2V: "a text-to-video model",
    Kind.TI2V_5B: "a 5B text-and-image-to-video model",
    Kind.VACE: "a VACE model (it has blocks for control video)",
    Kind.FUN_CONTROL: "a Fun-Control model",
    Kind.FUN_CAMERA: "a Fun-Camera model (it has a control adapter)",
    Kind.S2V: "a speech-to-video model (it has an audio encoder)",
    Kind.ANIMATE: "a Wan Animate model (it has a face adapter)",
    Kind.HUMO: "a HuMo model (it has an audio projection)",
    Kind.SCAIL: "a SCAIL model (it reads poses)",
    Kind.WANDANCER: "a WanDancer model",
    Kind.OTHER_WAN: "another Wan model",
    Kind.VAE_WAN21: "the VAE of Wan 2.1",
    Kind.VAE_WAN22: "the VAE of Wan 2.2 5B (48 latent channels)",
    Kind.UMT5: "a UMT5 text encoder",
    Kind.T5: "a T5 text encoder",
    Kind.LORA: "a LoRA",
    Kind.PIPELINE: "a whole diffusers pipeline",
}


def _wrong(found: Found, slot: Slot) -> str:
    """What was given and what it is not, with the number or the part that tells."""
    called = CALLED[found.kind]
    if slot in EXPERTS and found.shape is not None and found.shape.in_channels != I2V_IN_CHANNELS:
        return f"{called}: {found.shape.in_channels} input channels, Wan 2.2 I2V-A14B needs {I2V_IN_CHANNELS}"
    if found.kind is Kind.OTHER_WAN and found.odd_part:
        called = f"{called} (it has a part called {found.odd_part})"
    return f"{called}, not {NEEDED[slot]}"


def _check_storage(found: Found, slot: Slot) -> None:
    """What no loader reads: scales of unknown meaning, GGUF types that nothing unpacks, and of text encoder and VAE
    some layouts that experts have."""
    name, called = found.name, CALLED[found.kind]
    if found.scheme.family is SchemeFamily.OTHER:
        raise CheckpointError(f"{name} is {called} in {found.scheme.name}, which cannot be read. {ADVICE[slot]}")
    if slot in EXPERTS:
        odd = sorted(set(found.header.dtypes.values()) - set(READABLE)) if found.layout is Layout.GGUF else []
        if odd:
            raise CheckpointError(f"{name} is {called} with weights in {', '.join(odd)}, which cannot be read; of GGUF "
                                  f"these can: {', '.join(READABLE)}. {ADVICE[slot]}")
        return
    if found.layout is Layout.GGUF:
        raise CheckpointError(f"{name} is {called} in GGUF, which is read for experts only. {ADVICE[slot]}")
    if slot is Slot.VAE and found.scheme.family is not SchemeFamily.PLAIN:
        raise CheckpointError(f"{name} is {called} in {found.scheme.name}; fp16, bf16 and fp32 are read. "
                              f"{ADVICE[slot]}")
    if found.layout is Layout.OFFICIAL:
        raise CheckpointError(f"{name} is {called} under the official code's names, which are not read. "
                              f"{ADVICE[slot]}")
    if slot is Slot.TEXT and not _has_vocabulary(found):
        raise CheckpointError(f"{name} holds no vocabulary (spiece_model). Use Comfy-Org's single file, or the folder "
                              "of a pipeline with its tokenizer folder.")


def _has_vocabulary(found: Found) -> bool:
    path = found.header.path
    return vocabulary_file(path) is not None if path.is_dir() else "spiece_model" in found.header.shapes


def check_slot(found: Found, slot: Slot) -> None:
    """Raise CheckpointError, in a sentence that says what was given and what to choose, unless the slot takes it.

    The noise level is not looked at: the names of files are no proof. See `pipeline.load.hints`.
    """
    if found.kind is Kind.UNKNOWN:
        raise CheckpointError(f"{found.name} holds no {NOTHING_FOR[slot]}. {ADVICE[slot]}")
    if found.kind is not WANTED[slot]:
        raise CheckpointError(f"{found.name} is {_wrong(found, slot)}. {ADVICE[slot]}")
    _check_storage(found, slot)


def part_for(path: Path, slot: Slot) -> Path:
    """The path itself, or of a whole pipeline the part for the slot.

    Raises CheckpointError when the pipeline has no such part.
    """
    if not is_pipeline(path):
        return path
    part = path / PARTS[slot]
    if not is_component(part):
        raise CheckpointError(f"The pipeline {shown_name(path)} has no {PARTS[slot]} folder with weights. "
                              f"{ADVICE[slot]}")
    return part
