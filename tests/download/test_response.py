"""Answers that are no file: each has its sentence, tokens stay with their owners, and nothing secret is told."""

from __future__ import annotations

import json
import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.files.names import size_text
from pipeline.http.errors import DownloadError, redact
from pipeline.http.policy import retry_after
from pipeline.http.secrets import CIVITAI, HUGGING_FACE, Secret, Tokens, service_of
from pipeline.remote.keys import KeyStore
from tests.support.hostile_server import QUICK, File, HostileServer, Request, redirect, status

HF = "hf_SecretOfHuggingFace"
CIV = "SecretOfCivitai0123456789"
BOTH = Tokens({"HF_TOKEN": HF, "CIVITAI_API_TOKEN": CIV})
NONE = Tokens({})
HUB_FILE = "o/r/f.safetensors"
HUB_PATH = "/o/r/resolve/main/f.safetensors"
CIVITAI_FILE = "urn:air:wan22:lora:civitai:1@2"
CIVITAI_PATH = "/api/download/models/2"


def get(hostile: HostileServer, folder: Path, source: str = "https://a.example/f", tokens: Tokens = NONE) -> bytes:
    return fetch(source, folder=folder / "cache", policy=hostile.policy(), tokens=tokens).read_bytes()


def refused(hostile: HostileServer, folder: Path, sentence: str, source: str = "https://a.example/f",
            tokens: Tokens = NONE) -> str:
    with pytest.raises(DownloadError, match=sentence) as caught:
        get(hostile, folder, source, tokens)
    assert HF not in str(caught.value) and CIV not in str(caught.value)
    assert not (folder / "cache" / "sha256").exists()
    return str(caught.value)


@pytest.mark.parametrize(("code", "sentence", "tries"), [
    (400, "status 400 instead of the file", 1), (401, "may not be read .status 401.", 1),
    (403, "may not be read .status 403.", 1), (404, "does not exist .status 404.", 1),
    (410, "does not exist .status 410.", 1), (416, "is empty .status 416.", 1), (418, "status 418", 1),
    (429, "allows no more requests for now", 3), (500, "trouble of its own .status 500.", 3),
    (502, "status 502", 3), (503, "status 503", 3), (204, "status 204", 1), (304, "status 304", 1),
])
def test_a_status_has_its_sentence(hostile: HostileServer, tmp_path: Path, code: int, sentence: str, tries: int,
                                   ) -> None:
    hostile.routes["/f"] = status(code, {"Retry-After": "0"} if code == 429 else None, b"" if code < 400 else b"no")
    refused(hostile, tmp_path, sentence)
    assert len(hostile.seen) == tries


@pytest.mark.parametrize("wait", [None, "0", "3600", "garbage", "-1", "Sun, 01 Nov 2026 10:00:00 GMT", "9" * 400])
@pytest.mark.parametrize("code", [429, 503])
def test_trouble_that_passes_is_waited_for(hostile: HostileServer, tmp_path: Path, code: int, wait: str | None) -> None:
    """A wait is honoured up to the pace's longest, which is short here."""
    hostile.routes["/f"] = status(code, {"Retry-After": wait} if wait else None, then=File(b"weights"), times=2)
    assert get(hostile, tmp_path) == b"weights"


@pytest.mark.parametrize(("value", "seconds"), [
    ("7", 7.0), (" 7 ", 7.0), ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ("soon", None), ("-5", None), ("1.5", None), ("²", None), (None, None), ("9" * 400, 999_999_999.0),
])
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=100.0) == seconds


