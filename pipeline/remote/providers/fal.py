"""fal.ai: queue API (fal.ai/docs: queue, errors, webhooks; Python client 1.0.3) and Platform APIs v1."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from ...request import BOTH
from ..api import Reply, Request, get, post
from ..errors import RETRYABLE, ErrorKind, RemoteError
from ..job import JobState
from ..json_parts import list_part, number_part, part, word_part
from ..model import Price, RemoteModel
from ..plan import Plan
from ..provider import HistoryEntry, JobStatus, Provider, RequestFlow, clip_url, contains_any, seconds_of
from ..signatures import (
    SignatureScheme,
    SigningKeys,
    UnknownKeyError,
    WebhookRequest,
    decoded,
    header,
    is_signed_by,
    read_jwks,
    timestamp,
)

QUEUE, REST, PLATFORM = "https://queue.fal.run", "https://rest.fal.ai", "https://api.fal.ai/v1"
UPLOAD = "https://v3.fal.media/files/upload"
SCHEMA = "https://fal.ai/api/openapi/queue/openapi.json"
POLICY_TYPE = "content_policy_violation"
"""`type` of an error that its content rules raise."""
APP = "fal-ai/wan"
"""Status, result and cancel take the first two parts of the endpoint's name, not the rest."""
READ = "fal.ai's own list (llms.txt), read 2026-09"
TURBO = {"480p": Price(clip=0.05, source=READ), "720p": Price(clip=0.10, source=READ)}
PLAIN = {"480p": Price(second=0.04, source=READ), "720p": Price(second=0.08, source=READ)}


def verify(request: WebhookRequest, keys: SigningKeys, now: float) -> str:
    """Verify Ed25519 in hex, by any key, over lines of request id, user id, timestamp and the body's SHA-256 in hex.

    Returns the request's id. Raises VerificationError, UnknownKeyError.
    """
    prefix = "x-fal-webhook"
    time = timestamp(request, f"{prefix}-timestamp", now)
    event, user = header(request, f"{prefix}-request-id"), header(request, f"{prefix}-user-id")
    signature = decoded(header(request, f"{prefix}-signature"), bytes.fromhex)
    message = "\n".join((event, user, time, hashlib.sha256(request.body).hexdigest())).encode()
    if not any(is_signed_by(key, signature, message) for key in keys.values()):
        raise UnknownKeyError("the signature is not right")
    return event


