"""Save Latent and Load Latent: a clip's latents on disk, finished or between the two experts."""

from __future__ import annotations

from contextlib import suppress

from comfy_api.latest import io

from ..pipeline.host.latents import FOLDER, name_fault, saved_latents
from .sockets import CATEGORY


class SaveLatent(io.ComfyNode):
    """Save a LATENT with the state that is needed to continue sampling it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveLatent",
            display_name="Save Latent (Wan 2.2)",
            category=CATEGORY,
            description="Saves the latents of Wan 2.2 Sampler, finished or after the high-noise stage, so that the "
                        "low-noise stage can continue later, bit for bit as without the break. Core's Save Latent "
                        "leaves out the state that this needs.",
            search_aliases=["save latent", "export latent", "resume", "checkpoint"],
            inputs=[
                io.Latent.Input("latent", tooltip="Latent of Wan 2.2 Sampler."),
                io.String.Input("name", default="clip",
                                tooltip=f"Beginning of the file name in {FOLDER} of ComfyUI's output folder; a number "
                                        "is added. %date:yyyy-MM-dd% and %NodeName.widget% are replaced."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same latent, to continue with at once.")],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return True if name is None else name_fault(name) or True

    @classmethod
    def execute(cls, latent: dict, name: str) -> io.NodeOutput:
        from ..pipeline.host.files import shown_in_output
        from ..pipeline.host.latents import save_as
        from ..pipeline.host.node import errors_on_node

        with errors_on_node(cls.hidden.unique_id):
            path = save_as(name, latent, cls.hidden)
        return io.NodeOutput(latent, ui={"latents": [shown_in_output(path)]})


class LoadLatent(io.ComfyNode):
    """Load a file of SaveLatent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22LoadLatent",
            display_name="Load Latent (Wan 2.2)",
            category=CATEGORY,
            description="Loads a latent of Save Latent (Wan 2.2), for Decode or for the next stage of Wan 2.2 Sampler.",
            search_aliases=["load latent", "import latent", "resume", "checkpoint"],
            inputs=[
                io.Combo.Input("file", options=list(saved_latents()),
                               tooltip=f"File in {FOLDER} of ComfyUI's output folder, newest first."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent as it was saved.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        with suppress(KeyError, OSError):  # a file that has gone is reported when it is read
            return saved_latents()[file].stat().st_mtime_ns
        return 0

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from ..pipeline.host.files import output_path
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.sampling.latent_file import load_latent

        with errors_on_node(cls.hidden.unique_id):
            return io.NodeOutput(load_latent(output_path(f"{FOLDER}/{file}")))
