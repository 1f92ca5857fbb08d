"""Check Clip: a quality gate for clips of any source."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY

MOST_FRAMES = 16
"""Of those that failed, as IMAGE."""


class CheckClip(io.ComfyNode):
    """Measure a clip, and say whether it passes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22CheckClip",
            display_name="Check Clip (Wan 2.2)",
            category=CATEGORY,
            description="Measures a clip and says whether it passes: broken or black frames, flashes, flicker, frames "
                        "that stand still, cuts, jumps, frames out of order, running back to the start, drift of "
                        "colours, loss of detail. Nothing is downloaded; frames are read one by one.",
            search_aliases=["quality", "qc", "gate", "score", "vbench", "validate video"],
            inputs=[
                io.MultiType.Input("clip", [io.Video, io.Image], tooltip="A VIDEO, or the frames of a clip."),
                io.Image.Input("picture", optional=True,
                               tooltip="The picture that the clip began from: its first frame must show it."),
                io.Boolean.Input("colours_may_change", default=False, optional=True,
                                 tooltip="Do not measure colours: for prompts such as \"everything turns red\"."),
            ],
            outputs=[
                io.Boolean.Output(display_name="pass", tooltip="True when every measure is within its limit."),
                io.Float.Output(display_name="score", tooltip="1 for no fault at all, 0.5 at a limit, less for worse: "
                                                              "0.5 and more passes."),
                io.String.Output(display_name="report", tooltip="JSON: each measure with its value, limit and frames, "
                                                                "and how the camera moves."),
                io.Image.Output(display_name="failing_frames",
                                tooltip=f"The frames that failed, at most {MOST_FRAMES}; the first one of the clip "
                                        "when none did."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip: Any, picture: Any = None, colours_may_change: bool = False) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress, show_text
        from ..pipeline.host.video import clip_source
        from ..pipeline.quality.check import check_clip
        from ..pipeline.request import check_image
        from ..pipeline.video.source import check_scale, counted, frames_at

        with errors_on_node(cls.hidden.unique_id):
            if picture is not None:
                check_image(picture, "picture")
            source = clip_source(clip, "clip")
            check_scale(source)
            verdict = check_clip(counted(source, progress()), picture, colours_may_change=colours_may_change)
            show_text(cls.hidden.unique_id, verdict.described())
            report = verdict.report(float(source.rate))
            shown = frames_at(source, verdict.failing_frames[:MOST_FRAMES] or [0])
            return io.NodeOutput(verdict.passed, verdict.score, json.dumps(report, indent=1), shown)
