"""fal.ai: queue API (fal.ai/docs: queue, errors, webhooks; Python client 1.0.3) and Platform APIs v1."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from ...request import BOTH
from ..api import Reply, Request, get, post
from ..errors import ErrorKind, RemoteError
from ..job import JobState
from ..json_parts import list_part, number_part, part, word_part
from ..model import Price, RemoteModel
from ..plan import Plan
from ..provider import HistoryEntry, JobStatus, Provider, RequestFlow, clip_url, contains_any, seconds_of, word_of
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
INTERPOLATION = {"interpolator_model", "num_interpolated_frames", "adjust_fps_for_interpolation"}
"""Options that ask for frames between those that the model makes."""
CANCELLED = "client_cancelled"
"""`type` of the end of a job that was cancelled; a runner that does not hear of it works on."""
APP = "fal-ai/wan"
"""Status, result and cancel take the first two parts of the endpoint's name, not the rest."""
LAST = "end_image_url"
UNITS = {"second": "second", "seconds": "second", "video": "video", "videos": "video"}
"""Units of a price that say what a clip costs. "compute seconds", "5 seconds" and the like do not."""
NO_END = (401, 402, 403, 404, 407, 429)
"""HTTP statuses of a result that say nothing of how its job ended."""
AGAIN = (408, 409, 502, 503, 504)
"""HTTP statuses after which its client asks again."""
READ = "fal.ai's own list (llms.txt), read 2026-09"
SIZES = ("480p", "580p", "720p")
TURBO = {size: Price(clip=usd, source=READ) for size, usd in zip(SIZES, (0.05, 0.075, 0.10), strict=True)}
PLAIN = {size: Price(second=usd, source=READ) for size, usd in zip(SIZES, (0.04, 0.06, 0.08), strict=True)}


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
    concurrent = 2
    history_delay = 900.0  # its list has ended jobs alone
    webhook = SignatureScheme(verify, f"{REST}/.well-known/jwks.json", read_jwks, secret=False)
    models = (
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/lora", "Wan 2.2, LoRAs", loras=10, negative_prompt=True,
                    max_steps=40, guidance=True, last_image=LAST, num_frames=(17, 161), resolutions=SIZES,
                    prices=dict.fromkeys(SIZES, Price(second=0.10, source=READ))),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video", "Wan 2.2", negative_prompt=True, max_steps=40, guidance=True,
                    last_image=LAST, num_frames=(17, 161), resolutions=SIZES, prices=PLAIN),
        RemoteModel("fal-ai/wan/v2.2-a14b/image-to-video/turbo", "Wan 2.2 Turbo", last_image=LAST, durations=(5,),
                    resolutions=SIZES, prices=TURBO),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        if reply.good and isinstance(reply.json(), dict):
            return None
        message, error_type, where = _told(reply)
        again = reply.headers.get("x-fal-retryable", "").lower()
        if reply.status == 429:
            return self.error(ErrorKind.RATE_LIMIT, reply, message)
        if error_type == POLICY_TYPE:
            return self.error(ErrorKind.POLICY, reply, message)
        if again != "false" and (reply.good or reply.status >= 500 or reply.status in AGAIN or again == "true"):
            return self.error(ErrorKind.TRANSIENT, reply, message)
        if contains_any(message, "balance", "locked"):
            return self.error(ErrorKind.QUOTA, reply, message)
        if reply.status in (401, 403):
            return self.error(ErrorKind.AUTH, reply, message)
        if reply.status == 404:
            return self.error(ErrorKind.LOST, reply, message)
        if reply.status >= 500:
            return self.error(ErrorKind.PROVIDER_FAILED, reply, message)
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
            body |= {"num_frames": plan.num_frames, "frames_per_second": 16}
            if not INTERPOLATION & set(plan.options):  # by default it interpolates
                body |= {"interpolator_model": "none", "num_interpolated_frames": 0}
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
        # Its own retries, after a runner that crashed, cost nothing: x-fal-no-retry would turn them into failures.
        return post(f"{QUEUE}/{plan.model_name}{query}", body)

    def accepted(self, reply: Reply) -> str:
        return self.text(reply, "request_id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        reply = yield get(f"{QUEUE}/{APP}/requests/{remote_id}/status")
        found = reply.json()
        word = word_of(found, "status")
        if word == "in_queue":
            position = part(found, "queue_position")
            return JobStatus(JobState.QUEUED, queue_position=position if isinstance(position, int) else None)
        if word != "completed":
            return JobStatus(JobState.RUNNING, message="" if word == "in_progress" else f"status {word!r}")
        if part(found, "error"):
            return _failed(word_part(found, "error"), word_part(found, "error_type"))
        reply = yield Request("GET", f"{QUEUE}/{APP}/requests/{remote_id}", is_answer=_tells_the_end)
        if not reply.good:
            message, error_type, where = _told(reply)
            if contains_any(message, "still in progress"):  # the result is a moment behind the status
                return JobStatus(JobState.RUNNING)
            return _failed(f"{where} {message}".strip(), error_type, reply.status)
        url = clip_url(part(reply.json(), "video"))
        return JobStatus(JobState.DOWNLOADING, url) if url else JobStatus(
            JobState.FAILED, message="it finished without a clip", unbilled=False)

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return Request("PUT", f"{QUEUE}/{APP}/requests/{remote_id}/cancel", body=b"", json_answer=False)

    def price(self, plan: Plan, body: dict[str, Any]) -> RequestFlow[float | None]:
        # Its call has one price for every resolution, while the bill weighs them: the table goes first.
        if plan.clip.resolution in plan.model.prices:
            return None
        reply = yield get(f"{PLATFORM}/models/pricing?{urlencode({'endpoint_id': plan.model_name})}")
        price = part(reply.json(), "prices", 0)
        amount = number_part(price, "unit_price")
        if amount is None or amount <= 0 or part(price, "currency") not in (None, "USD"):
            return None
        unit = UNITS.get(word_of(price, "unit"))
        return {"second": amount * plan.billed_seconds, "video": amount}.get(unit)

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


def _told(reply: Reply) -> tuple[str, str, str]:
    """Return the message, the type and the place of an error; "" for each that a reply does not have.

    A model's errors are a list of {loc, msg, type}, fal's own {detail, error_type} or the header X-Fal-Error-Type.
    """
    found = reply.json()
    first = part(found, "detail", 0)
    message = word_part(first, "msg") or word_part(found, "detail")
    error_type = (word_part(first, "type") or word_part(found, "error_type")
                  or reply.headers.get("x-fal-error-type", ""))
    where = (str(step) for step in list_part(first, "loc") if isinstance(step, (str, int)))
    return message, error_type, ".".join(where)


def _tells_the_end(reply: Reply) -> bool:
    """True for a result that says how a finished job failed; not for a gateway's error or one of the account.

    A gateway's error has neither a body of fal's nor a request id (fal_client 1.0.3, `_is_ingress_error`).
    """
    if reply.status < 400 or reply.status in NO_END:
        return False
    return "x-fal-request-id" in reply.headers or any(_told(reply))


def _failed(message: str, error_type: str, status: int = 500) -> JobStatus:
    """Return the end of a job with an error; status: of its result.

    A refused input and a job that was cancelled may be billed, a failure is not.
    """
    if error_type == POLICY_TYPE:
        kind = ErrorKind.POLICY
    elif status == 422 or error_type == "validation_error":
        kind = ErrorKind.VALIDATION
    else:
        kind = ErrorKind.PROVIDER_FAILED
    return JobStatus(JobState.FAILED, error_kind=kind, message=message or error_type.replace("_", " "),
                     unbilled=kind == ErrorKind.PROVIDER_FAILED and error_type != CANCELLED)
