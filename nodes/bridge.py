"""Wan 2.2 Sampler for MODEL: the pack's schedule and split on MODELs of ComfyUI's loaders or of other packs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sampling_inputs import SamplerNode, read_sampling, sampling_inputs, saving_inputs
from .sockets import CATEGORY, FirstFrame


class BridgeSampler(SamplerNode):
    """Denoise a clip with two MODELs through ComfyUI's own sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22BridgeSampler",
            display_name="Wan 2.2 Sampler for MODEL (bridge)",
            category=CATEGORY,
            description="Wan 2.2 Sampler for models of other loaders: Load Diffusion Model, GGUF loaders, and nodes "
                        "that patch a MODEL (LoRA, torch.compile, attention). Steps, split and guidance are those of "
                        "Wan 2.2 Sampler; ComfyUI does the sampling.",
            search_aliases=["ksampler", "wan sampler", "moe sampler", "gguf", "denoise"],
            inputs=[
                io.Model.Input("model_high", tooltip="High-noise expert, wan2.2_i2v_high_noise_14B, from any loader. "
                                                     "This node's shift replaces a shift set on the model."),
                io.Model.Input("model_low", tooltip="Low-noise expert, wan2.2_i2v_low_noise_14B, from any loader."),
                io.Conditioning.Input("positive", tooltip="Prompt, from Encode Prompt or CLIP Text Encode."),
                io.Conditioning.Input("negative", tooltip="Negative prompt, from the same kind of node."),
                FirstFrame.Input("first_frame", tooltip="Picture from First Frame; it also sets size and length of the "
                                                        "clip."),
                *sampling_inputs("ComfyUI's own samplers are used. euler gives the same clip as Wan 2.2 Sampler; unipc "
                                 "(uni_pc) and dpmpp_2m differ a little: ComfyUI implements them differently and "
                                 "restarts them at the second expert. lcm draws fresh noise in every step: for "
                                 "consistency-distilled weights such as TurboDiffusion's."),
                *saving_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Latents of the clip, for Decode or VAE Decode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model_high: object, model_low: object, positive: list, negative: list, first_frame: object,
                latent: dict | None = None, loras: tuple = (), negative_pass_every: int = 1, motion: object = None,
                **settings: Any) -> io.NodeOutput:
        from ..pipeline.host.loras import models_with_loras
        from ..pipeline.host.node import errors_on_node, progress, show_text
        from ..pipeline.host.sampling import model_facts, stage_runner
        from ..pipeline.lora.schedule import lora_hooks
        from ..pipeline.request import HIGH, LOW
        from ..pipeline.sampling import negative_pass
        from ..pipeline.sampling.bridge import check_latent, check_models, sample_stages
        from ..pipeline.sampling.hooks import NO_HOOKS, combine
        from ..pipeline.sampling.schedule import describe_run
        from ..pipeline.sampling.time_to_move import time_to_move

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            sampling = read_sampling(settings)
            models = {HIGH: model_high, LOW: model_low}
            check_models({expert: model_facts(model) for expert, model in models.items()}, positive, negative)
            steering = NO_HOOKS
            if motion is not None:
                steering = time_to_move(motion, sampling, first_frame, progress())
            hooks = combine(lora_hooks(loras, sampling),
                            negative_pass.negative_pass_every(negative_pass_every, positive, negative), steering)
            check_latent(latent, first_frame, sampling, hooks)  # before a LoRA is fetched
            models, fitted = models_with_loras(models, loras, node_id)
            show_text(node_id, "\n".join((describe_run(sampling), *fitted)))
            run = stage_runner(models, sampling)
            return io.NodeOutput(sample_stages(run, positive, negative, first_frame, sampling, latent, hooks))
