"""Make openapi.json (OpenAPI 3.1) from the table of operations and the forms of requests and answers."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from . import schemas
from .errors import STATUS
from .operations import JSON, OPERATIONS, Operation, Parameter

VERSION = "1.0.0"
ERROR = "ErrorForm"
_REFERENCE = "#/components/schemas/{model}"


def document(server: str) -> dict[str, Any]:
    """Return the document. server: scheme and host of this ComfyUI, such as http://127.0.0.1:8188."""
    names = {name for operation in OPERATIONS for name in (operation.body, operation.answer) if hasattr(schemas, name)}
    forms = [getattr(schemas, name) for name in sorted({*names, ERROR})]
    _, found = models_json_schema([(form, "validation") for form in forms], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.base + operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Wan 2.2 image-to-video", "version": VERSION,
                 "description": "Clips from a picture and a sentence, made by ComfyUI-Wan22."},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": found["$defs"],
                       "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name, "summary": operation.summary,
        "parameters": list(map(_parameter, operation.parameters)),
        "responses": {str(operation.status): _response(operation), **_errors(operation)},
        "security": [{"key": []}] if operation.has_key else [],
    }
    if operation.body:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(operation.body)}}}
    if operation.takes_file:
        form = {"type": "object", "required": ["file"],
                "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}}}
        found["requestBody"] = {"required": True, "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": form}}}
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {"name": parameter.name, "in": parameter.place, "required": parameter.required, "schema": parameter.schema}


def _response(operation: Operation) -> dict[str, Any]:
    if not operation.answer:
        return {"description": operation.summary}
    if operation.answer == JSON:
        return _content(operation.summary, JSON, {"type": "object"})
    if "/" in operation.answer:
        return _content(operation.summary, operation.answer, {"type": "string", "format": "binary"})
    return _content(operation.summary, JSON, _reference(operation.answer))


def _content(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _errors(operation: Operation) -> dict[str, Any]:
    """Return the error answers, by status; a HEAD has none with a body."""
    found = {}
    for status in sorted(operation.statuses):
        codes = [code for code in operation.codes if STATUS[code] == status]
        said = ", ".join(codes)
        has_body = operation.method != "HEAD"
        found[str(status)] = _content(said, JSON, _reference(ERROR)) if has_body else {"description": said}
    return found


def _reference(form: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=form)}
