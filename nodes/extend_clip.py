"""Extend Clip: the condition of a clip that goes on from another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from .extension_inputs import extension_inputs
from .size_inputs import num_frames_input
from .sockets import CATEGORY, FirstFrame, Loras


class ExtendClip(io.ComfyNode):
    """Go on from the end of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        clip = io.Latent.Input("clip", tooltip="The clip to go on from: the LATENT of a sampler, a VIDEO, or frames. A "
                                               "LATENT is exact for SVI; for the other ways frames that are there "
                                               "already save a decoding.")
        return io.Schema(
            node_id="Wan22ExtendClip",
            display_name="Extend Clip (Wan 2.2)",
            category=CATEGORY,
            description="Goes on from the end of a clip, in its size: gives Wan 2.2 Sampler what First Frame gives it "
                        "for a picture. Join Clips puts both together.",
            search_aliases=["continue video", "extend video", "svi", "long video", "last frame"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2, or wan_2.1_vae from Load VAE."),
                io.MultiType.Input(clip, types=[io.Latent, io.Video, io.Image], tooltip=clip.tooltip),
                num_frames_input(),
                *extension_inputs(),
                io.Image.Input("anchor_image", optional=True,
                               tooltip="For SVI: the picture that the whole clip keeps to, as a rule the one it "
                                       "started from. Without it, the first frame of the clip."),
                io.Image.Input("last_image", optional=True,
                               tooltip="Picture that the new clip ends with, scaled and cropped to the clip's size."),
                Loras.Input("loras", optional=True,
                            tooltip="The LoRAs that the sampler gets: with an SVI pair among them, auto goes on by "
                                    "SVI."),
            ],
            outputs=[
                FirstFrame.Output(display_name="first_frame", tooltip="What is known of the new clip, for Wan 2.2 "
                                                                      "Sampler."),
                io.Int.Output(display_name="overlap", tooltip="Frames at the new clip's start that repeat the end of "
                                                              "the old one, for Join Clips."),
                io.Image.Output(display_name="last_frames",
                                tooltip="The last frames of the clip, which the new one begins with."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, num_frames: int | None = None) -> bool | str:
        try:
            if isinstance(num_frames, int):
                request.check_num_frames(num_frames)
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, vae: Any, clip: Any, num_frames: int, way: str, known_frames: str, anchor_image: Any = None,
                last_image: Any = None, loras: tuple = ()) -> io.NodeOutput:
        from ..pipeline.host.long_clip import earlier_clip
        from ..pipeline.host.node import errors_on_node, progress, show_text
        from ..pipeline.long_clip.extend import check_known_frames, extend_clip

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            earlier, rate_note = earlier_clip(vae, clip)
            extended = extend_clip(vae, earlier, way, check_known_frames(known_frames), num_frames, anchor_image,
                                   last_image, loras, progress())
            show_text(node_id, "\n".join(filter(None, (*extended.notes, rate_note))))
            return io.NodeOutput(extended.condition, extended.overlap, extended.known)
