"""Camera Path: the way of the camera over a picture, drawn or typed."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.motion.path import read_camera_path
from ..pipeline.motion.presets import preset_json
from .motion_inputs import shown_in_editor, strength_input, strength_of, validate_motion
from .size_inputs import num_frames_input, resolution_input, size_of
from .sockets import CATEGORY, Motion


class CameraPath(io.ComfyNode):
    """Move a camera over a picture, and give the clip of it that steers the sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22CameraPath",
            display_name="Camera Path (Wan 2.2)",
            category=CATEGORY,
            description="Moves the camera over a picture on a path of keyframes: pan, tilt, zoom, roll, orbit, or no "
                        "motion at all. The sampler then makes a clip whose camera goes there, by Time-to-Move.",
            search_aliases=["camera control", "camera motion", "pan", "zoom", "orbit", "static camera", "time to move"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE from Load Wan 2.2, or wan_2.1_vae from Load VAE."),
                io.Image.Input("image", tooltip="The whole picture, which may be larger than the camera's frame: one, "
                                                "without transparency, at least 32x32 pixels."),
                io.String.Input("path", default=preset_json("zoom in"), multiline=False,
                                tooltip="The camera's frame at times t from 0 to 1, as JSON: x and y in its widths and "
                                        "heights, zoom, roll, tilt and orbit in degrees; and the easing."),
                resolution_input(),
                num_frames_input(),
                strength_input(),
                io.Image.Input("depth", optional=True,
                               tooltip="Depth of the picture, bright being near, from any depth node: what is near "
                                       "then moves further than what is far."),
            ],
            outputs=[
                Motion.Output(display_name="motion", tooltip="The motion, for Wan 2.2 Sampler or Move Object."),
                io.Image.Output(display_name="start_image", tooltip="What the camera shows at the start, for First "
                                                                    "Frame."),
                io.Image.Output(display_name="images", tooltip="The moved picture as frames: what the clip follows."),
                io.Mask.Output(display_name="mask", tooltip="Where each of these frames shows the picture, and not "
                                                            "what was filled in around it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, path: str | None = None, resolution: dict[str, Any] | None = None,
                        num_frames: int | None = None, strength: dict[str, Any] | None = None) -> bool | str:
        return validate_motion(read_camera_path, path, resolution, num_frames, strength)

    @classmethod
    def execute(cls, vae: object, image: object, path: str, resolution: dict[str, Any], num_frames: int,
                strength: dict[str, Any], depth: object = None) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, progress
        from ..pipeline.motion.motion import move_camera

        with errors_on_node(cls.hidden.unique_id):
            motion = move_camera(vae, image, *size_of(resolution), num_frames, read_camera_path(path),
                                 strength_of(strength), depth)
            shown = motion.render(progress())
            start_image = shown.images[:1].clone()  # a view of the first frame would keep all of them
            return io.NodeOutput(motion, start_image, shown.images, shown.mask, ui=shown_in_editor(image))
