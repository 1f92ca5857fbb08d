"""Save MP4: frames to a file."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.request import FPS
from .sockets import CATEGORY


class SaveMP4(io.ComfyNode):
    """Writes the frames as H.264 MP4 into ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveMP4",
            display_name="Save MP4 (Wan 2.2)",
            category=CATEGORY,
            description="An MP4 that plays everywhere: H.264, 4:2:0, BT.709. It keeps the workflow, so that dropping "
                        "the file on the canvas brings the graph back, and says that a model made it.",
            search_aliases=["save video", "video combine", "mp4", "export video"],
            inputs=[
                io.Image.Input("images", tooltip="The frames in order."),
                io.Float.Input("fps", default=float(FPS), min=1.0, max=120.0, step=0.01,
                               tooltip="Frames a second; Wan 2.2 makes 16."),
                io.String.Input("filename_prefix", default="wan22/clip",
                                tooltip="Folder and begin of the file's name inside ComfyUI's output folder; a number "
                                        "follows. Takes %date:yyyy-MM-dd% and %NodeName.widget%."),
                io.Float.Input("crf", default=17.0, min=0.0, max=51.0, step=1.0, optional=True, advanced=True,
                               tooltip="Quality: 17 is visually clean, higher makes smaller files."),
                io.Boolean.Input("mark_ai_generated", default=True, optional=True, advanced=True,
                                 tooltip="Say in the file's metadata that the clip is AI-generated."),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The file, for core's video nodes.")],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, images: object, fps: float, filename_prefix: str, crf: float = 17.0,
                mark_ai_generated: bool = True) -> io.NodeOutput:
        from comfy_api.latest import ui

        from ..pipeline import comfy_host
        from ..pipeline.save import save_clip

        with comfy_host.errors_on_node(cls.hidden.unique_id):
            height, width = images.shape[1:3]
            path, subfolder = comfy_host.new_output_file(filename_prefix, width, height, ".mp4")
            metadata = comfy_host.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
            save_clip(path, images, fps, crf, metadata, mark_ai_generated, comfy_host.progress())
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(comfy_host.video_from(path), ui=shown)
