"""WaveSpeed: API v3 (wavespeed.ai/docs, also how-to-use-webhooks; Python SDK 2.0.5, `api/client.py`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from ..api import MAX_MODELS, Reply, Request, get, post
from ..errors import ErrorKind, RemoteError
from ..job import JobState
from ..json_parts import list_part, number_part, part, word_part
from ..model import Price, RemoteModel, by_second
from ..plan import Plan
from ..provider import (
    HistoryEntry,
    JobStatus,
    Provider,
    RequestFlow,
    clip_url,
    contains_any,
    lora_lists,
    seconds_of,
    word_of,
)
from ..signatures import SECRET_PREFIX, SignatureScheme, SigningKeys, WebhookRequest, verify_shared

BASE = "https://api.wavespeed.ai/api/v3"
STATES = {"created": JobState.QUEUED, "pending": JobState.QUEUED, "processing": JobState.RUNNING,
          "completed": JobState.DOWNLOADING, "failed": JobState.FAILED, "timeout": JobState.FAILED,
          "cancelled": JobState.CANCELED, "canceled": JobState.CANCELED, "deleted": JobState.LOST}
READ = "a client's table of prices, read 2026-09"
PAGE_READ = "a copy of the model's page"
CLIENTS = "clients' tables, read 2026-11"
PLAIN = {"480p": Price(second=0.03, source=PAGE_READ), "720p": Price(second=0.06, source=PAGE_READ)}
PAGE = 100
POLICY_WORDS = ("nsfw", "policy", "sensitive", "moderation")
"""Words in a refusal by its content rules; its code, where there is one, goes first."""
REFUSED, UNREACHABLE = 1200, 1402
"""`code` of a job that its content rules refuse, and of one whose picture or LoRA it could not fetch."""


def verify(request: WebhookRequest, keys: SigningKeys, now: float) -> str:
    """Verify the headers of Standard Webhooks with `v3,<hex>`; return the id.

    Raises VerificationError, UnknownKeyError.
    """
    return verify_shared(request, keys, now, "v3", bytes.fromhex)


def read_secret(found: Any) -> dict[str, bytes]:
    """Return the secret from the reply of GET /webhook/secret: the text after whsec_ as bytes, not decoded."""
    text = part(found, "data", "secret")
    return {"": text.removeprefix(SECRET_PREFIX).encode()} if isinstance(text, str) and text else {}


class WaveSpeed(Provider):
    name, title = "wavespeed", "WaveSpeed"
    variables = ("WAVESPEED_API_KEY",)
    keys_page = "https://wavespeed.ai/accesskey"
    origins = ("https://api.wavespeed.ai",)
    concurrent = 3
    history_delay = 60.0
    webhook = SignatureScheme(verify, f"{BASE}/webhook/secret", read_secret, secret=True)
    models = (
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}-lora", "Wan 2.2, LoRAs", loras=3, lora_pages=True,
                    negative_prompt=True, last_image="last_image", durations=(5, 8),
                    prices={"480p": Price(second=0.04, source=PAGE_READ), "720p": Price(second=0.07, source=READ)}),
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}-lora-ultra-fast", "Wan 2.2 ultra fast, LoRAs", loras=3,
                    lora_pages=True, negative_prompt=True, last_image="last_image", durations=(5, 8),
                    prices={"480p": Price(second=0.02, source=READ)}, estimates=by_second(CLIENTS, p720=(0.03, 0.05))),
        RemoteModel("wavespeed-ai/wan-2.2-spicy/image-to-video-lora", "Wan 2.2 Spicy, LoRAs (adult)", loras=3,
                    lora_pages=True, durations=(5, 8), prices={"480p": Price(second=0.04, source=READ)},
                    estimates=by_second(CLIENTS, p720=(0.07, 0.08))),
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}", "Wan 2.2", negative_prompt=True, last_image="last_image",
                    durations=(5, 8), prices=PLAIN),
        RemoteModel("wavespeed-ai/wan-2.2/image-to-video-lora", "Wan 2.2 unified, LoRAs", loras=3, lora_pages=True,
                    negative_prompt=True, last_image="last_image", durations=(5, 8),
                    estimates=by_second(CLIENTS, p480=(0.03, 0.04), p720=(0.06, 0.08))),
        RemoteModel("wavespeed-ai/wan-2.2/image-to-video", "Wan 2.2 unified", negative_prompt=True,
                    last_image="last_image", durations=(5, 8), prices=PLAIN),
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}-ultra-fast", "Wan 2.2 ultra fast", negative_prompt=True,
                    last_image="last_image", durations=(5, 8),
                    estimates=by_second(CLIENTS, p480=(0.01, 0.02), p720=(0.02, 0.04))),
        RemoteModel("wavespeed-ai/wan-2.2-spicy/image-to-video", "Wan 2.2 Spicy (adult)", durations=(5, 8),
                    prices={"480p": Price(second=0.03, source=CLIENTS)},
                    estimates=by_second(CLIENTS, p720=(0.05, 0.06))),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        code = int(number_part(found, "code") or reply.status)
        if reply.good and isinstance(found, dict) and code == 200:
            return None
        message = word_part(found, "message")
        status = code if reply.good else reply.status
        if status >= 500 or (reply.good and not isinstance(found, dict)) or status in (408, 425):
            return self.error(ErrorKind.TRANSIENT, reply, message, status=status)
        if status == 429:
            kind = ErrorKind.RATE_LIMIT
        elif contains_any(message, "balance", "insufficient", "top up", "top-up", "inactive"):
            kind = ErrorKind.QUOTA
        elif status in (401, 403):
            kind = ErrorKind.AUTH
        elif contains_any(message, *POLICY_WORDS):
            kind = ErrorKind.POLICY
        elif status == 404:
            kind = ErrorKind.LOST
        else:
            kind = ErrorKind.VALIDATION
        return self.error(kind, reply, message, status=status)

    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield post(f"{BASE}/media/uploads", {"filename": name, "size": len(picture),
                                                     "content_type": content_type})
        upload = part(reply.json(), "data", "upload")
        headers = part(upload, "headers")
        link = self.text(reply, "data", "download_url")
        yield Request(str(part(upload, "method") or "PUT"), self.text(reply, "data", "upload", "url"),
                      {str(key): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {},
                      picture, auth=False, json_answer=False)
        return link

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        return {"image": image_url, "prompt": clip.prompt, "duration": plan.duration, "seed": clip.seed,
                **({"negative_prompt": clip.negative_prompt} if model.negative_prompt and clip.negative_prompt else {}),
                **({} if "{resolution}" in model.id else {"resolution": clip.resolution}),
                **lora_lists(plan)}

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        query = f"?{urlencode({'webhook': webhook})}" if webhook else ""
        return post(f"{BASE}/{plan.model_name}{query}", body)

    def accepted(self, reply: Reply) -> str:
        return self.text(reply, "data", "id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        reply = yield get(f"{BASE}/predictions/{remote_id}/result")
        data = part(reply.json(), "data")
        word = word_of(data, "status")
        state = STATES.get(word, JobState.RUNNING)
        message = word_part(data, "error")
        url = clip_url(part(data, "outputs"))
        if state == JobState.DOWNLOADING and not url:
            return JobStatus(JobState.FAILED, message="it finished without a clip", unbilled=False)
        return JobStatus(state, url, error_kind=_failure_kind(part(data, "code"), message),
                         message=message or ("" if word in STATES else f"status {word!r}"))

    def price(self, plan: Plan, body: dict[str, Any]) -> RequestFlow[float | None]:
        reply = yield post(f"{BASE}/model/price", {"model_id": plan.model_name, "inputs": body})
        data = part(reply.json(), "data")
        if part(data, "currency") not in (None, "USD"):
            return None
        prices = (number_part(data, "discounted_price"), number_part(data, "price"))
        return next((price for price in prices if price is not None and price > 0), None)

    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        reply = yield replace(get(f"{BASE}/models"), limit=MAX_MODELS)
        models = list_part(reply.json(), "data")
        model = next((m for m in models if part(m, "model_id") == model_name), None)
        if model is None:
            raise self.model_gone(model_name)
        found = part(model, "api_schema", "api_schemas", 0, "request_schema", "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        # The account's list has the jobs of its web page too, of the same model and in the same minutes.
        after = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        reply = yield post(f"{BASE}/predictions", {"page": 1, "page_size": PAGE, "model": model_name,
                                                   "created_after": after})
        items = list_part(reply.json(), "data", "items")
        return [HistoryEntry(str(part(item, "id")), str(part(item, "model")), created,
                             word_part(item, "inputs", "image") or word_part(item, "input", "image") or None)
                for item in items if (created := seconds_of(part(item, "created_at"))) >= since]


def _failure_kind(code: Any, message: str) -> ErrorKind:
    kind = {REFUSED: ErrorKind.POLICY, UNREACHABLE: ErrorKind.VALIDATION}.get(code if isinstance(code, int) else 0)
    return kind or (ErrorKind.POLICY if contains_any(message, *POLICY_WORDS) else ErrorKind.PROVIDER_FAILED)
