"""Remote Image to Video: the request of a local clip, made by a hosted provider."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from ..pipeline.remote.keys import DEFAULT_PROFILE, profile_fault
from ..pipeline.remote.plan import LONGER_CLIPS, TRIM
from ..pipeline.remote.providers import PROVIDERS
from ..pipeline.remote.request import MAX_REMOTE_SEED, MAX_REMOTE_STEPS, MIN_REMOTE_STEPS, REMOTE_RESOLUTIONS
from .remote_inputs import options_input, provider_inputs, read_target
from .sockets import CATEGORY, Loras, Providers, Segments

IMAGES = 1
"""Index of the frames among the outputs."""


class RemoteImageToVideo(io.ComfyNode):
    """Buy one clip, at most once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22RemoteImageToVideo",
            display_name="Remote Image to Video (Wan 2.2)",
            category=CATEGORY,
            description="Has a hosted provider make the clip. The picture, the prompts and the links of the LoRAs are "
                        "sent there, and the clip is billed to your account. An interrupted run is resumed; the same "
                        "request is not bought twice.",
            search_aliases=["api", "cloud", "hosted", *PROVIDERS, "wan api"],
            inputs=[
                io.Image.Input("image", tooltip="One picture without transparency. Only its pixels are sent, as PNG or "
                                                "JPEG, with no side over 2000 pixels."),
                *provider_inputs(),
                io.String.Input("prompt", multiline=True, default="",
                                tooltip="Describe what should happen in the clip. Wan 2.2 reads at most 512 tokens."),
                io.String.Input("negative_prompt", multiline=True, default="", optional=True,
                                tooltip="Describe what should not appear. Not every model takes one."),
                io.Combo.Input("resolution", options=list(REMOTE_RESOLUTIONS), default="480p",
                               tooltip="Size of the clip, where the model sells it; landscape or portrait follows the "
                                       "picture."),
                io.Int.Input("num_frames", default=81, min=17, max=161, step=4,
                             tooltip="33, 49 or 81 frames (2, 3 or 5 seconds at 16 frames per second). Where clips "
                                     "come in fixed lengths, the next longer one is bought."),
                io.Int.Input("num_inference_steps", default=request.DEFAULT_STEPS, min=MIN_REMOTE_STEPS,
                             max=MAX_REMOTE_STEPS, tooltip="Denoising steps, 10 to 50, if the model takes them."),
                io.Float.Input("guidance_scale", default=request.DEFAULT_GUIDANCE, min=request.MIN_GUIDANCE,
                               max=request.MAX_GUIDANCE, step=0.1,
                               tooltip="How strictly to follow the prompt, 1 to 10, if the model takes it."),
                io.Int.Input("seed", default=0, min=0, max=MAX_REMOTE_SEED,
                             control_after_generate=io.ControlAfterGenerate.fixed,  # a new seed is a new purchase
                             tooltip="A new seed is a new clip and a new purchase; the same request with the same seed "
                                     "returns the clip that was bought."),
                Loras.Input("loras", optional=True, tooltip="LoRAs from LoRA (Wan 2.2), by links that anyone can "
                                                            "open."),
                io.Image.Input("last_image", optional=True,
                               tooltip="Picture that the clip ends with. Not every model takes one."),
                Segments.Input("segments", optional=True,
                               tooltip="Segments that follow, from Segment: each is bought as a clip of its own that "
                                       "begins with the last frame of the one before. The price of all is checked "
                                       "first."),
                Providers.Input("fallbacks", optional=True,
                                tooltip="Providers to try when this one certainly did not accept the job, from Remote "
                                        "Fallback."),
                io.Float.Input("max_cost", default=0.0, min=0.0, max=1000.0, step=0.01, optional=True,
                               tooltip="Maximum price of this clip with its segments in US dollars; above it neither "
                                       "the picture nor the prompts are sent. 0: no limit."),
                io.Float.Input("max_cost_per_day", default=0.0, min=0.0, max=10000.0, step=0.1, optional=True,
                               advanced=True,
                               tooltip="Maximum for all remote clips of the last 24 hours in US dollars, this one "
                                       "included. 0: no limit."),
                io.Combo.Input("longer_clips", options=list(LONGER_CLIPS), default=TRIM, optional=True, advanced=True,
                               tooltip="If more frames are bought than requested: trim cuts the clip here, keep "
                                       "returns it as it came, refuse stops before anything is sent."),
                io.Boolean.Input("strict", default=False, optional=True, advanced=True,
                                 tooltip="Refuse, before anything is sent, if the model would ignore or change any "
                                         "part of the request."),
                options_input(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The provider's file, unchanged unless it was cut."),
                io.Image.Output(display_name="images", tooltip="Frames of the clip; decoded only if connected."),
                io.String.Output(display_name="report", tooltip="JSON: job, provider, seconds, price, the request and "
                                                                "what was changed in it; with segments, all of it for "
                                                                "each clip."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, provider: dict[str, Any] | None = None, prompt: str | None = None,
                        num_frames: int | None = None, profile: str | None = None) -> bool | str:
        if fault := profile_fault(profile):
            return fault
        try:
            if prompt is not None:
                request.check_prompt(prompt, "prompt")
            if isinstance(num_frames, int):  # ComfyUI itself has said of what is no number
                request.check_num_frames(num_frames)
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **given: object) -> bool:
        """Return whether the frames are wanted: a cached run without them has none to return later."""
        from ..pipeline.host.runs import is_linked

        return is_linked(IMAGES)

    @classmethod
    async def execute(cls, image: object, provider: dict[str, Any], prompt: str, resolution: str, num_frames: int,
                      num_inference_steps: int, guidance_scale: float, seed: int, negative_prompt: str = "",
                      loras: tuple = (), fallbacks: tuple = (), profile: str = DEFAULT_PROFILE, max_cost: float = 0.0,
                      max_cost_per_day: float = 0.0, longer_clips: str = TRIM, strict: bool = False,
                      last_image: object = None, options: str = "", segments: tuple = ()) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.host.remote import remote_context
        from ..pipeline.host.runs import is_linked
        from ..pipeline.host.video import clip_outputs
        from ..pipeline.remote.budget import Limits
        from ..pipeline.remote.clip import remote_chain, remote_clip

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            clip = request.ClipRequest(prompt, negative_prompt, tuple(loras), resolution, num_frames,
                                            num_inference_steps, guidance_scale, seed)
            context = remote_context(node_id, Limits(max_cost, max_cost_per_day))
            targets = (read_target(provider, profile, options), *fallbacks)
            how = {"longer_clips": longer_clips, "strict": strict, "last_image": last_image}
            if segments:
                path, report = await remote_chain(image, clip, segments, targets, context, **how)
            else:
                path, report = await remote_clip(image, clip, targets, context, **how)
            video, images, preview = await clip_outputs(path, with_frames=is_linked(IMAGES))
            return io.NodeOutput(video, images, report, ui=preview)
