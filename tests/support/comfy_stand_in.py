"""What a batch needs of a ComfyUI, without one: clips are made at once, and any request may get another answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Answer = web.Response | None


class ComfyStandIn:
    """A server on loopback. It knows each node with whatever inputs it is said to have."""

    def __init__(self, instead: Callable[[str], Answer] = lambda path: None, check: bool = False) -> None:
        """instead: of a path, an answer in place of ComfyUI's. check: have Check Clip reject each clip, a higher seed
        with a lower score."""
        self.instead, self.check = instead, check
        self.asked: list[str] = []
        """Paths."""
        self.made: list[int] = []
        """Seeds of clips that were queued."""
        self.seeds: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path, body = request.path, await request.read()
        self.asked.append(path)
        last = path.rpartition("/")[2]
        if found := self.instead(path):
            return found
        if path == "/system_stats":
            return web.json_response({"system": {}})
        if path.startswith("/object_info/"):
            return web.json_response({last: {"input": {}}})
        if path == "/upload/image":
            return web.json_response({"name": "picture.png"})
        if path == "/prompt":
            queued = json.loads(body)
            seed = next(node["inputs"]["seed"] for node in queued["prompt"].values() if "seed" in node["inputs"])
            self.seeds[queued["prompt_id"]] = seed
            self.made.append(seed)
            return web.json_response({"prompt_id": queued["prompt_id"]})
        if path == "/view":
            return web.Response(body=f"clip of {request.query['filename']}".encode(), content_type="video/mp4")
        if last not in self.seeds:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response({"status": "completed", "outputs": self.outputs(self.seeds[last])})

    def outputs(self, seed: int) -> dict[str, dict]:
        clip = {"filename": f"{seed}.mp4", "subfolder": "", "type": "output"}
        report = {"report of check": {"text": [json.dumps({"pass": False, "score": 0.6 - seed / 10})]}}
        return {"save": {"images": [clip]}} | (report if self.check else {})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield the address."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
