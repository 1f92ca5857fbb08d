"""Checks of a job's inputs that all providers make. The checks are strict where the providers' own are unknown.

Decided here, because nobody documents it: pictures are JPEG, PNG or WebP; their sides are at most 2000 pixels and
their data 10 MB (what providers.md calls safe everywhere); a LoRA is an https link that ends in .safetensors before
its query (so neither Hugging Face's owner/model nor Civitai's /api/download/models/ID is accepted).
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from PIL import Image
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

PICTURE_BYTES = 10_000_000
PICTURE_SIDE = 2000
REFUSED_WORD = "refuse-this"
"""A prompt with it is against every provider's policy."""
DATA_URI = re.compile(r"data:(image/[a-z]+);base64,([A-Za-z0-9+/=]+)")


class Inputs(BaseModel):
    """A model's inputs; a field that it does not list is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _has_words(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be empty")
    return prompt


def _whole(number: object) -> object:
    if isinstance(number, float):
        raise ValueError("must be an integer")
    return number


Prompt = Annotated[str, AfterValidator(_has_words)]
LoraPath = Annotated[str, Field(pattern=r"^https://[^/?#\s]+/[^?#\s]+\.safetensors(\?\S*)?$", max_length=2048)]
Seed = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Duration = Annotated[Literal[5, 8], BeforeValidator(_whole)]


LoraPage = Annotated[str, Field(pattern=r"^https://(www\.)?civitai\.com/\S+$|^[\w.-]+/[\w.-]+$", max_length=2048)]
"""A page of Civitai, or a repository of Hugging Face."""


class ScaledLora(Inputs):
    """A LoRA as WaveSpeed and AtlasCloud take it."""

    path: LoraPath | LoraPage
    scale: Annotated[float, Field(ge=0, le=4)] = 1.0


Loras = Annotated[list[ScaledLora], Field(max_length=3)]


class BadPicture(Exception):  # noqa: N818  (what is bad is the picture)
    """A picture that is no picture ("format"), or too large ("bytes", "side")."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason, self.field = reason, "image"


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded."""

    url: str
    """Its address, by the answer to the upload."""
    name: str
    content_type: str
    data: bytes


def check_picture(data: bytes, largest: int = PICTURE_BYTES, side: int = PICTURE_SIDE) -> None:
    """Raises BadPicture."""
    if len(data) > largest:
        raise BadPicture("bytes", f"The image has {len(data)} bytes; at most {largest} are allowed.")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
            size = picture.size
            picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise BadPicture("format", "The image could not be decoded.") from error
    if max(size) > side:
        raise BadPicture("side", f"The image is {size[0]}x{size[1]}; at most {side} pixels a side are allowed.")


def inline_picture(value: str, *, bare: bool = False) -> bytes | None:
    """The data of a data URI, or with `bare` of plain base64 too; None when it is neither. Raises BadPicture."""
    match = DATA_URI.fullmatch(value)
    if not match and not (bare and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", value)):
        return None
    try:
        return base64.b64decode(match[2] if match else value, validate=True)
    except ValueError as error:
        raise BadPicture("format", "The image is not sound base64.") from error


def is_public_https(url: str, longest: int = 2048) -> bool:
    """Return True when a provider would call this address: https, a public name, no user, no port of its own."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    named = re.fullmatch(r"(?!.*\.(local|internal|localhost)$)[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}", host)
    return bool(parts.scheme == "https" and named and port in (None, 443) and len(url) <= longest
                and parts.username is None)


def form_file(content_type: str, body: bytes, field: str) -> tuple[str, str, bytes] | None:
    """(file name, content type, data) of the one file of a multipart/form-data body; None unless it is in `field`."""
    boundary = re.fullmatch(r'multipart/form-data; *boundary="?([^";]+)"?', content_type)
    if not boundary:
        return None
    mark = b"--" + boundary[1].encode()
    if not body.startswith(mark) or not body.rstrip(b"\r\n").endswith(mark + b"--"):
        return None
    parts = body[len(mark):].split(b"\r\n" + mark)[:-1]
    files = [part for part in parts if b"filename=" in part.partition(b"\r\n\r\n")[0]]
    if len(files) != 1:
        return None
    head, _, data = files[0].partition(b"\r\n\r\n")
    text = head.decode()
    named = re.search(r'name="([^"]+)"; *filename="([^"]+)"', text)
    kind = re.search(r"Content-Type: *(\S+)", text, re.IGNORECASE)
    if not named or named[1] != field:
        return None
    return named[2], kind[1] if kind else "application/octet-stream", data
