"""What strangers may try at the API of the real ComfyUI: no key, other sites, paths, links inwards, bad files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import socket
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from devtools.paths import ROOT
from pipeline.serve.operations import BASE, GUIDE_BASE, GUIDE_MODEL, OPERATIONS
from tests.support.api_client import PICTURE, Api, error_of, new_key, owner
from tests.support.comfy_outside import Outside
from tests.support.lora_files import DRAIN

LORA = DRAIN["high"]
ID = "0b0f6a0e-5f0c-4d0b-9a58-5c0a7d3a8d11"


@pytest.fixture(scope="module", autouse=True)
def slow(api: Api) -> Iterator[list[bytes]]:
    """The answer to a body that comes byte by byte, while the other tests run."""
    answers: list[bytes] = []
    address = urllib.parse.urlsplit(api.url)

    def drip() -> None:
        with socket.create_connection((address.hostname, address.port)) as line:
            line.settimeout(0.5)
            line.sendall(f"POST {BASE}/image-to-video HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer "
                         f"{api.key}\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n".encode())
            while not answers:
                line.sendall(b" ")
                try:
                    answers.append(line.recv(65536))
                except TimeoutError:
                    continue

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield answers
    thread.join()


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.has_key and one.method != "HEAD"],
                         ids=lambda one: one.name)
def test_without_a_right_key_nothing_is_answered(operation: Any, api: Api, outside: Outside) -> None:
    path = operation.path.format(id=ID, sha256="0" * 64, owner="somebody")
    revoked = new_key(outside, "gone")["key"]
    assert Api(api.url, revoked).ask("GET", "/models").status_code == 200
    owner(outside, "DELETE", "/keys", json={"name": "gone"})
    for key in ("", "wrong", revoked, api.key[:-1], api.key + "é".encode().decode("latin-1"), " "):
        answer = Api(api.url, key).ask(operation.method, path, operation.base)
        error_of(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    basic = requests.request(operation.method, api.url + operation.base + path, auth=("user", api.key), timeout=60)
    error_of(basic, 401, "unauthorized")


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}])
def test_pages_of_others_are_refused_with_a_right_key_too(api: Api, outside: Outside, headers: dict[str, str]) -> None:
    """ComfyUI's own check answers some of them, without a body."""
    for method, path in (("GET", "/models"), ("POST", "/image-to-video"), ("POST", f"/predictions/{ID}/cancel")):
        assert api.ask(method, path, headers=headers).status_code == 403
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/keys"), ("DELETE", "/keys"), ("POST", "/models")):
        assert owner(outside, method, path, json={}, headers=headers).status_code == 403


def test_a_page_that_points_its_name_at_this_machine_has_no_key(api: Api, outside: Outside) -> None:
    """DNS rebinding: the page's own name is the Host, so that it is the same origin."""
    headers = {"Host": "evil.example:8188", "Origin": "http://evil.example:8188", "Sec-Fetch-Site": "same-origin"}
    error_of(Api(api.url).ask("GET", "/predictions", headers=headers), 401, "unauthorized")
    assert owner(outside, "POST", "/keys", json={"name": "evil"}, headers=headers).status_code == 403
    assert owner(outside, "GET", headers=headers).status_code == 403


def test_forms_of_other_sites_are_no_requests(api: Api, outside: Outside) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        error_of(api.ask("POST", "/image-to-video", data="{}", headers={"Content-Type": kind}), 415,
                 "unsupported_media_type")
        assert owner(outside, "POST", "/keys", data='{"name": "x"}', headers={"Content-Type": kind}).status_code == 415


HOSTS = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.7",
         "192.168.1.1", "169.254.169.254", "[fd00::1]", "[64:ff9b::7f00:1]", "box.local", "box", "db.internal",
         "127.0.0.1.", "\u2460\u2461\u2466.0.0.1", "user:word@cdn.example", "cdn.example:22")
LINKS = [*(f"https://{host}/x.safetensors" for host in HOSTS), "http://cdn.example/x.safetensors",
         "file:///etc/passwd", "ftp://cdn.example/x", "gopher://cdn.example/x", "//cdn.example/x", "https://", "https://\\",
         "https:/cdn.example/x", " https://127.0.0.1/", "HTTPS://127.0.0.1/", "https://cdn.example\r\nX: y/"]
PATHS = ["../../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\Windows\\win.ini", "upload:../../etc/passwd",
         f"upload:{'0' * 64}", f"upload:{'0' * 63}/", "wan22_coffee.png", LORA.name, "\0", "data:text/html;base64,PGI+",
         "data:image/png;base64,%%%", "data:image/png;base64,\u00e9",
         "data:image/svg+xml;base64,PHN2Zz4=", "data:image/png;base64,PGh0bWw+"]


