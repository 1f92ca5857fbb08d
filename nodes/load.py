"""Load Wan 2.2: both experts, the text encoder and the VAE."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..pipeline.checkpoint import library
from ..pipeline.checkpoint.errors import CheckpointError
from ..pipeline.checkpoint.library import Slot
from ..pipeline.host.folders import model_folders
from ..pipeline.host.formats import readable_formats
from .sockets import CATEGORY, Model

BUNDLED = "bundled demo model"
FOLDERS = {Slot.HIGH: "diffusion_models", Slot.LOW: "diffusion_models", Slot.TEXT: "text_encoders", Slot.VAE: "vae"}
"""ComfyUI's model folder of each input; whole pipelines are also looked for in its folder `diffusers`."""
ALL_IN_ONE = "checkpoints"
"""ComfyUI's folder of all-in-one checkpoints, whose transformers serve as experts."""


def _folders(slot: Slot) -> list[Path]:
    return model_folders(FOLDERS[slot], "diffusers", *([ALL_IN_ONE] if slot in library.EXPERTS else []))


def _choices() -> dict[Slot, list[str]]:
    """Return the choices of each input: the bundled file and those that fit it."""
    known = {folder: library.list_weights(_folders(slot)) for slot, folder in FOLDERS.items()}
    return {slot: [BUNDLED, *library.fitting_names(known[folder], slot, readable_formats())]
            for slot, folder in FOLDERS.items()}


def _path(name: str, slot: Slot) -> Path | None:
    """Return the file behind a choice, None for the bundled one.

    Raises CheckpointError when it is not there or does not fit.
    """
    if name == BUNDLED:
        return None
    return library.find_weights(_folders(slot), name, slot, FOLDERS[slot], readable_formats())


class Load(io.ComfyNode):
    """Open the weight files of one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        choices = _choices()
        return io.Schema(
            node_id="Wan22Load",
            display_name="Load Wan 2.2",
            category=CATEGORY,
            description="Loads both experts of Wan 2.2 I2V-A14B, its text encoder and its VAE. The default is the "
                        "small model bundled with the pack, so that workflows run before the real weights are there. "
                        "The lists show only files that fit.",
            search_aliases=["wan", "wan 2.2", "image to video", "i2v"],
            inputs=[
                io.Combo.Input(Slot.HIGH.value, options=choices[Slot.HIGH], default=BUNDLED,
                               tooltip="Expert for the first, noisy steps, from models/diffusion_models: "
                                       "wan2.2_i2v_high_noise_14B. The folder of a diffusers pipeline works too."),
                io.Combo.Input(Slot.LOW.value, options=choices[Slot.LOW], default=BUNDLED,
                               tooltip="Expert for the later steps, from models/diffusion_models: "
                                       "wan2.2_i2v_low_noise_14B. The folder of a diffusers pipeline works too."),
                io.Combo.Input(Slot.TEXT.value, options=choices[Slot.TEXT], default=BUNDLED,
                               tooltip="Text encoder, from models/text_encoders: umt5_xxl_fp16. The bundled one "
                                       "understands only the bundled model's few prompts."),
                io.Combo.Input(Slot.VAE.value, options=choices[Slot.VAE], default=BUNDLED,
                               tooltip="VAE, from models/vae: wan_2.1_vae."),
                io.Boolean.Input("compile", default=False, optional=True, advanced=True,
                                 tooltip="Compile the experts' blocks with torch.compile: faster steps, but the first "
                                         "of a size takes longer. Needs Triton on a GPU, a C++ compiler on a CPU. Goes "
                                         "with LoRAs and with weights of every kind."),
            ],
            outputs=[
                Model.Output(display_name="model", tooltip="Both experts, for Wan 2.2 Sampler."),
                io.Clip.Output(display_name="clip", tooltip="Text encoder, for Encode Prompt."),
                io.Vae.Output(display_name="vae", tooltip="VAE, for First Frame and Decode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, high_noise_expert: str | None = None, low_noise_expert: str | None = None,
                        text_encoder: str | None = None, vae: str | None = None) -> bool | str:
        # A linked value is not known yet; execute checks it. Naming an input here also frees it from the list.
        faults = []
        for slot, name in zip(Slot, (high_noise_expert, low_noise_expert, text_encoder, vae), strict=True):
            if not isinstance(name, str | None):
                faults.append(f"{slot.value} is {name!r}, which is no name. Choose a file of the list.")
                continue
            try:
                _path(BUNDLED if name is None else name, slot)
            except CheckpointError as error:
                faults.append(str(error))
        return " ".join(faults) or True

    @classmethod
    def execute(cls, high_noise_expert: str, low_noise_expert: str, text_encoder: str, vae: str,
                compile: bool = False) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, show_text
        from ..pipeline.host.ops import comfy_host
        from ..pipeline.models.load import load, load_notes

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            names = (high_noise_expert, low_noise_expert, text_encoder, vae)
            high, low, text, decoder = (_path(name, slot) for slot, name in zip(Slot, names, strict=True))
            if notes := load_notes(high, low):
                show_text(node_id, " ".join(notes))
            return io.NodeOutput(*load(comfy_host(), high, low, text, decoder, compiled=compile))
