"""POST /wan22/lora/check: what the headers of the LoRA files that a node names hold."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .exchange import answer_inputs

if TYPE_CHECKING:
    from ...pipeline.node_inputs import NodeInputs

AT_ONCE = 3
"""Checks at the same time; others wait for their turn. Each takes at most 20 seconds of a server's time per file."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the route. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    @routes.post("/wan22/lora/check")
    async def check(request: web.Request) -> web.Response:
        from ...pipeline.host.folders import download_folder, lora_file
        from ...pipeline.lora.header_check import INPUTS, check_loras
        from ...pipeline.remote.settings import read_settings

        async def find(inputs: NodeInputs) -> dict[str, Any]:
            async with slots:
                found = await asyncio.to_thread(check_loras, inputs, lora_file, download_folder(), folder,
                                                read_settings(folder).local_only)
            files = [asdict(file) for file in found.pop("files", ())]
            return {**found, "files": files}

        return await answer_inputs(request, INPUTS, find)
