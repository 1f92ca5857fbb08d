"""AtlasCloud as its MCP server (September 2026), its ComfyUI nodes and its documentation describe it.

Decided here, because nothing settles it:
- The submit answers status "created" (seen) with the id; while the job waits its status is "created" too.
- Refused inputs are 400 {code, msg, request_id, data: null}; an unknown model is 404.
- At most three LoRAs a list, as at WaveSpeed (an unofficial page says six).
- A picture is an https link, a data URI or plain base64.
- refused is a failed prediction with error_code 1039; the codes of other failures (1000, 1001) are made up.
- The upload answers data.download_url, as the client reads it (the documentation has data.url).
- generateVideo takes no query (the official node adds utm_ parameters).
- Schemas lie at static.atlascloud.ai. Prices are this server's own, a second.
- A callback of a failed job has status OK and payload.status failed; with `Script.error` set its status is ERROR.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, Literal

from tests.support.api_server import Answer, Route, json_answer
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import HOSTS, CdnServer
from tests.support.providers.inputs import BadPicture, Duration, Inputs, Loras, Prompt, Seed, form_file, is_public_https
from tests.support.providers.job import Job
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import Callback, SigningKey, base64url

API, MEDIA, STATIC = "api.atlascloud.ai", "atlas-img.oss-accelerate-overseas.aliyuncs.com", "static.atlascloud.ai"


class Plain(Inputs):
    """alibaba/wan-2.2/i2v-480p and -720p."""

    image: str
    prompt: Prompt
    seed: Seed = -1


class Open(Plain):
    """atlascloud/wan-2.2/image-to-video."""

    negative_prompt: str = ""
    resolution: Literal["480p", "720p"] = "480p"
    duration: Duration = 5


class OpenLora(Open):
    loras: Loras = []
    high_noise_loras: Loras = []
    low_noise_loras: Loras = []


class Spicy(Plain):
    resolution: Literal["480p", "720p"] = "480p"
    duration: Duration = 5


class SpicyLora(Spicy):
    loras: Loras = []
    high_noise_loras: Loras = []
    low_noise_loras: Loras = []


class Turbo(Plain):
    resolution: Literal["480p", "720p", "1080p"] = "480p"
    duration: Literal[5] = 5


class TurboOpen(Turbo):
    """atlascloud/wan-2.2-turbo/image-to-video."""

    negative_prompt: str = ""


class TurboLora(Turbo):
    """It has no list for both experts."""

    high_noise_loras: Loras = []
    low_noise_loras: Loras = []


MODELS: dict[str, tuple[type[Inputs], float]] = {
    "atlascloud/wan-2.2/image-to-video-lora": (OpenLora, 0.05),
    "atlascloud/wan-2.2/image-to-video": (Open, 0.04),
    "alibaba/wan-2.2-spicy/image-to-video-lora": (SpicyLora, 0.04),
    "atlascloud/wan-2.2-turbo-spicy/image-to-video-lora": (TurboLora, 0.026),
    "alibaba/wan-2.2-spicy/image-to-video": (Spicy, 0.03),
    "atlascloud/wan-2.2-turbo-spicy/image-to-video": (Turbo, 0.02),
    "atlascloud/wan-2.2-turbo/image-to-video": (TurboOpen, 0.02),
    "alibaba/wan-2.2/i2v-480p": (Plain, 0.03),
    "alibaba/wan-2.2/i2v-720p": (Plain, 0.06),
}
STATUS = {"auth": 401, "malformed": 400, "model": 404, "invalid": 400, "picture": 400, "balance": 402,
          "job": 404, "webhook": 400, "too_large": 413}
FAILURES = {"failed": (1000, "Generation failed"), "failed_500": (1000, "Generation failed"),
            "refused": (1039, "The request was rejected by content moderation."),
            "refused_500": (1039, "The request was rejected by content moderation."),
            "timeout": (1001, "Generation timed out"), "cancelled": (0, "Cancelled")}
LARGEST_BODY = 50 * 2**20


class AtlasCloudServer(ProviderServer):
    provider, cdn_host = "atlascloud", HOSTS[1]
    hosts = (API, MEDIA, STATIC)
    media_hosts = (MEDIA,)
    bare_base64 = True
    points = ("submit", "poll", "models", "schema", "upload", "secret", "price", "history")
    ends = ("done", "failed", "refused", "failed_500", "refused_500", "timeout", "cancelled", "empty", "succeeded",
            "objects")
    """_500: told as HTTP 500 with data.status failed. succeeded: that word, and `output` (a string) for `outputs`."""
    models = {name: inputs for name, (inputs, _) in MODELS.items()}

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        self.webhook_keys = [SigningKey("atlas-key-1")]
        """The JWKS lists all of them; callbacks are signed with the last."""
        self.bill_late = False
        """The price of a finished job is not in the first poll that finds it finished."""
        base = "/api/v1"
        self.routes = [
            Route("POST", API, rf"{base}/model/generateVideo", "submit", self._submit),
            Route("GET", API, rf"{base}/model/prediction/(?P<job_id>[^/]+)", "poll", self._poll),
            Route("POST", API, rf"{base}/model/uploadMedia", "upload", self._upload),
            Route("POST", API, rf"{base}/model/calculate", "price", self._calculate),
            Route("GET", API, rf"{base}/model/history", "history", self._history),
            Route("GET", API, rf"{base}/models", "models", self._models, open=True),
            Route("GET", STATIC, r"/schema/(?P<model>.+)\.json", "schema", self._schema, open=True),
            Route("GET", API, rf"{base}/webhooks/jwks\.json", "secret", self._jwks, open=True),
        ]
        super().__init__(folder, cdn, key=key or "apikey-0123456789abcdef0123456789abcdef")

    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        return self._answer(STATUS[kind], {"code": STATUS[kind], "msg": "unauthorized" if kind == "auth" else text,
                                           "request_id": self._request_id(), "data": None})

    def unknown(self, request: Request) -> Answer:
        """A wrong path is 401, as a wrong key is."""
        return self.native_error("auth", "")

    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        scale = {"720p": 2, "1080p": 3}.get(inputs.get("resolution", ""), 1)
        return round(MODELS[model][1] * inputs.get("duration", 5) * scale, 4)

    def frames(self, job: Job) -> int:
        return job.inputs.get("duration", 5) * 16 + 1

    def _submit(self, request: Request) -> Answer:
        self.allow_query(request)
        if len(request.seen.raw) > LARGEST_BODY:
            raise self.refuse("too_large", "The request body exceeds 50 MB.")
        body = dict(self.object_body(request))
        self._check_retention(request)
        model, webhook = body.pop("model", None), body.pop("webhook_url", None)
        if not isinstance(model, str):
            raise self.refuse("malformed", "model is required")
        if model not in self.models:
            raise self.refuse("model", "model not found")
        if webhook is not None and not (isinstance(webhook, str) and is_public_https(webhook, 1024)):
            raise self.refuse("webhook", "webhook_url must be a public https URL of at most 1024 characters")
        self.check_inputs(model, body)
        try:
            self.check_pictures(body)
        except BadPicture as bad:
            raise self.refuse("picture", f"{bad.field}: {bad}") from bad
        return self._ok(self.prediction(self.accept(model, body, webhook=webhook)))

    def _check_retention(self, request: Request) -> None:
        for name, least in (("object-expiration", 1), ("request-retention", 0)):
            hours = request.seen.headers.get(f"x-atlascloud-{name}-hours", "1")
            if not hours.isdigit() or not least <= int(hours) <= 336:
                raise self.refuse("malformed", f"X-AtlasCloud-{name}-Hours must be {least} to 336")

    def _poll(self, request: Request, job_id: str) -> Answer:
        self.allow_query(request)
        job = self.poll(job_id)
        job.looks += job.finished
        if job.phase.endswith("_500"):
            return self._answer(500, {"code": 500, "msg": "internal error", "request_id": self._request_id(),
                                      "data": self.prediction(job)})
        return self._ok(self.prediction(job))

    def prediction(self, job: Job) -> dict[str, Any]:
        """The job as data of an answer."""
        phase = job.phase
        words = {"queued": "created", "running": job.script.word or "processing", "timeout": "timeout",
                 "cancelled": "cancelled", "succeeded": "succeeded"}
        word = words.get(phase, "failed" if phase in FAILURES else "completed")
        content: dict[str, Any] = {"id": job.id, "model": job.model, "status": word, "error": "", "outputs": None,
                                   "urls": {"get": f"https://{API}/api/v1/model/prediction/{job.id}"},
                                   "created_at": "2026-01-01T00:00:00Z",
                                   "metrics": {"predict_time": 41.0 if job.finished else 0}}
        if phase in FAILURES:
            code, text = FAILURES[phase]
            content |= {"error": job.script.error or text, "error_code": code}
        elif phase == "succeeded":
            content |= {"output": self.clip(job), "price": str(job.price)}
        elif phase in ("done", "objects", "empty"):
            outputs = [] if phase == "empty" else [self.clip(job)]
            content |= {"outputs": [{"url": o} for o in outputs] if phase == "objects" else outputs,
                        "price": str(job.price)}
        if self.bill_late and job.looks < 3:
            content.pop("price", None)
        return content

    def _upload(self, request: Request) -> Answer:
        file = form_file(request.seen.headers.get("content-type", ""), request.seen.raw, "file")
        if file is None or not file[2]:
            raise self.refuse("malformed", "file is required")
        if len(request.seen.raw) > LARGEST_BODY:
            raise self.refuse("too_large", "The request body exceeds 50 MB.")
        upload = self.keep_upload(MEDIA, *file)
        return self._ok({"type": "image", "download_url": upload.url, "filename": upload.name,
                         "size": len(upload.data)}, message="success")

    def _calculate(self, request: Request) -> Answer:
        """Return the price of a request that is not made."""
        body = dict(self.object_body(request))
        model = body.pop("model", None)
        if model not in self.models:
            raise self.refuse("model", "model not found")
        self.check_inputs(model, body)
        price = self.cost(model, body)
        return self._ok({"price": str(price), "origin_price": str(price), "estimated": False})

    def _history(self, request: Request) -> Answer:
        """Return the newest jobs. Unknown parameters change nothing, as at the real one."""
        query = request.seen.query
        page, size = int(query.get("no", 1)), int(query.get("size", 10))
        newest = [{"ID": job.id, "model": job.model, "status": self.prediction(job)["status"],
                   "createdAt": str(int(job.created)), "requestBody": json.dumps({"model": job.model, **job.inputs}),
                   "result": {"outputs": [], "error": ""}}
                  for job in reversed(self.jobs.values()) if query.get("model") in (None, job.model)]
        items = newest[(page - 1) * size:page * size]
        return self._answer(200, {"code": "200", "data": {"total": len(newest), "pageNo": page, "pageSize": size,
                                                          "items": items or None}})

    def _models(self, request: Request) -> Answer:
        return self._answer(200, {"code": "200", "data": [
            {"uuid": f"model-{number}", "model": name, "type": "Video", "displayName": name, "profile": "",
             "schema": f"https://{STATIC}/schema/{name}.json", "tags": [], "display_console": True,
             "price": {"discount": "100", "actual": {"base_price": str(price)}, "origin": {"base_price": str(price)}}}
            for number, (name, (_, price)) in enumerate(MODELS.items())]})

    def _schema(self, request: Request, model: str) -> Answer:
        if model not in self.models:
            return Answer(404, b"")
        schema = self.models[model].model_json_schema(ref_template="#/components/schemas/{model}")
        parts = schema.pop("$defs", {})
        schema["properties"] = {"model": {"type": "string", "const": model}, **schema["properties"]}
        return json_answer(200, {"openapi": "3.0.0", "info": {"title": model}, "paths": {},
                                 "components": {"schemas": {**parts, "Input": schema}}})

    def _jwks(self, request: Request) -> Answer:
        return json_answer(200, {"keys": [key.jwk() for key in self.webhook_keys]})

    def callback(self, job: Job, *, at: int | None = None, key: SigningKey | None = None) -> Callback:
        """Ed25519 in base64url over timestamp.body."""
        data, key = self.prediction(job), key or self.webhook_keys[-1]
        failed = data["status"] in ("failed", "timeout", "cancelled")
        body = json.dumps({
            "session_id": job.id, "event_type": "video.task.terminal",
            "status": "ERROR" if failed and job.script.error else "OK",
            "payload": {"model": job.model, "status": data["status"], "outputs": data.get("outputs") or []},
            "error": data["error"] or None}).encode()
        stamp = str(int(time.time()) if at is None else at)
        prefix = "X-AtlasCloud-Webhook"
        return Callback(job.webhook or "", {
            "Content-Type": "application/json", f"{prefix}-Id": job.id, f"{prefix}-Event": "video.task.terminal",
            f"{prefix}-Timestamp": stamp, f"{prefix}-Key-Id": key.kid,
            f"{prefix}-Signature": hashlib.sha256(body).hexdigest(),
            f"{prefix}-Signature-Ed25519": base64url(key.sign(stamp.encode() + b"." + body))}, body)

    def _ok(self, data: object, **more: object) -> Answer:
        return self._answer(200, {"code": 200, "message": "", **more, "data": data})

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> Answer:
        return json_answer(status, content, {"X-Request-ID": self._request_id(), **(headers or {})})

    def _request_id(self) -> str:
        return f"req-{len(self.seen)}"
