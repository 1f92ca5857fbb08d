"""Load a whole model: both experts, the text encoder and the VAE, each from a file or from the bundled demo model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import library
from ..checkpoint.probe import weights_name
from ..request import HIGH, LOW
from .compile import check_compiler, compile_blocks
from .expert import Expert, load_expert
from .host import Host
from .text_encoder import TextEncoder
from .umt5 import is_for_host, load_text_encoder
from .vae import WanVAE, load_vae

DEMO = Path(__file__).resolve().parent.parent.parent / "models" / "demo"
DEMO_HIGH = DEMO / "diffusion_models" / "wan2.2_i2v_high_noise_demo_fp16.safetensors"
DEMO_LOW = DEMO / "diffusion_models" / "wan2.2_i2v_low_noise_demo_fp16.safetensors"
DEMO_TEXT_ENCODER = DEMO / "text_encoders" / "umt5_demo_fp16.safetensors"
DEMO_VAE = DEMO / "vae" / "wan_2.1_vae_demo.safetensors"


@dataclass(frozen=True)
class Wan22Model:
    """Both experts of Wan 2.2 I2V-A14B, as a WAN22_MODEL socket carries them."""

    high: Expert
    low: Expert

    @property
    def experts(self) -> dict[str, Expert]:
        """Both experts, by HIGH and LOW."""
        return {HIGH: self.high, LOW: self.low}

    @property
    def patcher(self) -> Any:
        """The patcher that ComfyUI's cache asks for a model's size."""
        return getattr(self.high.resident, "patcher", None)

    def get_models(self) -> list[Any]:
        """Return every patcher, for ComfyUI's memory accounting."""
        return [e.resident.patcher for e in self.experts.values() if hasattr(e.resident, "patcher")]


def load(host: Host, high: Path | None = None, low: Path | None = None, text_encoder: Path | None = None,
         vae: Path | None = None, compiled: bool = False) -> tuple[Wan22Model, TextEncoder | Any, WanVAE]:
    """Load both experts, the text encoder and the VAE; None stands for the bundled file.

    Weights stay memory-mapped where their dtype allows, and reach the GPU when they are used. `compiled`: compile the
    experts' blocks, in the first pass. Raises CheckpointError for the first file that does not fit its slot, and
    RequestError when nothing can be compiled here.
    """
    model = Wan22Model(load_expert(high or DEMO_HIGH, host), load_expert(low or DEMO_LOW, host))
    if compiled:
        check_compiler(model.high.resident.device)
        for expert in model.experts.values():
            compile_blocks(expert.model)
    return model, _open_text_encoder(text_encoder or DEMO_TEXT_ENCODER, host), WanVAE(*load_vae(vae or DEMO_VAE, host))


def _open_text_encoder(path: Path, host: Host) -> TextEncoder | Any:
    """Load UMT5-XXL by the host where it reads the file, so that it is paged and quantised there; else by this pack."""
    if host.clip is not None and is_for_host(path):
        return host.clip(path)
    return TextEncoder(*load_text_encoder(path, host))


def load_notes(high: Path | None, low: Path | None) -> list[str]:
    """Return what to say about experts that load: `pair_warnings`, and that of an all-in-one checkpoint a part is used.

    None stands for the bundled file.
    """
    notes = pair_warnings(high, low)
    for path in dict.fromkeys(path for path in (high, low) if path is not None):
        if besides := library.suitability(path).besides:
            notes.append(f"{weights_name(path)} is an all-in-one checkpoint. Its transformer is used, not what it has "
                         f"besides ({', '.join(besides[:4])}): choose the text encoder and the VAE in their lists.")
    return notes


def pair_warnings(high: Path | None, low: Path | None) -> list[str]:
    """Return warnings about a pair of experts that loads but may be a mistake: swapped, or one file for both.

    None stands for the bundled file. Only names and titles show it, so that it is never an error.
    """
    if high is not None and low is not None and high.samefile(low):
        return [f"{weights_name(high)} is chosen as both experts; Wan 2.2 has one file for high and one for low noise."]
    warnings = []
    for path, place, other in ((high, "high", "low"), (low, "low", "high")):
        if path is not None and library.suitability(path).noise == other:
            warnings.append(f"{weights_name(path)} is named as the {other}-noise expert but chosen for {place} noise. "
                            "Swap the two unless you mean it.")
    return warnings