@pytest.mark.parametrize("field", ["image", "last_image", "lora_url", "loras.0.url", "callback_url"])
def test_links_into_this_machine_and_paths_are_refused_in_every_field(field: str, api: Api) -> None:
    for value in (*LINKS, *PATHS):
        given = {"loras": [{"url": value}]} if field.startswith("loras") else {field: value}
        error = error_of(api.submit(**given), 422, "invalid_request")
        assert error["field"] == field and "root:" not in json.dumps(error), value
    page = api.ask("GET", "/predictions", params={"status": "queued"}).json()
    assert page["predictions"] == []


def test_a_link_that_ends_in_a_name_of_the_loras_folder_is_still_a_link(api: Api, outside: Outside) -> None:
    """ComfyUI's own look-up goes up the `..` of a link, to a file that the owner has shown nobody."""
    mine = outside.server.base / "models" / "loras" / "mine.safetensors"
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(LORA.read_bytes())
    asked = api.submit(lora_url=f"https://cdn.example/../../{mine.name}").json()
    ended = api.wait(asked["id"])
    mine.unlink()
    assert ended["status"] == "failed" and "404" in ended["error"]["message"], ended


def test_paths_in_the_other_places_lead_nowhere(api: Api) -> None:
    for value in PATHS:
        if "data:" in value:
            continue
        given = urllib.parse.quote(value, safe="")
        assert api.ask("GET", f"/predictions/{given}").status_code == 404
        assert api.ask("DELETE", f"/predictions/{given}").status_code == 404
        assert api.ask("GET", f"/uploads/{given}").status_code == 404
        link = Api(api.url).ask("GET", f"/files/{ID}/{given}", params={"expires": 2**40, "signature": "0" * 64})
        error_of(link, 403, "forbidden")
        error_of(api.submit(model=value), 422, "invalid_request")
        error_of(api.submit(resolution=value), 422, "invalid_request")
        error_of(api.ask("GET", "/predictions", params={"before": value}), 422, "invalid_request")


def test_a_link_that_was_changed_or_is_over_is_refused(api: Api) -> None:
    ended = api.wait(api.submit().json()["id"])
    link = ended["outputs"][0]
    expires = int(re.search(r"expires=(\d+)", link)[1])
    assert requests.get(link, timeout=60).status_code == 200
    other = api.submit().json()["id"]
    for changed in (link.replace(f"expires={expires}", f"expires={expires + 1}"), link[:-1] + "x",
                    link.replace(ended["id"], other), re.sub("signature=.*", "signature=", link)):
        error_of(requests.get(changed, timeout=60), 403, "forbidden")
    assert api.ask("POST", f"/predictions/{other}/cancel").status_code == 200


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("data", "said"), [
    (b"", "empty"), (b"<!DOCTYPE html><html></html>" * 9, "web page"), (b'{"error": "no"}' * 9, "JSON"),
    (b"\x80\x04\x95" + b"\0" * 100, "pickle"), (archive(), "pickle"), (b"version https://git-lfs", "Git LFS"),
    (b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "damaged"), (PICTURE.read_bytes()[:2000], "damaged"), (bomb(), "megapixels"),
    ((len(b'{"a":1}')).to_bytes(8, "little") + b'{"a":1}' + b"\0" * 64, "The file"),
    ((ROOT / "models/demo/vae/wan_2.1_vae_demo.safetensors").read_bytes(), "not a LoRA"),
    (LORA.read_bytes()[:-100], "The file")],
    ids=["empty", "HTML", "JSON", "pickle", "zip", "LFS", "no PNG", "cut PNG", "bomb", "no header", "VAE", "cut LoRA"])
def test_uploads_are_checked_by_their_content(data: bytes, said: str, api: Api, outside: Outside) -> None:
    for sent in ({"data": data, "headers": {"Content-Type": "application/octet-stream"}},
                 {"files": {"file": ("../../x.safetensors", data)}}):
        error = error_of(api.ask("POST", "/uploads", **sent), 422, "invalid_request")
        assert said in error["message"] and str(outside.server.base) not in error["message"]
    assert not list(outside.server.base.rglob("*.part"))


def test_what_is_too_large_is_refused(api: Api) -> None:
    picture = PICTURE.read_bytes() + b"\0" * 10_000_000
    error_of(api.ask("POST", "/uploads", files={"file": picture}), 413, "too_large")
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    assert api.submit(image=uri).status_code in (413, 422)
    error_of(api.ask("POST", "/image-to-video", data=iter([b" " * 2**20] * 15),
                     headers={"Content-Type": "application/json"}), 413, "too_large")
    error_of(api.submit(prompt="a" * 20_000), 422, "invalid_request")
    error_of(api.submit(num_frames=1025), 422, "invalid_request")
    error_of(api.submit(resolution="4096x4096"), 422, "invalid_request")


def test_a_body_that_comes_byte_by_byte_is_given_up(slow: list[bytes]) -> None:
    while not slow:
        time.sleep(0.1)
    assert slow[0].startswith(b"HTTP/1.1 408 ") and b'"too_slow"' in slow[0]


