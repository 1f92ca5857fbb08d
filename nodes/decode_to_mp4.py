"""Decode to MP4: latents to a file, a few frames at a time."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .mp4_inputs import HIDDEN, check_mp4, mp4_inputs, save_mp4
from .sockets import CATEGORY


class DecodeToMP4(io.ComfyNode):
    """Decode and Save MP4 in one, in the memory of a few frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22DecodeToMP4",
            display_name="Decode to MP4 (Wan 2.2)",
            category=CATEGORY,
            description="Decodes a clip straight into an MP4: frames are encoded while the next ones are decoded, and "
                        "only a few are in memory, however long the clip is. The file is that of Decode and Save MP4, "
                        "byte for byte.",
            search_aliases=["vae decode", "latent to video", "save video", "mp4", "export video"],
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE of Load Wan 2.2. That of core's Load VAE works too, but decodes "
                                            "the whole clip at once."),
                io.Latent.Input("latent", tooltip="The clip's latents, from the Wan 2.2 Sampler."),
                *mp4_inputs(),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The file, for core's video nodes.")],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, codec: str | None = None,
                        pix_fmt: str | None = None) -> bool | str:
        return check_mp4({"filename_prefix": filename_prefix, "codec": codec, "pix_fmt": pix_fmt}) or True

    @classmethod
    def execute(cls, vae: Any, latent: dict, **values: Any) -> io.NodeOutput:
        from ..pipeline.models.vae import PIXELS_A_LATENT
        from ..pipeline.video.save import decode_to_mp4

        height, width = (side * PIXELS_A_LATENT for side in latent["samples"].shape[-2:])
        return save_mp4(cls.hidden, width, height, values,
                        lambda mp4, on_frame, stop: decode_to_mp4(mp4, vae, latent, on_frame, stop))
