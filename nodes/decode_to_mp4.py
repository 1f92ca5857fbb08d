"""Decode to MP4: latents to a file, a few frames at a time."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .mp4_inputs import HIDDEN, Mp4Node, mp4_inputs
from .sockets import CATEGORY


class DecodeToMP4(Mp4Node):
    """Decode and save a clip in the memory of a few frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22DecodeToMP4",
            display_name="Decode to MP4 (Wan 2.2)",
            category=CATEGORY,
            description="Decodes a clip straight into an MP4: frames are encoded while the next ones are decoded, and "
                        "only a few are in memory, however long the clip is. The file is identical to that of Decode "
                        "and Save MP4.",
            search_aliases=["vae decode", "latent to video", "save video", "mp4", "export video"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2. One from core's Load VAE works too, but decodes "
                                            "the whole clip at once."),
                io.Latent.Input("latent", tooltip="Latents of the clip, from Wan 2.2 Sampler."),
                *mp4_inputs(),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The MP4, for core's video nodes.")],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def execute(cls, vae: Any, latent: dict, **values: Any) -> io.NodeOutput:
        from ..pipeline.host.mp4 import save_mp4
        from ..pipeline.video.save import decode_to_mp4, size_of_latent

        width, height = size_of_latent(latent)
        video, preview = save_mp4(cls.hidden, width, height, values,
                                  lambda mp4, on_frame, stop: decode_to_mp4(mp4, vae, latent, on_frame, stop))
        return io.NodeOutput(video, ui=preview)
