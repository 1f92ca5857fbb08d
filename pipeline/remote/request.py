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
    identity: bytes = b""
    """What stands for its pixels in a request's digest; b"": `data`. Two decoders may differ by a bit in a frame of a
    clip, and a clip must not be bought anew for that."""

    @property
    def mark(self) -> bytes:
        """What a request's digest is of."""
        return self.identity or self.data


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


def request_digest(clip: ClipRequest, picture: bytes, last_picture: bytes = b"",
                   options: Mapping[str, object] = MappingProxyType({}),
                   lora_files: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the SHA-256, in hexadecimal, of what a provider is sent and of the pictures' files: the same for the same
    clip. last_picture: b"" for none. options: see Target. lora_files: source of a LoRA -> SHA-256 of its file here.

    What of a LoRA can stop a clip, but not change it, stands at its default, as in the digests that ledgers hold; so
    a LoRA that acts in all steps has no schedule there.
    """
    sent = tuple(replace(lora, sha256=None, min_match=DEFAULT_MIN_MATCH) for lora in clip.loras if lora.scale)
    values = asdict(replace(clip, loras=sent)) | ({"options": dict(options)} if options else {})
    values |= {"lora_files": dict(lora_files)} if lora_files else {}
    for lora in values["loras"]:
        if lora["schedule"] == asdict(ALL_STEPS):
            del lora["schedule"]
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    pictures = b"".join(hashlib.sha256(file).digest() for file in (picture, last_picture) if file)
    return hashlib.sha256(text.encode() + b"\0" + pictures).hexdigest()
