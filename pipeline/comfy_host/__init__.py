"""ComfyUI as the host: the only part of the pipeline that touches it.

Written for ComfyUI 0.30; imported only inside a running ComfyUI, and only once a node is executed.
"""

from .files import new_output_file, output_path, video_from, workflow_metadata
from .models import host, memory
from .node import errors_on_node, progress, progress_with_preview, say, stop_if_asked
from .stages import stage_runner

__all__ = ["errors_on_node", "host", "memory", "new_output_file", "output_path", "progress", "progress_with_preview",
           "say", "stage_runner", "stop_if_asked", "video_from", "workflow_metadata"]