class Fal(Provider):
    name, title = "fal", "fal.ai"
    variables = ("FAL_KEY",)
    keys_page = "https://fal.ai/dashboard/keys"
    scheme = "Key"
    origins = (QUEUE, REST, "https://api.fal.ai")
    concurrent = 10
    history_delay = 900.0  # its list has ended jobs alone
    webhook = SignatureScheme(verify, f"{REST}/.well-known/jwks.json", read_jwks, secret=False)
    models = (
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/lora", loras=10, negative_prompt=True, max_steps=40,
                    guidance=True, num_frames=(17, 161),
                    prices=dict.fromkeys(("480p", "720p"), Price(second=0.10, source=READ))),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video", negative_prompt=True, max_steps=40, guidance=True,
                    num_frames=(17, 161), prices=PLAIN),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/turbo", durations=(5,), prices=TURBO),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if reply.good and isinstance(found, dict):
            return None
        detail = part(found, "detail")
        first = detail[0] if isinstance(detail, list) and detail else None
        message = word_part(first, "msg") or word_part(found, "detail")
        error_type = word_part(first, "type") or word_part(found, "error_type")
        again = reply.headers.get("x-fal-retryable", "").lower()
        if reply.status == 429:
            return self.error(ErrorKind.RATE_LIMIT, reply, message)
        if error_type == POLICY_TYPE:
            return self.error(ErrorKind.POLICY, reply, message)
        if again != "false" and (reply.good or reply.status >= 500 or reply.status == 408 or again == "true"):
            return self.error(ErrorKind.TRANSIENT, reply, message)
        if contains_any(message, "balance", "locked"):
            return self.error(ErrorKind.QUOTA, reply, message)
        if reply.status in (401, 403):
            return self.error(ErrorKind.AUTH, reply, message)
        if reply.status == 404:
            return self.error(ErrorKind.LOST, reply, message)
        if reply.status >= 500:
            return self.error(ErrorKind.PROVIDER_FAILED, reply, message)
        where = ".".join(map(str, list_part(first, "loc")))
        return self.error(ErrorKind.VALIDATION, reply, f"{where} {message}".strip())

    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        reply = yield post(f"{REST}/storage/auth/token?storage_type=fal-cdn-v3", {})
        token = f"{part(reply.json(), 'token_type') or 'Bearer'} {self.text(reply, 'token')}"
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield Request("POST", UPLOAD, {"Authorization": token, "Content-Type": content_type,
                                               "X-Fal-File-Name": name}, picture, auth=False)
        return self.text(reply, "access_url")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        body: dict[str, Any] = {"image_url": image_url, "prompt": clip.prompt, "seed": clip.seed,
                                "resolution": clip.resolution}
        if model.num_frames:
            # By default it interpolates, and the clip is not num_frames at 16 a second.
            body |= {"num_frames": plan.num_frames, "frames_per_second": 16, "interpolator_model": "none",
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
        return self.text(reply, "request_id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        reply = yield get(f"{QUEUE}/{APP}/requests/{remote_id}/status")
        found = reply.json()
        word = word_part(found, "status")
        if word == "IN_QUEUE":
            position = part(found, "queue_position")
            return JobStatus(JobState.QUEUED, queue_position=position if isinstance(position, int) else None)
        if word != "COMPLETED":
            return JobStatus(JobState.RUNNING, message="" if word == "IN_PROGRESS" else f"status {word!r}")
        if part(found, "error"):
            refused = part(found, "error_type") == POLICY_TYPE
            return JobStatus(JobState.FAILED, error_kind=ErrorKind.POLICY if refused else ErrorKind.PROVIDER_FAILED,
                            message=word_part(found, "error"))
        try:
            reply = yield get(f"{QUEUE}/{APP}/requests/{remote_id}")
        except RemoteError as error:  # how a finished request failed is in its result
            if error.kind in (ErrorKind.AUTH, ErrorKind.QUOTA, *RETRYABLE):
                raise
            if error.kind == ErrorKind.LOST:
                return JobStatus(JobState.LOST, message=str(error))
            return JobStatus(JobState.FAILED, error_kind=error.kind, message=str(error))
        url = clip_url(part(reply.json(), "video"))
        return JobStatus(JobState.DOWNLOADING, url) if url else JobStatus(
            JobState.FAILED, message="it finished without a clip")

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return Request("PUT", f"{QUEUE}/{APP}/requests/{remote_id}/cancel", body=b"", json_answer=False)

    def price(self, plan: Plan, body: dict[str, Any]) -> RequestFlow[float | None]:
        reply = yield get(f"{PLATFORM}/models/pricing?{urlencode({'endpoint_id': plan.model_name})}")
        price = part(reply.json(), "prices", 0)
        amount = number_part(price, "unit_price")
        if amount is None or part(price, "currency") not in (None, "USD"):
            return None
        unit = str(part(price, "unit"))
        return amount * plan.billed_seconds if "second" in unit else amount if "video" in unit else None

    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        reply = yield Request("GET", f"{SCHEMA}?{urlencode({'endpoint_id': model_name})}", auth=False)
        asked = part(reply.json(), "paths", f"/{model_name}", "post", "requestBody", "content", "application/json",
                     "schema", "$ref")
        found = part(reply.json(), "components", "schemas", str(asked).rpartition("/")[2], "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        start = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = urlencode({"endpoint_id": model_name, "start": start, "expand": "payloads", "limit": 100})
        reply = yield get(f"{PLATFORM}/models/requests/by-endpoint?{query}")
        return [HistoryEntry(str(part(item, "request_id")), str(part(item, "endpoint_id")),
                          seconds_of(part(item, "sent_at")), str(part(item, "json_input", "image_url") or ""))
                for item in list_part(reply.json(), "items")]
