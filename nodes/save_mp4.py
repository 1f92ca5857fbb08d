"""Save MP4: frames to a file."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .mp4_inputs import HIDDEN, check_mp4, mp4_inputs, save_mp4
from .sockets import CATEGORY


class SaveMP4(io.ComfyNode):
    """Writes the frames as MP4 into ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveMP4",
            display_name="Save MP4 (Wan 2.2)",
            category=CATEGORY,
            description="An MP4 that plays everywhere: H.264, 4:2:0, BT.709. It keeps the workflow, so that dropping "
                        "the file on the canvas brings the graph back, and says that a model made it.",
            search_aliases=["save video", "video combine", "mp4", "export video"],
            inputs=[io.Image.Input("images", tooltip="The frames in order."), *mp4_inputs()],
            outputs=[io.Video.Output(display_name="video", tooltip="The file, for core's video nodes.")],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, codec: str | None = None,
                        pix_fmt: str | None = None) -> bool | str:
        return check_mp4({"filename_prefix": filename_prefix, "codec": codec, "pix_fmt": pix_fmt}) or True

    @classmethod
    def execute(cls, images: Any, **values: Any) -> io.NodeOutput:
        from ..pipeline.video.save import save_clip

        height, width = images.shape[-3:-1]
        return save_mp4(cls.hidden, width, height, values,
                        lambda mp4, on_frame, stop: save_clip(mp4, images, on_frame, stop))
