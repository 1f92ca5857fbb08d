"""Wan 2.2 Sampler: noise to latents with both experts."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline import request
from .sockets import CATEGORY, FirstFrame, Model

SCHEDULERS = ["euler", "unipc"]


def _sampling(**settings: float) -> request.Sampling:
    """The settings as one checked object; guidance_scale_2 of 0 means the same as guidance_scale."""
    sampling = request.Sampling(**{**settings, "guidance_scale_2": settings["guidance_scale_2"] or None})
    sampling.check()
    return sampling


class Sampler(io.ComfyNode):
    """Denoises a clip: the high-noise expert down to the boundary, the low-noise one from there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Sampler",
            display_name="Wan 2.2 Sampler",
            category=CATEGORY,
            description="Makes the clip's latents. The expert of each step follows from the boundary, by the rule "
                        "of the official code; one expert is on the device at a time.",
            search_aliases=["ksampler", "wan sampler", "moe sampler", "denoise"],
            inputs=[
                Model.Input("model", tooltip="Both experts, from Load Wan 2.2."),
                io.Conditioning.Input("positive", tooltip="The prompt, from Encode Prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt, from Encode Prompt."),
                FirstFrame.Input("first_frame", tooltip="The picture, from First Frame; it also sets size and length."),
                io.Int.Input("seed", default=0, min=0, max=request.MAX_SEED, control_after_generate=True,
                             tooltip="The noise the clip grows from. The same seed and settings give the same clip."),
                io.Int.Input("num_inference_steps", default=request.DEFAULT_STEPS, min=request.MIN_STEPS,
                             max=request.MAX_STEPS,
                             tooltip="Denoising steps, 10 to 50. More take longer and give finer detail."),
                io.Float.Input("guidance_scale", default=request.DEFAULT_GUIDANCE, min=request.MIN_GUIDANCE,
                               max=request.MAX_GUIDANCE, step=0.1,
                               tooltip="How strictly to follow the prompt, 1 to 10. At 1 the negative prompt is not "
                                       "read and a step takes half the time."),
                io.Float.Input("guidance_scale_2", default=0.0, min=0.0, max=request.MAX_GUIDANCE, step=0.1,
                               optional=True, advanced=True,
                               tooltip="Guidance of the low-noise expert, 1 to 10; 0: the same as guidance_scale."),
                io.Combo.Input("scheduler", options=SCHEDULERS, default="euler", optional=True, advanced=True,
                               tooltip="How each step is taken: euler is plain and robust, unipc what the official "
                                       "code uses."),
                io.Float.Input("shift", default=5.0, min=1.0, max=20.0, step=0.1, optional=True, advanced=True,
                               tooltip="Moves the steps towards the noisy end; Wan 2.2 uses 5."),
                io.Float.Input("boundary", default=0.9, min=0.0, max=1.0, step=0.005, optional=True, advanced=True,
                               tooltip="Noise level at which the low-noise expert takes over; 0.9 for Wan 2.2 "
                                       "image-to-video."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The clip's latents, for Decode or VAE Decode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, seed: int | None = None, num_inference_steps: int | None = None,
                        guidance_scale: float | None = None, guidance_scale_2: float | None = None) -> bool | str:
        # A linked value is not known yet; execute checks it.
        given = {"seed": seed, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
                 "guidance_scale_2": guidance_scale_2 or None}
        try:
            request.Sampling(**{"seed": 0} | {k: v for k, v in given.items() if v is not None}).check()
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: object, positive: list, negative: list, first_frame: object, seed: int,
                num_inference_steps: int, guidance_scale: float, guidance_scale_2: float = 0.0,
                scheduler: str = "euler", shift: float = 5.0, boundary: float = 0.9) -> io.NodeOutput:
        from ..pipeline import comfy_host
        from ..pipeline.image_to_video import Watch, sample
        from ..pipeline.sampling.schedule import describe_split

        node_id = cls.hidden.unique_id
        with comfy_host.errors_on_node(node_id):
            sampling = _sampling(seed=seed, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
                                 guidance_scale_2=guidance_scale_2, scheduler=scheduler, shift=shift,
                                 boundary=boundary)
            comfy_host.say(node_id, describe_split(sampling))
            watch = Watch(before_pass=lambda step, expert: comfy_host.stop_if_asked(),
                          after_step=comfy_host.progress_with_preview(model.high, num_inference_steps))
            return io.NodeOutput({"samples": sample(model, positive, negative, first_frame, sampling, watch)})
