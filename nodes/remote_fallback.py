"""Remote Fallback: the provider to try next when the one before certainly did not accept the job."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE, profile_fault
from .remote_inputs import options_input, provider_inputs, read_target
from .sockets import CATEGORY, Providers


class RemoteFallback(io.ComfyNode):
    """Add a provider to the list of those to try."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22RemoteFallback",
            display_name="Remote Fallback (Wan 2.2)",
            category=CATEGORY,
            description="Adds a provider to try when those before certainly did not accept the job: no connection, no "
                        "balance, a key or a request refused, a price above your limits. A request refused by content "
                        "rules is never retried elsewhere, and one that may have been accepted is never sent again.",
            search_aliases=["failover", "provider list", "api fallback"],
            inputs=[
                *provider_inputs(),
                Providers.Input("before", optional=True, tooltip="Providers to try before this one, from another "
                                                                 "Remote Fallback."),
                options_input(),
            ],
            outputs=[Providers.Output(display_name="fallbacks", tooltip="List for Remote Image to Video, or for "
                                                                        "another Remote Fallback.")],
        )

    @classmethod
    def validate_inputs(cls, provider: dict[str, Any] | None = None, profile: str | None = None) -> bool | str:
        return profile_fault(profile) or True

    @classmethod
    def execute(cls, provider: dict[str, Any], profile: str = DEFAULT_PROFILE, before: tuple = (), options: str = "",
                ) -> io.NodeOutput:
        return io.NodeOutput((*before, read_target(provider, profile, options)))
