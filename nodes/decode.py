"""Decode: latents to frames."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY, Motion


class Decode(io.ComfyNode):
    """Decode a clip piece by piece."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Decode",
            display_name="Decode (Wan 2.2)",
            category=CATEGORY,
            description="Decodes the clip's frames piece by piece: the VAE needs memory for a few frames at a time, "
                        "not for the whole clip.",
            search_aliases=["vae decode", "decode latent", "latent to video"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2, or wan_2.1_vae from Load VAE."),
                io.Latent.Input("latent", tooltip="Latents of the clip, from Wan 2.2 Sampler."),
                Motion.Input("motion", optional=True,
                             tooltip="Motion that the sampler had. The node then shows how far the camera of the clip "
                                     "is from its path."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="Frames in order, RGB, 0 to 1.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, vae: object, latent: dict, motion: object = None) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress, show_text
        from ..pipeline.motion.measure import check_frames, deviation
        from ..pipeline.video.save import decode_frames

        with errors_on_node(cls.hidden.unique_id):
            if motion is not None:
                check_frames(motion, latent["samples"].shape)
            images = decode_frames(vae, latent, progress())
            if motion is not None:
                show_text(cls.hidden.unique_id, deviation(images, motion).described(motion.width))
            return io.NodeOutput(images)
