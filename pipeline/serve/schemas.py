"""The forms of the API's requests and answers: what is checked here is what openapi.json says.

Field names and their defaults are those of the hosted Wan 2.2 image-to-video API; ranges are the pack's own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..request import (
    DEFAULT_MIN_MATCH,
    DEFAULT_SCALE,
    LORA_EXPERTS,
    MAX_GUIDANCE,
    MAX_PROMPT_CHARACTERS,
    MAX_SCALE,
    MAX_SEED,
    MAX_STEPS,
    MIN_GUIDANCE,
    MIN_STEPS,
)
from .operations import SHA256, UPLOAD
from .status import FAULTS, STATUSES

MAX_FRAMES = 161
"""Ten seconds."""
MAX_PIXELS = 1280 * 720
"""Of a frame."""
MAX_LORAS = 8
MAX_LINK = 4096
"""Characters of a link."""
MAX_DATA_URI = 13_400_000
"""Characters of a data URI: a picture of 10 MB in base64, and its beginning."""
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
LoraLink = Annotated[str, Field(pattern=rf"^(https://.+|{UPLOAD})$", max_length=MAX_LINK)]
Picture = Annotated[str, Field(pattern=rf"^(https://.+|{UPLOAD}|data:image/[a-z]+;base64,.+)$",
                               max_length=MAX_DATA_URI)]
Share = Annotated[float, Field(ge=0, le=1)]


class Form(BaseModel):
    """A JSON object whose members are known, with numbers as numbers and texts as texts."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class LoraForm(Form):
    """One LoRA of a request."""

    url: LoraLink = Field(description="https link to a .safetensors file, or `upload:` and the SHA-256 of an upload.")
    scale: float = Field(DEFAULT_SCALE, ge=-MAX_SCALE, le=MAX_SCALE, description="Strength: 0 is off.")
    expert: Literal[LORA_EXPERTS] = Field(  # type: ignore[valid-type]
        "auto", description="Expert to apply it to; auto decides by the file's content and name.")
    sha256: str | None = Field(None, pattern=SHA256, description="What the file's bytes must hash to.")
    min_match: Share = Field(DEFAULT_MIN_MATCH, description="Share of its keys that must fit the model.")
    start_percent: Share = Field(0.0, description="Where in the clip's steps it begins to act: 0 is the first step.")
    end_percent: Share = Field(1.0, description="Where in the clip's steps it stops: 1 is after the last one.")
    fade_in: Share = Field(0.0, description="Share of its steps in which it rises evenly to its scale.")
    fade_out: Share = Field(0.0, description="Share of its steps in which it falls evenly from its scale.")


class ClipForm(Form):
    """A request for a clip. A field that is left out or null has the model's default: see GET /models."""

    image: Picture = Field(
        description="The picture that the clip starts from, JPEG, PNG or WebP, at most 10 MB and 64 megapixels: an "
                    "https link, a data URI in base64, or `upload:` and the SHA-256 of an upload.")
    last_image: Picture | None = Field(None, description="The picture that the clip ends with, given as `image` is.")
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS,
                        description="What happens in the clip; at most 512 tokens.")
    negative_prompt: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS,
                                        description="What must not be in the clip; at most 512 tokens.")
    lora_url: LoraLink | None = Field(None, description="https link to a .safetensors file, or `upload:` and the "
                                                        "SHA-256 of an upload.")
    lora_scale: float | None = Field(None, ge=0, le=1, description=f"Strength of lora_url; {DEFAULT_SCALE} when left "
                                                                   "out.")
    loras: list[LoraForm] | None = Field(None, max_length=MAX_LORAS, description="LoRAs beside lora_url.")
    num_frames: int | None = Field(None, ge=5, le=MAX_FRAMES, json_schema_extra={"examples": [33, 49, 81]},
                                   description="Length: a multiple of 4 plus 1; 16 frames are a second.")
    resolution: str | None = Field(
        None, pattern=r"^(480p|720p|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$",
        description="480p (832x480) or 720p (1280x720), turned for a tall picture; or WIDTHxHEIGHT, multiples of 16, "
                    f"at most {MAX_PIXELS} pixels.")
    num_inference_steps: int | None = Field(None, ge=MIN_STEPS, le=MAX_STEPS)
    guidance_scale: float | None = Field(None, ge=MIN_GUIDANCE, le=MAX_GUIDANCE)
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Random when left out; the answer says which.")
    callback_url: str | None = Field(None, pattern=r"^https://.+$", max_length=MAX_LINK,
                                     description="https link that is told of the end, signed as Standard Webhooks.")
    model: str | None = Field(None, max_length=100, description="One of GET /models.")


class Defaults(Form):
    """The values of the fields that a request leaves out."""

    negative_prompt: str
    num_frames: int
    resolution: str
    num_inference_steps: int
    guidance_scale: float


class RequestShown(Form):
    """A request as it is carried out, with its defaults filled in; links are shown without what follows their ?."""

    image: str
    last_image: str | None
    prompt: str
    negative_prompt: str
    loras: list[LoraForm]
    num_frames: int
    resolution: str
    num_inference_steps: int
    guidance_scale: float
    seed: int


class ProgressForm(Form):
    """How far a running prediction is."""

    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    seconds_left: float | None = Field(None, ge=0, description="Null until it can be told.")


class Failure(Form):
    """Why a prediction brought no clip."""

    code: Literal[FAULTS]  # type: ignore[valid-type]
    message: str


class Urls(Form):
    """Where to ask further."""

    get: str
    result: str
    cancel: str


class Prediction(Form):
    """A request and what has become of it."""

    id: str = Field(json_schema_extra={"format": "uuid"})
    model: str
    status: Literal[STATUSES]  # type: ignore[valid-type]
    queue_position: int | None = Field(None, ge=0, description="Runs that come first; 0 is next.")
    progress: ProgressForm | None = None
    outputs: list[str] = Field(description="Links of the MP4, good for 24 hours.")
    error: Failure | None = None
    warnings: list[str] = Field(description="What is not as it was asked for.")
    request: RequestShown
    created_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None
    urls: Urls


class PredictionPage(Form):
    """A page of predictions, the newest first."""

    predictions: list[Prediction]
    next: str | None = Field(description="`before` of the next page; null on the last.")


class UploadShown(Form):
    """A file that was uploaded."""

    id: str = Field(pattern=rf"^{UPLOAD}$", description="What a request names it by.")
    sha256: str = Field(pattern=SHA256)
    kind: Literal["picture", "lora"]
    size: int = Field(ge=0, description="Bytes.")


class ModelShown(Form):
    """A model that requests may name."""

    id: str
    default: bool = Field(description="True for the one that is used when a request names none.")
    description: str
    defaults: Defaults


class ModelList(Form):
    """All models, the default first."""

    models: list[ModelShown]
    fields: list[str] = Field(description="Names of all fields that a request may have.")


class ErrorDetail(Form):
    """What was given, what is allowed and what to do."""

    code: str
    message: str
    field: str | None = None
    fields: dict[str, str] | None = None


class ErrorForm(Form):
    """Every error of the API."""

    error: ErrorDetail


class GuideData(Form):
    """A prediction in the form of the hosted API."""

    id: str
    model: str
    status: Literal["created", "processing", "completed", "failed", "cancelled"]
    outputs: list[str]
    error: str
    created_at: Time
    urls: Urls


class GuideEnvelope(Form):
    """The hosted API's envelope."""

    code: int
    message: str
    data: GuideData
