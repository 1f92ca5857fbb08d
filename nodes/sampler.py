"""Wan 2.2 Sampler: noise to latents with both experts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sampling_inputs import SamplerNode, read_sampling, sampling_inputs, saving_inputs
from .sockets import CATEGORY, FirstFrame, Model


class Sampler(SamplerNode):
    """Denoise a clip: with the high-noise expert down to the boundary, with the low-noise one from there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Sampler",
            display_name="Wan 2.2 Sampler",
            category=CATEGORY,
            description="Generates the clip's latents from noise. The boundary decides which expert takes a step, by "
                        "the rule of the official code; only one expert is on the device at a time.",
            search_aliases=["ksampler", "wan sampler", "moe sampler", "denoise"],
            inputs=[
                Model.Input("model", tooltip="Both experts, from Load Wan 2.2."),
                io.Conditioning.Input("positive", tooltip="Prompt, from Encode Prompt."),
                io.Conditioning.Input("negative", tooltip="Negative prompt, from Encode Prompt."),
                FirstFrame.Input("first_frame", tooltip="Picture from First Frame; it also sets size and length of the "
                                                        "clip."),
                *sampling_inputs("euler is simple and robust, unipc is the default of the official code, dpmpp_2m its "
                                 "other solver. lcm draws fresh noise in every step: for consistency-distilled "
                                 "weights such as TurboDiffusion's."),
                io.Boolean.Input("batched_guidance", default=False, optional=True, advanced=True,
                                 tooltip="Pass the prompt and the negative prompt through an expert in one batch: "
                                         "the same clip, a little faster for small clips, twice the working memory."),
                *saving_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Latents of the clip, for Decode or VAE Decode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: object, positive: list, negative: list, first_frame: object, latent: dict | None = None,
                loras: tuple = (), negative_pass_every: int = 1, motion: object = None, **settings: Any,
                ) -> io.NodeOutput:
        from ..pipeline.host.loras import downloader, lora_file
        from ..pipeline.host.memory import device_memory
        from ..pipeline.host.node import errors_on_node, progress, progress_with_preview, show_text, stop_if_asked
        from ..pipeline.lora.apply import use_loras
        from ..pipeline.lora.schedule import describe_schedules, lora_hooks
        from ..pipeline.sampling import negative_pass
        from ..pipeline.sampling.hooks import NO_HOOKS, combine, observe
        from ..pipeline.sampling.sampler import check_inputs, describe_memory, sample_latent
        from ..pipeline.sampling.schedule import describe_run, step_count
        from ..pipeline.sampling.time_to_move import time_to_move

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            sampling = read_sampling(settings)
            fading = lora_hooks(loras, sampling)
            steering = NO_HOOKS
            if motion is not None:
                steering = time_to_move(motion, sampling, first_frame, progress())
            check_inputs(model, positive, negative, first_frame, sampling, latent, steering)  # before a LoRA is fetched
            fewer_passes = negative_pass.negative_pass_every(negative_pass_every)
            model, fitted = use_loras(model, loras, lora_file, downloader(node_id), stop_if_asked)
            needs = describe_memory(model, first_frame, sampling, *device_memory())
            show_text(node_id, "\n".join((describe_run(sampling), needs, *fitted,
                                          *describe_schedules(model.experts, sampling))))
            hooks = combine(fading, observe(
                before_pass=lambda step, expert: stop_if_asked(),
                after_step=progress_with_preview(model.high, step_count(sampling))), fewer_passes, steering)
            return io.NodeOutput(sample_latent(model, positive, negative, first_frame, sampling, hooks, latent))
