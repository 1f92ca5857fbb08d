"""A clip as a program ordered it: checked, its defaults filled in, ready to be stored and to become a graph."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..download.picture import check_picture_link
from ..download.source import parse_source
from ..http.address import may_be_public, parse_url
from ..http.errors import redact
from ..request import ClipRequest, Lora, LoraSchedule, check_num_frames, check_prompt, check_size
from .errors import ApiError, field_error
from .models import Model, size_of
from .upload_names import UPLOAD_PREFIX

if TYPE_CHECKING:
    from pydantic import ValidationError

    from .schemas import ClipForm, LoraForm

MAX_RANDOM_SEED = 2**53
"""Any program that reads JSON can hold it."""
LONGEST_GIVEN = 60
"""Characters that a message repeats of a value."""
EMBEDDING = "embedding:"
"""What ComfyUI's tokenizers, which a model may have, take for the name of a file in a prompt (comfy/sd1_clip.py)."""
MOST_COMMAS, MOST_FAULTS = 100_000, 20
"""Commas of a body, far above those of the longest prompts and links: each value but the first of a list or an object
needs one, and a million values take a gigabyte. Faults of a request that are told."""


@dataclass(frozen=True)
class Order:
    """A clip and where its pictures come from."""

    clip: ClipRequest
    image: str
    """https link, or `upload:` and a SHA-256."""
    model: str
    """Id of the model."""
    callback_url: str = ""
    last_image: str = ""
    """As `image`; "" for none."""

    @property
    def pictures(self) -> dict[str, str]:
        """Field -> link or upload of each picture."""
        return {"image": self.image, **({"last_image": self.last_image} if self.last_image else {})}

    @property
    def has_pictures(self) -> bool:
        """True when no picture is to be fetched."""
        return all(picture.startswith(UPLOAD_PREFIX) for picture in self.pictures.values())

    @property
    def sources(self) -> tuple[str, ...]:
        """Links and uploads of its pictures and LoRAs."""
        return (*self.pictures.values(), *(lora.source for lora in self.clip.loras))

    def to_json(self) -> str:
        """Return the order as text, for the table of predictions."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Order:
        """Return an order from its text."""
        found = json.loads(text)
        loras = tuple(Lora(**lora | {"schedule": LoraSchedule(**lora["schedule"])})
                      for lora in found["clip"].pop("loras"))
        return Order(ClipRequest(**found.pop("clip"), loras=loras), **found)

    def shown(self) -> dict[str, Any]:
        """Return the request as answers show it, its links without their queries."""
        clip = self.clip
        return {"image": redact(self.image), "last_image": redact(self.last_image) or None, "prompt": clip.prompt,
                "negative_prompt": clip.negative_prompt,
                "loras": [{"url": redact(lora.source), "scale": lora.scale, "expert": lora.expert,
                           "sha256": lora.sha256, "min_match": lora.min_match, **asdict(lora.schedule)}
                          for lora in clip.loras],
                "num_frames": clip.num_frames, "resolution": clip.resolution,
                "num_inference_steps": clip.num_inference_steps, "guidance_scale": clip.guidance_scale,
                "seed": clip.seed}


def read_form(body: bytes) -> ClipForm:
    """Return the form of a request's body. Raises ApiError: bad_request for what is no JSON object, invalid_request
    with a sentence on each field that is at fault."""
    from pydantic import ValidationError

    from .schemas import ClipForm

    if body.count(b",") > MOST_COMMAS:
        raise ApiError("bad_request", "The body has more parts than a request can have.")
    try:
        return ClipForm.model_validate_json(body)
    except ValidationError as error:
        raise _form_error(error) from None


def read_order(form: ClipForm, find_model: Callable[[str], Model], has_upload: Callable[[str, str], bool]) -> Order:
    """Return the order of a form. Raises ApiError (invalid_request) with a sentence on each field at fault.

    find_model(id, "" for the default) raises ValueError. has_upload(SHA-256, "picture" or "lora") tells whether the
    key's uploads have such a file. Pictures are links or uploads: a data URI has been made an upload before.
    """
    from .schemas import MAX_PIXELS

    faults: dict[str, str] = {}

    def checked(name: str, check: Callable[[], Any]) -> Any:
        try:
            return check()
        except ValueError as error:
            faults.setdefault(name, str(error))
            return None

    model = checked("model", lambda: find_model(form.model or ""))
    defaults = model.defaults if model else ClipRequest("")
    clip = replace(defaults, prompt=form.prompt, **{
        name: getattr(form, name) for name in ("negative_prompt", "num_frames", "resolution", "num_inference_steps",
                                               "guidance_scale") if getattr(form, name) is not None})
    clip = replace(clip, seed=secrets.randbelow(MAX_RANDOM_SEED) if form.seed is None else form.seed)
    checked("image", lambda: _check_image(form.image, has_upload, "image"))
    if form.last_image:
        checked("last_image", lambda: _check_image(form.last_image, has_upload, "last_image"))
    checked("prompt", lambda: check_prompt(form.prompt, "prompt"))
    for name in ("prompt", "negative_prompt"):
        checked(name, lambda name=name: _check_no_file(getattr(form, name) or "", name))
    checked("num_frames", lambda: check_num_frames(clip.num_frames))
    checked("resolution", lambda: _check_resolution(clip.resolution, MAX_PIXELS))
    loras = {"lora_url": Lora(form.lora_url, clip_scale(form))} if form.lora_url else {}
    loras |= {f"loras.{place}.url": _lora(lora) for place, lora in enumerate(form.loras or ())}
    for name, lora in loras.items():
        checked(name, lambda lora=lora: _check_lora_link(lora.source, has_upload))
        checked(name.removesuffix(".url"), lora.schedule.check)
    if form.lora_scale is not None and not form.lora_url:
        faults["lora_scale"] = "lora_scale is given without a lora_url. Give both, or neither."
    if form.callback_url:
        checked("callback_url", lambda: _check_public(form.callback_url, "callback_url"))
    if faults:
        raise field_error(faults)
    return Order(replace(clip, loras=tuple(loras.values())), form.image, model.id, form.callback_url or "",
                 form.last_image or "")


def clip_scale(form: ClipForm) -> float:
    """Return the scale of lora_url."""
    return Lora("").scale if form.lora_scale is None else form.lora_scale


def _lora(form: LoraForm) -> Lora:
    schedule = LoraSchedule(form.start_percent, form.end_percent, form.fade_in, form.fade_out)
    return Lora(form.url, form.scale, form.expert, form.sha256, form.min_match, schedule)


def _check_no_file(text: str, called: str) -> None:
    if EMBEDDING in text:
        raise ValueError(f"{called} holds {EMBEDDING!r}, which names a file on this machine. Take it out.")


def _check_resolution(resolution: str, most: int) -> None:
    width, height = size_of(resolution, False)
    check_size(width, height)
    if width * height > most:
        raise ValueError(f"resolution is {resolution}, {width * height} pixels; at most {most} are allowed (1280x720).")


def _check_image(image: str, has_upload: Callable[[str, str], bool], called: str) -> None:
    if image.startswith(UPLOAD_PREFIX):
        _check_upload(image, "picture", has_upload)
    else:
        _check_public(check_picture_link(image), called)


def _check_lora_link(link: str, has_upload: Callable[[str, str], bool]) -> None:
    if link.startswith(UPLOAD_PREFIX):
        _check_upload(link, "lora", has_upload)
    else:
        _check_public(parse_source(link).link, "The LoRA's link")


def _check_upload(name: str, kind: str, has_upload: Callable[[str, str], bool]) -> None:
    if not has_upload(name.removeprefix(UPLOAD_PREFIX).lower(), kind):
        raise ValueError(f"{name} is not among your uploads of this kind ({kind}). Send the file with POST uploads "
                         "first.")


def _check_public(link: str, called: str) -> None:
    url = parse_url(link)
    if not may_be_public(url.host):
        raise ValueError(f"{called} is {url}, on this machine or its network. Give a link that is open to the internet"
                         f"{'' if called == 'callback_url' else ', or upload the file'}.")


def _form_error(error: ValidationError) -> ApiError:
    """Return the error for a body that is not in the form."""
    found = error.errors(include_url=False, include_context=False)
    if not found[0]["loc"]:
        return ApiError("bad_request", f"The body must be a JSON object such as {{\"image\": \"https://...\", "
                                       f"\"prompt\": \"...\"}}: {found[0]['msg']}.")
    return field_error({_path(one["loc"]): _sentence(one) for one in found[:MOST_FAULTS]})


def _path(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))[:100]


def _sentence(fault: dict[str, Any]) -> str:
    name = _path(fault["loc"])
    if fault["type"] == "missing":
        return f"{name} is missing."
    if fault["type"] == "extra_forbidden":
        return f"{name} is no field of a request. GET openapi.json lists the fields."
    given = json.dumps(fault["input"], ensure_ascii=False, default=str)
    shown = given if len(given) <= LONGEST_GIVEN else f"{given[:LONGEST_GIVEN]}..."
    return f"{name} is {shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}."
