"""Load Wan 2.2: both experts, the text encoder and the VAE."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY, Model

BUNDLED = "bundled demo model"


def _weights(folder: str) -> list[str]:
    import folder_paths

    return [BUNDLED, *(n for n in folder_paths.get_filename_list(folder) if n.endswith(".safetensors"))]


class Load(io.ComfyNode):
    """Opens the weight files of one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Load",
            display_name="Load Wan 2.2",
            category=CATEGORY,
            description="Both experts of Wan 2.2 I2V-A14B, its text encoder and its VAE. Starts with the small model "
                        "that the pack brings along, so that everything works before the real weights are there.",
            search_aliases=["wan", "wan 2.2", "image to video", "i2v"],
            inputs=[
                io.Combo.Input("high_noise_expert", options=_weights("diffusion_models"), default=BUNDLED,
                               tooltip="The expert for the first, noisy steps, from models/diffusion_models: "
                                       "wan2.2_i2v_high_noise_14B, fp16 or bf16."),
                io.Combo.Input("low_noise_expert", options=_weights("diffusion_models"), default=BUNDLED,
                               tooltip="The expert for the later steps, from models/diffusion_models: "
                                       "wan2.2_i2v_low_noise_14B, fp16 or bf16."),
                io.Combo.Input("text_encoder", options=_weights("text_encoders"), default=BUNDLED,
                               tooltip="The text encoder, from models/text_encoders: umt5_xxl_fp16. The bundled one "
                                       "understands only the bundled model's few prompts."),
                io.Combo.Input("vae", options=_weights("vae"), default=BUNDLED,
                               tooltip="The VAE, from models/vae: wan_2.1_vae."),
            ],
            outputs=[
                Model.Output(display_name="model", tooltip="Both experts, for the Wan 2.2 Sampler."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder, for Encode Prompt."),
                io.Vae.Output(display_name="vae", tooltip="The VAE, for First Frame and Decode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, high_noise_expert: str, low_noise_expert: str, text_encoder: str, vae: str) -> io.NodeOutput:
        from ..pipeline import comfy_host
        from ..pipeline.load import load

        with comfy_host.errors_on_node(cls.hidden.unique_id):
            paths = [comfy_host.weight_path(folder, name) if name != BUNDLED else None for folder, name in (
                ("diffusion_models", high_noise_expert), ("diffusion_models", low_noise_expert),
                ("text_encoders", text_encoder), ("vae", vae))]
            return io.NodeOutput(*load(comfy_host.host(), *paths))
