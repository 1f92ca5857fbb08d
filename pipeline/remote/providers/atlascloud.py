"""AtlasCloud, API v1 (atlascloud.ai/docs, webhooks too; AtlasCloudAI/atlascloud_comfyui, `client/atlas_client.py` and
`nodes/video/atlascloud_wan_2_2_i2v_lora.py`)."""

from __future__ import annotations

import json
from typing import Any

from ...request import BOTH, HIGH, LOW
from ..api import Reply, Request, form_file, get, post
from ..errors import Kind, RemoteError
from ..job import State
from ..json_parts import list_part, number_part, part, text_part, word_part
from ..plan import Plan, Rate, RemoteModel
from ..provider import Candidate, Progress, Steps, clip_url, nothing, speaks_of, split_loras
from ..webhooks.signatures import (
    Callback,
    ForgedError,
    Keys,
    Scheme,
    UnknownKeyError,
    base64url,
    decoded,
    header,
    made_by,
    read_jwks,
    timestamp,
)

BASE = "https://api.atlascloud.ai/api/v1"
STATES = {"created": State.QUEUED, "queued": State.QUEUED, "processing": State.RUNNING,
          "completed": State.DOWNLOADING, "succeeded": State.DOWNLOADING, "failed": State.FAILED,
          "timeout": State.FAILED, "cancelled": State.CANCELED}
MODERATED = 1039
"""`error_code` of a clip that the content rules refuse."""
READ = "resellers' lists, read 2026-09"


def verify(callback: Callback, keys: Keys, now: float) -> str:
    """Ed25519 in base64url over timestamp.body, by the key that is named. Raises ForgedError, UnknownKeyError.

    Returns the body's session_id: the header with an id is not signed.
    """
    prefix = "x-atlascloud-webhook"
    time = timestamp(callback, f"{prefix}-timestamp", now)
    signature = decoded(header(callback, f"{prefix}-signature-ed25519"), base64url)
    kid = header(callback, f"{prefix}-key-id")
    if kid not in keys:
        raise UnknownKeyError("the key is not one of the provider's")
    if not made_by(keys[kid], signature, time.encode() + b"." + callback.body):
        raise ForgedError("the signature is not right")
    try:
        event = part(json.loads(callback.body), "session_id")
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, str) or not event:
        raise ForgedError("it has no session_id")
    return event


class AtlasCloud:
    name, title = "atlascloud", "AtlasCloud"
    variables = ("ATLASCLOUD_API_KEY",)
    scheme = "Bearer"
    origins = ("https://api.atlascloud.ai",)
    concurrent = 5
    patient = 30.0
    listed_after = 0.0
    webhook = Scheme(verify, f"{BASE}/webhooks/jwks.json", read_jwks, secret=False)
    models = (
        RemoteModel("atlascloud/wan-2.2/image-to-video-lora", loras=3, negative_prompt=True, durations=(5, 8)),
        RemoteModel("atlascloud/wan-2.2/image-to-video", negative_prompt=True, durations=(5, 8)),
        RemoteModel("alibaba/wan-2.2-spicy/image-to-video-lora", loras=3, durations=(5, 8),
                    rates={"480p": Rate(second=0.04, source=READ)}),
        RemoteModel("atlascloud/wan-2.2-turbo-spicy/image-to-video-lora", loras=3, durations=(5, 8)),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if word_part(found, "data", "status") in STATES:  # a failed job comes with status 500 and its own words
            return None
        code = number_part(found, "code")  # which some of its calls write as text
        if reply.good and isinstance(found, dict) and code in (None, 200):
            return None
        said = str(part(found, "msg") or part(found, "error", "message") or part(found, "message") or "")
        status = int(code) if reply.good and code is not None else reply.status
        if status >= 500 or (not isinstance(found, dict) and status != 429):
            return RemoteError(Kind.TRANSIENT, f"AtlasCloud is in trouble (status {status}). {said}".strip(),
                               retry_after=reply.retry_after())
        kinds = {401: (Kind.AUTH, "AtlasCloud refuses the API key."), 403: (Kind.AUTH, "AtlasCloud refuses access."),
                 402: (Kind.QUOTA, "AtlasCloud's balance does not suffice."),
                 404: (Kind.LOST, "AtlasCloud does not know it."),
                 408: (Kind.TRANSIENT, "AtlasCloud took too long."),
                 413: (Kind.VALIDATION, "The picture is too large for AtlasCloud."),
                 429: (Kind.RATE_LIMIT, "AtlasCloud takes no more requests of this key just now."),
                 451: (Kind.POLICY, "AtlasCloud does not offer this in your region.")}
        kind, sentence = kinds.get(status, (Kind.VALIDATION, f"AtlasCloud refuses the request (status {status})."))
        if part(found, "error_code") == MODERATED or speaks_of(said, "moderation", "content policy", "sensitive"):
            kind, sentence = Kind.POLICY, "AtlasCloud's content rules refuse the request."
        return RemoteError(kind, f"{sentence} {said}".strip(), retry_after=reply.retry_after())

    def upload(self, picture: bytes, content_type: str) -> Steps[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        reply = yield form_file(f"{BASE}/model/uploadMedia", name, picture, content_type)
        found = reply.json()
        return word_part(found, "data", "download_url") or text_part(reply, "data", "url")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        lists = {"loras": BOTH, "high_noise_loras": HIGH, "low_noise_loras": LOW}
        return {"model": plan.model_name, "image": image_url, "prompt": clip.prompt, "resolution": clip.resolution,
                "duration": plan.duration, "seed": clip.seed,
                **({"negative_prompt": clip.negative_prompt} if model.negative_prompt and clip.negative_prompt else {}),
                **{field: found for field, expert in lists.items() if (found := split_loras(plan, expert))}}

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        return post(f"{BASE}/model/generateVideo", body | ({"webhook_url": webhook} if webhook else {}))

    def accepted(self, reply: Reply) -> str:
        return text_part(reply, "data", "id")

    def poll(self, model_name: str, remote_id: str) -> Steps[Progress]:
        reply = yield get(f"{BASE}/model/prediction/{remote_id}")
        data = part(reply.json(), "data")
        word = word_part(data, "status")
        state = STATES.get(word, State.RUNNING)
        url = clip_url(part(data, "outputs") or part(data, "output"))
        said = str(part(data, "error") or "")
        if state == State.DOWNLOADING and not url:
            return Progress(State.FAILED, message="it is finished, but holds no clip")
        kind = Kind.POLICY if part(data, "error_code") == MODERATED else Kind.PROVIDER_FAILED
        return Progress(state, url, None, number_part(data, "price"), kind,
                        said or ("" if word in STATES else f"status {word!r}"))

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return None

    def price(self, plan: Plan, body: dict[str, Any]) -> Steps[float | None]:
        return nothing(None)  # its list of models holds a lowest price alone

    def fields(self, model_name: str) -> Steps[frozenset[str] | None]:
        reply = yield Request("GET", f"{BASE}/models", auth=False)
        models = list_part(reply.json(), "data")
        model = next((m for m in models if model_name in (part(m, "model"), part(m, "id"))), None)
        if model is None:
            raise RemoteError(Kind.VALIDATION, f"AtlasCloud offers no model {model_name} any more. Nothing was sent.")
        link = part(model, "schema")
        if not isinstance(link, str) or not link.startswith("https://"):
            return None
        reply = yield Request("GET", link, auth=False)
        found = part(reply.json(), "components", "schemas", "Input", "properties") or part(reply.json(), "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> Steps[list[Candidate] | None]:
        return nothing(None)
