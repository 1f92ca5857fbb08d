"""The list of jobs: clips of the ledger and of this server's runs.

GET /wan22/jobs?before=&limit=    a page, the newest first
GET /wan22/jobs?since=            the jobs that have changed
GET /wan22/jobs?runs=             what became of runs, by their ids with commas between them
GET /wan22/jobs/{id}/request      the request of a job
GET /wan22/jobs/{id}/workflow     the workflow that made it
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .exchange import check_page

if TYPE_CHECKING:
    from ...pipeline.jobs.board import JobBoard

PAGE = 50
"""Default of `limit`."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""
    server = uuid.uuid4().hex  # another one after a restart, at which ComfyUI forgets its queue

    @routes.get("/wan22/jobs")
    async def jobs(request: web.Request) -> web.Response:
        check_page(request)
        if "runs" in request.query:
            runs = {*request.query["runs"].split(",")}
            return await _answer(folder, lambda board: {**board.of_runs(runs), "server": server})
        since, before = _number(request, "since", -1.0), _number(request, "before", math.inf)
        most = int(_number(request, "limit", PAGE))
        return await _answer(folder, lambda board: {
            **(board.changes(since) if since >= 0 else board.page(before, most)), "server": server})

    @routes.get("/wan22/jobs/{name}/request")
    async def job_request(request: web.Request) -> web.Response:
        check_page(request)
        return await _answer(folder, lambda board: board.request(request.match_info["name"]))

    @routes.get("/wan22/jobs/{name}/workflow")
    async def workflow(request: web.Request) -> web.Response:
        check_page(request)
        return await _answer(folder, lambda board: board.workflow(request.match_info["name"]))


async def _answer(folder: Path, ask: Callable[[JobBoard], Any]) -> web.Response:
    try:
        return web.json_response(await asyncio.to_thread(lambda: ask(_board(folder))))
    except KeyError:
        raise web.HTTPNotFound(text="There is no such job, or its workflow is not known.") from None
    except ValueError as error:  # settings or a database that cannot be used
        raise web.HTTPConflict(text=str(error)) from None


def _board(folder: Path) -> JobBoard:
    from ...pipeline.host.folders import output_folder
    from ...pipeline.host.runs import read_queue
    from ...pipeline.jobs.board import JobBoard
    from ...pipeline.remote.job_runs import JobRuns
    from ...pipeline.remote.ledger import Ledger
    from ...pipeline.remote.settings import read_settings

    return JobBoard(Ledger(folder), JobRuns(folder), read_queue(), output_folder(), read_settings(folder).budget.day)


def _number(request: web.Request, name: str, default: float) -> float:
    try:
        number = float(request.query.get(name, default))
    except ValueError:
        number = math.nan
    if name in request.query and not math.isfinite(number):
        raise web.HTTPBadRequest(text=f"{name} is not a number.")
    return number
