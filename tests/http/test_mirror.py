"""HF_ENDPOINT: Hugging Face by way of a mirror, which gets the user's token only when it is named as trusted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.http.environment import hub_mirror
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import File, HostileServer, redirect, status

TOKEN = "hf_SecretOfHuggingFace"
DATA = bytes(300_000)
SOURCE, PATH = "o/r/f.safetensors", "/o/r/resolve/main/f.safetensors"


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://a.example/hub/")
    monkeypatch.delenv("WAN22_TRUSTED_MIRROR", raising=False)


def get(hostile: HostileServer, folder: Path, source: str = SOURCE, tokens: Tokens | None = None,
        **options: object) -> bytes:
    return fetch(source, folder=folder / "cache", policy=hostile.policy(mirror=hub_mirror),
                 tokens=tokens or Tokens({"HF_TOKEN": TOKEN}), **options).read_bytes()


def authorised(hostile: HostileServer) -> list[tuple[str, bool]]:
    return [(seen.host, "authorization" in seen.headers) for seen in hostile.seen]


def test_files_and_names_come_from_the_mirror(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = File(DATA)
    hostile.routes["a.example/hub/api/models/o/r/revision/main"] = status(
        200, body=b'{"siblings": [{"rfilename": "f.safetensors"}]}')
    assert get(hostile, tmp_path, "o/r") == DATA
    assert get(hostile, tmp_path, f"https://huggingface.co{PATH}") == DATA
    assert authorised(hostile) == [("a.example", False)] * len(hostile.seen)


def test_the_cache_knows_a_file_with_and_without_the_mirror(hostile: HostileServer, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    served = hostile.routes[f"a.example/hub{PATH}"] = File(DATA)
    assert get(hostile, tmp_path) == DATA
    hostile.routes[f"huggingface.co{PATH}"] = served
    monkeypatch.delenv("HF_ENDPOINT")
    assert get(hostile, tmp_path) == DATA
    assert hostile.seen[-1].host == "huggingface.co" and hostile.seen[-1].status == 304
    assert served.sent == len(DATA)


def test_the_hash_that_the_mirror_announces_is_checked(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = redirect("https://cdn.example/blob",
                                                      headers={"X-Linked-Etag": f'"{"0" * 64}"'})
    served = hostile.routes["cdn.example/blob"] = File(DATA)
    with pytest.raises(DownloadError, match="Nothing was fetched"):
        get(hostile, tmp_path, sha256=hashlib.sha256(DATA).hexdigest())
    assert served.bodies == 0


def test_a_mirror_that_is_not_trusted_says_what_to_do(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = status(401)
    tokens = Tokens({"HF_TOKEN": TOKEN}, tmp_path / "keys.json")
    with pytest.raises(DownloadError, match=r"No token is sent to the mirror a\.example") as caught:
        get(hostile, tmp_path, tokens=tokens)
    assert f'WAN22_TRUSTED_MIRROR, or "trusted_mirror" in {tmp_path / "downloads.json"}' in str(caught.value)
    assert TOKEN not in str(caught.value) and authorised(hostile) == [("a.example", False)]


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_trusted_mirror_gets_the_token_and_nobody_after_it(hostile: HostileServer, tmp_path: Path, place: str,
                                                             ) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = redirect("https://cdn.example/blob")
    hostile.routes["cdn.example/blob"] = redirect(f"https://huggingface.co{PATH}")
    hostile.routes[f"huggingface.co{PATH}"] = File(DATA)
    environ = {"HF_TOKEN": TOKEN}
    if place == "environment":
        environ["WAN22_TRUSTED_MIRROR"] = "A.example"
    else:
        (tmp_path / "downloads.json").write_text(json.dumps({"trusted_mirror": "a.example", "cache_gb": 3}))
    assert get(hostile, tmp_path, tokens=Tokens(environ, tmp_path / "keys.json")) == DATA
    assert authorised(hostile)[:3] == [("a.example", True), ("cdn.example", False), ("huggingface.co", False)]
    assert not any(sent for host, sent in authorised(hostile)[1:])


def test_parts_of_a_file_on_a_trusted_mirror_carry_the_token(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = File(DATA)
    tokens = Tokens({"HF_TOKEN": TOKEN, "WAN22_TRUSTED_MIRROR": "a.example"})
    assert get(hostile, tmp_path, tokens=tokens) == DATA
    assert authorised(hostile) == [("a.example", True)] * 2


def test_another_mirror_than_the_trusted_one_gets_nothing(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes[f"a.example/hub{PATH}"] = File(DATA)
    get(hostile, tmp_path, tokens=Tokens({"HF_TOKEN": TOKEN, "WAN22_TRUSTED_MIRROR": "b.example"}))
    assert not any(sent for _, sent in authorised(hostile))


@pytest.mark.parametrize("value", ["http://a.example", "a.example", "https://user:secret@a.example",
                                   "https://a.example/?x", "https://a.example:22", "https://2130706433"])
def test_an_endpoint_that_is_none_is_an_error_for_hugging_face_alone(
        hostile: HostileServer, tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(DownloadError, match="HF_ENDPOINT cannot be used") as caught:
        get(hostile, tmp_path)
    assert "secret" not in str(caught.value) and hostile.seen == []
    hostile.routes["b.example/f"] = File(DATA)
    assert get(hostile, tmp_path, "https://b.example/f") == DATA


@pytest.mark.parametrize("value", ["", " ", "https://huggingface.co", "https://huggingface.co/"])
def test_an_endpoint_that_changes_nothing(hostile: HostileServer, tmp_path: Path, value: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    hostile.routes[f"huggingface.co{PATH}"] = File(DATA)
    assert get(hostile, tmp_path) == DATA
    assert authorised(hostile)[0] == ("huggingface.co", True)


def test_a_mirror_in_this_network_is_refused(tmp_path: Path, hostile: HostileServer,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    policy = hostile.policy(mirror=hub_mirror, resolve=lambda host, port: ["10.0.0.7"])
    with pytest.raises(DownloadError, match="not on the public internet"):
        fetch(SOURCE, folder=tmp_path, policy=policy, tokens=Tokens({}))
