"""AtlasCloud: API v1 (atlascloud.ai/docs, webhooks too; AtlasCloudAI/atlascloud_comfyui, `client/atlas_client.py` and
`nodes/video/atlascloud_wan_2_2_i2v_lora.py`; AtlasCloudAI/mcp-server, `services/spend-policy.ts` for the price and
`tools/predictions.ts` for the list of jobs)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from ..api import MAX_MODELS, Reply, Request, form_file, get, post
from ..errors import ErrorKind, RemoteError
from ..job import OVER, JobState
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
from ..signatures import (
    SignatureScheme,
    SigningKeys,
    UnknownKeyError,
    VerificationError,
    WebhookRequest,
    base64url,
    decoded,
    header,
    is_signed_by,
    read_jwks,
    timestamp,
)

BASE = "https://api.atlascloud.ai/api/v1"
STATES = {"created": JobState.QUEUED, "queued": JobState.QUEUED, "starting": JobState.QUEUED,
          "processing": JobState.RUNNING,
          "completed": JobState.DOWNLOADING, "succeeded": JobState.DOWNLOADING, "failed": JobState.FAILED,
          "timeout": JobState.FAILED, "error": JobState.FAILED, "rejected": JobState.FAILED,
          "cancelled": JobState.CANCELED, "canceled": JobState.CANCELED}
TURBO_SIZES = ("480p", "720p", "1080p")
MODERATED = 1039
"""`error_code` of a clip that its content rules refuse."""
PAGE = 50
"""Most jobs of one page of its list."""
MILLISECONDS = 1e12
"""Larger times are not seconds since 1970."""
POLICY_WORDS = ("moderation", "content policy", "sensitive", "safety review")
"""Words in a refusal by its content rules; some come with a code that says nothing."""
READ = "resellers' lists, read 2026-09"
CLIENTS = "clients' tables, read 2026-11"
TURBO = by_second(CLIENTS, p480=(0.02, 0.03), p720=(0.02, 0.06), p1080=(0.04, 0.12))


def verify(request: WebhookRequest, keys: SigningKeys, now: float) -> str:
    """Verify Ed25519 in base64url over timestamp.body, by the key that the request names.

    Returns the body's session_id: the header with an id is not signed. Raises VerificationError, UnknownKeyError.
    """
    prefix = "x-atlascloud-webhook"
    time = timestamp(request, f"{prefix}-timestamp", now)
    signature = decoded(header(request, f"{prefix}-signature-ed25519"), base64url)
    kid = header(request, f"{prefix}-key-id")
    if kid not in keys:
        raise UnknownKeyError("the key is not one of the known ones")
    if not is_signed_by(keys[kid], signature, time.encode() + b"." + request.body):
        raise VerificationError("the signature is not right")
    try:
        event = part(json.loads(request.body), "session_id")
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, str) or not event:
        raise VerificationError("session_id is missing")
    return event


class AtlasCloud(Provider):
    name, title = "atlascloud", "AtlasCloud"
    variables = ("ATLASCLOUD_API_KEY",)
    keys_page = "https://www.atlascloud.ai/console/api-keys"
    origins = ("https://api.atlascloud.ai",)
    concurrent = 5
    grace_seconds = 30.0
    history_delay = 60.0
    bill_after = (3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
    webhook = SignatureScheme(verify, f"{BASE}/webhooks/jwks.json", read_jwks, secret=False)
    models = (
        RemoteModel("atlascloud/wan-2.2/image-to-video-lora", "Wan 2.2, LoRAs", loras=3, lora_pages=True,
                    negative_prompt=True, durations=(5, 8),
                    estimates=by_second(CLIENTS, p480=(0.03, 0.05), p720=(0.06, 0.10))),
        RemoteModel("atlascloud/wan-2.2/image-to-video", "Wan 2.2", negative_prompt=True, durations=(5, 8),
                    estimates=by_second(CLIENTS, p480=(0.02, 0.04), p720=(0.04, 0.08))),
        RemoteModel("alibaba/wan-2.2-spicy/image-to-video-lora", "Wan 2.2 Spicy, LoRAs (adult)", loras=3,
                    lora_pages=True, durations=(5, 8), prices={"480p": Price(second=0.04, source=READ)},
                    estimates=by_second(CLIENTS, p720=(0.06, 0.08))),
        RemoteModel("atlascloud/wan-2.2-turbo-spicy/image-to-video-lora", "Wan 2.2 Turbo Spicy, LoRAs (adult)", loras=3,
                    loras_for_both=False, lora_pages=True, durations=(5,), resolutions=TURBO_SIZES, estimates=TURBO),
        RemoteModel("atlascloud/wan-2.2-turbo/image-to-video", "Wan 2.2 Turbo", negative_prompt=True, durations=(5,),
                    resolutions=TURBO_SIZES, estimates=TURBO),
        RemoteModel("atlascloud/wan-2.2-turbo-spicy/image-to-video", "Wan 2.2 Turbo Spicy (adult)", durations=(5,),
                    resolutions=TURBO_SIZES, estimates=TURBO),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if word_of(_inner(found), "status") in STATES:  # the status of a failed job comes with HTTP 500
            return None
        code = number_part(found, "code")  # some of its calls write it as text
        if reply.good and isinstance(found, dict) and code in (None, 200):
            return None
        message = word_part(found, "msg") or word_part(found, "error", "message") or word_part(found, "message")
        status = int(code) if reply.good and code is not None else reply.status
        if status >= 500 or status == 408 or (not isinstance(found, dict) and status != 429):
            return self.error(ErrorKind.TRANSIENT, reply, message, status=status)
        if part(found, "error_code") == MODERATED or contains_any(message, *POLICY_WORDS):
            return self.error(ErrorKind.POLICY, reply, message, status=status)
        kind = {401: ErrorKind.AUTH, 403: ErrorKind.AUTH, 402: ErrorKind.QUOTA, 404: ErrorKind.LOST,
                429: ErrorKind.RATE_LIMIT, 451: ErrorKind.POLICY}.get(status, ErrorKind.VALIDATION)
        sentence = {413: "AtlasCloud refused: the picture is too large",
                    451: "AtlasCloud refused: not available in your region"}.get(status, "")
        return self.error(kind, reply, message, status=status, sentence=sentence)

    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield form_file(f"{BASE}/model/uploadMedia", name, picture, content_type)
        found = reply.json()
        return word_part(found, "data", "download_url") or self.text(reply, "data", "url")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        return {"model": plan.model_name, "image": image_url, "prompt": clip.prompt, "resolution": clip.resolution,
                "duration": plan.duration, "seed": clip.seed,
                **({"negative_prompt": clip.negative_prompt} if model.negative_prompt and clip.negative_prompt else {}),
                **lora_lists(plan)}

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        return post(f"{BASE}/model/generateVideo", body | ({"webhook_url": webhook} if webhook else {}))

    def accepted(self, reply: Reply) -> str:
        data = _inner(reply.json())
        names = (word_part(data, name) for name in ("id", "prediction_id", "request_id"))
        return next(filter(None, names), "") or self.text(reply, "data", "id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        reply = yield get(f"{BASE}/model/prediction/{remote_id}")
        found = reply.json()
        data = _inner(found)
        word = word_of(data, "status")
        state = STATES.get(word, JobState.RUNNING)
        url = clip_url(part(data, "outputs") or part(data, "output"))
        message, price = word_part(data, "error") or word_part(data, "message"), number_part(data, "price")
        if state in OVER:  # what is around it may say more
            message = message or word_part(found, "message") or word_part(found, "msg")
        billed = price is not None and price > 0
        if state == JobState.DOWNLOADING and not url:
            return JobStatus(JobState.FAILED, price=price, message="it finished without a clip", unbilled=not billed)
        refused = part(data, "error_code") == MODERATED or contains_any(message, *POLICY_WORDS)
        return JobStatus(state, url, None, price, ErrorKind.POLICY if refused else ErrorKind.PROVIDER_FAILED,
                         message or ("" if word in STATES else f"status {word!r}"), unbilled=not billed)

    def price(self, plan: Plan, body: dict[str, Any]) -> RequestFlow[float | None]:
        reply = yield post(f"{BASE}/model/calculate", body)
        data = _inner(reply.json())
        price = number_part(data, "price")
        partial = part(data, "estimate_partial") is True  # then the clip costs more
        return price if price is not None and price > 0 and not partial else None

    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        reply = yield Request("GET", f"{BASE}/models", auth=False, limit=MAX_MODELS)
        models = list_part(reply.json(), "data")
        model = next((m for m in models if model_name in (part(m, "model"), part(m, "id"))), None)
        if model is None:
            raise self.model_gone(model_name)
        link = part(model, "schema")
        if not isinstance(link, str) or not link.startswith("https://"):
            return None
        reply = yield Request("GET", link, auth=False)
        found = part(reply.json(), "components", "schemas", "Input", "properties") or part(reply.json(), "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        # `no` is the page. A name that it does not know is passed over without a word.
        reply = yield get(f"{BASE}/model/history?{urlencode({'no': 1, 'size': PAGE, 'model': model_name})}")
        return [HistoryEntry(str(part(item, "ID")), str(part(item, "model")), created,
                             word_part(_request_of(item), "image") or None)
                for item in list_part(reply.json(), "data", "items") if (created := _created(item)) >= since]


def _inner(found: Any) -> Any:
    """Return what an answer holds: its `data`, or itself where it comes without that."""
    data = part(found, "data")
    return data if isinstance(data, dict) or part(found, "code") is not None else found


def _created(item: Any) -> float:
    """Return when a job of the list was created: it tells seconds since 1970 as text; milliseconds and ISO 8601 too."""
    number = number_part(item, "createdAt")
    if number is None:
        return seconds_of(part(item, "createdAt"))
    return number / 1000 if number > MILLISECONDS else number


def _request_of(item: Any) -> Any:
    """Return the inputs of a job of the list, which are JSON in a text."""
    found = part(item, "requestBody")
    try:
        return json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        return None
