"""The settings of a clip's sampling, as both samplers show them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from .sockets import Loras


def sampling_inputs(scheduler_note: str) -> list[io.Input]:
    """Widgets and the sockets of LoRAs and of a latent; `scheduler_note` says what the schedulers are on this node."""
    return [
        io.Int.Input("seed", default=0, min=0, max=request.MAX_SEED, control_after_generate=True,
                     tooltip="The noise the clip grows from. The same seed and settings give the same clip."),
        io.Int.Input("num_inference_steps", default=request.DEFAULT_STEPS, min=request.MIN_STEPS,
                     max=request.MAX_STEPS,
                     tooltip="Denoising steps, 4 to 50. More take longer and give finer detail; 4 are for distilled "
                             "LoRAs, at guidance 1."),
        io.Float.Input("guidance_scale", default=request.DEFAULT_GUIDANCE, min=request.MIN_GUIDANCE,
                       max=request.MAX_GUIDANCE, step=0.1,
                       tooltip="How strictly to follow the prompt, 1 to 10. At 1 the negative prompt is not "
                               "read and a step takes half the time."),
        io.Float.Input("guidance_scale_2", default=0.0, min=0.0, max=request.MAX_GUIDANCE, step=0.1,
                       optional=True, advanced=True,
                       tooltip="Guidance of the low-noise expert, 1 to 10; 0: the same as guidance_scale."),
        io.Combo.Input("scheduler", options=list(request.SCHEDULERS), default="euler", optional=True, advanced=True,
                       tooltip=f"How each step is taken. {scheduler_note}"),
        io.Float.Input("shift", default=5.0, min=1.0, max=20.0, step=0.1, optional=True, advanced=True,
                       tooltip="Moves the steps towards the noisy end, and with them the split; Wan 2.2 uses 5."),
        io.Float.Input("boundary", default=0.9, min=0.0, max=1.0, step=0.005, optional=True, advanced=True,
                       tooltip="Noise level at which the low-noise expert takes over; 0.9 for Wan 2.2 "
                               "image-to-video."),
        io.Float.Input("denoise", default=1.0, min=request.MIN_DENOISE, max=1.0, step=0.01, optional=True,
                       advanced=True,
                       tooltip="How much of the clip in latent is made anew, as in KSampler. At 1 nothing of it is "
                               "left, and none is needed."),
        io.Combo.Input("stage", options=list(request.STAGES), default=request.BOTH, optional=True, advanced=True,
                       tooltip="Which expert's steps to run. The latent of 'high-noise only' goes into the latent "
                               "input of a sampler with 'low-noise only' and the same settings; Save Latent "
                               "(Wan 2.2) keeps it on disk in between. In two runs the clip is the same as in one."),
        Loras.Input("loras", optional=True,
                    tooltip="LoRAs from LoRA (Wan 2.2). They are fetched, checked and applied here; the model stays as "
                            "it is."),
        io.Latent.Input("latent", optional=True,
                        tooltip="A clip to change, when denoise is below 1; the latent of the high-noise stage, when "
                                "stage is 'low-noise only'."),
    ]


def read_sampling(settings: dict[str, Any]) -> request.Sampling:
    """The settings as one checked object; guidance_scale_2 of 0 means the same as guidance_scale."""
    sampling = request.Sampling(**{**settings, "guidance_scale_2": settings.get("guidance_scale_2") or None})
    sampling.check()
    return sampling


class SamplerNode(io.ComfyNode):
    """What both samplers refuse at /prompt."""

    @classmethod
    def validate_inputs(cls, seed: int | None = None, num_inference_steps: int | None = None,
                        guidance_scale: float | None = None, guidance_scale_2: float | None = None) -> bool | str:
        """True, or the sentence of the first setting out of range.

        A linked value is None, not known yet; `read_sampling` checks it when the node runs.
        """
        given = {"seed": seed, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
                 "guidance_scale_2": guidance_scale_2 or None}
        try:
            request.Sampling(**{"seed": 0} | {k: v for k, v in given.items() if v is not None}).check()
        except request.RequestError as error:
            return str(error)
        return True
