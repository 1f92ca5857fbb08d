"""The common part of the four providers' servers: jobs that go by a script, money, uploads.

    server = FalServer(tmp_path)                      # its own CdnServer is server.cdn; or FalServer(tmp_path, cdn)
    server.script = Script(queued=0, running=2)       # how every job goes from now on
    server.plan(Script(end="failed"), Script())       # how the next jobs go, one each
    server.fail("submit", reset(after=True))          # what goes wrong (faults.py), at one of server.points
    server.loopback(), server.ca                      # where its hosts are: {host: (address, port)}, and whose CA
    server.jobs, server.accepted, server.spent        # what was bought
    server.seen, server.asked("submit")               # what was asked
    server.violations, server.cdn.violations          # to be asserted empty
    server.close()

A job has no clock: it goes on each time it is polled, so that tests are the same on a slow machine, and a job that
nobody polls stays where it is. The server's own key is `server.key`.

The official clients wavespeed 2.0.5, fal-client 1.0.3 and replicate 1.0.7 were run against these servers: upload,
submit, poll, result, cancel, refusals, and replicate's check of a callback.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tests.support.api_server import Answer, ApiServer, Refused
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import FPS, CdnServer
from tests.support.providers.inputs import (
    REFUSED_WORD,
    BadPicture,
    Inputs,
    Upload,
    check_picture,
    inline_picture,
)
from tests.support.providers.job import Job, Script
from tests.support.providers.webhook_keys import Callback

PICTURES = {"image", "last_image", "image_url", "end_image_url"}
"""Fields of inputs that are pictures."""


class ProviderServer(ApiServer):
    """A provider; see the module's text. The subclass says what it is like."""

    provider: str
    cdn_host: str
    scheme = "Bearer"
    models: dict[str, type[Inputs]]
    """Id -> inputs of each model served."""
    ends: tuple[str, ...]
    """Ends of jobs; the first three are done, failed and refused everywhere."""
    media_hosts: tuple[str, ...] = ()
    """Hosts of uploads: a link there must be of an upload that was made."""
    bare_base64 = False
    """Takes a picture as base64 without being a data URI."""
    inline_pictures = True

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        """folder: gets the CA. cdn: whose host `cdn_host` serves the clips; else one of its own, closed with it."""
        self._own_cdn = cdn is None
        self.cdn = cdn or CdnServer(folder, (self.cdn_host,))
        self.key = key or f"{self.provider}-secret-0123456789abcdef"
        self.cdn.keys.add(self.key)
        self.script = Script()
        self.balance = 1000.0
        self.jobs: dict[str, Job] = {}
        self.uploads: dict[str, Upload] = {}
        self.most_unfinished = 0
        self._planned: deque[Script] = deque()
        super().__init__(folder, self.hosts)

    @abstractmethod
    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        """A refusal in the provider's own shape.

        kind: auth, malformed, model, invalid, picture, balance, job (no such job), webhook.
        """

    @abstractmethod
    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        """US dollars of a job."""

    @abstractmethod
    def frames(self, job: Job) -> int:
        """Return how many frames the inputs ask for."""

    def fps(self, job: Job) -> int:
        """Frames a second that the inputs ask for."""
        return FPS

    @abstractmethod
    def callback(self, job: Job, *, at: int | None = None) -> Callback:
        """The signed request by which the provider tells of the job as it is now; at: Unix time, else now."""

    @property
    def accepted(self) -> int:
        """Jobs that exist, which is submits that count as paid."""
        return len(self.jobs)

    @property
    def spent(self) -> float:
        return round(sum(job.price for job in self.jobs.values()), 4)

    def plan(self, *scripts: Script) -> None:
        """The scripts of the next jobs, before `script` counts again."""
        for script in scripts:
            self._check_end(script)
        self._planned.extend(scripts)

    def refuse(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Refused:
        return Refused(self.native_error(kind, text, details))

    def loopback(self) -> dict[str, tuple[str, int]]:
        """With its own CDN's hosts; a CDN that it was given tells its hosts itself."""
        return {**super().loopback(), **(self.cdn.loopback() if self._own_cdn else {})}

    def close(self) -> None:
        super().close()
        if self._own_cdn:
            self.cdn.close()

    def authorise(self, request: Request) -> None:
        if request.seen.headers.get("authorization") != f"{self.scheme} {self.key}":
            raise self.refuse("auth", "Invalid or missing API key.")

    def object_body(self, request: Request) -> dict[str, Any]:
        """The JSON object of the body, sent as application/json."""
        kind = request.seen.headers.get("content-type", "")
        if not re.fullmatch(r"application/json(; *charset=utf-8)?", kind, re.IGNORECASE):
            raise self.refuse("malformed", "The content type must be application/json.")
        if not isinstance(request.seen.body, dict):
            raise self.refuse("malformed", "The request body is not a JSON object.")
        return request.seen.body

    def allow_query(self, request: Request, *names: str) -> None:
        strange = sorted(set(request.seen.query) - set(names))
        if strange:
            raise self.refuse("malformed", f"Unknown query parameters: {', '.join(strange)}.")

    def errors(self, model: str, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the errors of the inputs, as pydantic's and fal's list: {type, loc, msg, input, ...}."""
        try:
            self.models[model].model_validate(inputs)
        except ValidationError as error:
            return [{**e, "loc": ["body", *e["loc"]]} for e in error.errors(include_url=False, include_context=False)]
        return []

    def check_inputs(self, model: str, inputs: dict[str, Any]) -> None:
        """Raises Refused: kind invalid."""
        errors = self.errors(model, inputs)
        if errors:
            text = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in errors)
            raise self.refuse("invalid", text, errors)

    def check_pictures(self, inputs: dict[str, Any]) -> None:
        """Raises BadPicture, with `field` of the inputs."""
        for name in PICTURES & set(inputs):
            try:
                if inputs[name] is not None:
                    self.check_picture(inputs[name])
            except BadPicture as bad:
                bad.field = name
                raise

    def check_picture(self, value: str) -> None:
        """Raises BadPicture unless the provider could get the picture and could take it."""
        data = inline_picture(value, bare=self.bare_base64) if self.inline_pictures else None
        if data is None:
            if not re.match(r"https://[^/?#\s@]+/\S+$", value):
                raise BadPicture("format", "The image is neither an https URL nor base64 data that is taken here.")
            if not value.startswith(tuple(f"https://{host}/" for host in self.media_hosts)):
                return  # some other server's; whether it is there is not known here
            if value not in self.uploads:
                raise BadPicture("fetch", "The image could not be downloaded.")
            data = self.uploads[value].data
        check_picture(data)

    def keep_upload(self, host: str, name: str, content_type: str, data: bytes) -> Upload:
        """Keep a file, under a link that cannot be guessed."""
        token = _digest(self.provider, "upload", str(len(self.uploads)))[:16]
        suffix = re.search(r"\.[A-Za-z0-9]{1,12}$", name)
        upload = Upload(f"https://{host}/files/{token}{suffix[0] if suffix else ''}", name, content_type, data)
        self.uploads[upload.url] = upload
        return upload

    def accept(self, model: str, inputs: dict[str, Any], *, webhook: str | None = None,
               invalid: list[dict[str, Any]] | None = None) -> Job:
        """A new job; its price is taken off the balance unless it is invalid. Raises Refused: balance."""
        price = 0.0 if invalid else self.cost(model, inputs)
        if price > self.balance:
            raise self.refuse("balance", "Insufficient balance.")
        script = self._planned.popleft() if self._planned else self.script
        self._check_end(script)
        if REFUSED_WORD in str(inputs.get("prompt", "")):
            script = replace(script, end="refused")
        job = Job(self.new_id(len(self.jobs)), model, inputs, price, script, webhook, invalid or [])
        self.jobs[job.id] = job
        self.balance -= price
        self.most_unfinished = max(self.most_unfinished, self.unfinished())
        return job

    def new_id(self, number: int) -> str:
        return _digest(self.provider, "job", str(number))[:32]

    def job(self, job_id: str) -> Job:
        """Raises Refused: job."""
        job = self.jobs.get(job_id)
        if job is None or job.deleted:
            raise self.refuse("job", "No such job.")
        return job

    def poll(self, job_id: str) -> Job:
        """The job after one more poll. Raises Refused: job."""
        job = self.job(job_id)
        if not job.finished:
            job.polls += 1
        if job.phase == "missing":
            raise self.refuse("job", "No such job.")
        return job

    def cancel(self, job_id: str) -> Job:
        """The job after its cancel was asked for. Raises Refused: job."""
        job = self.job(job_id)
        job.cancels += 1
        if not job.finished and not job.script.deaf:
            job.cancelled = True
        return job

    def finish(self, job: Job) -> None:
        """Let it end without being polled, for a callback that comes first."""
        job.polls = max(job.polls, job.script.missing + job.script.queued + job.script.running + 1)

    def clip(self, job: Job) -> str:
        """The link of its clip; a fresh one each time while those before have expired."""
        frames = job.script.frames or self.frames(job)
        job.link = self.cdn.publish(self.cdn_host, job.id, frames, self.fps(job), expired=job.script.expired)
        return job.link

    def unfinished(self) -> int:
        return sum(not job.finished for job in self.jobs.values())

    def _check_end(self, script: Script) -> None:
        if script.end not in self.ends:
            raise ValueError(f"A job of {self.provider} cannot end {script.end!r}, only {', '.join(self.ends)}.")


def _digest(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()
