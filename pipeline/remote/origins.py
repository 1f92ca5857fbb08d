"""Where remote jobs come from: the runs of graphs that drove them, and the workflow that asked. Tables beside the jobs.

A workflow is kept without the queries of its links, which may be signed or hold a token: the ledger's file has neither.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..http.errors import redact
from .database import create, opened, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS drives (
    job TEXT NOT NULL, prompt_id TEXT NOT NULL, began REAL NOT NULL, PRIMARY KEY (job, prompt_id)
);
CREATE INDEX IF NOT EXISTS drives_by_prompt ON drives (prompt_id);
CREATE TABLE IF NOT EXISTS workflows (job TEXT PRIMARY KEY, packed BLOB NOT NULL);
"""


class Origins:
    """The tables; for several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def note(self, job_id: str, prompt_id: str, workflow: dict[str, Any] | None) -> None:
        """Note that a run drives a job; the workflow, when it is what asks for the clip, is kept of the first such run.

        workflow: {"workflow": as the canvas saves it} or, without a canvas, {"graph": in API form}.
        """
        with writing(self.folder) as base:
            base.execute("INSERT OR REPLACE INTO drives VALUES (?, ?, ?)", (job_id, prompt_id, time.time()))
            if workflow is not None:
                base.execute("INSERT OR IGNORE INTO workflows VALUES (?, ?)", (job_id, _packed(workflow)))

    def drivers(self, job_ids: Collection[str]) -> dict[str, str]:
        """Job -> the run that drove it last, for those that any is known of."""
        with opened(self.folder) as base:
            return dict(base.execute("SELECT job, prompt_id FROM drives WHERE job IN (SELECT value FROM json_each(?)) "
                                     "ORDER BY began", (json.dumps([*job_ids]),)))

    def with_jobs(self, prompt_ids: Collection[str]) -> set[str]:
        """Those of these runs that drove a job."""
        with opened(self.folder) as base:
            return {row[0] for row in base.execute("SELECT DISTINCT prompt_id FROM drives WHERE prompt_id IN (SELECT "
                                                   "value FROM json_each(?))", (json.dumps([*prompt_ids]),))}

    def workflow(self, job_id: str) -> dict[str, Any] | None:
        """What asked for a job, as `note` took it; with "shortened": whether links in it lost their queries."""
        with opened(self.folder) as base:
            row = base.execute("SELECT packed FROM workflows WHERE job = ?", (job_id,)).fetchone()
        return None if row is None else json.loads(zlib.decompress(row[0]))

    def kept(self, job_ids: Collection[str]) -> set[str]:
        """Those of these jobs whose workflow there is."""
        with opened(self.folder) as base:
            return {row[0] for row in base.execute("SELECT job FROM workflows WHERE job IN (SELECT value FROM "
                                                   "json_each(?))", (json.dumps([*job_ids]),))}


def _packed(workflow: dict[str, Any]) -> bytes:
    kept = without_queries(workflow)
    return zlib.compress(json.dumps({**kept, "shortened": kept != workflow}, ensure_ascii=False).encode(
        errors="replace"))
_LINK = re.compile(r"[a-z]+://[^\s\"'<>]+", re.IGNORECASE)


def without_queries(value: Any) -> Any:
    """JSON with every link in its texts shortened to what may be shown."""
    if isinstance(value, str):
        return _LINK.sub(lambda link: redact(link[0]), value)
    if isinstance(value, list):
        return [without_queries(item) for item in value]
    if isinstance(value, dict):
        return {name: without_queries(item) for name, item in value.items()}
    return value
