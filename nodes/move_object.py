"""Move Object: a part of the picture, cut out and moved along a path."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.motion.path import read_object_path
from .motion_inputs import shown_in_editor, strength_input, strength_of, validate_motion
from .size_inputs import num_frames_input, resolution_input, size_of
from .sockets import CATEGORY, Motion

DEFAULT_PATH = '{"keyframes": [{"t": 0}, {"t": 1, "x": 0.2}], "easing": "linear"}'


class MoveObject(io.ComfyNode):
    """Move what a mask covers, in a picture or in a camera's motion over it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22MoveObject",
            display_name="Move Object (Wan 2.2)",
            category=CATEGORY,
            description="Moves a part of the picture along a path: what the mask covers is cut out and moved, and what "
                        "was behind it filled in from around. The sampler then makes a clip in which it goes there.",
            search_aliases=["object motion", "drag", "motion brush", "cut and drag", "time to move"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2, or wan_2.1_vae from Load VAE."),
                io.Image.Input("image", tooltip="The picture, the same as that of motion."),
                io.Mask.Input("mask", tooltip="The object, drawn on this picture in the mask editor of Load Image."),
                io.String.Input("path", default=DEFAULT_PATH, multiline=False,
                                tooltip="How far the object has moved at times t from 0 to 1, as JSON: x and y in "
                                        "widths and heights of the clip, starting at 0; and the easing."),
                resolution_input(),
                num_frames_input(),
                strength_input(),
                Motion.Input("motion", optional=True,
                             tooltip="Motion of Camera Path, or of another object, to join. Without one the camera "
                                     "stays, and everything but the object is free to move."),
            ],
            outputs=[
                Motion.Output(display_name="motion", tooltip="The motion, for Wan 2.2 Sampler or another Move Object."),
                io.Image.Output(display_name="images", tooltip="The moved picture as frames: what the clip follows."),
                io.Mask.Output(display_name="mask", tooltip="What is held in each of these frames."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, path: str | None = None, resolution: dict[str, Any] | None = None,
                        num_frames: int | None = None, strength: dict[str, Any] | None = None) -> bool | str:
        return validate_motion(read_object_path, path, resolution, num_frames, strength)

    @classmethod
    def execute(cls, vae: object, image: object, mask: object, path: str, resolution: dict[str, Any], num_frames: int,
                strength: dict[str, Any], motion: object = None) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress
        from ..pipeline.motion.motion import move_object, stay

        with errors_on_node(cls.hidden.unique_id):
            chosen = strength_of(strength)
            before = stay(vae, image, *size_of(resolution), num_frames, chosen, motion)
            moved = move_object(before, mask, read_object_path(path), chosen)
            shown = moved.render(progress())
            return io.NodeOutput(moved, shown.images, shown.mask, ui=shown_in_editor(image, mask))
