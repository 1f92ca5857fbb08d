"""Answers of the providers as their own clients, schemas and documents have them, beyond those of a job's life.

Written anew and shortened, with other ids and links. Sources, as stored in November 2026:
- WaveSpeed: wavespeed-python 2.0, tests/test_api.py (upload, a wait that the server cut short); its CLI, the commands
  price, history and schema.
- AtlasCloud: mcp-server of September 2026, response-schemas.ts (models, prediction with and without an envelope, list
  of jobs) and services/spend-policy.ts (price).
- fal.ai: its OpenAPI of a queue endpoint; fal-js 1.10, types/endpoints.ts (inputs of /v2.2-a14b/image-to-video/lora);
  fal_client, tests/unit/test_client.py (errors); Platform APIs v1 (pricing, requests).
- Replicate: replicate-python 1.0, tests/cassettes (models-get, predictions-create, predictions-get, file-operations).
"""

from __future__ import annotations

import json
from typing import Any

MODEL = "m"
"""Name of the model in the answers that list models."""
LINK = "https://a.example/x"
WHEN = "2026-11-01T10:00:00Z"


def _field(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "title": "A field", "description": "What it does.", **more}


FAL_INPUT = {"type": "object", "title": "Input", "required": ["prompt", "image_url"],
             "x-fal-order-properties": ["prompt"], "properties": {
                 "prompt": _field("string"), "image_url": _field("string"),
                 "end_image_url": {"anyOf": [_field("string"), {"type": "null"}]},
                 "num_frames": _field("integer", minimum=17, maximum=161, default=81),
                 "shift": _field("number", default=5)}}
WAVESPEED_INPUT = {"type": "object", "required": ["image", "prompt"], "x-order-properties": ["image", "prompt"],
                   "properties": {"image": _field("string"), "prompt": _field("string"), "duration": _field(
                       "integer", enum=[5, 8], default=5), "loras": _field("array", maxItems=3, items={
                           "type": "object", "properties": {"path": _field("string"), "scale": _field("number")}})}}