@pytest.mark.parametrize("body", [b"", b"nope", b"[1]", b'"text"', b"{" * 100_000, b'{"image": "\\ud800"}',
                                  b"\xff\xfe"])
def test_what_is_no_request_is_refused(body: bytes, api: Api) -> None:
    for path, base in (("/image-to-video", BASE), (f"/somebody/{GUIDE_MODEL}", GUIDE_BASE)):
        answer = api.ask("POST", path, base, data=body, headers={"Content-Type": "application/json"})
        error_of(answer, 400, "bad_request")


@pytest.mark.parametrize("form", [
    b"", b"--x", b"--x\r\n", b"--x\r\nno header\r\n\r\nfile\r\n--x--\r\n", b"nothing of a form",
    b"--y\r\n\r\na\r\n--y--\r\n",
    b'--x\r\nContent-Disposition: form-data; name="\x7f\xb3"\r\n\r\na\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="file"\r\nContent-Length: -5\r\n\r\na\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nnot closed'])
def test_forms_that_are_none_are_refused(form: bytes, api: Api) -> None:
    for kind in ("multipart/form-data; boundary=x", "multipart/form-data", f"multipart/form-data; boundary={'x' * 99}"):
        answer = api.ask("POST", "/uploads", data=form, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422) and answer.json()["error"]["message"], (kind, answer.text)


def test_packed_bodies_are_refused(api: Api) -> None:
    """Four kilobytes may unpack to four megabytes."""
    for path, kind in (("/image-to-video", "application/json"), ("/uploads", "application/octet-stream")):
        answer = api.ask("POST", path, data=gzip.compress(b" " * 2**22),
                         headers={"Content-Encoding": "gzip", "Content-Type": kind})
        error_of(answer, 415, "unsupported_media_type")


def test_routes_that_are_not_there(api: Api) -> None:
    for path in ("/nothing", "/../../serving/keys", "/%2e%2e/%2e%2e/serving/keys"):
        request = requests.Request("GET", api.url).prepare()
        request.url = api.url + BASE + path  # as it is: requests takes .. out of a path
        error_of(requests.Session().send(request, timeout=60), 404, "not_found")
    answer = api.ask("PUT", "/image-to-video")
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


def test_too_many_requests_wait(api: Api, outside: Outside) -> None:
    owner(outside, "POST", json={"per_minute": 2})
    hasty = Api(api.url, new_key(outside, "hasty")["key"])
    statuses = [hasty.ask("POST", "/image-to-video", json={}).status_code for _ in range(3)]
    last = hasty.ask("POST", "/uploads", files={"file": b"x"})
    assert statuses == [422, 422, 429] and 1 <= int(last.headers["Retry-After"]) <= 60
    error_of(last, 429, "rate_limited")
    assert hasty.ask("GET", "/models").status_code == 200
    owner(outside, "DELETE", "/keys", json={"name": "hasty"})
    owner(outside, "POST", json={"per_minute": 100_000})


def test_slow_uploads_hold_up_no_other_key(api: Api, outside: Outside) -> None:
    """As many as there are places for all keys; nor the key's own requests. Its next upload waits until they end."""
    slow = Api(api.url, new_key(outside, "slow")["key"])
    address = urllib.parse.urlsplit(api.url)
    lines = [socket.create_connection((address.hostname, address.port)) for _ in range(16)]
    for line in lines:
        line.sendall(f"POST {BASE}/uploads HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {slow.key}\r\n"
                     "Content-Type: application/octet-stream\r\nContent-Length: 4000\r\n\r\n".encode())
    answers: list[int] = []
    next_one = threading.Thread(target=lambda: answers.append(slow.ask(
        "POST", "/uploads", files={"file": PICTURE.read_bytes()}).status_code))
    next_one.start()
    try:
        assert api.ask("POST", "/uploads", files={"file": PICTURE.read_bytes()}).status_code == 201
        error_of(slow.ask("POST", "/image-to-video", json={}), 422, "invalid_request")
    finally:
        for line in lines:
            line.close()
    next_one.join()
    assert answers == [201]
    owner(outside, "DELETE", "/keys", json={"name": "slow"})


def test_keys_are_hashed_at_rest_and_seen_nowhere(api: Api, outside: Outside, made: dict[str, str]) -> None:
    found = owner(outside, "GET").json()
    assert [one["name"] for one in found["keys"]] == ["shop"] and made["key"] not in json.dumps(found)
    store = outside.own / "api_keys.json"
    assert hashlib.sha256(made["key"].encode()).hexdigest() in store.read_text("utf-8")
    if os.name == "posix":
        assert store.stat().st_mode & 0o077 == 0
    for path in (*outside.own.rglob("*"), Path(outside.server.log)):
        if path.is_file():
            assert made["key"].encode() not in path.read_bytes(), path
    assert owner(outside, "POST", "/keys", json={"name": "shop"}).status_code == 409
    assert owner(outside, "POST", "/keys", json={"name": "../x"}).status_code == 409
