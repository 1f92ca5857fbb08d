"""Attention: another attention function in both experts, ComfyUI's or one that a node has put on a MODEL."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.host.attention import AUTOMATIC, attention_names
from .sockets import CATEGORY, Model


class Attention(io.ComfyNode):
    """Choose the experts' attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Attention",
            display_name="Attention (Wan 2.2)",
            category=CATEGORY,
            description="Changes the attention of both experts, which is most of their work at 720p: to a function "
                        "that ComfyUI or another node has registered, such as sage, or to the override that a node "
                        "has put on a MODEL.",
            search_aliases=["sage attention", "sageattention", "flash attention", "sparse attention",
                            "attention override"],
            inputs=[
                Model.Input("model", tooltip="Both experts, from Load Wan 2.2."),
                io.Combo.Input("attention", options=attention_names(), default=AUTOMATIC,
                               tooltip="automatic is what ComfyUI was started with, such as --use-sage-attention. The "
                                       "others are those that this ComfyUI has; quantised ones change the clip a "
                                       "little."),
                io.Model.Input("override_from", optional=True,
                               tooltip="A MODEL of any kind, from a node that changes attention (Patch Sage Attention, "
                                       "sparse attention and the like). Its change is used in the experts too; nothing "
                                       "else of it is."),
            ],
            outputs=[Model.Output(display_name="model", tooltip="The same experts with this attention, for Wan 2.2 "
                                                                "Sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: object, attention: str, override_from: object = None) -> io.NodeOutput:
        from ..pipeline.host.attention import model_with_attention
        from ..pipeline.host.node import errors_on_node

        with errors_on_node(cls.hidden.unique_id):
            return io.NodeOutput(model_with_attention(model, attention, override_from))