PUBLISHED: dict[str, list[Any]] = {
    "wavespeed": [
        {"code": 200, "message": "success", "data": {"id": "a", "status": "failed", "code": 1200, "error": "Flagged."}},
        {"code": 200, "message": "success", "data": {
            "id": "a", "status": "processing", "code": 5004, "error": "Sync mode timed out after 90 seconds.",
            "urls": {"get": LINK}}},
        {"data": {"id": "a"}},
        {"data": {"status": "completed", "outputs": [f"{LINK}.mp4"]}},
        {"code": 200, "message": "success", "data": {
            "model_id": MODEL, "price": 0.2, "discounted_price": 0.1, "discount_rate": 50, "currency": "USD"}},
        {"code": 200, "message": "success", "data": {"page": 1, "total": 1, "items": [
            {"id": "a", "model": MODEL, "status": "completed", "created_at": WHEN, "outputs": [f"{LINK}.mp4"],
             "inputs": {"image": f"{LINK}.png", "prompt": "a ball"}}]}},
        {"code": 200, "message": "success", "data": [
            {"model_id": "another", "type": "text-to-image", "base_price": 0.01},
            {"model_id": MODEL, "name": MODEL, "base_price": 0.2, "type": "image-to-video", "api_schema": {
                "api_schemas": [{"type": "model_run", "method": "POST", "server": "https://a.example",
                                 "api_path": f"/api/v3/{MODEL}", "request_schema": WAVESPEED_INPUT}]}}]},
        {"code": 200, "message": "success", "data": {
            "type": "image", "filename": "a.png", "size": 1024, "download_url": f"{LINK}.png",
            "upload": {"method": "PUT", "url": LINK, "headers": {"Content-Type": "image/png"}}}},
    ],
    "atlascloud": [
        {"code": "200", "data": [{"uuid": "u", "model": "another", "type": "Text", "displayName": "Another"},
                                 {"uuid": "v", "model": MODEL, "type": "Video", "displayName": "M", "tags": ["NEW"],
                                  "schema": f"{LINK}.json", "categories": None, "display_console": True, "price": {
                                      "discount": "100", "actual": {"base_price": "0.04"},
                                      "origin": {"base_price": "0.05"}}}]},
        {"openapi": "3.0.0", "paths": {}, "components": {"schemas": {
            "Input": {"type": "object", "required": ["model"], "properties": {
                "model": _field("string", const=MODEL), "image": _field("string"), "duration": _field(
                    "integer", enum=[5, 8])}}}}},
        {"code": 200, "data": {"price": "0.25", "origin_price": 0.3, "estimated": True, "estimate_partial": False}},
        {"price": 0.25, "origin_price": None},
        {"id": "a", "status": "starting", "outputs": None, "error": None, "metrics": None},
        {"code": 200, "data": {"prediction_id": "a", "status": "created"}},
        {"code": 500, "message": "The input could not be fetched.", "data": {"id": "a", "status": "failed",
                                                                             "error": ""}},
        {"code": "200", "data": {"total": 2, "pageNo": 1, "pageSize": 50, "items": [
            {"ID": "a", "model": MODEL, "status": "completed", "createdAt": "1793527200",
             "requestBody": json.dumps({"model": MODEL, "image": f"{LINK}.png"}), "result": {"outputs": [LINK]}},
            {"ID": "b", "model": MODEL, "status": None, "createdAt": 1793527200000, "requestBody": {"prompt": "a ball"},
             "result": None}]}},
        {"code": 200, "message": "success", "data": {"type": "image", "download_url": f"{LINK}.png",
                                                     "filename": "a.png", "size": 1024}},
    ],
    "fal": [
        {"prices": [{"endpoint_id": MODEL, "unit_price": 0.1, "unit": "seconds", "currency": "USD"}],
         "next_cursor": None, "has_more": False},
        {"openapi": "3.0.4", "info": {"title": f"Queue OpenAPI for {MODEL}", "version": "1.0.0", "x-fal-metadata": {
            "endpointId": MODEL, "category": "image-to-video"}}, "servers": [{"url": "https://queue.fal.run"}],
         "components": {"securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization"}},
                        "schemas": {"QueueStatus": {"type": "object"}, "WanInput": FAL_INPUT}},
         "paths": {f"/{MODEL}": {"post": {"requestBody": {"required": True, "content": {"application/json": {
             "schema": {"$ref": "#/components/schemas/WanInput"}}}}}}}},
        {"video": {"url": f"{LINK}.mp4", "content_type": "video/mp4", "file_name": "x.mp4", "file_size": 1024},
         "seed": 7, "prompt": "a ball"},
        {"token": "t", "token_type": "Bearer", "base_url": LINK, "expires_at": "2099-01-01T00:00:00+00:00"},
        {"access_url": f"{LINK}.png"},
        {"detail": [{"loc": ["body", "prompt"], "msg": "It was flagged.", "type": "content_policy_violation",
                     "url": "https://docs.fal.ai/errors#content_policy_violation", "input": "x", "ctx": {"a": 1}}]},
        {"detail": "Runner disconnected", "error_type": "runner_disconnected"},
        {"items": [{"request_id": "a", "endpoint_id": MODEL, "sent_at": WHEN, "started_at": WHEN, "ended_at": WHEN,
                    "status_code": 200, "duration": 7.8, "json_input": {"image_url": f"{LINK}.png"}}],
         "next_cursor": None, "has_more": False},
    ],
    "replicate": [
        {"previous": None, "next": None, "results": [
            {"id": "a", "model": MODEL, "version": "v", "status": "succeeded",
             "created_at": "2023-08-16T18:57:08.394251Z", "completed_at": WHEN, "input": {"image": f"{LINK}.png"},
             "data_removed": False, "source": "api", "urls": {"get": LINK, "cancel": LINK}},
            {"id": "b", "model": MODEL, "status": "canceled", "created_at": WHEN, "input": {}, "data_removed": True}]},
        {"id": "a", "name": "a.png", "content_type": "image/png", "size": 1024, "etag": "e", "checksums": {},
         "metadata": {}, "urls": {"get": f"{LINK}.png"}, "expires_at": WHEN},
        {"owner": "o", "name": MODEL, "visibility": "public", "run_count": 1, "latest_version": {
            "id": "v", "created_at": WHEN, "cog_version": "0.16", "openapi_schema": {
                "openapi": "3.0.2", "components": {"schemas": {
                    "Input": {"type": "object", "title": "Input", "required": ["image", "prompt"], "properties": {
                        "image": _field("string", format="uri"), "prompt": _field("string"),
                        "num_frames": _field("integer", minimum=81, maximum=121, default=81)}}, "Output": {
                            "type": "string", "format": "uri"}}}}}},
        {"id": "a", "model": MODEL, "version": "hidden", "input": {"image": LINK}, "output": f"{LINK}.mp4",
         "error": None, "logs": "  0%|          | 0/50 [00:00<?, ?it/s]", "status": "processing", "created_at": WHEN,
         "metrics": {"predict_time": 3.8, "video_output_count": 1}, "data_removed": False, "deadline": WHEN,
         "urls": {"get": LINK, "cancel": LINK, "stream": LINK, "web": LINK}},
        {"title": "Insufficient credit", "detail": "You have insufficient credit to run this model.", "status": 402},
    ],
}
"""Provider -> its answers."""
