"""What each operation of the API does, with everything of HTTP taken off. All may block; call them in a thread."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import answers
from .callbacks import check_callback_url
from .errors import ApiError, field_error, not_found
from .limits import RateLimit
from .links import NAME, is_signed
from .models import find_models
from .openapi import document
from .operations import MOST_LISTED
from .order import read_form, read_order
from .predictions import StoredPrediction
from .runs import QueueView
from .schemas import ClipForm
from .service import Service
from .settings import read_settings
from .status import OPEN, QUEUED, STATUSES
from .uploads import Incoming

OFF = "The API is off. Its owner switches it on in ComfyUI under Settings > Wan 2.2 > API."
DATA_PREFIX = "data:"
_rates = RateLimit()


def check_on(folder: Path) -> None:
    """Raise ApiError (not_found) while the API is off; ValueError for settings that cannot be used."""
    if not read_settings(folder).on:
        raise ApiError("not_found", OFF)


def key_name(service: Service, authorization: str) -> str:
    """Return the name of the key in an Authorization header. Raises ApiError (unauthorized)."""
    scheme, _, key = authorization.partition(" ")
    name = service.keys.owner(key.strip()) if scheme.lower() == "bearer" else None
    if name is None:
        raise ApiError("unauthorized", "There is no valid key. Send the header `Authorization: Bearer KEY`.",
                       headers={"WWW-Authenticate": "Bearer"})
    return name


def check_rate(service: Service, key: str) -> None:
    """Count a request that makes work. Raises ApiError (rate_limited) when a key sends too many."""
    per_minute = service.settings().per_minute
    if wait := _rates.take(key, per_minute):
        raise ApiError("rate_limited", f"This key may ask for {per_minute:g} clips and uploads a minute. Wait.",
                       headers={"Retry-After": str(int(wait) + 1)})


def submit(service: Service, key: str, body: bytes, idempotency: str | None, base: str) -> StoredPrediction:
    """Take a request for a clip; return its prediction. base: scheme and host for links. Raises ApiError."""
    if idempotency is not None and not (0 < len(idempotency) <= 255 and idempotency.isascii()
                                        and idempotency.isprintable() and " " not in idempotency):
        raise field_error({"Idempotency-Key": "Idempotency-Key must be 1 to 255 printable characters of ASCII without "
                                              "a space."})
    form = read_form(body)
    for name in ("image", "last_image"):
        if (getattr(form, name) or "").startswith(DATA_PREFIX):
            setattr(form, name, _kept(service, key, getattr(form, name), name))
    order = read_order(form, service.model, lambda sha256, kind: bool(service.uploads.find(key, sha256, kind)))
    if order.callback_url:
        check_callback_url(service.folders.own, key, order.callback_url)
    digest = hashlib.sha256(form.model_dump_json(exclude_defaults=True).encode()).hexdigest()  # new fields change none
    return service.submit(key, order, service.public_base() or base, idempotency, digest)


def _kept(service: Service, key: str, uri: str, field: str) -> str:
    """Keep the picture of a data URI in base64 (RFC 2397), given in a field, as an upload; return its name."""
    try:
        return service.uploads.add_picture(key, base64.b64decode(uri.partition(",")[2], validate=True)).name
    except ValueError:
        raise field_error({field: f"{field} is a data URI whose base64 is damaged. Encode the file again."}) from None
    except ApiError as error:
        raise field_error({field: error.message}) from None


def shown(service: Service, one: StoredPrediction) -> dict[str, Any]:
    """Return a prediction as it stands now."""
    return _shown(service, one, service.queue.view() if one.status == QUEUED else QueueView())


def _shown(service: Service, one: StoredPrediction, view: QueueView) -> dict[str, Any]:
    run = service.runs.get(one.id)
    place = view.waiting.index(one.id) if one.id in view.waiting else None
    return answers.prediction(one, service.link_secret, service.clock(), place, run and run.steps)


def guide_shown(service: Service, one: StoredPrediction) -> dict[str, Any]:
    """Return a prediction in the hosted API's envelope."""
    return answers.guide_envelope(one, service.link_secret, service.clock())


