"""How the canvas asks ComfyUI's server for a file of its output folder."""

from __future__ import annotations

from pathlib import Path


def shown_in(output: Path, path: Path) -> dict[str, str] | None:
    """The query of /view for a file of the output folder; None for one that lies elsewhere, which it does not get.

    Where neither lies in the other by its name, one of the two may still have been reached by a link.
    """
    folder = path.parent
    if not folder.is_relative_to(output):
        output, folder = output.resolve(), folder.resolve()
    if not folder.is_relative_to(output):
        return None
    subfolder = folder.relative_to(output).as_posix()
    return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}
