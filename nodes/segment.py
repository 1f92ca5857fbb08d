"""Segment: a part of a longer clip, added to a chain."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline import request
from ..pipeline.segments import Segment
from .sockets import CATEGORY, Loras, Segments


class SegmentNode(io.ComfyNode):
    """Add a segment to the chain."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Segment",
            display_name="Segment (Wan 2.2)",
            category=CATEGORY,
            description="A part of a longer clip: its own prompt, seed, length and LoRAs. Chain these nodes in the "
                        "order of the clip, and connect the last one to Long Clip or Remote Image to Video.",
            search_aliases=["long video", "scene", "shot", "chain"],
            inputs=[
                io.String.Input("prompt", multiline=True, default="the camera pans left",
                                tooltip="Describe what moves in this part, and how. At most 512 tokens."),
                io.Int.Input("seed", default=0, min=0, max=request.MAX_SEED,
                             control_after_generate=io.ControlAfterGenerate.fixed,  # so that a chain can be resumed
                             tooltip="Seed of this segment's noise. Give each segment its own: the same one tends to "
                                     "repeat the same motion."),
                io.Int.Input("num_frames", default=33, min=5, max=request.MAX_FRAMES, step=4,
                             tooltip="Frames that are made at once, at most 81, a multiple of 4 plus 1. From the "
                                     "second segment on, the first ones show what the segment before has already."),
                Segments.Input("segments", optional=True,
                               tooltip="The segments before this one, from another Segment."),
                Loras.Input("loras", optional=True,
                            tooltip="LoRAs for this segment alone, from LoRA (Wan 2.2)."),
                io.Boolean.Input("new_shot", default=False, optional=True, advanced=True,
                                 tooltip="The colours of this segment need not be those of the one before: they are "
                                         "not matched."),
            ],
            outputs=[Segments.Output(display_name="segments", tooltip="The chain, for Long Clip, Remote Image to Video "
                                                                      "or the next Segment.")],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None, seed: int | None = None, num_frames: int | None = None,
                        ) -> bool | str:
        given = {"prompt": prompt, "seed": seed, "num_frames": num_frames}
        try:  # a linked value is None: it is checked when the chain is used
            Segment(**{"prompt": "-", **{name: value for name, value in given.items() if value is not None}}).check()
        except request.RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, prompt: str, seed: int, num_frames: int, segments: tuple = (), loras: tuple = (),
                new_shot: bool = False) -> io.NodeOutput:
        return io.NodeOutput((*segments, Segment(prompt, seed, num_frames, tuple(loras), new_shot)))
