"""ComfyUI's web server: the table of its routes, and events for the pages that are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web


def route_table() -> web.RouteTableDef:
    """Return the table that routes are added to before the server starts; each is served under /api too."""
    from server import PromptServer

    return PromptServer.instance.routes


def send_event(name: str, data: dict[str, Any]) -> None:
    """Send an event to every open page. May be called from any thread."""
    from server import PromptServer

    PromptServer.instance.send_sync(name, data)
