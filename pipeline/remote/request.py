"""The ranges that hosted models accept of a ClipRequest, and the digest by which the ledger knows a request again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from ..lora.lora import check_lora
from ..request import DEFAULT_MIN_MATCH, MAX_STEPS, ClipRequest, RequestError

REMOTE_RESOLUTIONS = ("480p", "720p")
MIN_REMOTE_STEPS = 10
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
    if clip.num_inference_steps < MIN_REMOTE_STEPS:
        raise RequestError(f"num_inference_steps is {clip.num_inference_steps}; hosted models take "
                           f"{MIN_REMOTE_STEPS} to {MAX_STEPS}.")
    if clip.seed > MAX_REMOTE_SEED:
        raise RequestError(f"seed is {clip.seed}; hosted models take 0 to {MAX_REMOTE_SEED}.")
    for lora in clip.loras:
        check_lora(lora)


def request_digest(clip: ClipRequest, picture: bytes, last_picture: bytes = b"") -> str:
    """Return the SHA-256, in hexadecimal, of what a provider is sent and of the pictures' files: the same for the same
    clip. last_picture: b"" for none.

    Settings of a LoRA that never leave this machine stand at their defaults, as in the digests that ledgers hold.
    """
    sent = tuple(replace(lora, sha256=None, min_match=DEFAULT_MIN_MATCH) for lora in clip.loras if lora.scale)
    text = json.dumps(asdict(replace(clip, loras=sent)), sort_keys=True, ensure_ascii=True)
    pictures = b"".join(hashlib.sha256(file).digest() for file in (picture, last_picture) if file)
    return hashlib.sha256(text.encode() + b"\0" + pictures).hexdigest()
