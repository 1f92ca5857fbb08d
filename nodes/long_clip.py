"""Long Clip: a chain of segments to one MP4."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.request import RequestError
from ..pipeline.segments import MAX_CROSS_FADE, WAYS
from ..pipeline.video.join_settings import JOINT
from ..pipeline.video.join_settings import WAYS as COLOUR_WAYS
from ..pipeline.video.mp4_settings import settings_fault
from .extension_inputs import extension_inputs
from .mp4_inputs import HIDDEN, mp4_inputs
from .sampling_inputs import SamplerNode, read_sampling, sampling_inputs, saving_inputs
from .size_inputs import check_size_inputs, resolution_input, size_of
from .sockets import CATEGORY, Model, Segments

NOT_OF_A_CHAIN = ("seed", "denoise", "stage", "latent", "motion")
"""Inputs of the sampler that a segment has itself, or that are for one clip."""
NOT_OF_LATENTS = ("odd_size", "alpha")
"""Inputs of Save MP4 about frames that no latents give."""
OWN = ("negative_prompt", "loop", "cross_fade", "loras", "negative_pass_every")


class LongClipNode(SamplerNode):
    """Sample segment by segment, each on the disk before the next, into one file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sampling = [one for one in sampling_inputs("euler is simple and robust, unipc is the default of the official "
                                                   "code, dpmpp_2m its other solver. lcm draws fresh noise in every "
                                                   "step: for consistency-distilled weights such as TurboDiffusion's.")
                    if one.id not in NOT_OF_A_CHAIN]
        return io.Schema(
            node_id="Wan22LongClip",
            display_name="Long Clip (Wan 2.2)",
            category=CATEGORY,
            description="Makes a clip of any length from a chain of segments, each going on from the one before. Every "
                        "segment is on the disk when the next begins: after Stop or a crash, run the same again and it "
                        "goes on there. The memory is that of one segment.",
            search_aliases=["long video", "extend video", "infinite", "svi", "continue", "loop"],
            inputs=[
                Model.Input("model", tooltip="Both experts, from Load Wan 2.2."),
                io.Clip.Input("clip", tooltip="Text encoder from Load Wan 2.2, or from a CLIP loader of type wan."),
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2. One from core's Load VAE works too, but decodes "
                                            "a whole segment at once."),
                io.Image.Input("image", tooltip="Picture that the clip starts from, scaled and cropped as by First "
                                                "Frame."),
                Segments.Input("segments", tooltip="The chain, from the last Segment."),
                io.String.Input("negative_prompt", multiline=True, default="",
                                tooltip="Describe what should not appear in any segment. Ignored at guidance 1."),
                resolution_input(),
                *extension_inputs(),
                io.Image.Input("last_image", optional=True, tooltip="Picture that the clip ends with."),
                io.Boolean.Input("loop", default=False, optional=True,
                                 tooltip="End where the clip began, so that it repeats without a jump."),
                io.Combo.Input("match_colours", options=list(COLOUR_WAYS), default=JOINT, optional=True, advanced=True,
                               tooltip="at the joint: one correction for the whole segment, so that what its prompt "
                                       "changes stays. every frame: each gets the colours of the last frame before the "
                                       "joint, which stops any drift, wanted or not."),
                io.Float.Input("colour_strength", default=1.0, min=0.0, max=1.0, step=0.05, optional=True,
                               advanced=True, tooltip="How much of the correction of the colours is made."),
                io.Int.Input("cross_fade", default=MAX_CROSS_FADE, min=0, max=MAX_CROSS_FADE, optional=True,
                             advanced=True,
                             tooltip="Frames over which one segment fades into the next, of those that both show."),
                *sampling,
                io.Boolean.Input("batched_guidance", default=False, optional=True, advanced=True,
                                 tooltip="Pass the prompt and the negative prompt through an expert in one batch: the "
                                         "same clip, a little faster for small clips, twice the working memory."),
                *saving_inputs(),
                *_file_inputs(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The MP4, for core's video nodes."),
                io.String.Output(display_name="report",
                                 tooltip="Each segment and each joint with its measures, and warnings."),
                io.Latent.Output(display_name="latent", tooltip="Latents of the last segment, for Extend Clip."),
            ],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def validate_inputs(cls, num_inference_steps: int | None = None, guidance_scale: float | None = None,
                        guidance_scale_2: float | None = None, sigma_schedule: str | None = None,
                        sigmas: str | None = None, resolution: dict[str, Any] | None = None, way: str | None = None,
                        filename_prefix: str | None = None, codec: str | None = None, pix_fmt: str | None = None,
                        ) -> bool | str:
        sampling = super().validate_inputs(None, num_inference_steps, guidance_scale, guidance_scale_2, sigma_schedule,
                                           sigmas)
        if sampling is not True:
            return sampling
        try:
            check_size_inputs(resolution, None)
            if way is not None and way not in WAYS:
                raise RequestError(f"way is {way!r}; choose one of {', '.join(WAYS)}.")
        except RequestError as error:
            return str(error)
        return settings_fault({"filename_prefix": filename_prefix, "codec": codec, "pix_fmt": pix_fmt}) or True

    @classmethod
    def execute(cls, model: object, clip: object, vae: object, image: Any, segments: tuple, resolution: dict[str, Any],
                way: str, known_frames: str, last_image: Any = None, match_colours: str = JOINT,
                colour_strength: float = 1.0, **values: Any) -> io.NodeOutput:
        from ..pipeline.host.long_clip import make_long_clip
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.long_clip.frames import Colours
        from ..pipeline.long_clip.make import LongClip

        with errors_on_node(cls.hidden.unique_id):
            width, height = size_of(resolution)
            file_ids = {one.id for one in _file_inputs()}
            mp4_values = {name: value for name, value in values.items() if name in file_ids}
            own = {name: values[name] for name in OWN if name in values}
            settings = {name: value for name, value in values.items() if name not in file_ids and name not in own}
            long_clip = LongClip(image, segments, width, height, read_sampling({"seed": 0, **settings}), way=way,
                                 last_image=last_image, colours=Colours(colour_strength, match_colours),
                                 known_frames=int(known_frames), **own)
            video, report, latent, preview = make_long_clip(cls.hidden, long_clip, model, clip, vae, mp4_values)
            return io.NodeOutput(video, report, latent, ui=preview)


def _file_inputs() -> list[io.Input]:
    """Return the settings of the file, as Save MP4 has them."""
    return [one for one in mp4_inputs() if one.id not in NOT_OF_LATENTS]
