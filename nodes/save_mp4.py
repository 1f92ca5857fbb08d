"""Save MP4: frames to a file."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .mp4_inputs import HIDDEN, Mp4Node, mp4_inputs
from .sockets import CATEGORY


class SaveMP4(Mp4Node):
    """Write frames as MP4 into ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveMP4",
            display_name="Save MP4 (Wan 2.2)",
            category=CATEGORY,
            description="Saves an MP4 that plays everywhere: H.264, 4:2:0, BT.709. The file holds the workflow (drop "
                        "it on the canvas to get the graph back) and a note that the clip is AI-generated.",
            search_aliases=["save video", "video combine", "mp4", "export video"],
            inputs=[io.Image.Input("images", tooltip="Frames in order."), *mp4_inputs()],
            outputs=[io.Video.Output(display_name="video", tooltip="The MP4, for core's video nodes.")],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def execute(cls, images: Any, **values: Any) -> io.NodeOutput:
        from ..pipeline.host.mp4 import save_mp4
        from ..pipeline.video.save import save_clip, size_of_images

        width, height = size_of_images(images)
        video, preview = save_mp4(cls.hidden, width, height, values,
                                  lambda mp4, on_frame, stop: save_clip(mp4, images, on_frame, stop))
        return io.NodeOutput(video, ui=preview)
