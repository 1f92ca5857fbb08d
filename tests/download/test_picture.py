"""Pictures by a link: what is fetched, what is refused, and how they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.download.picture import fetch_picture
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from pipeline.request import RequestError
from pipeline.video.picture import decode_picture
from tests.support.hostile_server import QUICK, File, HostileServer, Request, redirect, status

LINK = "https://a.example/picture"
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
ORIENTATION = 0x0112


def encoded(kind: str, picture: Image.Image | None = None, **options: object) -> bytes:
    sink = io.BytesIO()
    (picture or Image.fromarray(PIXELS)).save(sink, kind, **options)
    return sink.getvalue()


def get(hostile: HostileServer, link: str = LINK, **options: object) -> bytes:
    return fetch_picture(link, policy=hostile.policy(), tokens=Tokens({}), **options)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_arrives(hostile: HostileServer, tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    hostile.routes["/picture"] = File(data)
    assert get(hostile) == data
    assert len(hostile.seen) == 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_another_format_is_refused_by_content(hostile: HostileServer, kind: str) -> None:
    hostile.routes["/picture"] = File(encoded(kind), headers={"Content-Type": "image/png"})
    with pytest.raises(DownloadError, match="is not a JPEG, PNG or WebP picture"):
        get(hostile)


def test_ten_megabytes_are_the_limit(hostile: HostileServer) -> None:
    start = encoded("PNG")
    served = hostile.routes["/picture"] = File(start + bytes(10_000_000 - len(start)))
    assert len(get(hostile)) == 10_000_000
    served.data += b"x"
    with pytest.raises(DownloadError, match="larger than the 10 MB that a picture may have"):
        get(hostile)


def test_an_endless_picture_is_refused(hostile: HostileServer) -> None:
    def route(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"})
        while True:
            request.wfile.write(b"10000\r\n" + bytes(65_536) + b"\r\n")

    hostile.routes["/picture"] = route
    with pytest.raises(DownloadError, match="Scale it down first"):
        get(hostile)


def test_trouble_passes_and_cuts_are_not_pictures(hostile: HostileServer) -> None:
    data = encoded("PNG")
    hostile.routes["/picture"] = status(503, then=File(data), times=2)
    assert get(hostile) == data
    hostile.routes["/picture"] = File(data, cut_after=len(data) // 2)
    with pytest.raises(DownloadError, match="broke off"):
        get(hostile)


@pytest.mark.parametrize(("link", "sentence"), [
    ("", "url is empty"), ("http://a.example/p.png", "only https"), ("o/r", "is a page, not a picture"),
    ("picture.png", "names no file on the internet"), ("https://127.0.0.1/p.png", "not on the public internet"),
])
def test_a_link_that_is_refused(hostile: HostileServer, link: str, sentence: str) -> None:
    with pytest.raises(DownloadError, match=sentence):
        get(hostile, link)
    assert hostile.seen == []


def test_a_picture_is_not_fetched_from_this_machine(hostile: HostileServer) -> None:
    hostile.routes["/picture"] = redirect("https://127.0.0.1/p.png")
    with pytest.raises(DownloadError, match="not on the public internet"):
        get(hostile)


def test_stop_during_a_hang(hostile: HostileServer) -> None:
    hostile.routes["/picture"] = File(encoded("PNG"), hang_at=100)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_picture(LINK, policy=hostile.policy(replace(QUICK, read=600.0)), stop=stop, tokens=Tokens({}))


def test_decoded_as_it_was_made() -> None:
    image = decode_picture(encoded("PNG"))
    assert image.shape == (1, 48, 64, 3) and image.dtype == torch.float32
    assert torch.equal(image[0], torch.from_numpy(PIXELS).float() / 255)
    assert torch.equal(decode_picture(encoded("WEBP", lossless=True)), image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_as_exif_says(kind: str, orientation: int) -> None:
    """A picture with a red left upper and a blue right upper corner, stored in each of the eight ways."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[:16, 32:] = (255, 0, 0), (0, 0, 255)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
              6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image = decode_picture(encoded(kind, Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options))
    assert image.shape == (1, 32, 48, 3)
    assert (image[0] - torch.from_numpy(upright).float() / 255).abs().max() < 0.02


def test_upright_with_exif_that_cannot_be_written_anew() -> None:
    """BitsPerSample, of 16 bits without a sign, is -1 in 32 bits."""
    entries = [(0x0102, 9, struct.pack("<i", -1)), (ORIENTATION, 3, struct.pack("<HH", 6, 0))]
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(
        struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries) + bytes(4)
    assert decode_picture(encoded("JPEG", exif=b"Exif\0\0" + tiff)).shape == (1, 64, 48, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    picture = Image.fromarray(np.full((32, 32, 3), 255, np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.full((32, 32), 32768, np.uint16))
    else:
        picture = picture.convert(mode)
    image = decode_picture(encoded("JPEG" if mode == "CMYK" else "PNG", picture))
    assert image.shape == (1, 32, 32, 3)
    assert abs(float(image.mean()) - (0.5 if mode == "I;16" else 1.0)) < 0.01


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (64_000_001, 1), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="the most is 64 megapixels"):
        decode_picture(_png_that_claims(*size))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_picture_has_its_sentence(kind: str) -> None:
    data = encoded(kind)
    for end in (0, 3, 12, 20, len(data) // 2):
        with pytest.raises(RequestError, match="or it is damaged"):
            decode_picture(data[:end])
    with pytest.raises(RequestError, match="or it is damaged"):
        decode_picture(_png_that_claims(64, 64))
    with pytest.raises(RequestError, match="or it is damaged"):
        decode_picture(encoded("GIF"))
