"""First Frame: the picture, prepared for a clip of a given size and length."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import request
from .sockets import CATEGORY, FirstFrame

CUSTOM = "custom"


def _size(resolution: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of a resolution choice. Raises RequestError for one that is not on the list."""
    choice = resolution["resolution"]
    if choice == CUSTOM:
        return resolution.get("width", 0), resolution.get("height", 0)
    if not isinstance(choice, str) or choice not in request.RESOLUTIONS:
        raise request.RequestError(f"resolution is {choice!r}; choose one of "
                                   f"{', '.join([*request.RESOLUTIONS, CUSTOM])}.")
    return request.RESOLUTIONS[choice]


class FirstFrameNode(io.ComfyNode):
    """Encode the picture that the clip starts from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"min": request.MIN_IMAGE_SIDE, "max": request.MAX_SIDE, "step": request.SIZE_MULTIPLE}
        custom = io.DynamicCombo.Option(CUSTOM, [
            io.Int.Input("width", default=192, tooltip="Width of the clip in pixels, a multiple of 16.", **side),
            io.Int.Input("height", default=128, tooltip="Height of the clip in pixels, a multiple of 16.", **side),
        ])
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
                io.DynamicCombo.Input("resolution", tooltip="Size of the clip in pixels. Wan 2.2 was trained for 480p "
                                                            "and 720p, the bundled model for 128x128.",
                                      options=[*(io.DynamicCombo.Option(name, []) for name in request.RESOLUTIONS),
                                               custom]),
                io.Int.Input("num_frames", default=33, min=5, max=request.MAX_FRAMES, step=4,
                             tooltip="Length of the clip: 33, 49 or 81 frames (2, 3 or 5 seconds at 16 frames per "
                                     "second), or any multiple of 4 plus 1."),
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
            if isinstance(num_frames, int):  # ComfyUI itself has said of what is no number
                request.check_num_frames(num_frames)
            if resolution is None:  # ComfyUI drops a choice that it does not know
                raise request.RequestError("resolution is not a known choice; choose one of "
                                           f"{', '.join([*request.RESOLUTIONS, CUSTOM])}.")
            size = _size(resolution)
            # ComfyUI keeps a choice's own inputs from validation; execute checks them.
            if all(isinstance(side, int) for side in size):
                request.check_size(*size)
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, vae: object, image: object, resolution: dict[str, Any], num_frames: int,
                last_image: object = None) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress
        from ..pipeline.models.condition import encode_first_frame

        with errors_on_node(cls.hidden.unique_id):
            return io.NodeOutput(encode_first_frame(vae, image, *_size(resolution), num_frames, progress(),
                                                    last_image))
