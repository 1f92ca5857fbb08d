"""WaveSpeed as its SDK 2.0.5, its CLI and its documentation describe it.

Decided here, because nothing settles it:
- Refusals are {code, message} with the HTTP status as code. A missing balance is 400 with "Insufficient credits".
- A refused prompt is a failed job with data.code 1200, "Content Moderation" (wavespeed.ai/docs/error-codes); so are
  1403 for a failure and 5004 for a timeout. has_nsfw_contents is true then.
- The spicy models have no negative_prompt and no last_image. Pictures are links; base64 is refused.
- The presigned PUT is at a host of its own, must come with exactly the size and content type declared and without
  Authorization (as at S3), and its link works once.
- POST /model/price (the CLI's current form; older clients call /model/pricing). The secret is in data.secret.
- webhook may be given as ?webhook= alone; webhook_url in the body, of one page, is an unknown field.
- Prices are this server's own: a base price a model for 5 s, 1.6 times that for 8 s.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any, Literal

from tests.support.api_server import Answer, Route, json_answer
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import HOSTS, CdnServer
from tests.support.providers.inputs import BadPicture, Duration, Inputs, Loras, Prompt, Seed, Upload, is_public_https
from tests.support.providers.job import Job
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import Callback

API, STORE, MEDIA = "api.wavespeed.ai", "uploads.wavespeed.example", "static.wavespeed.ai"


class Plain(Inputs):
    """i2v-480p, i2v-720p."""

    image: str
    prompt: Prompt
    negative_prompt: str = ""
    last_image: str | None = None
    duration: Duration = 5
    seed: Seed = -1


class WithLoras(Plain):
    """i2v-480p-lora, i2v-720p-lora and their ultra-fast siblings."""

    loras: Loras = []
    high_noise_loras: Loras = []
    low_noise_loras: Loras = []


class Unified(WithLoras):
    """image-to-video-lora."""

    resolution: Literal["480p", "720p"] = "720p"


class UnifiedPlain(Plain):
    """image-to-video."""

    resolution: Literal["480p", "720p"] = "720p"


class Spicy(Inputs):
    """wan-2.2-spicy/image-to-video."""

    image: str
    prompt: Prompt
    resolution: Literal["480p", "720p"] = "480p"
    duration: Duration = 5
    seed: Seed = -1


class SpicyLora(Spicy):
    """wan-2.2-spicy/image-to-video-lora."""

    loras: Loras = []
    high_noise_loras: Loras = []
    low_noise_loras: Loras = []


MODELS: dict[str, tuple[type[Inputs], float]] = {
    "wavespeed-ai/wan-2.2-spicy/image-to-video-lora": (SpicyLora, 0.20),
    "wavespeed-ai/wan-2.2/i2v-480p-lora": (WithLoras, 0.20),
    "wavespeed-ai/wan-2.2/i2v-720p-lora": (WithLoras, 0.35),
    "wavespeed-ai/wan-2.2/i2v-480p-lora-ultra-fast": (WithLoras, 0.10),
    "wavespeed-ai/wan-2.2/i2v-720p-lora-ultra-fast": (WithLoras, 0.20),
    "wavespeed-ai/wan-2.2/image-to-video-lora": (Unified, 0.35),
    "wavespeed-ai/wan-2.2-spicy/image-to-video": (Spicy, 0.15),
    "wavespeed-ai/wan-2.2/image-to-video": (UnifiedPlain, 0.30),
    "wavespeed-ai/wan-2.2/i2v-480p-ultra-fast": (Plain, 0.05),
    "wavespeed-ai/wan-2.2/i2v-720p-ultra-fast": (Plain, 0.10),
    "wavespeed-ai/wan-2.2/i2v-480p": (Plain, 0.15),
    "wavespeed-ai/wan-2.2/i2v-720p": (Plain, 0.30),
}
STATUS = {"auth": 401, "malformed": 400, "model": 404, "invalid": 400, "picture": 400, "balance": 400,
          "job": 404, "webhook": 400}
FAILURES = {"failed": (1403, "The task could not be completed."),
            "refused": (1200, "Content flagged as potentially sensitive. Please change the prompt or the image."),
            "timeout": (5004, "The request timed out."), "cancelled": (0, "The task was cancelled."),
            "deleted": (0, "")}


class WaveSpeedServer(ProviderServer):
    provider, cdn_host = "wavespeed", HOSTS[0]
    hosts = (API, STORE)
    media_hosts = (MEDIA,)
    inline_pictures = False
    points = ("submit", "poll", "price", "models", "upload", "upload_data", "secret", "history")
    ends = ("done", "failed", "refused", "timeout", "cancelled", "deleted", "empty", "objects")
    """empty: completed without outputs; objects: outputs as objects in place of strings."""
    models = {name: inputs for name, (inputs, _) in MODELS.items()}

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        self.webhook_secret = f"whsec_{secrets.token_hex(24)}"
        self._tickets: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        base = "/api/v3"
        self.routes = [
            Route("GET", API, rf"{base}/models", "models", self._models),
            Route("POST", API, rf"{base}/model/price", "price", self._price),
            Route("GET", API, rf"{base}/webhook/secret", "secret", self._secret),
            Route("POST", API, rf"{base}/media/uploads", "upload", self._upload),
            Route("PUT", STORE, r"/(?P<ticket>[0-9a-f]+)", "upload_data", self._upload_data, open=True),
            Route("GET", API, rf"{base}/predictions/(?P<job_id>[^/]+)/result", "poll", self._poll),
            Route("POST", API, rf"{base}/predictions", "history", self._history),
            Route("POST", API, rf"{base}/(?P<model>(?!predictions/)[\w.-]+(/[\w.-]+)+)", "submit", self._submit),
        ]
        super().__init__(folder, cdn, key=key)

    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        text = "Insufficient credits. Please top up." if kind == "balance" else text
        return json_answer(STATUS[kind], {"code": STATUS[kind], "message": text})

    def unknown(self, request: Request) -> Answer:
        return json_answer(404, {"code": 404, "message": "Not Found"})

    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        base = MODELS[model][1] * (2 if inputs.get("resolution") == "720p" and "spicy" in model else 1)
        return round(base * (1.6 if inputs.get("duration") == 8 else 1), 4)

    def frames(self, job: Job) -> int:
        return job.inputs.get("duration", 5) * 16 + 1

    def _submit(self, request: Request, model: str, **_: str) -> Answer:
        self.allow_query(request, "webhook")
        inputs = self.object_body(request)
        if model not in self.models:
            raise self.refuse("model", "Model not found.")
        self.check_inputs(model, inputs)
        try:
            self.check_pictures(inputs)
        except BadPicture as bad:
            raise self.refuse("picture", f"{bad.field}: {bad}") from bad
        webhook = request.seen.query.get("webhook")
        if webhook is not None and not is_public_https(webhook):
            raise self.refuse("webhook", "The webhook must be a public https URL.")
        return self._ok(self.task(self.accept(model, inputs, webhook=webhook)))

    def _poll(self, request: Request, job_id: str) -> Answer:
        self.allow_query(request)
        return self._ok(self.task(self.poll(job_id)))

    def task(self, job: Job) -> dict[str, Any]:
        """The job as data of an answer, and as the whole of a callback."""
        phase, outputs, failure = job.phase, [], (0, "")
        words = {"queued": "created", "running": job.script.word or "processing", "refused": "failed"}
        if phase in ("done", "objects"):
            outputs = [self.clip(job)] if phase == "done" else [{"url": self.clip(job), "type": "video"}]
        elif phase in FAILURES:
            failure = (FAILURES[phase][0], job.script.error or FAILURES[phase][1])
        word = "completed" if phase in ("done", "objects", "empty") else words.get(phase, phase)
        return {"id": job.id, "model": job.model, "status": word, "outputs": outputs,
                "urls": {"get": f"https://{API}/api/v3/predictions/{job.id}/result"},
                "has_nsfw_contents": [phase == "refused"] if job.finished else [], "created_at": job.created_at,
                "code": failure[0], "error": failure[1],
                "timings": {"inference": 41000 if job.finished else 0}, "executionTime": 41000 if job.finished else 0}

    def _history(self, request: Request) -> Answer:
        asked = self.object_body(request)
        size, model, after = asked.get("page_size"), asked.get("model"), asked.get("created_after", "")
        if not {"page", "page_size"} <= set(asked) <= {"page", "page_size", "model", "created_after"} or not (
                isinstance(size, int) and 1 <= size <= 100):
            raise self.refuse("invalid", "page and page_size (1 to 100) are needed")
        newest = [{**self.task(job), "inputs": job.inputs} for job in reversed(self.jobs.values())
                  if not job.deleted and model in (None, job.model) and job.created_at >= after]
        start = (asked["page"] - 1) * size
        return self._ok({"page": asked["page"], "items": newest[start:start + size]})

    def _price(self, request: Request) -> Answer:
        asked = self.object_body(request)
        if set(asked) != {"model_id", "inputs"} or not isinstance(asked["inputs"], dict):
            raise self.refuse("invalid", "model_id and inputs are needed, and nothing else")
        if asked["model_id"] not in self.models:
            raise self.refuse("model", "Model not found.")
        price = self.cost(asked["model_id"], asked["inputs"])
        return self._ok({"model_id": asked["model_id"], "price": price, "discounted_price": price,
                         "discount_rate": 100, "currency": "USD"})

    def _models(self, request: Request) -> Answer:
        return self._ok([
            {"model_id": name, "name": name, "base_price": price, "type": "image-to-video", "description": "",
             "api_schema": {"api_schemas": [{"type": "model_run", "method": "POST", "server": f"https://{API}",
                                             "api_path": f"/api/v3/{name}",
                                             "request_schema": inputs.model_json_schema()}]}}
            for name, (inputs, price) in MODELS.items()])

    def _secret(self, request: Request) -> Answer:
        return self._ok({"secret": self.webhook_secret})

    def _upload(self, request: Request) -> Answer:
        asked = self.object_body(request)
        if not (set(asked) == {"filename", "size", "content_type"} and isinstance(asked["size"], int)
                and re.fullmatch(r"[\w.-]{1,255}", str(asked["filename"]))):
            raise self.refuse("invalid", "filename, size and content_type are needed, and nothing else")
        ticket = hashlib.sha256(f"ticket/{next(self._numbers)}".encode()).hexdigest()
        link = f"https://{MEDIA}/media/{ticket[:24]}{Path(asked['filename']).suffix}"
        self._tickets[ticket] = {**asked, "link": link}
        return self._ok({"download_url": link, "upload": {
            "method": "PUT", "url": f"https://{STORE}/{ticket}?X-Amz-Expires=900&X-Amz-Signature={ticket[:32]}",
            "headers": {"Content-Type": asked["content_type"]}}})

    def _upload_data(self, request: Request, ticket: str) -> Answer:
        seen, asked = request.seen, self._tickets.get(ticket)
        if "authorization" in seen.headers or self.key in str(seen.headers):
            self.violations.append(f"A key arrived at {STORE}.")
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>", {"Content-Type": "application/xml"})
        signed = asked and seen.query == {"X-Amz-Expires": "900", "X-Amz-Signature": ticket[:32]}
        if not signed or seen.headers.get("content-type") != asked["content_type"] or len(seen.raw) != asked["size"]:
            return Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>",
                          {"Content-Type": "application/xml"})
        upload = Upload(asked["link"], asked["filename"], asked["content_type"], seen.raw)
        self.uploads[upload.url] = upload
        del self._tickets[ticket]
        return Answer(200, b"")

    def callback(self, job: Job, *, at: int | None = None) -> Callback:
        """The flat task object; HMAC-SHA256 over id.timestamp.body, keyed with the secret's text after whsec_."""
        body = json.dumps(self.task(job)).encode()
        name, stamp = hashlib.sha256(job.id.encode()).hexdigest()[:25], str(int(time.time()) if at is None else at)
        secret = self.webhook_secret.removeprefix("whsec_").encode()
        signature = hmac.new(secret, b".".join([name.encode(), stamp.encode(), body]), hashlib.sha256).hexdigest()
        return Callback(job.webhook or "", {"Content-Type": "application/json", "webhook-id": name,
                                            "webhook-timestamp": stamp, "webhook-signature": f"v3,{signature}"}, body)

    def _ok(self, data: object) -> Answer:
        return json_answer(200, {"code": 200, "message": "success", "data": data})
