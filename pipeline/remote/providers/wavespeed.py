"""WaveSpeed, API v3 (wavespeed.ai/docs, how-to-use-webhooks among them, and its Python SDK 2.0.5, `api/client.py`)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from ...request import BOTH, HIGH, LOW
from ..api import Reply, Request, get, post
from ..errors import Kind, RemoteError
from ..job import State
from ..json_parts import list_part, number_part, part, text_part, word_part
from ..plan import Plan, Rate, RemoteModel
from ..provider import Candidate, Progress, Steps, clip_url, seconds_of, speaks_of, split_loras
from ..webhooks.signatures import PREFIX, Callback, Keys, Scheme, verify_shared

BASE = "https://api.wavespeed.ai/api/v3"
STATES = {"created": State.QUEUED, "pending": State.QUEUED, "processing": State.RUNNING,
          "completed": State.DOWNLOADING, "failed": State.FAILED, "timeout": State.FAILED,
          "cancelled": State.CANCELED, "deleted": State.LOST}
READ = "a client's table of prices, read 2026-09"
PAGE_READ = "a copy of the model's page"
PAGE = 100
REFUSED = ("nsfw", "policy", "sensitive", "moderation")
"""Words of its content rules."""


def verify(callback: Callback, keys: Keys, now: float) -> str:
    """`v3,<hex>`. Returns the id. Raises ForgedError, UnknownKeyError."""
    return verify_shared(callback, keys, now, "v3", bytes.fromhex)


def read_secret(found: Any) -> dict[str, bytes]:
    """The answer of GET /webhook/secret. The key is the text after whsec_, as bytes: it is not decoded."""
    text = part(found, "data", "secret")
    return {"": text.removeprefix(PREFIX).encode()} if isinstance(text, str) and text else {}


class WaveSpeed:
    name, title = "wavespeed", "WaveSpeed"
    variables = ("WAVESPEED_API_KEY",)
    scheme = "Bearer"
    origins = ("https://api.wavespeed.ai",)
    concurrent = 3
    patient = 0.0
    listed_after = 60.0
    webhook = Scheme(verify, f"{BASE}/webhook/secret", read_secret, secret=True)
    models = (
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}-lora", loras=3, negative_prompt=True, durations=(5, 8),
                    rates={"480p": Rate(second=0.04, source=PAGE_READ), "720p": Rate(second=0.07, source=READ)}),
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}-lora-ultra-fast", loras=3, negative_prompt=True,
                    durations=(5, 8), rates={"480p": Rate(second=0.02, source=READ)}),
        RemoteModel("wavespeed-ai/wan-2.2-spicy/image-to-video-lora", loras=3, durations=(5, 8),
                    rates={"480p": Rate(second=0.04, source=READ)}),
        RemoteModel("wavespeed-ai/wan-2.2/i2v-{resolution}", negative_prompt=True, durations=(5, 8)),
    )

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        code = part(found, "code") if isinstance(part(found, "code"), int) else reply.status
        if reply.good and isinstance(found, dict) and code == 200:
            return None
        said = str(part(found, "message") or "")
        if reply.status >= 500 or (reply.good and not isinstance(found, dict)) or reply.status in (408, 425):
            return RemoteError(Kind.TRANSIENT, f"WaveSpeed is in trouble (status {reply.status}). {said}".strip(),
                               retry_after=reply.retry_after())
        status = code if reply.good else reply.status
        if status == 429:
            return RemoteError(Kind.RATE_LIMIT, "WaveSpeed takes no more requests of this key just now.",
                               retry_after=reply.retry_after())
        if speaks_of(said, "balance", "insufficient", "top up", "top-up", "inactive"):
            return RemoteError(Kind.QUOTA, f"WaveSpeed asks for money: {said}")
        if status in (401, 403):
            return RemoteError(Kind.AUTH, f"WaveSpeed refuses the API key. {said}".strip())
        if speaks_of(said, *REFUSED):
            return RemoteError(Kind.POLICY, f"WaveSpeed's content rules refuse the request: {said}")
        if status == 404:
            return RemoteError(Kind.LOST, f"WaveSpeed does not know it. {said}".strip())
        return RemoteError(Kind.VALIDATION, f"WaveSpeed refuses the request (code {status}): {said}")

    def upload(self, picture: bytes, content_type: str) -> Steps[str]:
        name = f"picture.{content_type.rpartition('/')[2]}"
        place = yield post(f"{BASE}/media/uploads", {"filename": name, "size": len(picture),
                                                     "content_type": content_type})
        upload = part(place.json(), "data", "upload")
        headers = part(upload, "headers")
        yield Request(str(part(upload, "method") or "PUT"), text_part(place, "data", "upload", "url"),
                      {str(key): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {},
                      picture, auth=False, json_answer=False)
        return text_part(place, "data", "download_url")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip, model = plan.clip, plan.model
        lists = {"loras": BOTH, "high_noise_loras": HIGH, "low_noise_loras": LOW}
        return {"image": image_url, "prompt": clip.prompt, "duration": plan.duration, "seed": clip.seed,
                **({"negative_prompt": clip.negative_prompt} if model.negative_prompt and clip.negative_prompt else {}),
                **({} if "{resolution}" in model.id else {"resolution": clip.resolution}),
                **{field: found for field, expert in lists.items() if (found := split_loras(plan, expert))}}

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        query = f"?{urlencode({'webhook': webhook})}" if webhook else ""
        return post(f"{BASE}/{plan.model_name}{query}", body)

    def accepted(self, reply: Reply) -> str:
        return text_part(reply, "data", "id")

    def poll(self, model_name: str, remote_id: str) -> Steps[Progress]:
        reply = yield get(f"{BASE}/predictions/{remote_id}/result")
        data = part(reply.json(), "data")
        word = word_part(data, "status")
        state = STATES.get(word, State.RUNNING)
        said = str(part(data, "error") or "")
        url = clip_url(part(data, "outputs"))
        if state == State.DOWNLOADING and not url:
            return Progress(State.FAILED, message="it is finished, but holds no clip")
        kind = Kind.POLICY if speaks_of(said, *REFUSED) else Kind.PROVIDER_FAILED
        return Progress(state, url, kind=kind, message=said or ("" if word in STATES else f"status {word!r}"))

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return None

    def price(self, plan: Plan, body: dict[str, Any]) -> Steps[float | None]:
        reply = yield post(f"{BASE}/model/price", {"model_id": plan.model_name, "inputs": body})
        data = part(reply.json(), "data")
        if part(data, "currency") not in (None, "USD"):
            return None
        discounted = number_part(data, "discounted_price")
        return number_part(data, "price") if discounted is None else discounted

    def fields(self, model_name: str) -> Steps[frozenset[str] | None]:
        reply = yield get(f"{BASE}/models")
        models = list_part(reply.json(), "data")
        model = next((m for m in models if part(m, "model_id") == model_name), None)
        if model is None:
            raise RemoteError(Kind.VALIDATION, f"WaveSpeed no longer offers {model_name}. Nothing was sent.")
        found = part(model, "api_schema", "api_schemas", 0, "request_schema", "properties")
        return frozenset(found) if isinstance(found, dict) else None

    def history(self, model_name: str, since: float) -> Steps[list[Candidate] | None]:
        reply = yield post(f"{BASE}/predictions", {"page": 1, "page_size": PAGE})
        items = list_part(reply.json(), "data", "items")
        return [Candidate(str(part(item, "id")), str(part(item, "model")), created) for item in items
                if (created := seconds_of(part(item, "created_at"))) >= since]
