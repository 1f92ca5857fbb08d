"""The ranges that hosted models accept of a ClipRequest, and the digest by which the ledger knows a request again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from ..lora.lora import check_lora
from ..request import ALL_STEPS, DEFAULT_MIN_MATCH, ClipRequest, RequestError

REMOTE_RESOLUTIONS = ("480p", "720p", "580p", "1080p")
MIN_REMOTE_STEPS, MAX_REMOTE_STEPS = 10, 50
MAX_REMOTE_SEED = 2**31 - 1
"""Signed 32 bits, the narrowest of the hosted APIs."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is uploaded: a JPEG or PNG file without metadata."""

    data: bytes
    content_type: str


def check_request(clip: ClipRequest) -> None:
    """Raise RequestError for the first value that no hosted model takes, DownloadError for a bad link of a LoRA."""
    clip.check()
    if clip.resolution not in REMOTE_RESOLUTIONS:
        raise RequestError(f"resolution is {clip.resolution!r}; choose one of {', '.join(REMOTE_RESOLUTIONS)}.")
    if not MIN_REMOTE_STEPS <= clip.num_inference_steps <= MAX_REMOTE_STEPS:
        raise RequestError(f"num_inference_steps is {clip.num_inference_steps}; hosted models take "
                           f"{MIN_REMOTE_STEPS} to {MAX_REMOTE_STEPS}.")
    if clip.seed > MAX_REMOTE_SEED:
        raise RequestError(f"seed is {clip.seed}; hosted models take 0 to {MAX_REMOTE_SEED}.")
    for lora in clip.loras:
        check_lora(lora)
        if lora.schedule != ALL_STEPS:
            raise RequestError("A LoRA acts in some of the steps, or fades; hosted models keep a LoRA at one scale in "
                               "all of them. Set its start_percent to 0, end_percent to 1, fade_in and fade_out to 0, "
                               "or use Wan 2.2 Sampler.")


def request_digest(clip: ClipRequest, picture: bytes, last_picture: bytes = b"",
                   options: Mapping[str, object] = MappingProxyType({})) -> str:
    """Return the SHA-256, in hexadecimal, of what a provider is sent and of the pictures' files: the same for the same
    clip. last_picture: b"" for none. options: see Target.

    Settings of a LoRA that never leave this machine stand at their defaults, as in the digests that ledgers hold.
    """
    sent = tuple(replace(lora, sha256=None, min_match=DEFAULT_MIN_MATCH) for lora in clip.loras if lora.scale)
    values = asdict(replace(clip, loras=sent)) | ({"options": dict(options)} if options else {})
    for lora in values["loras"]:
        del lora["schedule"]  # `check_request` lets none pass
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    pictures = b"".join(hashlib.sha256(file).digest() for file in (picture, last_picture) if file)
    return hashlib.sha256(text.encode() + b"\0" + pictures).hexdigest()
