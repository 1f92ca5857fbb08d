"""LoRA: a link or a file for one expert or both, added to a list that every sampler takes."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline import request
from ..pipeline.host.folders import lora_file
from ..pipeline.lora.lora import new_loras
from ..pipeline.lora.peft_config import SIDECAR
from .sockets import CATEGORY, Loras


class LoraNode(io.ComfyNode):
    """Add a LoRA, or a pair, to the list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Lora",
            display_name="LoRA (Wan 2.2)",
            category=CATEGORY,
            description="Adds a LoRA by link or from the loras folder, .safetensors only. The sampler checks its "
                        "header first, downloads it once, and applies it without changing the model. Chain these nodes "
                        "to use several.",
            search_aliases=["lora", "lora url", "load lora", "civitai", "hugging face"],
            inputs=[
                io.String.Input("source", default="",
                                tooltip="https link to a .safetensors file; owner/repo or owner/repo/file.safetensors "
                                        "of Hugging Face, or a link to it; a Civitai page, download link or AIR; or a "
                                        "file of the loras folder. The bundled model has a pair of its own: "
                                        "wan2.2_i2v_demo_drain_colours_high_noise.safetensors and "
                                        "..._low_noise.safetensors."),
                io.Float.Input("scale", default=request.DEFAULT_SCALE, min=0.0, max=1.0, step=0.05,
                               display_mode=io.NumberDisplay.slider,
                               tooltip="Strength of the LoRA: 0 is off, 1 as it was trained."),
                io.Combo.Input("expert", options=list(request.LORA_EXPERTS), default=request.AUTO,
                               tooltip="Expert to apply it to. auto decides by the file's content and name, and the "
                                       "sampler shows the choice."),
                Loras.Input("loras", optional=True, tooltip="More LoRAs, from another LoRA node."),
                io.String.Input("source_low", default="", optional=True,
                                tooltip="Low-noise file of a LoRA that is a pair; source is then the high-noise file."),
                io.Float.Input("exact_scale", default=0.0, min=-request.MAX_SCALE, max=request.MAX_SCALE, step=0.05,
                               optional=True, advanced=True,
                               tooltip="Scale outside the slider's range, -4 to 4, as some distilled LoRAs need; 0 "
                                       "uses the slider."),
                io.String.Input("sha256", default="", optional=True, advanced=True,
                                tooltip="Expected SHA-256 of the file, 64 hexadecimal digits. Once a file with it is "
                                        "here, the network is not used again."),
                io.String.Input("sha256_low", default="", optional=True, advanced=True,
                                tooltip="Expected SHA-256 of source_low."),
                io.Float.Input("min_match", default=request.DEFAULT_MIN_MATCH, min=0.0, max=1.0, step=0.05,
                               optional=True, advanced=True,
                               tooltip="Share of the LoRA's keys that must fit the model; the run stops below it."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                               tooltip="Where in the clip's steps the LoRA begins to act: 0 is the first step, 0.5 the "
                                       "middle. Wan 2.2 Sampler shows the steps."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                               tooltip="Where in the clip's steps the LoRA stops acting: 1 is after the last step."),
                io.Float.Input("fade_in", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
                               tooltip="Share of the LoRA's steps in which it rises evenly to its scale: 0 is at once, "
                                       "1 takes them all."),
                io.Float.Input("fade_out", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
                               tooltip="Share of the LoRA's steps in which it falls evenly from its scale; together "
                                       "with fade_in at most 1."),
            ],
            outputs=[Loras.Output(display_name="loras", tooltip="List for a sampler, or for another LoRA node.")],
        )

    @classmethod
    def validate_inputs(cls, source: str | None = None, expert: str | None = None, source_low: str | None = "",
                        sha256: str | None = "", sha256_low: str | None = "", start_percent: float | None = 0.0,
                        end_percent: float | None = 1.0, fade_in: float | None = 0.0, fade_out: float | None = 0.0,
                        ) -> bool | str:
        schedule = (start_percent, end_percent, fade_in, fade_out)
        if None in (source, expert, source_low, sha256, sha256_low, *schedule):  # linked: checked when the node runs
            return True
        try:
            new_loras(source, request.DEFAULT_SCALE, expert, request.DEFAULT_MIN_MATCH, sha256, source_low,
                      sha256_low, request.LoraSchedule(*schedule))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, source: str, source_low: str = "", **given: object) -> list[tuple[int, int]]:
        """Return size and time of the files in the loras folder, so that a replaced one is read again.

        The alpha of a LoRA may be in an adapter_config.json beside it.
        """
        found = [path for path in (lora_file(name) for name in (source, source_low) if name) if path]
        paths = [*found, *(path.parent / SIDECAR for path in found)]
        return [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths if path.is_file())]

    @classmethod
    def execute(cls, source: str, scale: float, expert: str, loras: tuple = (), source_low: str = "",
                exact_scale: float = 0.0, sha256: str = "", sha256_low: str = "",
                min_match: float = request.DEFAULT_MIN_MATCH, **schedule: float) -> io.NodeOutput:
        return io.NodeOutput((*loras, *new_loras(source, exact_scale or scale, expert, min_match, sha256, source_low,
                                                 sha256_low, request.LoraSchedule(**schedule))))
