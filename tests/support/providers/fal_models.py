"""fal.ai's Wan 2.2 image-to-video endpoints: inputs (the types of its client 1.10.1), prices and failures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tests.support.providers.inputs import Inputs, LoraPath, Prompt

APP = "fal-ai/wan"
"""Owner and app: all that status, result and cancel have of an endpoint's id."""


class FalLora(Inputs):
    path: LoraPath
    scale: Annotated[float, Field(ge=0, le=4)] = 1.0
    transformer: Literal["high", "low", "both"] = "high"


class Turbo(Inputs):
    prompt: Prompt
    image_url: str
    end_image_url: str | None = None
    seed: int | None = None
    resolution: Literal["480p", "580p", "720p"] = "720p"
    aspect_ratio: Literal["auto", "16:9", "9:16", "1:1"] = "auto"
    enable_safety_checker: bool = False
    enable_output_safety_checker: bool = False
    enable_prompt_expansion: bool = False
    acceleration: Literal["none", "regular"] = "regular"
    video_quality: Literal["low", "medium", "high", "maximum"] = "high"
    video_write_mode: Literal["fast", "balanced", "small"] = "balanced"


class Base(Turbo):
    negative_prompt: str = ""
    num_frames: Annotated[int, Field(ge=17, le=161)] = 81
    frames_per_second: Annotated[int, Field(ge=4, le=60)] = 16
    num_inference_steps: Annotated[int, Field(ge=2, le=40)] = 27
    guidance_scale: Annotated[float, Field(ge=1, le=10)] = 3.5
    guidance_scale_2: Annotated[float, Field(ge=1, le=10)] = 4
    shift: Annotated[float, Field(ge=1, le=10)] = 5
    interpolator_model: Literal["none", "film", "rife"] = "film"
    num_interpolated_frames: Annotated[int, Field(ge=0, le=4)] = 1
    adjust_fps_for_interpolation: bool = True


class WithLoras(Base):
    loras: list[FalLora] = []
    reverse_video: bool = False


ENDPOINT = f"{APP}/v2.2-a14b/image-to-video"
PRICES = {f"{ENDPOINT}/lora": (0.10, "second"), ENDPOINT: (0.08, "second"), f"{ENDPOINT}/turbo": (0.10, "video")}
"""US dollars and their unit; of 720p, where it is by the second."""
MODELS: dict[str, type[Inputs]] = {f"{ENDPOINT}/lora": WithLoras, ENDPOINT: Base, f"{ENDPOINT}/turbo": Turbo}

FAILURES: dict[str, tuple[int, str, str]] = {
    "failed": (500, "internal_server_error", "An unexpected error occurred in the model."),
    "refused": (422, "content_policy_violation", "The content could not be processed because it contained material "
                                                 "flagged by a content checker."),
    "timeout": (504, "generation_timeout", "The generation took too long."),
    "downstream": (400, "downstream_service_error", "An upstream service failed."),
    "infrastructure": (503, "runner_disconnected", "The runner disconnected unexpectedly."),
    "cancelled": (499, "client_cancelled", "Request was cancelled."),
}
"""How a job ends -> status of its result, error type, text."""
FLAT = ("infrastructure", "cancelled")
"""Failures of fal's own, not of the model: {detail: text, error_type} and X-Fal-Error-Type."""
RETRYABLE = ("timeout", "downstream")


def openapi(endpoint: str) -> dict[str, Any]:
    """The endpoint's OpenAPI document, as far as its inputs."""
    schema = MODELS[endpoint].model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}}
    return {"openapi": "3.0.4", "info": {"title": f"Queue OpenAPI for {endpoint}"},
            "paths": {f"/{endpoint}": {"post": {"requestBody": {"content": content}}}},
            "components": {"schemas": {**parts, "Input": schema}}}
