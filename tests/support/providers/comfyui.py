"""Another ComfyUI that serves the pack's API: docs/api.md, by plain http at an address of this machine.

It has no host of its own for clips: they come by signed links from the same place, and a key that goes with one is a
violation. The links name a host that does not exist, as those of a server behind a proxy may.

Decided here, because the page does not say: a repeated Idempotency-Key is compared by the whole body.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tests.support.api_server import Answer, ApiServer, Route, json_answer
from tests.support.loopback_server import Request
from tests.support.providers.cdn_server import CdnServer, Clip
from tests.support.providers.inputs import BadPicture, Inputs, Prompt, Upload, check_picture
from tests.support.providers.job import Job
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import Callback

HOST = "127.0.0.1"
BASE = "/wan22/api/v1"
UPLOAD = r"upload:[0-9a-f]{64}"
MODEL, SECOND = "wan2.2-i2v-demo", "wan2.2-i2v"
CODES = {"auth": (401, "unauthorized"), "malformed": (400, "bad_request"), "job": (404, "not_found"),
         "upload": (404, "not_found"), "conflict": (409, "idempotency_conflict")}
STATUSES = {"queued": "queued", "running": "running", "done": "completed", "empty": "completed",
            "cancelled": "cancelled"}
FAILURES = {"failed": "The run failed: CUDA out of memory.", "image": "The picture could not be read."}
Share = Annotated[float, Field(ge=0, le=1)]
LoraLink = Annotated[str, Field(pattern=rf"^(https://\S+|{UPLOAD})$", max_length=4096)]


class LoraForm(Inputs):
    url: LoraLink
    scale: Annotated[float, Field(ge=-4, le=4)] = 0.8
    expert: Literal["auto", "both", "high", "low"] = "auto"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    min_match: Share = 0.9
    start_percent: Share = 0.0
    end_percent: Share = 1.0
    fade_in: Share = 0.0
    fade_out: Share = 0.0


class ClipForm(Inputs):
    image: Annotated[str, Field(pattern=rf"^(https://\S+|{UPLOAD})$")]
    prompt: Prompt
    negative_prompt: str = ""
    last_image: Annotated[str, Field(pattern=rf"^(https://\S+|{UPLOAD})$")] | None = None
    loras: Annotated[list[LoraForm], Field(max_length=8)] = []
    num_frames: Annotated[int, Field(ge=5, le=161)] = 49
    resolution: Annotated[str, Field(pattern=r"^(480p|720p|\d{2,4}x\d{2,4})$")] = "480p"
    num_inference_steps: Annotated[int, Field(ge=1, le=100)] = 30
    guidance_scale: Annotated[float, Field(ge=1, le=10)] = 5.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    model: Literal[MODEL, SECOND] | None = None  # type: ignore[valid-type]


class ComfyUIServer(ProviderServer, CdnServer):
    provider, cdn_host = "another_comfyui", HOST
    hosts = (HOST,)
    tls = False
    points = ("submit", "poll", "cancel", "has", "upload", "models", "history", "download")
    ends = ("done", "failed", "image", "cancelled", "empty")
    """image: its picture could not be read; empty: completed without an output."""
    models = {MODEL: ClipForm, SECOND: ClipForm}

    def __init__(self, folder: Path, cdn: CdnServer | None = None, *, key: str | None = None) -> None:
        """Its clips are its own, whatever `cdn` is given."""
        self.keys: set[str] = set()
        self.requests: dict[str, tuple[bytes, Job]] = {}
        """Idempotency-Key -> the body that came with it first, and its job."""
        self.warnings: list[str] = []
        self.says_to_all: Answer | None = None
        """Answers every request: a ComfyUI without the pack, or with its API off."""
        self.fields_missing: frozenset[str] = frozenset()
        """Fields that an older pack does not take."""
        super().__init__(folder, self, key=key or "wan22_0123456789abcdef0123456789abcdef")
        self.keys.add(self.key)
        name = r"(?P<job_id>[^/]+)"
        self.routes = [
            Route("POST", HOST, f"{BASE}/image-to-video", "submit", self._submit),
            Route("GET", HOST, f"{BASE}/predictions", "history", self._history),
            Route("GET", HOST, f"{BASE}/predictions/{name}", "poll", self._poll),
            Route("POST", HOST, f"{BASE}/predictions/{name}/cancel", "cancel", self._cancel),
            Route("GET", HOST, f"{BASE}/uploads/(?P<sha256>[0-9a-f]{{64}})", "has", self._has),
            Route("POST", HOST, f"{BASE}/uploads", "upload", self._upload),
            Route("GET", HOST, f"{BASE}/models", "models", self._models),
            Route("GET", HOST, f"{BASE}/files/(?P<path>.*)", "download", self.download, open=True),
        ]

    @property
    def address(self) -> str:
        """As the user's settings name it."""
        return f"http://{HOST}:{self.port}"

    def loopback(self) -> dict[str, tuple[str, int]]:
        """None: it is asked at its own address."""
        return {}

    def close(self) -> None:
        ApiServer.close(self)

    def serve(self, request: Request) -> None:
        request.seen.host = request.seen.host.removesuffix(f":{self.port}")
        if self.says_to_all is not None:
            self.says_to_all.send(request)
        else:
            super().serve(request)

    def native_error(self, kind: str, text: str, details: list[dict[str, Any]] | None = None) -> Answer:
        status, code = CODES.get(kind, (422, "invalid_request"))
        fields = {str(e["loc"][1]) if len(e["loc"]) > 1 else "": e["msg"] for e in details or ()}
        at = {"field": next(iter(fields)), "fields": fields} if fields else {}
        return json_answer(status, {"error": {"code": code, "message": text, **at}})

    def unknown(self, request: Request) -> Answer:
        return self.native_error("job", "There is no such route.")

    def cost(self, model: str, inputs: dict[str, Any]) -> float:
        return 0.0

    def frames(self, job: Job) -> int:
        return job.inputs["num_frames"]

    def callback(self, job: Job, *, at: int | None = None) -> Callback:
        raise NotImplementedError("nobody is called back")

    def check_picture(self, value: str) -> None:
        if value.startswith("upload:"):
            if value not in self.uploads:
                raise BadPicture("fetch", "There is no such upload.")
            check_picture(self.uploads[value].data)

    def _submit(self, request: Request) -> Answer:
        body = self.object_body(request)
        key = request.seen.headers.get("idempotency-key", "")
        if not re.fullmatch(r"[!-~]{1,255}", key):
            raise self.refuse("malformed", "Idempotency-Key is missing.")
        if key in self.requests:
            first, job = self.requests[key]
            if first != request.seen.raw:
                raise self.refuse("conflict", "The Idempotency-Key was used with another request.")
            return json_answer(202, self.prediction(job))
        model = body.get("model") or MODEL
        self.check_inputs(model if model in self.models else MODEL, body)
        if body["num_frames"] % 4 != 1:
            raise self.refuse("invalid", "num_frames must be a multiple of 4 plus 1.")
        try:
            self.check_pictures(body)
        except BadPicture as bad:
            raise self.refuse("picture", str(bad), [{"loc": ["body", bad.field], "msg": str(bad)}]) from bad
        for lora in body.get("loras", ()):
            if lora["url"].startswith("upload:") and lora["url"] not in self.uploads:
                raise self.refuse("invalid", "There is no such upload.")
        job = self.accept(model, body)
        self.requests[key] = request.seen.raw, job
        return json_answer(202, self.prediction(job))

    def new_id(self, number: int) -> str:
        """As a UUID."""
        found = super().new_id(number)
        return "-".join((found[:8], found[8:12], found[12:16], found[16:20], found[20:32]))

    def prediction(self, job: Job) -> dict[str, Any]:
        """The job as an answer."""
        phase = job.phase
        running = phase == "running"
        word = job.script.word if running and job.script.word else STATUSES.get(phase, "failed")
        base = f"http://behind-a-proxy.invalid{BASE}/predictions/{job.id}"
        steps = job.inputs["num_inference_steps"]
        failed = {"code": "image" if phase == "image" else "failed",
                  "message": job.script.error or FAILURES.get(phase, "")}
        return {"id": job.id, "model": job.model, "status": word, "queue_position": 2 if phase == "queued" else None,
                "progress": {"step": 3, "steps": steps, "seconds_left": 41.0} if running else None,
                "outputs": [self.clip(job)] if phase == "done" else [],
                "error": failed if phase in FAILURES else None, "warnings": self.warnings if phase == "done" else [],
                "request": {**job.inputs, "loras": job.inputs.get("loras", [])}, "created_at": job.created_at,
                "started_at": None, "ended_at": None,
                "urls": {"get": base, "result": f"{base}/result", "cancel": f"{base}/cancel"}}

    def clip(self, job: Job) -> str:
        frames = job.script.frames or self.frames(job)
        link = self.publish(HOST, f"{job.id}/clip", frames, expired=job.script.expired)
        job.link = link.replace(f"https://{HOST}/", f"http://behind-a-proxy.invalid{BASE}/files/")
        return job.link

    def made(self, job: Job) -> Clip | None:
        """Return the file of a job, as it is served; None when nobody has asked for it yet."""
        return self.clips.get(f"{HOST}/{job.id}/clip.mp4")

    def _poll(self, request: Request, job_id: str) -> Answer:
        return json_answer(200, self.prediction(self.poll(job_id)))

    def _cancel(self, request: Request, job_id: str) -> Answer:
        return json_answer(200, self.prediction(self.cancel(job_id)))

    def _history(self, request: Request) -> Answer:
        self.allow_query(request, "limit", "before", "status")
        newest = [self.prediction(job) for job in reversed(self.jobs.values())]
        return json_answer(200, {"predictions": newest[:int(request.seen.query.get("limit", 20))], "next": None})

    def _shown(self, upload: Upload) -> dict[str, Any]:
        return {"id": upload.url, "sha256": upload.url.removeprefix("upload:"), "kind": upload.name,
                "size": len(upload.data)}

    def _has(self, request: Request, sha256: str) -> Answer:
        if (upload := self.uploads.get(f"upload:{sha256}")) is None:
            raise self.refuse("upload", "There is no such upload.")
        return json_answer(200, self._shown(upload))

    def _upload(self, request: Request) -> Answer:
        data = request.seen.raw
        if request.seen.headers.get("content-type") != "application/octet-stream" or not data:
            raise self.refuse("malformed", "The file is the body, as application/octet-stream.")
        try:
            check_picture(data)
            kind = "picture"
        except BadPicture as bad:
            length = int.from_bytes(data[:8], "little")
            if not 2 <= length <= len(data) - 8 or not isinstance(json.loads(data[8:8 + length]), dict):
                raise self.refuse("invalid", str(bad)) from bad
            kind = "lora"
        upload = Upload(f"upload:{hashlib.sha256(data).hexdigest()}", kind, kind, data)
        self.uploads[upload.url] = upload
        return json_answer(201, self._shown(upload))

    def _models(self, request: Request) -> Answer:
        defaults = {"negative_prompt": "", "num_frames": 49, "resolution": "480p", "num_inference_steps": 30,
                    "guidance_scale": 5.0}
        return json_answer(200, {"models": [{"id": name, "default": name == MODEL, "description": name,
                                             "defaults": defaults} for name in self.models],
                                 "fields": sorted({*ClipForm.model_fields} - self.fields_missing)})
