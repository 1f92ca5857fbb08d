"""fal.ai, its queue API (fal.ai/docs: queue, errors, webhooks; its Python client 1.0.3) and Platform APIs v1."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from ...request import BOTH
from ..api import Reply, Request, get, post
from ..errors import PASSING, Kind, RemoteError
from ..job import State
from ..json_parts import list_part, number_part, part, text_part
from ..plan import Plan, Rate, RemoteModel
from ..provider import Candidate, Progress, Steps, clip_url, seconds_of, speaks_of
from ..webhooks.signatures import (
    Callback,
    Keys,
    Scheme,
    UnknownKeyError,
    decoded,
    header,
    made_by,
    read_jwks,
    timestamp,
)

QUEUE, REST, PLATFORM = "https://queue.fal.run", "https://rest.fal.ai", "https://api.fal.ai/v1"
UPLOAD = "https://v3.fal.media/files/upload"
SCHEMA = "https://fal.ai/api/openapi/queue/openapi.json"
REFUSED = "content_policy_violation"
"""Type of the error by which the content rules speak."""
APP = "fal-ai/wan"
"""Requests are asked after under the endpoint's first two names."""
READ = "fal.ai's own list (llms.txt), read 2026-09"
TURBO = {"480p": Rate(clip=0.05, source=READ), "720p": Rate(clip=0.10, source=READ)}
PLAIN = {"480p": Rate(second=0.04, source=READ), "720p": Rate(second=0.08, source=READ)}


def verify(callback: Callback, keys: Keys, now: float) -> str:
    """Ed25519 in hex over request id, user id, timestamp and SHA-256 of the body in hex, a line each, by any of the
    keys. Returns the request's id. Raises ForgedError, UnknownKeyError."""
    prefix = "x-fal-webhook"
    time = timestamp(callback, f"{prefix}-timestamp", now)
    event, user = header(callback, f"{prefix}-request-id"), header(callback, f"{prefix}-user-id")
    signature = decoded(header(callback, f"{prefix}-signature"), bytes.fromhex)
    message = "\n".join((event, user, time, hashlib.sha256(callback.body).hexdigest())).encode()
    if not any(made_by(key, signature, message) for key in keys.values()):
        raise UnknownKeyError("the signature is not right")
    return event


