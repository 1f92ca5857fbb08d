"""Another ComfyUI with this pack: its API v1 (docs/api.md; pipeline/serve)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ...request import ALL_STEPS, DEFAULT_MIN_MATCH, MAX_SCALE, MAX_STEPS, Lora
from ..api import Reply, Request, get, post
from ..errors import ErrorKind, RemoteError
from ..job import JobState
from ..json_parts import list_part, number_part, part, word_part
from ..model import RemoteModel
from ..plan import Plan, sent_loras
from ..provider import HistoryEntry, JobStatus, Provider, RequestFlow, clip_url, seconds_of, word_of

API = "/wan22/api/v1"
SUBMIT = "image-to-video"
DEFAULT = "default"
"""Stands for the model that the other side takes when a request names none."""
STATES = {"queued": JobState.QUEUED, "running": JobState.RUNNING, "completed": JobState.DOWNLOADING,
          "failed": JobState.FAILED, "cancelled": JobState.CANCELED}
KINDS = {"unauthorized": ErrorKind.AUTH, "forbidden": ErrorKind.AUTH, "not_found": ErrorKind.LOST,
         "rate_limited": ErrorKind.RATE_LIMIT, "queue_full": ErrorKind.RATE_LIMIT, "too_slow": ErrorKind.TRANSIENT,
         "unavailable": ErrorKind.TRANSIENT, "idempotency_conflict": ErrorKind.SUBMIT_UNKNOWN}
"""`error.code` -> kind; a code that is not here refuses the request."""
STATUSES = {401: ErrorKind.AUTH, 403: ErrorKind.AUTH, 404: ErrorKind.LOST, 408: ErrorKind.TRANSIENT,
            429: ErrorKind.RATE_LIMIT}
"""Status of an error without a code -> kind."""
OTHER_THINGS = "application/octet-stream"
PAGE = 100


class AnotherComfyUI(Provider):
    name, title = "another_comfyui", "Another ComfyUI"
    variables = ("ANOTHER_COMFYUI_API_KEY",)
    keys_page = ""
    concurrent = 4
    work_seconds = 24 * 3600.0  # a slow machine is no reason to give its clip up
    own_server = True
    idempotent = True
    models = (RemoteModel(DEFAULT, loras=8, lora_files=True, lora_scales=(-MAX_SCALE, MAX_SCALE), negative_prompt=True,
                          last_image="last_image", max_steps=MAX_STEPS, guidance=True, num_frames=(5, 161), free=True),)

    def __init__(self, address: str = "") -> None:
        """address: of that ComfyUI, such as http://192.168.1.20:8188; "" where it is not known yet."""
        parts = urlsplit(address)
        self.base = address + API
        self.origins = (f"{parts.scheme}://{parts.netloc}",) if address else ()

    def at(self, address: str) -> AnotherComfyUI:
        return AnotherComfyUI(address)

    def model(self, model_id: str) -> RemoteModel | None:
        """Return the model of any id: the other side knows which there are."""
        return replace(self.models[0], id=model_id) if model_id.strip() else self.models[0]

    def refusal(self, reply: Reply) -> RemoteError | None:
        found = reply.json()
        if reply.good and isinstance(found, dict):
            return None
        code, message = word_part(found, "error", "code"), word_part(found, "error", "message")
        if reply.good or reply.status >= 500:
            return self.error(ErrorKind.TRANSIENT, reply, message)
        kind = KINDS.get(code, ErrorKind.VALIDATION) if code else STATUSES.get(reply.status, ErrorKind.VALIDATION)
        if kind == ErrorKind.SUBMIT_UNKNOWN:
            return RemoteError(kind, f"{self.title} knows this job with another request. {message}")
        where = word_part(found, "error", "field")
        many = f"{self.title} refused: too much at once with this key" if kind == ErrorKind.RATE_LIMIT else ""
        return self.error(kind, reply, f"{where}: {message}" if where and where not in message else message,
                          sentence=many)

    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        return self._upload(picture, hashlib.sha256(picture).hexdigest())

    def upload_lora(self, file: Path, sha256: str) -> RequestFlow[str]:
        return self._upload(file, sha256)

    def _upload(self, data: bytes | Path, sha256: str) -> RequestFlow[str]:
        """Upload what is not there; an upload's name is its hash, so that a repeated request is the same one."""
        try:
            reply = yield get(f"{self.base}/uploads/{sha256}")
        except RemoteError as error:
            if error.kind != ErrorKind.LOST:
                raise
            try:
                reply = yield Request("POST", f"{self.base}/uploads", {"Content-Type": OTHER_THINGS}, data)
            except RemoteError as refused:
                if refused.kind == ErrorKind.LOST:
                    raise self.model_gone("") from None
                raise
        return self.text(reply, "id")

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        clip = plan.clip
        loras = [{"url": link, "scale": scale, "expert": expert, **_further(lora)}
                 for lora, (link, scale, expert) in zip(sent_loras(clip.loras), plan.loras, strict=True)]
        return {"image": image_url, "prompt": clip.prompt, "negative_prompt": clip.negative_prompt, "loras": loras,
                "num_frames": plan.num_frames, "resolution": clip.resolution, "num_inference_steps": plan.steps,
                "guidance_scale": clip.guidance_scale, "seed": clip.seed,
                **({} if plan.model.id == DEFAULT else {"model": plan.model.id})}

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        return post(f"{self.base}/{SUBMIT}", body)

    def accepted(self, reply: Reply) -> str:
        return self.text(reply, "id")

    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        try:
            reply = yield get(f"{self.base}/predictions/{quote(remote_id, safe='')}")
        except RemoteError as error:
            if error.kind == ErrorKind.LOST and (yield from self._is_off()):
                raise RemoteError(ErrorKind.TRANSIENT, self._not_served()) from None  # the job may be there later
            raise
        found = reply.json()
        word = word_of(found, "status")
        state = STATES.get(word, JobState.RUNNING)
        if state == JobState.DOWNLOADING:
            url = self._here(clip_url(part(found, "outputs")))
            warnings = tuple(text for text in list_part(found, "warnings") if isinstance(text, str))
            return JobStatus(state, url, warnings=warnings) if url else JobStatus(
                JobState.FAILED, message="it finished without a clip")
        place = part(found, "queue_position")
        message = word_part(found, "error", "message") or (_progress(found) if word in STATES else f"status {word!r}")
        is_input = word_part(found, "error", "code") == "image"
        return JobStatus(state, queue_position=place if isinstance(place, int) and state == JobState.QUEUED else None,
                         error_kind=ErrorKind.VALIDATION if is_input else ErrorKind.PROVIDER_FAILED, message=message)

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        return post(f"{self.base}/predictions/{quote(remote_id, safe='')}/cancel", {})

    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        found = (yield get(f"{self.base}/models")).json()
        names = _models(found)
        if names and model_name not in (DEFAULT, *names):
            raise RemoteError(ErrorKind.VALIDATION, f"{self.title} has no model {model_name!r}. Choose one of "
                              f"{DEFAULT}, {', '.join(names)}. Nothing was sent.")
        return frozenset(name for name in list_part(found, "fields") if isinstance(name, str)) or None

    def models_there(self) -> RequestFlow[tuple[str, ...]]:
        return _models((yield get(f"{self.base}/models")).json())

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        reply = yield get(f"{self.base}/predictions?limit={PAGE}")
        return [HistoryEntry(word_part(item, "id"), model_name, seconds_of(part(item, "created_at")),
                             word_part(item, "request", "image"), seed if isinstance(seed, int) else None)
                for item in list_part(reply.json(), "predictions")
                if model_name in (DEFAULT, word_part(item, "model"))
                for seed in [part(item, "request", "seed")]]

    def fields_gone(self, model: str, names: Sequence[str]) -> RemoteError:
        return RemoteError(ErrorKind.VALIDATION, f"The pack of {self.title} is older than this one: it takes no "
                           f"{', '.join(names)}. Update it there, or clear what it does not take. Nothing was sent.")

    def model_gone(self, model: str) -> RemoteError:
        return RemoteError(ErrorKind.VALIDATION, f"{self._not_served()} Nothing was sent.")

    def _is_off(self) -> RequestFlow[bool]:
        """Return whether there is no API at all, rather than no such job."""
        try:
            yield get(f"{self.base}/models")
        except RemoteError as error:
            return error.kind == ErrorKind.LOST
        return False

    def _not_served(self) -> str:
        return (f"{self.title} does not serve this pack's API (404). Check its address, and that the pack is there, is "
                "no older than here, and has its API on in Settings > Wan 2.2 > API.")

    def _here(self, link: str) -> str:
        """Return a link of the other side's at the address by which it is asked; "" for one that is not its API's."""
        _, api, rest = link.partition(f"{API}/")
        return f"{self.base}/{rest}" if api and rest else ""


def _models(found: Any) -> tuple[str, ...]:
    """Return the ids in the answer of GET models."""
    return tuple(word_part(model, "id") for model in list_part(found, "models"))


def _further(lora: Lora) -> dict[str, Any]:
    """Return what a LoRA asks for beyond the defaults; an older pack refuses what it does not know of it."""
    asked = {"sha256": lora.sha256, "min_match": lora.min_match, **asdict(lora.schedule)}
    usual = {"sha256": None, "min_match": DEFAULT_MIN_MATCH, **asdict(ALL_STEPS)}
    return {name: value for name, value in asked.items() if value != usual[name]}


def _progress(found: Any) -> str:
    step, steps, left = (number_part(found, "progress", name) for name in ("step", "steps", "seconds_left"))
    if step is None or steps is None:
        return ""
    return f"step {step:.0f} of {steps:.0f}" + ("" if left is None else f", {left:.0f} s left")
