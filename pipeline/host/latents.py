"""Files of latents in ComfyUI's output folder. Imports nothing heavy: a schema lists them at start-up."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..files.names import fill_in
from ..files.names import name_fault as output_name_fault
from ..request import RequestError
from .folders import output_folder

FOLDER = "wan22/latents"
"""In the output folder. A folder of its own, so that listing it is quick however full the others are."""


def saved_latents() -> dict[str, Path]:
    """Return the files of FOLDER by their names, the newest first."""
    changed: dict[Path, int] = {}
    for file in (output_folder() / FOLDER).glob("[!.]*.latent"):
        with suppress(OSError):  # it has gone meanwhile, or is a link to nothing
            changed[file] = file.stat().st_mtime_ns
    return {file.name: file for file in sorted(changed, key=changed.__getitem__, reverse=True)}


def name_fault(name: str) -> str:
    """Return a sentence when a file of that name would not be in FOLDER, or an empty string."""
    if name != Path(name).name or name in ("", ".."):
        return f"name is {name!r}; give a plain name without folders: the file goes to {FOLDER} in the output folder."
    return output_name_fault(name, "name")


def save_as(name: str, latent: dict[str, Any], hidden: Any) -> Path:
    """Save a LATENT in FOLDER under a name, whose tokens are replaced, and a number.

    hidden: the node's hidden inputs prompt and extra_pnginfo. Raises RequestError for a name that is none, as a linked
    one may be, and as `save_latent` does.
    """
    from ..sampling.latent_file import save_latent
    from ..video.provenance import without_faults
    from .files import new_output_file, workflow_metadata

    prompt, extra_pnginfo = hidden.prompt, hidden.extra_pnginfo
    name = fill_in(name, prompt, extra_pnginfo, datetime.now())
    if fault := name_fault(name):
        raise RequestError(fault)
    return save_latent(lambda: new_output_file(f"{FOLDER}/{name}", 0, 0, ".latent"), latent,
                       without_faults([lambda: workflow_metadata(prompt, extra_pnginfo)])[0])
