"""How a finished clip is shown on its node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.video.probe import Clip


def shown_clip(path: Path, clip: Clip) -> dict[str, Any] | None:
    """What ComfyUI's own preview shows (as its ui.PreviewVideo), with what the player must know of the file.

    None for a clip outside ComfyUI's output folder, such as one that was bought while that was another: the canvas
    cannot get it, and the node's outputs go without. The facts lie beside the file's name, so that they stay with it in
    lists of clips, in the history and in the jobs; plain values, because the canvas makes an address of them all.
    """
    from ..pipeline.host.files import shown_in_output

    shown = shown_in_output(path)
    if shown is None:
        return None
    facts = {"fps": str(clip.rate), "num_frames": clip.frames, "width": clip.width, "height": clip.height,
             "codec": clip.codec, "pix_fmt": clip.pix_fmt, "has_sound": clip.has_sound}
    return {"images": [{**shown, **facts}], "animated": (True,)}
