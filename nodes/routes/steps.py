"""POST /wan22/steps: which steps each expert takes, for the inputs of a sampler as they stand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .exchange import answer_inputs

if TYPE_CHECKING:
    from ...pipeline.node_inputs import NodeInputs


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the route. folder: the pack's system user directory."""

    @routes.post("/wan22/steps")
    async def steps(request: web.Request) -> web.Response:
        from ...pipeline.sampling.schedule import INPUTS, preview_steps

        async def find(inputs: NodeInputs) -> dict[str, Any]:
            return asdict(preview_steps(inputs))

        return await answer_inputs(request, INPUTS, find)
