"""Write a clip's MP4 into ComfyUI's output folder, with the running node's progress, Stop and text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from comfy.cli_args import args

from ..video.mp4_settings import Mp4Settings, read_settings
from ..video.mp4_writer import Written
from ..video.save import Mp4
from .files import new_output_file, workflow_metadata
from .node import errors_on_node, progress, show_text, stop_if_asked
from .runs import sent_node
from .video import clip_preview, video_from

Write = Callable[[Mp4, Callable[[int, int], None], Callable[[], None]], Written]
"""(all of the file but its frames, on_frame(done, total), stop) -> the file."""


def _node_in(prompt: Any, node_id: str | None) -> str | None:
    """Return the node's id in the graph that was sent; None when nobody can tell, which costs no clip."""
    if node_id is None or (isinstance(prompt, dict) and node_id in prompt):
        return node_id
    with suppress(Exception):  # of an executor that copies nodes in a way of its own
        return sent_node(node_id)
    return None


def new_mp4(hidden: Any, width: int, height: int, values: Mapping[str, Any]) -> tuple[Mp4, Mp4Settings, str]:
    """Return the MP4 that a node's inputs describe, those inputs, and a sentence when metadata is left out.

    hidden: the node's hidden inputs (unique_id, prompt, extra_pnginfo). width, height: pixels, for %width% in the name.
    Raises RequestError for inputs that cannot make a file.
    """
    prompt, node_id = hidden.prompt, hidden.unique_id
    settings = read_settings(values, prompt, hidden.extra_pnginfo, datetime.now())
    graph = None if args.disable_metadata else lambda: workflow_metadata(prompt, hidden.extra_pnginfo)
    metadata, lacking = settings.metadata(graph, prompt, _node_in(prompt, node_id))
    return Mp4(lambda: new_output_file(settings.filename_prefix, width, height, ".mp4"), settings.encoding, metadata,
               settings.audio), settings, lacking


def save_mp4(hidden: Any, width: int, height: int, values: Mapping[str, Any],
             write: Write) -> tuple[Any, dict[str, Any] | None]:
    """Have `write` make the file that the node's inputs describe; return it as VIDEO, and its preview.

    Raises as `new_mp4` and `write` do.
    """
    node_id = hidden.unique_id
    with errors_on_node(node_id):
        mp4, _, lacking = new_mp4(hidden, width, height, values)
        written = write(mp4, progress(), stop_if_asked)
        if written.note or lacking:
            show_text(node_id, "\n".join(filter(None, (written.note, lacking))))
        return video_from(written.path), clip_preview(written.path, written.clip)