def get(service: Service, key: str, prediction_id: str) -> StoredPrediction:
    """Return a key's prediction. Raises ApiError (not_found)."""
    one = service.predictions.get(prediction_id, key)
    if one is None:
        raise not_found("prediction")
    return one


def listed(service: Service, key: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a key's predictions. Raises ApiError (invalid_request)."""
    faults, limit = {}, query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MOST_LISTED):
        faults["limit"] = f"limit is {limit[:20]}; choose 1 to {MOST_LISTED}."
    if (status := query.get("status")) not in (None, *STATUSES):
        faults["status"] = f"status is {status[:20]!r}; choose one of {', '.join(STATUSES)}."
    if (before := query.get("before")) is not None and not _is_id(before):
        faults["before"] = "before is not an id of a prediction. Take it from `next` of the last page."
    if faults:
        raise field_error(faults)
    found = service.predictions.page(key, int(limit) + 1, before, status)
    page = found[:int(limit)]
    has_more, view = len(found) > len(page), service.queue.view()
    return {"predictions": [_shown(service, one, view) for one in page], "next": page[-1].id if has_more else None}


def result(service: Service, key: str, prediction_id: str) -> Path:
    """Return the file of a key's clip. Raises ApiError."""
    return _file(service, get(service, key, prediction_id))


def linked_file(service: Service, prediction_id: str, name: str, query: Mapping[str, str]) -> Path:
    """Return the file that a signed link leads to. Raises ApiError."""
    expires, signature = query.get("expires", ""), query.get("signature", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
        raise field_error({"expires": "expires is missing or no number. Take the whole link of `outputs`."})
    if not is_signed(service.link_secret, prediction_id, int(expires), signature, service.clock()):
        raise ApiError("forbidden", "The link's signature is not right, or has expired. Ask for the prediction again.")
    one = service.predictions.get(prediction_id) if name == NAME else None
    if one is None:
        raise not_found("file")
    return _file(service, one)


def cancel(service: Service, key: str, prediction_id: str) -> StoredPrediction:
    """Cancel a key's prediction, unless it has ended; return it. Raises ApiError (not_found)."""
    one = get(service, key, prediction_id)
    if one.status in OPEN:
        service.cancel(one)
    return get(service, key, prediction_id)


def delete(service: Service, key: str, prediction_id: str) -> None:
    """Delete a key's prediction. Raises ApiError (not_found, not_ended)."""
    one = get(service, key, prediction_id)
    if one.status in OPEN:
        raise ApiError("not_ended", f"The prediction is {one.status}. Cancel it first.")
    service.delete(one)


def incoming(service: Service, key: str) -> Incoming:
    """Return a new upload of a key, to be written piece by piece."""
    return Incoming(service.uploads, key)


def uploaded(service: Service, key: str, sha256: str) -> dict[str, Any]:
    """Return a key's upload. Raises ApiError (not_found)."""
    found = service.uploads.find(key, sha256)
    if found is None:
        raise not_found("upload")
    service.uploads.touch(key, sha256)
    return answers.upload(found)


def models(service: Service) -> dict[str, Any]:
    """Return the list of models."""
    found = find_models(service.folders.own, service.has_file, service.settings().model)
    return answers.model_list(found, ClipForm.model_fields)


def openapi(service: Service, base: str) -> dict[str, Any]:
    """Return openapi.json. base: scheme and host that the client used."""
    return document(service.public_base() or base)


def _file(service: Service, one: StoredPrediction) -> Path:
    path = service.folders.outputs / one.file
    if one.file and path.is_file():
        return path
    if one.file:
        raise not_found("file")
    raise ApiError("not_completed", f"The prediction is {one.status}; it has no clip"
                                    f"{' yet' if one.status in OPEN else ''}.")


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