@pytest.mark.parametrize(("headers", "body"), [
    ({"Content-Type": "text/html; charset=utf-8"}, b"anything"),
    ({"Content-Type": "application/octet-stream"}, b"\xef\xbb\xbf \n<!DOCTYPE html><html>"),
    ({}, b"<html><body>Sign in</body></html>"),
])
def test_a_web_page_is_no_file(hostile: HostileServer, tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    hostile.routes["/f"] = status(200, headers, body)
    refused(hostile, tmp_path, "is a web page, not a file. Give the link of the download button")


@pytest.mark.parametrize("headers", [
    {"ETag": '"a\r\n b"'}, {"ETag": '"' + "x" * 5000 + '"'}, {"ETag": '"\xe9\x7f"'}, {"ETag": "bare"}, {"ETag": ""},
    {"ETag": "W/"}, {"Last-Modified": "never"}, {"Retry-After": "1"}, {"Set-Cookie": "a=b"}, {"X": "y" * 60_000},
])
def test_odd_headers_do_no_harm(hostile: HostileServer, tmp_path: Path, headers: dict[str, str]) -> None:
    hostile.routes["/f"] = File(bytes(200_000), etag=None, headers=headers)
    for _ in range(2):
        assert get(hostile, tmp_path) == bytes(200_000)


@pytest.mark.parametrize(("headers", "sentence"), [
    ({"Content-Length": "many"}, "does not say how long"), ({"Content-Length": "-5"}, "does not say how long"),
    ({"Content-Length": "9" * 30}, "over the limit"), ({"X": "y" * 70_000}, "broke off"),
    ({f"X-{n}": "y" for n in range(200)}, "broke off"),
])
def test_headers_beyond_sense_have_their_sentence(hostile: HostileServer, tmp_path: Path, headers: dict[str, str],
                                                  sentence: str) -> None:
    def route(request: Request) -> None:
        request.head(200, headers)
        request.wfile.write(bytes(100_000))
        request.cut()

    hostile.routes["/f"] = route
    refused(hostile, tmp_path, sentence)


def test_a_redirect_in_utf_8_is_followed(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/f"] = redirect("/m\u00fcde".encode().decode("latin-1"))
    hostile.routes["/m%C3%BCde"] = File(b"weights")
    assert get(hostile, tmp_path) == b"weights"


def test_a_path_arrives_as_the_link_has_it(hostile: HostileServer, tmp_path: Path) -> None:
    """A file store's names may begin with a slash."""
    hostile.routes["//folder//f"] = File(b"weights")
    assert get(hostile, tmp_path, "https://a.example//folder//f") == b"weights"


def test_redirects_are_followed_to_the_fifth(hostile: HostileServer, tmp_path: Path) -> None:
    for number in range(1, 6):
        hostile.routes[f"/{number}"] = redirect(f"/{number + 1}", code=[301, 302, 303, 307, 308][number - 1])
    hostile.routes["/6"] = File(b"weights")
    assert get(hostile, tmp_path, "https://a.example/1") == b"weights"
    hostile.routes["/0"] = redirect("https://b.example/1")
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        get(hostile, tmp_path, "https://a.example/0")


@pytest.mark.parametrize(("location", "sentence"), [
    ("/f", "redirects more than 5 times"), ("http://b.example/f", "only https links"),
    ("file:///etc/passwd", "only https links"), ("https://x:y@b.example/", "user name or a password"),
])
def test_redirects_that_lead_nowhere(hostile: HostileServer, tmp_path: Path, location: str, sentence: str) -> None:
    hostile.routes["/f"] = redirect(location)
    refused(hostile, tmp_path, sentence)
    hostile.routes["/f"] = status(302)
    refused(hostile, tmp_path, "a redirect that leads nowhere")


def test_a_token_goes_to_its_owner_and_no_further(hostile: HostileServer, tmp_path: Path) -> None:
    """As the Hub does it: the file comes from another host, by a link that is a secret itself."""
    hostile.routes[HUB_PATH] = redirect("https://cdn.example/blob?X-Signature=presigned")
    hostile.routes["cdn.example/blob"] = redirect("https://huggingface.co/back")
    hostile.routes["/back"] = File(bytes(200_000))
    assert get(hostile, tmp_path, HUB_FILE, BOTH) == bytes(200_000)
    sent = [(seen.host, seen.headers.get("authorization")) for seen in hostile.seen]
    assert sent == [("huggingface.co", f"Bearer {HF}"), ("cdn.example", None), *[("huggingface.co", None)] * 2]


def test_a_token_stays_within_its_origin(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[HUB_PATH] = redirect("/renamed/f.safetensors")
    hostile.routes["/renamed/f.safetensors"] = File(bytes(200_000))
    get(hostile, tmp_path, HUB_FILE, BOTH)
    assert [seen.headers.get("authorization") for seen in hostile.seen] == [f"Bearer {HF}"] * 3


@pytest.mark.parametrize(("source", "path", "token"), [
    (HUB_FILE, HUB_PATH, HF), (CIVITAI_FILE, CIVITAI_PATH, CIV),
    ("https://civitai.red/models/1?modelVersionId=2", CIVITAI_PATH, CIV),
    ("https://a.example/f", "/f", None),
])
def test_each_service_gets_its_own(hostile: HostileServer, tmp_path: Path, source: str, path: str, token: str | None,
                                   ) -> None:
    hostile.routes[path] = File(b"weights")
    get(hostile, tmp_path, source, BOTH)
    assert hostile.seen[0].headers.get("authorization") == (f"Bearer {token}" if token else None)


def test_a_stranger_cannot_have_a_token_sent(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/f"] = redirect("https://huggingface.co" + HUB_PATH)
    hostile.routes[HUB_PATH] = File(bytes(200_000))
    get(hostile, tmp_path, tokens=BOTH)
    assert len(hostile.seen) == 3
    assert all("authorization" not in seen.headers for seen in hostile.seen)


def test_origins_that_only_look_alike() -> None:
    assert service_of("https://huggingface.co") is HUGGING_FACE and service_of("https://civitai.red") is CIVITAI
    for origin in ("http://huggingface.co", "https://huggingface.co:8443", "https://huggingface.co.a.example",
                   "https://cdn-lfs.huggingface.co", "https://image.civitai.com", "https://nothuggingface.co"):
        assert service_of(origin) is None


@pytest.mark.parametrize("code", [401, 403])
def test_no_access_says_what_to_set(hostile: HostileServer, tmp_path: Path, code: int) -> None:
    hostile.routes[HUB_PATH] = hostile.routes[CIVITAI_PATH] = hostile.routes["/f"] = status(code)
    hub = refused(hostile, tmp_path, "No Hugging Face token was sent: set the environment variable HF_TOKEN", HUB_FILE)
    assert "A gated model must be asked for on its page too" in hub
    refused(hostile, tmp_path, "The Hugging Face token that was sent does not open it", HUB_FILE, BOTH)
    refused(hostile, tmp_path, "No Civitai token was sent: set the environment variable CIVITAI_API_TOKEN",
            CIVITAI_FILE)
    refused(hostile, tmp_path, "The Civitai token that was sent does not open it", CIVITAI_FILE, BOTH)
    refused(hostile, tmp_path, "Tokens are kept for Hugging Face and Civitai alone", tokens=BOTH)
    hostile.routes[HUB_PATH] = redirect("https://cdn.example/gone")
    hostile.routes["/gone"] = status(code)
    refused(hostile, tmp_path, "token was not sent there, because the link leads to another server", HUB_FILE, BOTH)


def test_civitais_way_of_asking_for_a_token(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[CIVITAI_PATH] = redirect("/login?returnUrl=%2F&reason=download-auth", 307)
    hostile.routes["/login"] = status(200, {"Content-Type": "text/html"}, b"<html>")
    refused(hostile, tmp_path, "No Civitai token was sent", CIVITAI_FILE)


def test_the_hash_that_the_hub_announces_is_checked(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[HUB_PATH] = redirect("https://cdn.example/blob", headers={"X-Linked-Etag": f'"{"0" * 64}"'})
    hostile.routes["/blob"] = File(b"weights")
    with pytest.raises(DownloadError, match=r"as Hugging Face announces\. It was thrown away"):
        get(hostile, tmp_path, HUB_FILE)
    assert not (tmp_path / "cache" / "sha256").exists()


def test_a_pin_that_the_hub_contradicts_costs_no_download(hostile: HostileServer, tmp_path: Path) -> None:
    served = hostile.routes["/blob"] = File(bytes(200_000))
    hostile.routes[HUB_PATH] = redirect("https://cdn.example/blob", headers={"X-Linked-Etag": f'"{"1" * 64}"'})
    with pytest.raises(DownloadError, match="Nothing was fetched"):
        fetch(HUB_FILE, folder=tmp_path / "cache", policy=hostile.policy(), tokens=NONE, sha256="0" * 64)
    assert served.bodies == 0


def test_nothing_secret_is_written_or_told(hostile: HostileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                           capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = (HF, CIV, "presigned")
    signed = "https://cdn.example/blob?X-Signature=presigned"
    served = hostile.routes["/blob"] = File(bytes(300_000), cut_after=100_000)
    hostile.routes[HUB_PATH] = redirect(signed)
    told = []
    for source in (HUB_FILE, signed):
        with pytest.raises(DownloadError) as caught:
            fetch(source, folder=tmp_path / "cache", tokens=BOTH,
                  policy=hostile.policy(replace(QUICK, attempts=1, step=10**9)))
        told.append(repr(caught.value) + repr(caught.value.__cause__ or caught.value.__context__))
    served.cut_after = None
    for source in (HUB_FILE, signed):
        get(hostile, tmp_path, source, BOTH)
    for route in (status(403), status(404), status(500), redirect("http://b.example/?presigned"), File(b"<html>")):
        hostile.routes["/blob"] = route
        with pytest.raises(DownloadError) as caught:
            fetch(signed, folder=tmp_path / "other", tokens=BOTH, policy=hostile.policy())
        told.append(repr(caught.value))
    written = b"".join(path.read_bytes() + str(path).encode() for path in tmp_path.rglob("*") if path.is_file())
    output = capfd.readouterr()
    everything = written.decode("latin-1") + "".join(told) + caplog.text + output.out + output.err
    for secret in secrets:
        assert secret not in everything


def test_a_token_hides_itself() -> None:
    token = BOTH.of(HUGGING_FACE)
    assert token is not None and token.header() == f"Bearer {HF}"
    assert HF not in f"{token} {token!r} {BOTH} {[token]}"
    with pytest.raises(TypeError):
        pickle.dumps(token)


@pytest.mark.parametrize(("environ", "service", "token"), [
    ({"HF_TOKEN": "a"}, HUGGING_FACE, "a"), ({"HUGGING_FACE_HUB_TOKEN": "b"}, HUGGING_FACE, "b"),
    ({"HF_TOKEN": " a\n", "HUGGING_FACE_HUB_TOKEN": "b"}, HUGGING_FACE, "a"), ({"HF_TOKEN": "  "}, HUGGING_FACE, None),
    ({"CIVITAI_API_TOKEN": "c"}, CIVITAI, "c"), ({"CIVITAI_TOKEN": "d"}, CIVITAI, "d"),
    ({"CIVITAI_API_KEY": "e"}, CIVITAI, "e"), ({"HF_TOKEN": "a"}, CIVITAI, None),
])
def test_tokens_of_the_environment(environ: dict[str, str], service: object, token: str | None) -> None:
    found = Tokens(environ).of(service)
    assert (found.header() if found else None) == (f"Bearer {token}" if token else None)


def test_a_token_with_a_line_break_inside_is_refused() -> None:
    with pytest.raises(DownloadError, match="holds a space or a character that no token has"):
        Tokens({"HF_TOKEN": "a\r\nX-Evil: 1"}).of(HUGGING_FACE)


def test_the_key_store(tmp_path: Path) -> None:
    store = tmp_path / "keys.json"
    tokens = Tokens({}, store)
    assert tokens.of(HUGGING_FACE) is None
    store.write_text(json.dumps({"huggingface": HF}), "utf-8")
    store.chmod(0o600)
    assert tokens.of(HUGGING_FACE).header() == f"Bearer {HF}" and tokens.of(CIVITAI) is None
    assert Tokens({"HF_TOKEN": "environment"}, store).of(HUGGING_FACE).header() == "Bearer environment"
    assert f'"civitai" in {store}' in tokens.where(CIVITAI)
    for text in ("", "[]", "{", '{"huggingface": 3}', "\xff"):
        store.write_text(text, "latin-1")
        with pytest.raises(DownloadError, match="is not valid"):
            tokens.of(HUGGING_FACE)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_store_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    store = tmp_path / "keys.json"
    store.write_text(json.dumps({"huggingface": HF}), "utf-8")
    store.chmod(mode)
    with pytest.raises(DownloadError, match=r"can be read by others .*chmod 600"):
        Tokens({}, store).of(HUGGING_FACE)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_disk_that_keeps_no_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """exFAT and Windows' own disks under WSL show every file as open to all, and chmod changes nothing there."""
    store, original = tmp_path / "keys.json", os.fstat
    store.write_text(json.dumps({"huggingface": HF, "profiles": {"default": {"fal": HF}}}), "utf-8")
    monkeypatch.setattr(os, "fstat", lambda file: os.stat_result((0o100777, *original(file)[1:])))
    assert Tokens({}, store).of(HUGGING_FACE).header() == f"Bearer {HF}"
    assert KeyStore(store, {}).known() == {"default": ["fal"]}
    assert list(tmp_path.iterdir()) == [store]


@pytest.mark.parametrize(("link", "shown"), [
    ("https://u:p@a.example/x?token=1#f", "https://a.example/x"), ("o/r/f?token=1", "o/r/f"),
    ("https://a.example", "https://a.example"), ("https://[bad?token=1", "the link"),
])
def test_redact(link: str, shown: str) -> None:
    assert redact(link) == shown


def test_sizes_for_people() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 999_499, 3_000_000, 1_234_000_000, 4 * 2**30)] == [
        "0 bytes", "999 bytes", "1 kB", "999 kB", "3 MB", "1.23 GB", "4.29 GB"]


def test_token_type() -> None:
    assert repr(Secret("x")) == "Secret(hidden)"
