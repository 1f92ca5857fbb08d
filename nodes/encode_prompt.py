"""Encode Prompt: both prompts to conditioning."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY


class EncodePrompt(io.ComfyNode):
    """Encode the prompt and the negative prompt into the text embeddings that the experts read."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22EncodePrompt",
            display_name="Encode Prompt (Wan 2.2)",
            category=CATEGORY,
            description="Describe what should happen, and what should not. Encodes both prompts with the text encoder; "
                        "at most 512 tokens each.",
            search_aliases=["prompt", "text encode", "wan prompt"],
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoder from Load Wan 2.2, or from a CLIP loader of type wan."),
                io.String.Input("prompt", multiline=True, default="the camera pans right",
                                tooltip="Describe what should move, and how. At most 512 tokens. The bundled model "
                                        "knows: the camera pans left, right, up or down; zooms in or out; the ball "
                                        "moves left, right, up or down; everything turns red or blue; the scene fades "
                                        "to black; nothing moves; slowly or quickly. Brackets weigh words: "
                                        "(slowly:1.4); \\( and \\) are brackets of the text."),
                io.String.Input("negative_prompt", multiline=True, default="",
                                tooltip="Describe what should not appear. At most 512 tokens; ignored at guidance 1. "
                                        "Brackets weigh words as in the prompt."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Text embeddings of the prompt."),
                io.Conditioning.Output(display_name="negative", tooltip="Text embeddings of the negative prompt."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip: object, prompt: str, negative_prompt: str) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node
        from ..pipeline.models.text_encoder import encode_prompts

        with errors_on_node(cls.hidden.unique_id):
            return io.NodeOutput(*encode_prompts(clip, prompt, negative_prompt))
