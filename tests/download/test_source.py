"""What a user may type, and which file it stands for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.paths import ROOT
from pipeline.download.fetch import fetch
from pipeline.download.source import CIVITAI_MODEL, HUB_REPO, is_remote, parse_source
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import File, HostileServer, status

HUB = "https://huggingface.co"


@pytest.mark.parametrize(("typed", "link"), [
    ("https://a.example/x/y.safetensors", "https://a.example/x/y.safetensors"),
    ("  https://a.example/x?sig=1#there ", "https://a.example/x?sig=1"),
    ("owner/repo/sub/high noise.safetensors", f"{HUB}/owner/repo/resolve/main/sub/high%20noise.safetensors"),
    ("owner/repo@v1.2/file.safetensors", f"{HUB}/owner/repo/resolve/v1.2/file.safetensors"),
    ("hf:owner/repo/file.safetensors", f"{HUB}/owner/repo/resolve/main/file.safetensors"),
    ("hf://owner/repo/file.safetensors", f"{HUB}/owner/repo/resolve/main/file.safetensors"),
    (f"{HUB}/owner/repo/blob/main/sub/f.safetensors", f"{HUB}/owner/repo/resolve/main/sub/f.safetensors"),
    (f"{HUB}/owner/repo/resolve/abc123/f.safetensors?download=true", f"{HUB}/owner/repo/resolve/abc123/f.safetensors"),
    ("https://hf.co/owner/repo/blob/refs%2Fpr%2F1/f.safetensors",
     f"{HUB}/owner/repo/resolve/refs%2Fpr%2F1/f.safetensors"),
    (f"{HUB}/datasets/o/d/resolve/main/f.safetensors", f"{HUB}/datasets/o/d/resolve/main/f.safetensors"),
    ("https://civitai.com/models/12/some-name?modelVersionId=345", "https://civitai.com/api/download/models/345"),
    ("https://civitai.red/models/12?modelVersionId=345", "https://civitai.red/api/download/models/345"),
    ("https://www.civitai.com/api/download/models/345?type=Model&format=SafeTensor",
     "https://civitai.com/api/download/models/345?type=Model&format=SafeTensor"),
    ("urn:air:wan22:lora:civitai:12@345", "https://civitai.com/api/download/models/345"),
    ("air:wan22:lora:civitai:12@345", "https://civitai.com/api/download/models/345"),
    ("wan22:lora:civitai:12@345+6.safetensor", "https://civitai.com/api/download/models/345"),
    ("civitai.com/models/12?modelVersionId=345", "https://civitai.com/api/download/models/345"),
    ("www.civitai.com/api/download/models/345", "https://civitai.com/api/download/models/345"),
    ("huggingface.co/owner/repo/blob/main/f.safetensors", f"{HUB}/owner/repo/resolve/main/f.safetensors"),
    ("//www.HuggingFace.co/owner/repo/resolve/main/f.safetensors", f"{HUB}/owner/repo/resolve/main/f.safetensors"),
])
def test_a_source_that_names_a_file(typed: str, link: str) -> None:
    remote = parse_source(typed)
    assert (remote.link, remote.look_up) == (link, "")
    assert is_remote(typed)


@pytest.mark.parametrize(("typed", "link", "look_up", "revision", "folder"), [
    ("owner/repo", f"{HUB}/owner/repo/tree/main", HUB_REPO, "main", ""),
    ("owner/repo@dev", f"{HUB}/owner/repo/tree/dev", HUB_REPO, "dev", ""),
    (f"{HUB}/owner/Wan2.2-LoRA", f"{HUB}/owner/Wan2.2-LoRA/tree/main", HUB_REPO, "main", ""),
    (f"{HUB}/owner/repo/tree/main/high", f"{HUB}/owner/repo/tree/main/high", HUB_REPO, "main", "high"),
    ("https://civitai.com/models/12/name", "https://civitai.com/models/12", CIVITAI_MODEL, "main", ""),
    ("urn:air:wan22:lora:civitai:12", "https://civitai.com/models/12", CIVITAI_MODEL, "main", ""),
    ("civitai.com/models/12", "https://civitai.com/models/12", CIVITAI_MODEL, "main", ""),
    ("  Civitai.red/models/12/name ", "https://civitai.red/models/12", CIVITAI_MODEL, "main", ""),
    ("hf.co/owner/repo", f"{HUB}/owner/repo/tree/main", HUB_REPO, "main", ""),
    ("huggingface.company/repo", f"{HUB}/huggingface.company/repo/tree/main", HUB_REPO, "main", ""),
])
def test_a_source_that_must_be_looked_up(typed: str, link: str, look_up: str, revision: str, folder: str) -> None:
    remote = parse_source(typed)
    assert (remote.link, remote.look_up, remote.revision, remote.folder) == (link, look_up, revision, folder)
    assert is_remote(typed)


@pytest.mark.parametrize("typed", [
    "high.safetensors", "wan22/high.safetensors", "wan22\\high.safetensors", "/srv/loras/high.safetensors",
    "C:\\loras\\high.safetensors", "../high.safetensors", "~/high.safetensors", "", "none",
])
def test_a_file_name_is_no_remote(typed: str) -> None:
    assert not is_remote(typed)
    with pytest.raises(DownloadError, match="names no file on the internet"):
        parse_source(typed)


@pytest.mark.parametrize(("typed", "sentence"), [
    ("http://a.example/f.safetensors", "only https links are followed, not http"),
    ("file:///etc/passwd", "only https links are followed, not file"),
    ("ftp://a.example/f", "only https links are followed, not ftp"),
    ("https://user:hunter2@a.example/f", "user name or a password"),
    ("https://civitai.com/api/download/models/1?token=hunter2", "the link holds a token"),
    ("https://a.example/f?access_token=hunter2", "the link holds a token"),
    ("https://a.example/f?Token=hunter2", "the link holds a token"),
    ("https://a.example/f?API_Key=hunter2", "the link holds a token"),
    ("https://civitai.com/images/12", "not the page of a model"),
    ("civitai.com/models/1?token=hunter2", "the link holds a token"),
    ("civitai.com", "not the page of a model"),
    ("https://civitai.com/models/12?modelVersionId=x", "no number"),
    (f"{HUB}/owner/repo/discussions/1", "neither a file nor a repository"),
    ("https://", "names no server"),
])
def test_a_source_that_is_refused(typed: str, sentence: str) -> None:
    with pytest.raises(DownloadError, match=sentence) as caught:
        parse_source(typed)
    assert "hunter2" not in str(caught.value)


def _fetch(hostile: HostileServer, tmp_path: Path, source: str) -> bytes:
    return fetch(source, folder=tmp_path / "cache", policy=hostile.policy(), tokens=Tokens({})).read_bytes()


def test_the_only_safetensors_of_a_repository(hostile: HostileServer, tmp_path: Path) -> None:
    names = ["README.md", "sub/only one.safetensors", "a.png"]
    hostile.routes["/api/models/o/r/revision/main"] = status(
        200, body=json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode())
    hostile.routes["/o/r/resolve/main/sub/only%20one.safetensors"] = File(b"weights")
    assert _fetch(hostile, tmp_path, "o/r") == b"weights"
    assert _fetch(hostile, tmp_path, "o/r@main") == b"weights"


@pytest.mark.parametrize(("names", "sentence"), [
    ([], "holds no safetensors file"),
    (["high.safetensors", "low.safetensors"], r"2 safetensors files: high.safetensors, low.safetensors. Say which"),
])
def test_a_repository_without_exactly_one(hostile: HostileServer, tmp_path: Path, names: list[str], sentence: str,
                                          ) -> None:
    hostile.routes["/api/models/o/r/revision/main"] = status(
        200, body=json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode())
    with pytest.raises(DownloadError, match=sentence):
        _fetch(hostile, tmp_path, "o/r")


def test_a_folder_of_a_repository(hostile: HostileServer, tmp_path: Path) -> None:
    names = [{"rfilename": name} for name in ("high/a.safetensors", "low/a.safetensors")]
    hostile.routes["/api/models/o/r/revision/main"] = status(200, body=json.dumps({"siblings": names}).encode())
    hostile.routes["/o/r/resolve/main/low/a.safetensors"] = File(b"low")
    assert _fetch(hostile, tmp_path, f"{HUB}/o/r/tree/main/low") == b"low"


def test_the_newest_version_of_a_civitai_model(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/api/v1/models/12"] = status(200, body=b'{"modelVersions": [{"id": 99}, {"id": 3}]}')
    hostile.routes["/api/download/models/99"] = File(b"newest")
    assert _fetch(hostile, tmp_path, "urn:air:wan22:lora:civitai:12") == b"newest"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"siblings": 3}', b'{"siblings": [3]}', b"[" * 100_000])
def test_an_answer_of_the_hub_that_makes_no_sense(hostile: HostileServer, tmp_path: Path, body: bytes) -> None:
    hostile.routes["/api/models/o/r/revision/main"] = status(200, body=body)
    with pytest.raises(DownloadError, match=r"not answer as expected|not as expected"):
        _fetch(hostile, tmp_path, "o/r")


def test_downloads_know_no_tensors() -> None:
    program = ("import sys, pipeline.download.fetch, pipeline.download.picture\n"
               "print({'torch', 'numpy', 'PIL'} & set(sys.modules))")
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
