"""Save Latent and Load Latent: a clip's latents on disk, half-way through sampling too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from comfy_api.latest import io

from ..pipeline.files.names import name_fault
from .sockets import CATEGORY

FOLDER = "wan22/latents"
"""Inside ComfyUI's output folder. One folder, so that listing it is quick however full the others are."""


def _saved() -> dict[str, Path]:
    """Files in FOLDER under the names that the list shows, the newest first."""
    import folder_paths

    changed: dict[Path, int] = {}
    for file in Path(folder_paths.get_output_directory(), FOLDER).glob("[!.]*.latent"):
        with suppress(OSError):  # it has gone meanwhile, or is a link to nothing
            changed[file] = file.stat().st_mtime_ns
    return {file.name: file for file in sorted(changed, key=changed.__getitem__, reverse=True)}


def _name_fault(name: str) -> str:
    """A sentence when a file of that name would not be in FOLDER, or an empty string."""
    if name != Path(name).name or name in ("", ".."):
        return f"name is {name!r}; give a plain name without folders: the file goes to {FOLDER} in the output folder."
    return name_fault(name, "name")


class SaveLatent(io.ComfyNode):
    """Writes a LATENT with all that is needed to go on sampling it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveLatent",
            display_name="Save Latent (Wan 2.2)",
            category=CATEGORY,
            description="Keeps the latents of the Wan 2.2 Sampler, after the high-noise stage too, so that the "
                        "low-noise stage can follow later: on the same bits as without the break. Core's Save Latent "
                        "leaves out what that takes.",
            search_aliases=["save latent", "export latent", "resume", "checkpoint"],
            inputs=[
                io.Latent.Input("latent", tooltip="The latent of the Wan 2.2 Sampler."),
                io.String.Input("name", default="clip",
                                tooltip=f"First part of the file's name in {FOLDER} of ComfyUI's output folder; a "
                                        "number follows. Takes %date:yyyy-MM-dd% and %NodeName.widget%."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same latent, to go on with at once.")],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return True if name is None else _name_fault(name) or True

    @classmethod
    def execute(cls, latent: dict, name: str) -> io.NodeOutput:
        from datetime import datetime

        from ..pipeline.files.names import fill_in
        from ..pipeline.host.files import new_output_file, shown_in_output, workflow_metadata
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.request import RequestError
        from ..pipeline.sampling.latent_file import save_latent

        with errors_on_node(cls.hidden.unique_id):
            name = fill_in(name, cls.hidden.prompt, cls.hidden.extra_pnginfo, datetime.now())
            if _name_fault(name):  # a linked name comes here unseen
                raise RequestError(_name_fault(name))
            path = save_latent(lambda: new_output_file(f"{FOLDER}/{name}", 0, 0, ".latent"), latent,
                               workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo))
        return io.NodeOutput(latent, ui={"latents": [shown_in_output(path)]})


class LoadLatent(io.ComfyNode):
    """Reads a file of SaveLatent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22LoadLatent",
            display_name="Load Latent (Wan 2.2)",
            category=CATEGORY,
            description="A latent of Save Latent (Wan 2.2), for Decode or for the next stage of the Wan 2.2 Sampler.",
            search_aliases=["load latent", "import latent", "resume", "checkpoint"],
            inputs=[
                io.Combo.Input("file", options=list(_saved()),
                               tooltip=f"A file in {FOLDER} of ComfyUI's output folder, the newest first."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent as it was saved.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        with suppress(KeyError, OSError):  # of a file that has gone, reading it says so
            return _saved()[file].stat().st_mtime_ns
        return 0

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from ..pipeline.host.files import output_path
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.sampling.latent_file import load_latent

        with errors_on_node(cls.hidden.unique_id):
            return io.NodeOutput(load_latent(output_path(f"{FOLDER}/{file}")))
