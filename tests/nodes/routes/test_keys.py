"""Keys in the real ComfyUI: they go in by the route, work, and are seen nowhere again."""

from __future__ import annotations

import json
import os
import stat
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.http.page_origin import other_site_fault, public_name_fault
from pipeline.remote.database import FILE
from pipeline.remote.providers import PROVIDERS
from tests.support.comfy_client import RejectedError
from tests.support.comfy_outside import PICTURE, Outside, remote_node
from tests.support.faults import answer
from tests.support.hook_server import HOST
from tests.support.runner import OWN, SERVERS

KEYS = "/wan22/keys"
FIRST_WITH_KEY = {"wavespeed": "models", "atlascloud": "price", "fal": "token", "replicate": "models", OWN: "models"}
"""What of a provider hears the key first."""


def ask(outside: Outside, body: object = None, method: str = "POST", **headers: str) -> tuple[int, str]:
    """The status and the text that the route answers."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    request = urllib.request.Request(outside.server.url + KEYS, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def known(outside: Outside) -> dict[str, Any]:
    status, text = ask(outside, method="GET")
    assert status == 200
    return json.loads(text)


def test_whose_keys_there_can_be_is_told_by_the_providers(outside: Outside) -> None:
    found = json.loads(outside.server.request("/wan22/providers"))
    assert [(one["name"], one["title"], one["variables"][0]) for one in found["providers"]] == [
        (name, provider.title, provider.variables[0]) for name, provider in PROVIDERS.items()]
    assert all(one["own_server"] or one["keys_page"].startswith("https://") for one in found["providers"])
    assert all(one["key_name"] and one["concurrent"] > 0 for one in found["providers"])
    assert [one["name"] for one in found["services"]] == ["huggingface", "civitai"]
    assert found["callback"] == {"name": "callback", "variables": ["WAN22_CALLBACK_SECRET"]}


def test_keys_go_in_and_only_names_come_out(outside: Outside) -> None:
    assert ask(outside, {"profile": "work", "provider": "fal", "key": " fal-geheim-1 "}) == (204, "")
    assert ask(outside, {"provider": "replicate", "key": "r8-geheim-2"}) == (204, "")
    assert ask(outside, {"provider": "civitai", "key": "civ-geheim-3"}) == (204, "")
    status, text = ask(outside, method="GET")
    assert status == 200 and "geheim" not in text
    found = json.loads(text)
    assert found == {"profiles": {"default": ["replicate"], "work": ["fal"]}, "services": ["civitai"],
                     "environment": {"callback": "WAN22_CALLBACK_SECRET"}}
    store = outside.own / "keys.json"
    assert json.loads(store.read_text()) == {
        "profiles": {"work": {"fal": "fal-geheim-1"}, "default": {"replicate": "r8-geheim-2"}},
        "civitai": "civ-geheim-3"}
    if os.name == "posix":
        assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert ask(outside, {"profile": "work", "provider": "fal", "key": ""}) == (204, "")
    assert ask(outside, {"provider": "replicate"}, "DELETE") == (204, "")
    assert ask(outside, {"provider": "civitai"}, "DELETE") == (204, "")
    assert known(outside)["profiles"] == {} and known(outside)["services"] == []


@pytest.mark.parametrize("body", [
    b"not json", b"", b"[1]", {"provider": "fal"}, {"key": "geheim"}, {"provider": "nobody", "key": "geheim"},
    {"provider": "fal", "key": "two words geheim"}, {"provider": "fal", "key": "geheim\n\x00"},
    {"provider": "fal", "key": "geheim-é"}, {"provider": "fal", "key": 5}, {"provider": ["fal"], "key": "geheim"},
    {"provider": "fal", "profile": "../x", "key": "geheim"}, {"provider": "fal", "key": "geheim", "more": "1"},
    {"provider": "fal", "key": "geheim" * 1000}, b"[" * 5000])
def test_what_is_no_key_is_refused_and_not_repeated(outside: Outside, body: object) -> None:
    status, text = ask(outside, body)
    assert status == 400 and text and "geheim" not in text
    assert known(outside)["profiles"] == {}


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"}, {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Host": "evil.example:8188"}])
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_pages_of_others_are_refused(outside: Outside, headers: dict[str, str], method: str) -> None:
    body = None if method == "GET" else {"provider": "fal", "key": "geheim"}
    assert ask(outside, body, method, **headers)[0] == 403
    assert known(outside)["profiles"] == {}


@pytest.mark.parametrize(("host", "origin", "refused"), [
    ("127.0.0.1:8188", "http://[", True), ("127.0.0.1:8188", "", True), ("[", "http://127.0.0.1:8188", True),
    ("127.0.0.1:8188", "http://127.0.0.1:8188", False)])
def test_an_origin_that_makes_no_sense_is_another_site(host: str, origin: str, refused: bool) -> None:
    """Of a server that takes other origins (--enable-cors-header): ComfyUI's own check comes first elsewhere."""
    headers = {"host": host, "origin": origin}
    assert bool(other_site_fault(headers)) == refused and not public_name_fault(headers)


