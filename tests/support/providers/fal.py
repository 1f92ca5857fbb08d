"""fal.ai as its clients (py 1.0.3, js 1.10.1) and its documentation describe it.

Decided here, because nothing settles it:
- The queue takes any JSON object of a known endpoint and the model refuses it: COMPLETED with an error, and the result
  is 422.
- A job that was cancelled ends COMPLETED with error_type client_cancelled, its result 499.
- The base endpoint's inputs are those of /lora without loras. /turbo's are the client's types. No limit of the number
  of LoRAs is documented, and none is kept; a LoRA here is an https link, never a Hugging Face repository, so
  weight_name is an unknown field.
- 422 details are pydantic's own (types like missing, extra_forbidden); a picture that is too large is
  image_too_large, one that cannot be had file_download_error.
- Pricing units are "second" and "video"; the platform's API gives one price an endpoint, whatever the resolution.
- The clip lies at v3b.fal.media, uploads at v3.fal.media. The upload's token is asked for with {} as body.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

from tests.support.api_server import Answer, Route, json_answer
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import HOSTS, CdnServer
from tests.support.providers.fal_models import APP, FAILURES, FLAT, MODELS, PRICES, RETRYABLE, Turbo, openapi
from tests.support.providers.inputs import BadPicture, is_public_https
from tests.support.providers.job import Job
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import Callback, SigningKey

QUEUE, REST, MEDIA, API, SITE = "queue.fal.run", "rest.fal.ai", "v3.fal.media", "api.fal.ai", "fal.ai"
STATUS = {"auth": 401, "malformed": 400, "model": 404, "invalid": 422, "balance": 403, "job": 404,
          "webhook": 400}


class FalServer(ProviderServer):
    provider, cdn_host, scheme = "fal", HOSTS[2], "Key"
    hosts = (QUEUE, REST, MEDIA, API, SITE)
    media_hosts = (MEDIA,)
    points = ("submit", "poll", "result", "cancel", "price", "models", "token", "upload", "secret", "history")
    ends = ("done", "failed", "refused", "timeout", "downstream", "infrastructure", "cancelled", "empty")
    """empty: completed without a video."""
    models = MODELS

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        self.webhook_keys = [SigningKey("fal-key-1")]
        """The JWKS lists all of them; callbacks are signed with the last."""
        self.upload_token = "fal-cdn-token-0123456789abcdef"
        request = rf"/{APP}/requests/(?P<job_id>[^/]+)"
        self.routes = [
            Route("GET", QUEUE, rf"{request}/status", "poll", self._status),
            Route("GET", QUEUE, request, "result", self._result),
            Route("PUT", QUEUE, rf"{request}/cancel", "cancel", self._cancel),
            Route("POST", QUEUE, r"/(?P<model>(?!.*/requests/)[\w.-]+(/[\w.-]+)+)", "submit", self._submit),
            Route("GET", API, r"/v1/models/pricing", "price", self._pricing),
            Route("GET", API, r"/v1/models/requests/by-endpoint", "history", self._history),
            Route("GET", SITE, r"/api/openapi/queue/openapi\.json", "models", self._schema, open=True),
            Route("POST", REST, r"/storage/auth/token", "token", self._token),
            Route("POST", MEDIA, r"/files/upload", "upload", self._upload, open=True),
            Route("GET", REST, r"/\.well-known/jwks\.json", "secret", self._jwks, open=True),
        ]
        super().__init__(folder, cdn, key=key)

    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        if details is not None:
            return json_answer(STATUS[kind], {"detail": details}, {"X-Fal-Retryable": "false"})
        if kind == "auth":
            text = "Cannot access application. Authentication is required to access this application."
        elif kind == "balance":
            text = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
        content = {"detail": text}
        if kind in ("malformed", "webhook"):
            content["error_type"] = "bad_request"
        return json_answer(STATUS[kind], content, {
            **({"X-Fal-Error-Type": "bad_request"} if "error_type" in content else {})})

    def unknown(self, request: Request) -> Answer:
        if "/requests/" in request.seen.path:
            return json_answer(405, {"detail": "Method Not Allowed"})
        return json_answer(404, {"detail": f"Path {request.seen.path} not found"})

    def new_id(self, number: int) -> str:
        return str(uuid.UUID(super().new_id(number)))

    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        price, unit = PRICES[model]
        scale = {"580p": 0.75, "480p": 0.5}.get(inputs.get("resolution", "720p"), 1)
        return round(price * scale * (inputs.get("num_frames", 81) / 16 if unit == "second" else 1), 4)

    def frames(self, job: Job) -> int:
        """Return the number of frames: those that film or rife add are made too, which they are by default."""
        return (job.inputs.get("num_frames", 81) - 1) * (self._between(job) + 1) + 1

    def fps(self, job: Job) -> int:
        adjusted = job.inputs.get("adjust_fps_for_interpolation", True)
        return job.inputs.get("frames_per_second", 16) * (self._between(job) + 1 if adjusted else 1)

    def _between(self, job: Job) -> int:
        """Frames that are put between two."""
        if self.models[job.model] is Turbo or job.inputs.get("interpolator_model", "film") == "none":
            return 0
        return job.inputs.get("num_interpolated_frames", 1)

    def _submit(self, request: Request, model: str, **_: str) -> Answer:
        self.allow_query(request, "fal_webhook")
        if model not in self.models:
            raise self.refuse("model", f"Application '{model}' not found")
        inputs = self.object_body(request)
        webhook = request.seen.query.get("fal_webhook")
        if webhook is not None and not is_public_https(webhook):
            raise self.refuse("webhook", "The webhook must be a public https URL.")
        start = request.seen.headers.get("x-fal-request-timeout", "2")
        if not start.replace(".", "", 1).isdigit() or float(start) <= 1:
            raise self.refuse("malformed", "X-Fal-Request-Timeout must be a number above 1.")
        invalid = self.errors(model, inputs) or self._picture_errors(inputs)
        job = self.accept(model, inputs, webhook=webhook, invalid=invalid)
        return json_answer(200, {"status": "IN_QUEUE", "request_id": job.id, "gateway_request_id": job.id, "logs": None,
                                 "metrics": {}, "queue_position": self._position(job), **self._links(job)})

    def _picture_errors(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            self.check_pictures(inputs)
        except BadPicture as bad:
            kind = {"fetch": "file_download_error", "format": "image_load_error"}.get(bad.reason, "image_too_large")
            return [self._detail(["body", bad.field], str(bad), kind, inputs[bad.field][:200])]
        return []

    def _status(self, request: Request, job_id: str) -> Answer:
        self.allow_query(request, "logs")
        job = self.poll(job_id)
        content: dict[str, Any] = {"request_id": job.id, **self._links(job), "logs": None, "metrics": {}}
        if job.phase == "queued":
            return json_answer(202, {"status": "IN_QUEUE", "queue_position": self._position(job), **content})
        if job.phase == "running":
            return json_answer(202, {"status": job.script.word or "IN_PROGRESS", **content})
        failure = self._failure(job)
        if failure and not job.script.silent:
            content |= {"error": failure[2], "error_type": failure[1]}
        return json_answer(200, {"status": "COMPLETED", **content, "metrics": {"inference_time": 41.0}})

    def _result(self, request: Request, job_id: str) -> Answer:
        self.allow_query(request)
        job = self.job(job_id)
        if not job.finished:
            return json_answer(400, {"detail": "Request is still in progress"})
        if job.invalid and not job.cancelled:
            return self.native_error("invalid", "", job.invalid)
        failure = self._failure(job)
        if failure is None:
            return json_answer(200, self._output(job))
        status, kind, text = failure
        if job.phase in FLAT:
            return json_answer(status, {"detail": text, "error_type": kind}, {"X-Fal-Error-Type": kind})
        place = ["body", "prompt"] if kind == "content_policy_violation" else ["body"]
        return json_answer(status, {"detail": [self._detail(place, text, kind, None)]},
                           {"X-Fal-Retryable": "true" if job.phase in RETRYABLE else "false"})

    def _failure(self, job: Job) -> tuple[int, str, str] | None:
        if job.invalid and not job.cancelled:
            return 422, "validation_error", "Unprocessable Entity"
        status, kind, text = FAILURES.get(job.phase, (0, "", ""))
        return (status, kind, job.script.error or text) if status else None

    def _output(self, job: Job) -> dict[str, Any]:
        content: dict[str, Any] = {"seed": job.inputs.get("seed", 4242), "prompt": job.inputs["prompt"]}
        if job.phase != "empty":
            content["video"] = {"url": self.clip(job), "content_type": "video/mp4", "file_name": f"{job.id}.mp4",
                                "file_size": None}
        return content

    def _cancel(self, request: Request, job_id: str) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return json_answer(404, {"status": "NOT_FOUND"})
        if job.finished:
            job.cancels += 1
            return json_answer(400, {"status": "ALREADY_COMPLETED"})
        self.cancel(job_id)
        return json_answer(202, {"status": "CANCELLATION_REQUESTED"})

    def _position(self, job: Job) -> int:
        """Return how many unfinished jobs are ahead."""
        ahead = [other for other in self.jobs.values() if not other.finished]
        return ahead.index(job) if job in ahead else 0

    def _links(self, job: Job) -> dict[str, str]:
        base = f"https://{QUEUE}/{APP}/requests/{job.id}"
        return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}

    def _detail(self, place: list[str], text: str, kind: str, value: object) -> dict[str, Any]:
        return {"loc": place, "msg": text, "type": kind, "url": f"https://docs.fal.ai/errors#{kind}", "input": value}

    def _history(self, request: Request) -> Answer:
        """Return what has ended. Time goes on for a job while its owner looks here, as when it is polled."""
        self.allow_query(request, "endpoint_id", "start", "end", "expand", "limit", "cursor")
        query = request.seen.query
        if query.get("endpoint_id") not in self.models or not 1 <= int(query.get("limit", 50)) <= 100:
            return json_answer(422, {"error": {"type": "validation_error", "message": "endpoint_id or limit"}})
        payloads = query.get("expand") == "payloads"
        items = []
        for job in list(self.jobs.values()):
            if self.poll(job.id).finished and job.model == query["endpoint_id"]:
                items.append({"request_id": job.id, "endpoint_id": job.model, "sent_at": job.created_at,
                              "started_at": job.created_at, "ended_at": job.created_at, "status_code": 200,
                              "duration": 7.8, **({"json_input": job.inputs} if payloads else {})})
        return json_answer(200, {"items": items[::-1], "next_cursor": None, "has_more": False})

    def _pricing(self, request: Request) -> Answer:
        self.allow_query(request, "endpoint_id")
        names = request.seen.query.get("endpoint_id", "").split(",")
        if not set(names) <= set(PRICES):
            return json_answer(404, {"error": {"type": "not_found", "message": "Endpoint not found."}})
        return json_answer(200, {"prices": [
            {"endpoint_id": name, "unit_price": PRICES[name][0], "unit": PRICES[name][1], "currency": "USD"}
            for name in names], "next_cursor": None, "has_more": False})

    def _schema(self, request: Request) -> Answer:
        name = request.seen.query.get("endpoint_id", "")
        if name not in self.models:
            return json_answer(404, {"detail": "Not found"})
        return json_answer(200, openapi(name))

    def _token(self, request: Request) -> Answer:
        if request.seen.query != {"storage_type": "fal-cdn-v3"} or self.object_body(request):
            raise self.refuse("malformed", "storage_type must be fal-cdn-v3 and the body {}.")
        return json_answer(200, {"token": self.upload_token, "token_type": "Bearer", "base_url": f"https://{MEDIA}",
                                 "expires_at": "2099-01-01T00:00:00+00:00"})

    def _upload(self, request: Request) -> Answer:
        headers = request.seen.headers
        if headers.get("authorization") != f"Bearer {self.upload_token}":
            raise self.refuse("auth", "")
        kind, name = headers.get("content-type", ""), headers.get("x-fal-file-name", "upload.bin")
        if not kind or not request.seen.raw:
            raise self.refuse("malformed", "A content type and data are needed.")
        upload = self.keep_upload(MEDIA, name, kind, request.seen.raw)
        return json_answer(200, {"access_url": upload.url, "file_name": name, "content_type": kind,
                                 "file_size": len(upload.data)})

    def _jwks(self, request: Request) -> Answer:
        return json_answer(200, {"keys": [key.jwk() for key in self.webhook_keys]})

    def callback(self, job: Job, *, at: int | None = None, key: SigningKey | None = None) -> Callback:
        """Ed25519 in hex over request id, user id, timestamp and the body's SHA-256 in hex, a line each."""
        failure = self._failure(job)
        content: dict[str, Any] = {"request_id": job.id, "gateway_request_id": job.id,
                                   "status": "ERROR" if failure else "OK", "error": failure[2] if failure else None,
                                   "payload": None if failure else self._output(job), "payload_error": None}
        body = json.dumps(content).encode()
        stamp = str(int(time.time()) if at is None else at)
        message = "\n".join([job.id, "fal-user-1", stamp, hashlib.sha256(body).hexdigest()]).encode()
        return Callback(job.webhook or "", {
            "Content-Type": "application/json", "X-Fal-Webhook-Request-Id": job.id,
            "X-Fal-Webhook-User-Id": "fal-user-1", "X-Fal-Webhook-Timestamp": stamp,
            "X-Fal-Webhook-Signature": (key or self.webhook_keys[-1]).sign(message).hex()}, body)
