"""The settings of a clip's sampling, as both samplers show them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from ..pipeline.sampling.sigma_lists import read_sigmas
from .sockets import Loras, Motion


def sampling_inputs(scheduler_note: str) -> list[io.Input]:
    """Return the widgets, and the sockets for LoRAs and a latent. scheduler_note: about the schedulers on this node."""
    return [
        io.Int.Input("seed", default=0, min=0, max=request.MAX_SEED, control_after_generate=True,
                     tooltip="Seed of the initial noise. The same seed and settings give the same clip."),
        io.Int.Input("num_inference_steps", default=request.DEFAULT_STEPS, min=request.MIN_STEPS,
                     max=request.MAX_STEPS,
                     tooltip="Denoising steps, 1 to 100. More take longer and give finer detail: 20 to 30 are usual, 4 "
                             "with distilled LoRAs, at guidance 1."),
        io.Float.Input("guidance_scale", default=request.DEFAULT_GUIDANCE, min=request.MIN_GUIDANCE,
                       max=request.MAX_GUIDANCE, step=0.1,
                       tooltip="How strictly to follow the prompt, 1 to 10. At 1 the negative prompt is ignored "
                               "and a step takes half the time."),
        io.Float.Input("guidance_scale_2", default=0.0, min=0.0, max=request.MAX_GUIDANCE, step=0.1,
                       optional=True, advanced=True,
                       tooltip="Guidance of the low-noise expert, 1 to 10; 0 uses guidance_scale."),
        io.Combo.Input("scheduler", options=list(request.SCHEDULERS), default="euler", optional=True, advanced=True,
                       tooltip=f"Solver of each step. {scheduler_note}"),
        io.Float.Input("shift", default=5.0, min=1.0, max=20.0, step=0.1, optional=True, advanced=True,
                       tooltip="Shifts the steps towards the noisy end, and the split between the experts with them; "
                               "Wan 2.2 uses 5."),
        io.Float.Input("boundary", default=0.9, min=0.0, max=1.0, step=0.005, optional=True, advanced=True,
                       tooltip="Noise level below which the low-noise expert takes over; 0.9 for Wan 2.2 "
                               "image-to-video."),
        io.Float.Input("denoise", default=1.0, min=request.MIN_DENOISE, max=1.0, step=0.01, optional=True,
                       advanced=True,
                       tooltip="How much of the clip in latent to replace, as in KSampler. 1 keeps nothing of it, and "
                               "needs no latent."),
        io.Combo.Input("stage", options=list(request.STAGES), default=request.BOTH, optional=True, advanced=True,
                       tooltip="Which expert's steps to run. Connect the latent of 'high-noise only' to a sampler with "
                               "'low-noise only' and the same settings; Save Latent (Wan 2.2) keeps it on disk in "
                               "between. Two runs give the same clip as one."),
        Loras.Input("loras", optional=True,
                    tooltip="LoRAs from LoRA (Wan 2.2). They are downloaded, checked and applied here; the model "
                            "itself is not changed."),
        io.Latent.Input("latent", optional=True,
                        tooltip="Clip to change, for denoise below 1; or the latent of the high-noise stage, for stage "
                                "'low-noise only'."),
        Motion.Input("motion", optional=True,
                     tooltip="Motion of Camera Path or Move Object that the clip is to follow, of the same resolution "
                             "and num_frames as first_frame."),
    ]


def saving_inputs() -> list[io.Input]:
    """Return the widgets for fewer passes. They come last: saved workflows know widgets by their place."""
    sigmas = io.String.Input(
        "sigmas", default="", optional=True, advanced=True,
        tooltip="A list of your own in place of sigma_schedule, num_inference_steps and shift: where each step starts, "
                "falling from 1, such as 1, 0.9375, 0.8333, 0.625. Or connect SIGMAS, such as those of BasicScheduler. "
                "Empty: none.")
    return [
        io.Combo.Input("sigma_schedule", options=list(request.SIGMA_SCHEDULES), default=request.OFFICIAL, optional=True,
                       advanced=True,
                       tooltip="Where the steps start. official: by num_inference_steps and shift. thinned 4 + 14 and "
                               "4 + 10: that many of these steps, which of 30 saves 40 % and 53 % of the time; best "
                               "with dpmpp_2m. lightx2v and TurboDiffusion: for these distilled weights. Measured on "
                               "the bundled, tiny model alone: see the help page."),
        io.MultiType.Input(sigmas, types=[io.Sigmas], tooltip=sigmas.tooltip),
        io.Int.Input("negative_pass_every", default=1, min=1, max=request.MAX_NEGATIVE_PASS_EVERY, optional=True,
                     advanced=True,
                     tooltip="Run the negative pass in every n-th step of an expert, and use what guidance added again "
                             "in between. 2 saves nearly a quarter of the time. Measured on the bundled, tiny model "
                             "alone: see the help page."),
    ]


def read_sampling(settings: dict[str, Any]) -> request.Sampling:
    """Return the settings as one object; guidance_scale_2 of 0 means that of guidance_scale. Raises RequestError."""
    sampling = request.Sampling(**{**settings, "guidance_scale_2": settings.get("guidance_scale_2") or None,
                                   "sigmas": read_sigmas(settings.get("sigmas", ""))})
    sampling.check()
    return sampling


class SamplerNode(io.ComfyNode):
    """Validate the typed settings at /prompt, for both samplers."""

    @classmethod
    def validate_inputs(cls, seed: int | None = None, num_inference_steps: int | None = None,
                        guidance_scale: float | None = None, guidance_scale_2: float | None = None,
                        sigma_schedule: str | None = None, sigmas: str | None = None) -> bool | str:
        """Return True, or a sentence about the first setting out of range.

        A linked value is None, for it is not known yet; `read_sampling` checks it when the node runs. ComfyUI itself
        has said of what is no number.
        """
        given = {"seed": seed, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
                 "guidance_scale_2": guidance_scale_2 or None}
        typed = {name: value for name, value in given.items() if isinstance(value, int | float)}
        typed |= {} if sigma_schedule is None else {"sigma_schedule": sigma_schedule}
        try:
            read_sampling({"seed": 0, "sigmas": "" if sigmas is None else sigmas, **typed})
        except request.RequestError as error:
            return str(error)
        return True
