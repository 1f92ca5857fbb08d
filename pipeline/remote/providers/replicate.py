"""Replicate, HTTP API v1 (replicate.com/docs: reference/http, verify-webhook; its Python client 1.0.7)."""

from __future__ import annotations

import base64
from typing import Any

from ...request import BOTH, HIGH, LOW
from ..api import Reply, Request, form_file, get, post
from ..errors import Kind, RemoteError
from ..job import State
from ..json_parts import list_part, part, text_part, word_part
from ..plan import Plan, RemoteModel
from ..provider import Candidate, Progress, Steps, clip_url, nothing, seconds_of, speaks_of
from ..webhooks.signatures import Callback, Keys, Scheme, decode_secret, verify_shared

BASE = "https://api.replicate.com/v1"
STATES = {"starting": State.QUEUED, "processing": State.RUNNING, "succeeded": State.DOWNLOADING,
          "failed": State.FAILED, "aborted": State.FAILED, "canceled": State.CANCELED}


def verify(callback: Callback, keys: Keys, now: float) -> str:
    """Standard Webhooks, `v1,<base64>`. Returns the id. Raises ForgedError, UnknownKeyError."""
    return verify_shared(callback, keys, now, "v1", lambda text: base64.b64decode(text, validate=True))


def read_secret(found: Any) -> dict[str, bytes]:
    """The answer of GET /v1/webhooks/default/secret. Raises ValueError when it holds none."""
    text = part(found, "key")
    return {"": decode_secret(text)} if isinstance(text, str) else {}


class Replicate:
    name, title = "replicate", "Replicate"
    variables = ("REPLICATE_API_TOKEN",)
    scheme = "Bearer"
    origins = ("https://api.replicate.com",)
    concurrent = 10
    patient = 0.0
    listed_after = 60.0
    webhook = Scheme(verify, f"{BASE}/webhooks/default/secret", read_secret, secret=True)
    models = (
        RemoteModel("wan-video/wan-2.2-i2v-fast", loras=1, num_frames=(81, 121)),
        RemoteModel("wan-video/wan-2.2-i2v-a14b", max_steps=50, num_frames=(81, 100)),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if reply.good and isinstance(found, dict):
            return None
        said = str(part(found, "detail") or part(found, "title") or "")
        if reply.good or reply.status >= 500 or reply.status == 408:
            return RemoteError(Kind.TRANSIENT, f"Replicate is in trouble (status {reply.status}). {said}".strip(),
                               retry_after=reply.retry_after())
        if reply.status == 429:
            return RemoteError(Kind.RATE_LIMIT, f"Replicate takes no more requests just now. {said}".strip(),
                               retry_after=reply.retry_after())
        kinds = {401: (Kind.AUTH, "Replicate refuses the API token."), 403: (Kind.AUTH, "Replicate refuses access."),
                 402: (Kind.QUOTA, "Replicate asks for money."), 404: (Kind.LOST, "Replicate does not know it.")}
        kind, sentence = kinds.get(reply.status, (Kind.VALIDATION, "Replicate refuses the request."))
        if kind == Kind.VALIDATION and speaks_of(said, "nsfw", "sensitive", "safety", "moderation"):
            kind, sentence = Kind.POLICY, "Replicate's content rules refuse the request."
        return RemoteError(kind, f"{sentence} {said}".strip())

    def upload(self, picture: bytes, content_type: str) -> Steps[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield form_file(f"{BASE}/files", name, picture, content_type, "content")
        return text_part(reply, "urls", "get")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip = plan.clip
        body: dict[str, Any] = {"image": image_url, "prompt": clip.prompt, "num_frames": plan.ask_frames,
                                "resolution": clip.resolution, "frames_per_second": 16, "seed": clip.seed}
        if plan.model.max_steps:
            body["sample_steps"] = plan.steps
        for expert, end in ((HIGH, ""), (LOW, "_2")):
            for link, scale, chosen in plan.loras:
                if chosen in (BOTH, expert):
                    body |= {f"lora_weights_transformer{end}": link, f"lora_scale_transformer{end}": scale}
        return body

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        told = {"webhook": webhook, "webhook_events_filter": ["completed"]} if webhook else {}
        return post(f"{BASE}/models/{plan.model_name}/predictions", {"input": body, **told})

    def accepted(self, reply: Reply) -> str:
        return text_part(reply, "id")

    def poll(self, model_name: str, remote_id: str) -> Steps[Progress]:
        reply = yield get(f"{BASE}/predictions/{remote_id}")
        found = reply.json()
        word = word_part(found, "status")
        state = STATES.get(word, State.RUNNING)
        url = clip_url(part(found, "output"))
        said = str(part(found, "error") or "")
        if state == State.DOWNLOADING and not url:
            if part(found, "data_removed"):
                return Progress(State.LOST, message="its clip was deleted, as Replicate does after an hour")
            return Progress(State.FAILED, message="it is finished, but holds no clip")
        kind = Kind.POLICY if speaks_of(said, "nsfw", "sensitive", "safety", "moderation") else Kind.PROVIDER_FAILED
        return Progress(state, url, kind=kind, message=said or ("" if word in STATES else f"status {word!r}"))

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return Request("POST", f"{BASE}/predictions/{remote_id}/cancel", body=b"{}",
                       headers={"Content-Type": "application/json"}, json_answer=False)

    def price(self, plan: Plan, body: dict[str, Any]) -> Steps[float | None]:
        return nothing(None)

    def fields(self, model_name: str) -> Steps[frozenset[str] | None]:
        reply = yield get(f"{BASE}/models/{model_name}")
        found = part(reply.json(), "latest_version", "openapi_schema", "components", "schemas", "Input", "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> Steps[list[Candidate] | None]:
        reply = yield get(f"{BASE}/predictions")
        return [Candidate(str(part(item, "id")), str(part(item, "model")), seconds_of(part(item, "created_at")),
                          str(part(item, "input", "image") or ""))
                for item in list_part(reply.json(), "results") if seconds_of(part(item, "created_at")) >= since]