def test_own_page_is_heard(outside: Outside) -> None:
    for host in (f"127.0.0.1:{outside.server.port}", f"localhost:{outside.server.port}", "192.168.1.5:8188",
                 "box.local:8188", f"[::1]:{outside.server.port}"):
        assert ask(outside, method="GET", Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_forms_are_refused(outside: Outside, kind: str) -> None:
    assert ask(outside, {"provider": "fal", "key": "geheim"}, Content_Type=kind)[0] == 415


def test_long_bodies_are_refused(outside: Outside) -> None:
    assert ask(outside, b" " * (2**14 + 1))[0] == 413


def test_store_that_others_can_read_is_not_used(outside: Outside) -> None:
    if os.name != "posix":
        pytest.skip("modes are POSIX")
    store = outside.own / "keys.json"
    assert ask(outside, {"provider": "fal", "key": "geheim"}) == (204, "")
    store.chmod(0o644)
    status, text = ask(outside, {"provider": "fal", "key": "geheim"})
    assert status == 400 and "chmod 600" in text
    assert ask(outside, method="GET")[0] == 409
    store.chmod(0o600)
    assert ask(outside, {"provider": "fal"}, "DELETE") == (204, "")


def test_no_key_is_seen_anywhere_after_runs_with_right_and_wrong_ones(outside: Outside) -> None:
    comfy, tokens = outside.comfy, {"civitai": "civ-token-0123456789", "huggingface": "hf-token-0123456789"}
    wrong = {name: f"{name}-wrong-0123456789" for name in SERVERS}
    settings = outside.own / "remote.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps({"own_servers": dict.fromkeys(("right", "wrong"), outside.providers[OWN].address)}))
    for name, server in outside.providers.items():
        assert ask(outside, {"profile": "right", "provider": name, "key": server.key})[0] == 204
        assert ask(outside, {"profile": "wrong", "provider": name, "key": wrong[name]})[0] == 204
    for service, token in tokens.items():
        assert ask(outside, {"provider": service, "key": token})[0] == 204
    seen: list[str] = []
    for name, server in outside.providers.items():
        for seed, profile in enumerate(("right", "wrong", "wrong echoed")):
            if profile == "wrong echoed":
                said = f"The key {wrong[name]} is not known."
                body = {"detail": said, "message": said, "msg": said, "code": 401, "error": {"message": said}}
                server.fail(FIRST_WITH_KEY[name], answer(401, body))
            clip = remote_node(name, 30 + seed, profile=profile.partition(" ")[0])
            run = comfy.run({"picture": PICTURE, "clip": clip,
                             "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}},
                             "save": {"class_type": "SaveVideo", "inputs": {
                                 "video": ["clip", 0], "filename_prefix": f"{name}/clip", "format": "auto",
                                 "codec": "auto"}},
                             "notify": {"class_type": "Wan22Notify", "inputs": {
                                 "video": ["clip", 0], "report": ["clip", 2],
                                 "callback_url": f"https://{HOST}/keys"}}},
                            canvas={"nodes": []})
            assert run.outcome == ("execution_success" if profile == "right" else "execution_error"), (name, profile)
            seen.append(repr(run.events))
            if profile != "right":
                assert not server.faults_left
                assert "rejected the API" in run.error["exception_message"]
    with pytest.raises(RejectedError) as refused:
        comfy.submit({"picture": PICTURE, "clip": remote_node("fal", 3, profile=f"{wrong['fal']}:word"),
                      "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}})
    assert "profile is not a profile name" in str(refused.value)
    lora = {"class_type": "Wan22Lora", "inputs": {
        "source": "https://civitai.com/api/download/models/1?token=query-token-0123456789", "scale": 0.8,
        "expert": "both"}}
    with pytest.raises(RejectedError):
        comfy.submit({"picture": PICTURE, "lora": lora, "clip": remote_node("fal", 4, loras=["lora", 0]),
                      "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}})
    seen += [json.dumps(comfy.get(path)) for path in (
        "/history", "/queue", "/api/jobs", "/internal/logs", "/internal/logs/raw", "/settings", KEYS, "/wan22/settings",
        "/wan22/cache", "/api/userdata?dir=.&recurse=true", "/api/v2/userdata?path=.", "/object_info")]
    seen += [json.dumps(outside.hook.told)]
    files = [path for folder in ("user", "output", "temp", "input")
             for path in (outside.server.base / folder).rglob("*")
             if path.is_file() and path != outside.own / "keys.json"]
    assert outside.own / FILE in files and sum(path.suffix == ".mp4" for path in files) >= 8
    secrets = [*wrong.values(), *(server.key for server in outside.providers.values()), *tokens.values(),
               outside.hook.secret.removeprefix("whsec_"), "query-token-0123456789"]
    places = {f"answer {n}": text.encode() for n, text in enumerate(seen)}
    for path in (*files, Path(outside.server.log)):
        with suppress(FileNotFoundError):  # SQLite's side files come and go
            places[str(path)] = path.read_bytes()
    known_text = [place for place, text in places.items() if b"the camera pans left" in text]
    assert {"answer 12"} < set(known_text), "what is there is found: the history has the prompt, and so have files"
    assert any(FILE in place for place in known_text) and any(place.endswith(".mp4") for place in known_text)
    found = [(secret, place) for secret in secrets for place, text in places.items() if secret.encode() in text]
    assert not found
    for path in ("__wan22/keys.json", "..%2f__wan22%2fkeys.json"):
        with pytest.raises(urllib.error.HTTPError):
            outside.server.request(f"/api/userdata/{path}")
    for name in SERVERS:
        assert PROVIDERS[name].name in known(outside)["profiles"]["right"]
        for profile in ("right", "wrong"):
            assert ask(outside, {"profile": profile, "provider": name}, "DELETE")[0] == 204
    for service in tokens:
        assert ask(outside, {"provider": service}, "DELETE")[0] == 204
    settings.unlink()
