"""The runs of graphs that worked on remote jobs, and the workflow that asked for each: tables beside the jobs.

A workflow is stored without the queries of its links, which may be signed or hold a token.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..http.errors import redact_links
from .database import create, opened, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS drives (
    job TEXT NOT NULL, prompt_id TEXT NOT NULL, began REAL NOT NULL, PRIMARY KEY (job, prompt_id)
);
CREATE INDEX IF NOT EXISTS drives_by_prompt ON drives (prompt_id);
CREATE TABLE IF NOT EXISTS workflows (job TEXT PRIMARY KEY, packed BLOB NOT NULL);
"""


class JobRuns:
    """The tables; safe for several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def record(self, job_id: str, prompt_id: str, workflow: dict[str, Any] | None) -> None:
        """Record that a run works on a job; workflow: GraphRun.workflow of a run that asked for it, stored once."""
        with writing(self.folder) as base:
            base.execute("INSERT OR REPLACE INTO drives VALUES (?, ?, ?)", (job_id, prompt_id, time.time()))
            if workflow is not None:
                base.execute("INSERT OR IGNORE INTO workflows VALUES (?, ?)", (job_id, _packed(workflow)))

    def last_runs(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return job id -> prompt id of the last run that worked on it, as far as known."""
        with opened(self.folder) as base:
            return dict(base.execute("SELECT job, prompt_id FROM drives WHERE job IN (SELECT value FROM json_each(?)) "
                                     "ORDER BY began", (json.dumps([*job_ids]),)))

    def runs_with_jobs(self, prompt_ids: Collection[str]) -> set[str]:
        """Return those of the runs that worked on a job."""
        with opened(self.folder) as base:
            return {row[0] for row in base.execute("SELECT DISTINCT prompt_id FROM drives WHERE prompt_id IN (SELECT "
                                                   "value FROM json_each(?))", (json.dumps([*prompt_ids]),))}

    def jobs_of(self, prompt_ids: Collection[str]) -> dict[str, list[str]]:
        """Return, for those of the runs that worked on jobs, prompt id -> job ids, the latest last."""
        with opened(self.folder) as base:
            rows = base.execute("SELECT prompt_id, job FROM drives WHERE prompt_id IN (SELECT value FROM json_each(?)) "
                                "ORDER BY began", (json.dumps([*prompt_ids]),)).fetchall()
        jobs: dict[str, list[str]] = {}
        for prompt_id, job in rows:
            jobs.setdefault(prompt_id, []).append(job)
        return jobs

    def workflow(self, job_id: str) -> dict[str, Any] | None:
        """Return the workflow that asked for a job, with "shortened": whether links in it were redacted; else None."""
        with opened(self.folder) as base:
            row = base.execute("SELECT packed FROM workflows WHERE job = ?", (job_id,)).fetchone()
        return None if row is None else json.loads(zlib.decompress(row[0]))

    def jobs_with_workflow(self, job_ids: Collection[str]) -> set[str]:
        """Return those of the jobs whose workflow is stored."""
        with opened(self.folder) as base:
            return {row[0] for row in base.execute("SELECT job FROM workflows WHERE job IN (SELECT value FROM "
                                                   "json_each(?))", (json.dumps([*job_ids]),))}


def _packed(workflow: dict[str, Any]) -> bytes:
    redacted = redact_links(workflow)
    text = json.dumps({**redacted, "shortened": redacted != workflow}, ensure_ascii=False)
    return zlib.compress(text.encode(errors="replace"))
