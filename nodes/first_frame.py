"""First Frame: the picture, prepared for a clip of a given size and length."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from .size_inputs import check_size_inputs, num_frames_input, resolution_input, size_of
from .sockets import CATEGORY, FirstFrame


class FirstFrameNode(io.ComfyNode):
    """Encode the picture that the clip starts from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22FirstFrame",
            display_name="First Frame (Wan 2.2)",
            category=CATEGORY,
            description="Scales and crops a picture to the clip's size and encodes it as the clip's first frame.",
            search_aliases=["start image", "image to video", "wan image"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2, or wan_2.1_vae from Load VAE."),
                io.Image.Input("image", tooltip="One picture without transparency, at least 32x32 pixels. Scaled to "
                                                "fill the clip; the rest is cropped evenly on both sides."),
                resolution_input(),
                num_frames_input(),
                io.Image.Input("last_image", optional=True,
                               tooltip="Picture that the clip ends with, scaled and cropped like the first one. Wan "
                                       "2.2 was not trained for this, but usually finds a way from one to the other."),
            ],
            outputs=[FirstFrame.Output(display_name="first_frame",
                                       tooltip="Encoded picture, for Wan 2.2 Sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, resolution: dict[str, Any] | None = None, num_frames: int | None = None) -> bool | str:
        try:
            check_size_inputs(resolution, num_frames)
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, vae: object, image: object, resolution: dict[str, Any], num_frames: int,
                last_image: object = None) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress, show_text
        from ..pipeline.models.condition import encode_first_frame
        from ..pipeline.segments import long_warning

        with errors_on_node(cls.hidden.unique_id):
            if warning := long_warning(num_frames):
                show_text(cls.hidden.unique_id, warning)
            return io.NodeOutput(encode_first_frame(vae, image, *size_of(resolution), num_frames, progress(),
                                                    last_image))
