"""Replicate: HTTP API v1 (replicate.com/docs: reference/http, verify-webhook; Python client 1.0.7)."""

from __future__ import annotations

import base64
from typing import Any

from ...request import BOTH, HIGH, LOW
from ..api import Reply, Request, form_file, get, post
from ..errors import ErrorKind, RemoteError
from ..job import OVER, JobState
from ..json_parts import list_part, part, word_part
from ..model import Price, RemoteModel, by_second
from ..plan import Plan
from ..provider import HistoryEntry, JobStatus, Provider, RequestFlow, clip_url, contains_any, seconds_of, word_of
from ..signatures import SignatureScheme, SigningKeys, WebhookRequest, decode_secret, verify_shared

BASE = "https://api.replicate.com/v1"
STATES = {"starting": JobState.QUEUED, "processing": JobState.RUNNING, "succeeded": JobState.DOWNLOADING,
          "failed": JobState.FAILED, "aborted": JobState.FAILED, "canceled": JobState.CANCELED,
          "cancelled": JobState.CANCELED}
UNBILLED = "aborted"
"""The one end without a clip that is never billed: the job had not begun."""
LIFETIME = "1h"
"""Time after which a job that has not ended is cancelled there: a finished clip is kept no longer."""
READ = "its models' pages by clients' word, read 2026-11"
CLIENTS = "clients' tables, read 2026-11"

POLICY_WORDS = ("nsfw", "sensitive", "safety", "moderation")
"""Words in a refusal by its content rules."""


def verify(request: WebhookRequest, keys: SigningKeys, now: float) -> str:
    """Verify Standard Webhooks, `v1,<base64>`; return the id. Raises VerificationError, UnknownKeyError."""
    return verify_shared(request, keys, now, "v1", lambda text: base64.b64decode(text, validate=True))


def read_secret(found: Any) -> dict[str, bytes]:
    """Return the secret from the reply of GET /v1/webhooks/default/secret; {} when it holds none. Raises ValueError."""
    text = part(found, "key")
    return {"": decode_secret(text)} if isinstance(text, str) else {}


class Replicate(Provider):
    name, title = "replicate", "Replicate"
    variables = ("REPLICATE_API_TOKEN",)
    key_name = "API token"
    keys_page = "https://replicate.com/account/api-tokens"
    origins = ("https://api.replicate.com",)
    concurrent = 10
    work_seconds = 3600.0  # LIFETIME
    history_delay = 60.0
    webhook = SignatureScheme(verify, f"{BASE}/webhooks/default/secret", read_secret, secret=True)
    models = (
        RemoteModel("wan-video/wan-2.2-i2v-fast", "Wan 2.2 fast, LoRAs", loras=1, last_image="last_image",
                    num_frames=(81, 121),
                    # $0.06 and $0.11 for 81 frames; one of 121 is billed at half as much again.
                    prices={"480p": Price(second=0.012, source=READ), "720p": Price(second=0.022, source=READ)}),
        RemoteModel("wan-video/wan-2.2-i2v-a14b", "Wan 2.2", max_steps=50, num_frames=(81, 100),
                    estimates=by_second(CLIENTS, p480=(0.03, 0.06), p720=(0.06, 0.12))),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if reply.good and isinstance(found, dict):
            return None
        message = word_part(found, "detail") or word_part(found, "title")
        if reply.good or reply.status >= 500 or reply.status == 408:
            return self.error(ErrorKind.TRANSIENT, reply, message)
        kind = {401: ErrorKind.AUTH, 402: ErrorKind.QUOTA, 403: ErrorKind.AUTH, 404: ErrorKind.LOST,
                429: ErrorKind.RATE_LIMIT}.get(reply.status, ErrorKind.VALIDATION)
        if kind == ErrorKind.VALIDATION and contains_any(message, *POLICY_WORDS):
            kind = ErrorKind.POLICY
        return self.error(kind, reply, message)

    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield form_file(f"{BASE}/files", name, picture, content_type, "content")
        return self.text(reply, "urls", "get")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip = plan.clip
        body: dict[str, Any] = {"image": image_url, "prompt": clip.prompt, "num_frames": plan.num_frames,
                                "resolution": clip.resolution, "frames_per_second": 16, "seed": clip.seed}
        if plan.model.max_steps:
            body["sample_steps"] = plan.steps
        for expert, end in ((HIGH, ""), (LOW, "_2")):
            for link, scale, chosen in plan.loras:
                if chosen in (BOTH, expert):
                    body |= {f"lora_weights_transformer{end}": link, f"lora_scale_transformer{end}": scale}
        return body

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        options = {"webhook": webhook, "webhook_events_filter": ["completed"]} if webhook else {}
        return post(f"{BASE}/models/{plan.model_name}/predictions", {"input": body, **options},
                    {"Cancel-After": LIFETIME})

    def accepted(self, reply: Reply) -> str:
        return self.text(reply, "id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        reply = yield get(f"{BASE}/predictions/{remote_id}")
        found = reply.json()
        word = word_of(found, "status")
        state = STATES.get(word, JobState.RUNNING)
        url = clip_url(part(found, "output"))
        message = word_part(found, "error")
        if state == JobState.DOWNLOADING and not url:
            if part(found, "data_removed"):
                return JobStatus(JobState.LOST, message="its clip was deleted, which Replicate does after an hour")
            return JobStatus(JobState.FAILED, message="it finished without a clip", unbilled=False)
        kind = ErrorKind.POLICY if contains_any(message, *POLICY_WORDS) else ErrorKind.PROVIDER_FAILED
        return JobStatus(state, url, error_kind=kind, unbilled=state not in OVER or word == UNBILLED,
                         message=message or ("" if word in STATES else f"status {word!r}"))

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return Request("POST", f"{BASE}/predictions/{remote_id}/cancel", body=b"{}",
                       headers={"Content-Type": "application/json"}, json_answer=False)

    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        reply = yield get(f"{BASE}/models/{model_name}")
        found = part(reply.json(), "latest_version", "openapi_schema", "components", "schemas", "Input", "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        reply = yield get(f"{BASE}/predictions")
        # After an hour the inputs are gone, and the picture's link with them.
        return [HistoryEntry(str(part(item, "id")), str(part(item, "model")), seconds_of(part(item, "created_at")),
                             None if part(item, "data_removed") else word_part(item, "input", "image"))
                for item in list_part(reply.json(), "results") if seconds_of(part(item, "created_at")) >= since]
