"""Remote Fallback: who else may make a clip, when the provider before provably did not take it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE
from .remote_inputs import profile_fault, provider_inputs, read_target
from .sockets import CATEGORY, Providers


class RemoteFallback(io.ComfyNode):
    """A provider to ask next; chainable."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22RemoteFallback",
            display_name="Remote Fallback (Wan 2.2)",
            category=CATEGORY,
            description="A provider to ask when the ones before provably did not take the job: no answer to the "
                        "connection, no balance, a key or a request refused, a price above your limits. A request "
                        "that the content rules refuse is not taken elsewhere, and one that may have been accepted is "
                        "never sent again.",
            search_aliases=["failover", "provider list", "api fallback"],
            inputs=[
                *provider_inputs(),
                Providers.Input("before", optional=True, tooltip="Providers to ask before this one, from another of "
                                                                 "these nodes."),
            ],
            outputs=[Providers.Output(display_name="fallbacks", tooltip="For Remote Image to Video, or another of "
                                                                        "these nodes.")],
        )

    @classmethod
    def validate_inputs(cls, provider: dict[str, Any] | None = None, profile: str | None = None) -> bool | str:
        return profile_fault(profile) or True

    @classmethod
    def execute(cls, provider: dict[str, Any], profile: str = DEFAULT_PROFILE, before: tuple = ()) -> io.NodeOutput:
        return io.NodeOutput((*before, read_target(provider, profile)))