class Fal:
    name, title = "fal", "fal.ai"
    variables = ("FAL_KEY",)
    scheme = "Key"
    origins = (QUEUE, REST, "https://api.fal.ai")
    concurrent = 10
    patient = 0.0
    listed_after = 900.0  # it lists what has ended
    webhook = Scheme(verify, f"{REST}/.well-known/jwks.json", read_jwks, secret=False)
    models = (
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/lora", loras=10, negative_prompt=True, max_steps=40,
                    guidance=True, num_frames=(17, 161),
                    rates=dict.fromkeys(("480p", "720p"), Rate(second=0.10, source=READ))),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video", negative_prompt=True, max_steps=40, guidance=True,
                    num_frames=(17, 161), rates=PLAIN),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/turbo", durations=(5,), rates=TURBO),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if reply.good and isinstance(found, dict):
            return None
        detail = part(found, "detail")
        first = detail[0] if isinstance(detail, list) and detail else None
        said = str(part(first, "msg") or (detail if isinstance(detail, str) else "") or "")
        kind_of_error = str(part(first, "type") or part(found, "error_type") or "")
        again = reply.headers.get("x-fal-retryable", "").lower()
        if reply.status == 429:
            return RemoteError(Kind.RATE_LIMIT, "fal.ai takes no more requests of this key just now.",
                               retry_after=reply.retry_after())
        if kind_of_error == REFUSED:
            return RemoteError(Kind.POLICY, f"fal.ai's content rules refuse the request: {said}")
        if again != "false" and (reply.good or reply.status >= 500 or reply.status == 408 or again == "true"):
            return RemoteError(Kind.TRANSIENT, f"fal.ai is in trouble (status {reply.status}). {said}".strip(),
                               retry_after=reply.retry_after())
        if speaks_of(said, "balance", "locked"):
            return RemoteError(Kind.QUOTA, f"fal.ai asks for money: {said}")
        if reply.status in (401, 403):
            return RemoteError(Kind.AUTH, f"fal.ai refuses the API key. {said}".strip())
        if reply.status == 404:
            return RemoteError(Kind.LOST, f"fal.ai does not know it. {said}".strip())
        if reply.status >= 500:
            return RemoteError(Kind.PROVIDER_FAILED, f"fal.ai could not make the clip: {said}")
        where = ".".join(map(str, list_part(first, "loc")))
        return RemoteError(Kind.VALIDATION, f"fal.ai refuses the request (status {reply.status}): {where} {said}")

    def upload(self, picture: bytes, content_type: str) -> Steps[str]:
        reply = yield post(f"{REST}/storage/auth/token?storage_type=fal-cdn-v3", {})
        token = f"{part(reply.json(), 'token_type') or 'Bearer'} {text_part(reply, 'token')}"
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield Request("POST", UPLOAD, {"Authorization": token, "Content-Type": content_type,
                                               "X-Fal-File-Name": name}, picture, auth=False)
        return text_part(reply, "access_url")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        body: dict[str, Any] = {"image_url": image_url, "prompt": clip.prompt, "seed": clip.seed,
                                "resolution": clip.resolution}
        if model.num_frames:
            # Left to itself it interpolates, and what comes is not num_frames at 16 a second.
            body |= {"num_frames": plan.ask_frames, "frames_per_second": 16, "interpolator_model": "none",
                     "num_interpolated_frames": 0}
        if model.negative_prompt and clip.negative_prompt:
            body["negative_prompt"] = clip.negative_prompt
        if model.max_steps:
            body |= {"num_inference_steps": plan.steps, "guidance_scale": clip.guidance_scale,
                     "guidance_scale_2": clip.guidance_scale}
        if plan.loras:
            body["loras"] = [{"path": link, "scale": scale, "transformer": "both" if expert == BOTH else expert}
                             for link, scale, expert in plan.loras]
        return body

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        query = f"?{urlencode({'fal_webhook': webhook})}" if webhook else ""
        return post(f"{QUEUE}/{plan.model_name}{query}", body, {"x-fal-no-retry": "1"})

    def accepted(self, reply: Reply) -> str:
        return text_part(reply, "request_id")

    def poll(self, model_name: str, remote_id: str) -> Steps[Progress]:
        reply = yield get(f"{QUEUE}/{APP}/requests/{remote_id}/status")
        found = reply.json()
        word = part(found, "status")
        place = part(found, "queue_position")
        if word == "IN_QUEUE":
            return Progress(State.QUEUED, place=place if isinstance(place, int) else None)
        if word != "COMPLETED":
            return Progress(State.RUNNING, message="" if word == "IN_PROGRESS" else f"status {word!r}")
        if part(found, "error"):
            refused = part(found, "error_type") == REFUSED
            return Progress(State.FAILED, kind=Kind.POLICY if refused else Kind.PROVIDER_FAILED,
                            message=str(part(found, "error")))
        try:
            reply = yield get(f"{QUEUE}/{APP}/requests/{remote_id}")
        except RemoteError as error:  # a finished request tells with its result how it failed
            if error.kind in (Kind.AUTH, Kind.QUOTA, *PASSING):
                raise
            if error.kind == Kind.LOST:
                return Progress(State.LOST, message=str(error))
            return Progress(State.FAILED, kind=error.kind, message=str(error))
        url = clip_url(part(reply.json(), "video"))
        return Progress(State.DOWNLOADING, url) if url else Progress(
            State.FAILED, message="it is finished, but holds no clip")

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return Request("PUT", f"{QUEUE}/{APP}/requests/{remote_id}/cancel", body=b"", json_answer=False)

    def price(self, plan: Plan, body: dict[str, Any]) -> Steps[float | None]:
        reply = yield get(f"{PLATFORM}/models/pricing?{urlencode({'endpoint_id': plan.model_name})}")
        price = part(reply.json(), "prices", 0)
        amount = number_part(price, "unit_price")
        if amount is None or part(price, "currency") not in (None, "USD"):
            return None
        unit = str(part(price, "unit"))
        return amount * plan.billed_seconds if "second" in unit else amount if "video" in unit else None

    def fields(self, model_name: str) -> Steps[frozenset[str] | None]:
        reply = yield Request("GET", f"{SCHEMA}?{urlencode({'endpoint_id': model_name})}", auth=False)
        asked = part(reply.json(), "paths", f"/{model_name}", "post", "requestBody", "content", "application/json",
                     "schema", "$ref")
        found = part(reply.json(), "components", "schemas", str(asked).rpartition("/")[2], "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> Steps[list[Candidate] | None]:
        start = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = urlencode({"endpoint_id": model_name, "start": start, "expand": "payloads", "limit": 100})
        reply = yield get(f"{PLATFORM}/models/requests/by-endpoint?{query}")
        return [Candidate(str(part(item, "request_id")), str(part(item, "endpoint_id")),
                          seconds_of(part(item, "sent_at")), str(part(item, "json_input", "image_url") or ""))
                for item in list_part(reply.json(), "items")]
