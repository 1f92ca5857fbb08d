"""Replicate as its Python client 1.0.7, its HTTP reference and the models' published schemas describe it.

Decided here, because nothing settles it:
- Unknown or wrong inputs are 422 {title, status, detail, invalid_fields}; the real one reports unknown fields of the
  body so, and this one those inside `input` too.
- `Authorization: Token` of old clients is refused. A picture as a data URI may have 256 KiB, what the documentation
  recommends at most.
- A LoRA's link is https and ends in .safetensors.
- A cancel of a finished prediction answers 200 with the prediction as it is.
- A clip that was deleted: output null and data_removed true.
- No price is published; this server's are $0.01 a second at 480p and $0.02 at 720p, as seconds at 16 frames.
- refused is a failed prediction whose error text speaks of sensitive content (E005).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tests.support.api_server import Answer, Route, json_answer
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import HOSTS, CdnServer
from tests.support.providers.inputs import (
    BadPicture,
    Inputs,
    LoraPath,
    Prompt,
    check_picture,
    form_file,
    inline_picture,
    is_public_https,
)
from tests.support.providers.job import Job
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import Callback

API = "api.replicate.com"
LARGEST_DATA_URI = 256 * 2**10
EVENTS = {"start", "output", "logs", "completed"}


class Fast(Inputs):
    """wan-2.2-i2v-fast."""

    image: str
    prompt: Prompt
    last_image: str | None = None
    num_frames: Annotated[int, Field(ge=81, le=121)] = 81
    resolution: Literal["480p", "720p"] = "480p"
    frames_per_second: Annotated[int, Field(ge=5, le=30)] = 16
    interpolate_output: bool = False
    go_fast: bool = True
    sample_shift: Annotated[float, Field(ge=1, le=20)] = 12
    seed: int | None = None
    disable_safety_checker: bool = False
    lora_weights_transformer: LoraPath | None = None
    lora_scale_transformer: float = 1
    lora_weights_transformer_2: LoraPath | None = None
    lora_scale_transformer_2: float = 1


class Plain(Inputs):
    """wan-2.2-i2v-a14b."""

    image: str
    prompt: Prompt
    num_frames: Annotated[int, Field(ge=81, le=100)] = 81
    resolution: Literal["480p", "720p"] = "480p"
    frames_per_second: Annotated[int, Field(ge=5, le=24)] = 16
    sample_steps: Annotated[int, Field(ge=1, le=50)] = 30
    sample_shift: Annotated[float, Field(ge=1, le=20)] = 5
    go_fast: bool = False
    seed: int | None = None


TITLES = {"auth": (401, "Unauthenticated", "You did not pass a valid authentication token"),
          "malformed": (400, "Bad request", ""),
          "model": (404, "Not found", "The requested resource could not be found."),
          "job": (404, "Not found", "The requested resource could not be found."),
          "invalid": (422, "Input validation failed", ""), "picture": (422, "Input validation failed", ""),
          "webhook": (422, "Input validation failed", ""),
          "balance": (402, "Insufficient credit", "You have insufficient credit to run this model.")}
FAILURES = {"failed": "Prediction failed: CUDA out of memory.", "aborted": "Prediction was aborted.",
            "refused": "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"}


class ReplicateServer(ProviderServer):
    provider, cdn_host = "replicate", HOSTS[3]
    hosts = (API,)
    media_hosts = (API,)
    points = ("submit", "poll", "cancel", "upload", "models", "secret", "history")
    ends = ("done", "failed", "refused", "aborted", "cancelled", "empty", "list", "deleted")
    """empty: succeeded with output null; list: output as a list of one link, in place of the link; deleted: an hour
    after it was done."""
    models = {"wan-video/wan-2.2-i2v-fast": Fast, "wan-video/wan-2.2-i2v-a14b": Plain}

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        self.webhook_secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        model = r"/v1/models/(?P<model>[\w.-]+/[\w.-]+)"
        self.routes = [
            Route("POST", API, rf"{model}/predictions", "submit", self._submit),
            Route("GET", API, r"/v1/predictions", "history", self._history),
            Route("GET", API, r"/v1/predictions/(?P<job_id>[^/]+)", "poll", self._poll),
            Route("POST", API, r"/v1/predictions/(?P<job_id>[^/]+)/cancel", "cancel", self._cancel),
            Route("POST", API, r"/v1/files", "upload", self._upload),
            Route("GET", API, model, "models", self._model),
            Route("GET", API, r"/v1/webhooks/default/secret", "secret", self._secret),
        ]
        super().__init__(folder, cdn, key=key or "r8_0123456789abcdef0123456789abcdef01234")

    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        status, title, fixed = TITLES[kind]
        content: dict[str, Any] = {"title": title, "status": status, "detail": fixed or text}
        if details:
            content["invalid_fields"] = [{"type": e["type"], "field": ".".join(map(str, e["loc"][1:])),
                                          "description": e["msg"]} for e in details]
        return json_answer(status, content, {"Content-Type": "application/problem+json"})

    def unknown(self, request: Request) -> Answer:
        return self.native_error("model", "")

    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        return round((0.02 if inputs.get("resolution") == "720p" else 0.01) * inputs.get("num_frames", 81) / 16, 4)

    def frames(self, job: Job) -> int:
        """Interpolated clips are said to have 30 frames a second; here they have twice the frames, less one."""
        frames = job.inputs.get("num_frames", 81)
        return frames * 2 - 1 if job.inputs.get("interpolate_output") else frames

    def fps(self, job: Job) -> int:
        return 30 if job.inputs.get("interpolate_output") else job.inputs.get("frames_per_second", 16)

    def check_picture(self, value: str) -> None:
        data = inline_picture(value)
        if data is not None and len(value) > LARGEST_DATA_URI:
            raise BadPicture("bytes", f"A data URI may have {LARGEST_DATA_URI} bytes; upload the file instead.")
        if data is not None:
            check_picture(data)
        else:
            super().check_picture(value)

    def _submit(self, request: Request, model: str) -> Answer:
        self.allow_query(request)
        body = self.object_body(request)
        if model not in self.models:
            raise self.refuse("model", "")
        strange = [{"type": "additional_property_not_allowed", "loc": ["body", name],
                    "msg": f"Additional property {name} is not allowed"}
                   for name in sorted(set(body) - {"input", "webhook", "webhook_events_filter"})]
        if strange or not isinstance(body.get("input"), dict):
            raise self.refuse("invalid", "input is required" if not strange else strange[0]["msg"], strange)
        webhook, events = body.get("webhook"), body.get("webhook_events_filter", [])
        if webhook is not None and not (isinstance(webhook, str) and is_public_https(webhook)):
            raise self.refuse("webhook", "webhook: must be an HTTPS URL")
        if not isinstance(events, list) or not set(events) <= EVENTS:
            raise self.refuse("webhook", f"webhook_events_filter: must be of {', '.join(sorted(EVENTS))}")
        if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?|\d+", request.seen.headers.get("cancel-after", "")):
            raise self.refuse("invalid", "Cancel-After is not a duration")
        self.check_inputs(model, body["input"])
        try:
            self.check_pictures(body["input"])
        except BadPicture as bad:
            raise self.refuse("picture", f"input.{bad.field}: {bad}") from bad
        return json_answer(201, self.prediction(self.accept(model, body["input"], webhook=webhook)))

    def new_id(self, number: int) -> str:
        """26 letters and digits, as theirs are."""
        return base64.b32encode(bytes.fromhex(super().new_id(number))).decode().lower()[:26]

    def _poll(self, request: Request, job_id: str) -> Answer:
        self.allow_query(request)
        return json_answer(200, self.prediction(self.poll(job_id)))

    def _history(self, request: Request) -> Answer:
        """The newest 100."""
        self.allow_query(request, "cursor", "created_after", "created_before", "source")
        newest = [self.prediction(job) for job in reversed(self.jobs.values())][:100]
        return json_answer(200, {"previous": None, "next": None, "results": newest})

    def _cancel(self, request: Request, job_id: str) -> Answer:
        return json_answer(200, self.prediction(self.cancel(job_id)))

    def prediction(self, job: Job) -> dict[str, Any]:
        """The job as an answer, and as a callback."""
        phase, output = job.phase, None
        words = {"queued": "starting", "running": job.script.word or "processing", "cancelled": "canceled",
                 "refused": "failed", "failed": "failed", "aborted": "aborted"}
        if phase in ("done", "list"):
            output = self.clip(job) if phase == "done" else [self.clip(job)]
        base = f"https://{API}/v1/predictions/{job.id}"
        return {"id": job.id, "model": job.model, "version": "hidden", "output": output, "logs": "",
                "input": {} if phase == "deleted" else job.inputs, "status": words.get(phase, "succeeded"),
                "error": (job.script.error or FAILURES[phase]) if phase in FAILURES else None,
                "data_removed": phase == "deleted", "created_at": job.created_at,
                "urls": {"get": base, "cancel": f"{base}/cancel", "web": f"https://replicate.com/p/{job.id}"},
                **({"metrics": {"predict_time": 41.0}} if job.finished else {})}

    def _upload(self, request: Request) -> Answer:
        file = form_file(request.seen.headers.get("content-type", ""), request.seen.raw, "content")
        if file is None or not file[2]:
            raise self.refuse("invalid", "content is required")
        upload = self.keep_upload(API, *file)
        name = upload.url.rpartition("/")[2].partition(".")[0]
        link = f"https://{API}/v1/files/{name}"
        self.uploads[link] = self.uploads.pop(upload.url)
        return json_answer(201, {
            "id": name, "name": upload.name, "content_type": upload.content_type, "size": len(upload.data),
            "etag": name, "checksums": {"sha256": hashlib.sha256(upload.data).hexdigest()}, "metadata": {},
            "created_at": "2026-01-01T00:00:00.000Z", "expires_at": "2026-01-02T00:00:00.000Z", "urls": {"get": link}})

    def _model(self, request: Request, model: str) -> Answer:
        if model not in self.models:
            raise self.refuse("model", "")
        schema = self.models[model].model_json_schema(ref_template="#/components/schemas/{model}")
        owner, _, name = model.partition("/")
        return json_answer(200, {"owner": owner, "name": name, "visibility": "public", "latest_version": {
            "id": hashlib.sha256(model.encode()).hexdigest(),
            "openapi_schema": {"openapi": "3.0.2", "components": {"schemas": {"Input": schema}}}}})

    def _secret(self, request: Request) -> Answer:
        return json_answer(200, {"key": self.webhook_secret})

    def callback(self, job: Job, *, at: int | None = None) -> Callback:
        """Standard Webhooks: HMAC-SHA256 over id.timestamp.body, keyed with the decoded secret; in base64 after v1,."""
        body = json.dumps(self.prediction(job)).encode()
        name, stamp = f"msg_{job.id}", str(int(time.time()) if at is None else at)
        key = base64.b64decode(self.webhook_secret.removeprefix("whsec_"))
        digest = hmac.new(key, b".".join([name.encode(), stamp.encode(), body]), hashlib.sha256).digest()
        return Callback(job.webhook or "", {
            "Content-Type": "application/json", "webhook-id": name, "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}, body)
