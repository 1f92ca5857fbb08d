"""The hosts from which results are downloaded: they serve small valid MP4s, and never want to see a key.

A request with Authorization, a cookie or any known key in it is a violation. Points for faults: "download". What a
download can suffer is in faults.py: `cut` and `shortened` (truncated), `answer(200, "<html>...")` (HTML in place of
the MP4), `drip`, `endless`, `redirect`, `chain`. Links that have expired are made by `Script(expired=1)`.

Decided here: an expired link answers as S3 and CloudFront do (403, XML), and a link without its signature too.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.api_server import Answer, ApiServer, Route
from tests.support.loopback_server import Request

HOSTS = ("d1q70pf5vjeyhc.cloudfront.net", "atlas-media.oss-us-west-1.aliyuncs.com", "v3b.fal.media",
         "replicate.delivery")
"""Where WaveSpeed's, AtlasCloud's, fal's and Replicate's results lie. Those of the first two are examples of theirs."""
FPS = 16


@functools.cache
def clip(frames: int, fps: int = FPS, width: int = 96, height: int = 64) -> bytes:
    """An H.264 MP4 of a gradient that moves gently."""
    import av
    import numpy as np

    file = io.BytesIO()
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "30", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            red, green = 128 + 90 * np.sin((x + n) / 24), 128 + 90 * np.cos((y - n) / 20)
            picture = np.stack([red, green, np.full_like(red, 96)], axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@dataclass
class Clip:
    """A file, and how many links to it were given out."""

    data: bytes
    expired: int
    """The first links that do not work."""
    links: int = 0


class CdnServer(ApiServer):
    points = ("download",)

    def __init__(self, folder: Path, hosts: tuple[str, ...] = HOSTS) -> None:
        self.keys: set[str] = set()
        """Keys of providers, which must not arrive here."""
        self.clips: dict[str, Clip] = {}
        """By host and path."""
        self.delivered: Counter[str] = Counter()
        """Name -> answers that had the clip, whole or a part (and a fault may have spoilt some)."""
        self.routes = [Route("GET", host, r"/(?P<path>.*)", "download", self.download, open=True) for host in hosts]
        super().__init__(folder, hosts)

    def publish(self, host: str, name: str, frames: int = 81, fps: int = FPS, *, expired: int = 0) -> str:
        """A link to a clip of this name, which is made if it is not there; a fresh one while those before expired."""
        if host not in self.hosts:
            raise ValueError(f"{host} is not served here, only {', '.join(self.hosts)}.")
        with self.lock:
            made = self.clips.setdefault(f"{host}/{name}.mp4", Clip(clip(frames, fps), expired))
            made.links = min(made.links + 1, made.expired + 1)
            return f"https://{host}/{name}.mp4?signature={_signature(name, made.links)}"

    def download(self, request: Request, path: str) -> Answer:
        self._look_for_keys(request)
        made = self.clips.get(f"{request.seen.host}/{path}")
        if made is None:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        name = path.removesuffix(".mp4")
        valid = {_signature(name, number) for number in range(made.expired + 1, made.links + 1)}
        if request.seen.query.get("signature") not in valid:
            return _xml(403, "AccessDenied", "Request has expired")
        self.delivered[name] += 1
        headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes",
                   "ETag": f'"{hashlib.sha256(made.data).hexdigest()[:32]}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.seen.headers.get("range", ""))
        if not asked or request.seen.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
            return Answer(200, made.data, headers)
        start, size = int(asked[1]), len(made.data)
        if start >= size:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        end = min(int(asked[2]) + 1 if asked[2] else size, size)
        return Answer(206, made.data[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def unknown(self, request: Request) -> Answer:
        self._look_for_keys(request)
        return _xml(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    def _look_for_keys(self, request: Request) -> None:
        seen = request.seen
        whole = f"{request.path} {seen.headers} {seen.raw[:10000]!r}"
        if {"authorization", "cookie", "proxy-authorization"} & set(seen.headers) or any(k in whole for k in self.keys):
            self.violations.append(f"A key arrived at {seen.host} with {seen.method} {seen.path}.")


def _signature(name: str, number: int) -> str:
    return hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:24]


def _xml(status: int, code: str, message: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})
