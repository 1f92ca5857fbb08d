"""Join Clips: clips of any source into one MP4."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipeline.request import RequestError
from ..pipeline.video import encoding
from ..pipeline.video.join_settings import (
    FIND,
    FOUND,
    JOINT,
    MISMATCHES,
    MOST_FADED,
    MOST_OVERLAP,
    NONE,
    WAYS,
    JoinSettings,
    read_new_shots,
)
from .mp4_inputs import HIDDEN, Mp4Node, mp4_inputs
from .sockets import CATEGORY

if TYPE_CHECKING:
    from ..pipeline.video.mp4_writer import Written
    from ..pipeline.video.save import Mp4

MOST_CLIPS = 50


class JoinClips(Mp4Node):
    """Join clips, frame by frame, and measure the joints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        clips = io.Autogrow.TemplateNames(io.Video.Input("clip", tooltip="A clip; the next goes on from it."),
                                          names=[f"clip_{number}" for number in range(1, MOST_CLIPS + 1)], min=2)
        return io.Schema(
            node_id="Wan22JoinClips",
            display_name="Join Clips (Wan 2.2)",
            category=CATEGORY,
            description="Joins clips into one MP4: frames that repeat the end of the clip before are dropped, colours "
                        "are matched, joints are blended over a few frames and measured. Only the frames around a "
                        "joint are in memory.",
            search_aliases=["concatenate", "concat video", "merge video", "extend", "stitch", "append"],
            inputs=[
                io.Autogrow.Input("clips", template=clips,
                                  tooltip="The clips in order, of any source. The first gives the size."),
                io.Int.Input("overlap", default=FIND, min=FIND, max=MOST_OVERLAP,
                             tooltip="How many frames at the start of a clip repeat the end of the clip before: 1 for "
                                     "clips made from the last frame. -1: found by comparing."),
                io.Int.Input("cross_fade", default=MOST_FADED, min=0, max=MOST_FADED,
                             tooltip="Blend so many frames at each joint, of those that both clips show: never more "
                                     "than the overlap."),
                io.Combo.Input("match_colours", options=list(WAYS), default=JOINT,
                               tooltip="at the joint: one correction for the whole clip, so that what it changes "
                                       "stays. every frame: each gets the colours of the last frame before the joint, "
                                       "which stops any drift, wanted or not."),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05, advanced=True,
                               tooltip="How much of the correction of the colours is made."),
                io.String.Input("new_shots", default=FOUND,
                                tooltip="Clips that begin a new shot: nothing is dropped, blended or matched there. "
                                        "found: where the picture changes; none; or their numbers, such as 2, 5."),
                io.Combo.Input("mismatch", options=list(MISMATCHES), default=MISMATCHES[0],
                               tooltip="Clips of another size or rate: conform scales and crops them to fill the "
                                       "first one's size, and repeats or leaves out frames; refuse stops."),
                *_file_inputs(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The MP4, for core's video nodes."),
                io.String.Output(display_name="report", tooltip="JSON: frames, and each joint with its measures and "
                                                                "warnings."),
            ],
            is_output_node=True,
            hidden=HIDDEN,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, codec: str | None = None, pix_fmt: str | None = None,
                        new_shots: str | None = None, clips: object = None) -> bool | str:
        try:
            read_new_shots(new_shots or NONE)
        except RequestError as error:
            return str(error)
        return super().validate_inputs(filename_prefix, codec, pix_fmt)

    @classmethod
    def execute(cls, clips: dict[str, Any], overlap: int, cross_fade: int, match_colours: str, strength: float,
                new_shots: str, mismatch: str, fps: float, **values: Any) -> io.NodeOutput:
        from ..pipeline.host.mp4 import save_mp4
        from ..pipeline.host.node import bind_show_text, errors_on_node
        from ..pipeline.host.video import clip_source
        from ..pipeline.video.join_to_mp4 import join_to_mp4

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            sources = [clip_source(video, name) for name, video in clips.items()]
            settings = JoinSettings(overlap, cross_fade, match_colours, strength, read_new_shots(new_shots))
            settings.check(len(sources))
        found: list[str] = []

        def write(mp4: Mp4, on_frame: Callable[[int, int], None], stop: Callable[[], None]) -> Written:
            written, report = join_to_mp4(mp4, sources, settings, mismatch, on_frame, stop, bind_show_text(node_id))
            found.append(report)
            return written

        values["fps"] = fps or float(sources[0].rate)
        video, preview = save_mp4(cls.hidden, sources[0].width, sources[0].height, values, write)
        return io.NodeOutput(video, found[0], ui=preview)


def _file_inputs() -> list[io.Input]:
    """Return the settings of the file as Save MP4 has them, with other words on rate and sound."""
    _fps, *others, _audio = mp4_inputs()
    return [
        io.Float.Input("fps", default=0.0, min=0.0, max=encoding.MAX_FPS, step=0.01,
                       tooltip="Frames per second of the result; 0: those of the first clip."),
        *others,
        io.Audio.Input("audio", optional=True, tooltip="Sound for the whole, in place of the clips' own."),
    ]
