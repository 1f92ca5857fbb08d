"""Clip Grid: clips beside each other, in step."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.video import encoding
from .mp4_inputs import HIDDEN, Mp4Node, mp4_inputs
from .sockets import CATEGORY

MOST_CLIPS, MOST_CELL = 36, 2048


class ClipGrid(Mp4Node):
    """Write clips beside each other into one MP4."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        clips = io.Autogrow.TemplateNames(
            io.MultiType.Input("clip", [io.Video, io.Image], tooltip="A VIDEO, or the frames of a clip."),
            names=[f"clip_{number}" for number in range(1, MOST_CLIPS + 1)], min=1)
        _fps, *settings, audio = mp4_inputs()
        return io.Schema(
            node_id="Wan22ClipGrid",
            display_name="Clip Grid (Wan 2.2)",
            category=CATEGORY,
            description="Puts clips beside each other into one MP4, each above its label and played in step, to "
                        "compare seeds, prompts or LoRAs. One frame of each is in memory.",
            search_aliases=["compare", "contact sheet", "xy plot", "side by side", "video grid"],
            inputs=[
                io.Autogrow.Input("clips", template=clips, tooltip="The clips, row by row."),
                io.String.Input("labels", multiline=True, default="",
                                tooltip="One line a clip, below it. Empty: no labels."),
                io.Int.Input("columns", default=0, min=0, max=MOST_CLIPS,
                             tooltip="Clips in a row; 0: as many as make the grid about square."),
                io.Int.Input("cell_width", default=0, min=0, max=MOST_CELL, step=2,
                             tooltip="Pixels of a clip; 0: those of the first clip, or fewer where the grid would be "
                                     "wider than 1920."),
                io.Float.Input("fps", default=0.0, min=0.0, max=encoding.MAX_FPS, step=0.01,
                               tooltip="Frames per second of the result; 0: those of the first clip."),
                *settings, audio,
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The MP4, for core's video nodes.")],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, codec: str | None = None, pix_fmt: str | None = None,
                        clips: object = None) -> bool | str:
        return super().validate_inputs(filename_prefix, codec, pix_fmt)

    @classmethod
    def execute(cls, clips: dict[str, Any], labels: str, columns: int, cell_width: int, fps: float,
                **values: Any) -> io.NodeOutput:
        from ..pipeline.host.mp4 import save_mp4
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.host.video import clip_source
        from ..pipeline.video.grid import cell_size, columns_of
        from ..pipeline.video.grid_to_mp4 import grid_to_mp4, read_labels

        with errors_on_node(cls.hidden.unique_id):
            sources = [clip_source(clip, name) for name, clip in clips.items()]
            texts = read_labels(labels, len(sources))
            across = columns_of(len(sources), columns)
            cell = cell_size(sources, across, cell_width)
        values["fps"] = fps or float(sources[0].rate)
        video, preview = save_mp4(cls.hidden, *cell, values, lambda mp4, on_frame, stop: grid_to_mp4(
            mp4, sources, texts, across, cell, on_frame, stop))
        return io.NodeOutput(video, ui=preview)
