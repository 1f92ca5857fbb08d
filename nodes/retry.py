"""Retry: a clip that fails its check is made again with another seed."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.request import RequestError
from .sockets import CATEGORY

GIVE, STOP = "give the last", "stop"


class Retry(io.ComfyNode):
    """Pass a clip on, or have the nodes before it run again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Retry",
            display_name="Retry (Wan 2.2)",
            category=CATEGORY,
            description="Passes a clip on when it passed its check. When it failed, the nodes before it run again with "
                        "the next seed, as often as allowed. Only what depends on a seed is made again.",
            search_aliases=["loop", "again", "reroll", "quality gate"],
            inputs=[
                io.AnyType.Input("clip", tooltip="The clip: a VIDEO, frames or latents."),
                io.Boolean.Input("passed", force_input=True, tooltip="pass from Check Clip, for this clip."),
                io.Int.Input("retries", default=3, min=0, max=20,
                             tooltip="How often a clip that failed is made again, with a seed one higher each time."),
                io.Combo.Input("when_none_passes", options=[GIVE, STOP], default=GIVE,
                               tooltip="After the last try: give the last clip all the same, or stop with an error."),
                io.Boolean.Input("buy_again", default=False, advanced=True,
                                 tooltip="Allow retries of Remote Image to Video: each buys a clip, for at most its "
                                         "max_cost, which must be set."),
            ],
            outputs=[
                io.AnyType.Output(display_name="clip", tooltip="The clip that passed, or the last one."),
                io.Boolean.Output(display_name="passed", tooltip="True when it passed."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, clip: Any, passed: bool, retries: int, when_none_passes: str, buy_again: bool) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, show_text
        from ..pipeline.host.retry import run_again

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            if passed:
                return io.NodeOutput(clip, True)
            if retries < 1:
                if when_none_passes == STOP:
                    raise RequestError("No clip passed its check. Look at the report of Check Clip; more retries, "
                                       "another prompt or more steps may help.")
                show_text(node_id, "No clip passed its check; this is the last one.")
                return io.NodeOutput(clip, False)
            graph, copy, seeds = run_again(cls.hidden.dynprompt, node_id, {"retries": retries - 1}, may_buy=buy_again)
            show_text(node_id, f"The clip failed its check: again with seed {', '.join(map(str, seeds))}; "
                               f"{retries - 1} more tries after that.")
            return io.NodeOutput([copy, 0], [copy, 1], expand=graph)
