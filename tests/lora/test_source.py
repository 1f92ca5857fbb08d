"""What a LoRA's link tells of it, and what of the link is never shown."""

from __future__ import annotations

import hashlib
import json
import ntpath
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import torch
from safetensors.torch import save

from pipeline.download.fetch import Inspect, fetch
from pipeline.download.source import said_name
from pipeline.http.secrets import Tokens
from pipeline.http.threads import never
from pipeline.lora.bundled import named_file
from pipeline.lora.expert import NO_CLUE
from pipeline.lora.match import LoraFile
from pipeline.lora.source import link_name, open_lora
from pipeline.request import Lora
from tests.support.hostile_server import File, HostileServer, redirect, status
from tests.support.lora_files import DRAIN


@pytest.mark.parametrize("source, shown", [
    ("https://a.example/files/my%20lora.safetensors?sig=hidden", "my%20lora.safetensors"),
    ("https://a.example?sig=hidden", "https://a.example"),
    ("https://a.example/?sig=hidden", "https://a.example/"),
    ("owner/repo", "repo"),
    ("folder/file.safetensors", "file.safetensors"),
])
def test_a_link_is_shown_without_what_may_be_secret(source: str, shown: str) -> None:
    assert link_name(source) == shown


@pytest.fixture
def style(tmp_path: Path) -> File:
    """A LoRA that says nothing of experts itself."""
    name = "diffusion_model.blocks.0.self_attn.q"
    return File(save({f"{name}.lora_down.weight": torch.zeros(4, 256), f"{name}.lora_up.weight": torch.zeros(256, 4)}))


def opened(hostile: HostileServer, folder: Path, lora: Lora, **options: bool) -> LoraFile:
    def get(source: str, sha256: str | None, inspect: Inspect) -> Path:
        return fetch(source, folder=folder, sha256=sha256, inspect=inspect, policy=hostile.policy(**options),
                     tokens=Tokens({}))

    return open_lora(lora, lambda name: None, get, never, lambda facts: None)


@pytest.mark.parametrize("source, expert, why", [
    ("https://a.example/wan_high_noise.safetensors?X-Amz-Credential=AK/2025/us-east-1/s3/aws4_request", "high",
     "its file name says high noise"),
    ("https://a.example/style.safetensors?sig=ab-L-wan", "both", NO_CLUE),
    ("https://a.example/style.safetensors?sig=a/low/b", "both", NO_CLUE),
    ("https://low.example/style.safetensors", "both", NO_CLUE),
    ("https://a.example/wan2.2/low%20noise/style.safetensors", "low", "its folder's name says low noise"),
])
def test_host_and_query_name_no_expert(source: str, expert: str, why: str, style: File, hostile: HostileServer,
                                       tmp_path: Path) -> None:
    hostile.routes[urlsplit(source).path] = style
    file = opened(hostile, tmp_path, Lora(source))
    assert (file.lora.expert, file.why) == (expert, why)


SAID = {"Content-Disposition": "attachment; filename=\"wan22_HighNoise.safetensors\""}
NUMBER = "/api/download/models/345"
ELSEWHERE = "https://cdn.example/blob/0a1b2c?sig=1"


@pytest.mark.parametrize("source", [
    "https://civitai.com/models/12/some-name?modelVersionId=345", "https://civitai.com/models/12", "civitai:12@345",
    "https://civitai.com/api/download/models/345",
])
def test_the_server_tells_the_name_behind_a_number(source: str, style: File, hostile: HostileServer, tmp_path: Path,
                                                   ) -> None:
    """And it is known in later runs, when no body comes or nobody is asked."""
    hostile.routes["/api/v1/models/12"] = status(200, body=b'{"modelVersions": [{"id": 345}]}')
    hostile.routes[NUMBER] = redirect(ELSEWHERE)
    hostile.routes["/blob/0a1b2c"] = style
    style.headers = SAID
    runs = [opened(hostile, tmp_path, Lora(source)), opened(hostile, tmp_path, Lora(source)),
            opened(hostile, tmp_path, Lora(source), offline=True),
            opened(hostile, tmp_path, Lora(source, sha256=hashlib.sha256(style.data).hexdigest()), offline=True)]
    for file in runs:
        assert (file.name, file.lora.expert, file.why) == ("wan22_HighNoise.safetensors", "high",
                                                           "its file name says high noise")


@pytest.mark.parametrize("name, why", [("wan_low_noise.safetensors", "its file name says low noise"),
                                       ("low noise/style.safetensors", "its folder's name says low noise")])
def test_the_hub_tells_the_name_behind_a_repository(name: str, why: str, style: File, hostile: HostileServer,
                                                    tmp_path: Path) -> None:
    hostile.routes["/api/models/o/r/revision/main"] = status(
        200, body=json.dumps({"siblings": [{"rfilename": name}]}).encode())
    hostile.routes[f"/o/r/resolve/main/{quote(name)}"] = style
    for options in ({}, {}, {"offline": True}):
        file = opened(hostile, tmp_path, Lora("o/r"), **options)
        assert (file.name, file.lora.expert, file.why) == (Path(name).name, "low", why)


@pytest.mark.parametrize("header, name", [
    (None, None), ("", None), ("attachment", None), ("inline; filename=a.safetensors", "a.safetensors"),
    ('attachment; filename="my lora.safetensors"', "my lora.safetensors"),
    ("attachment; filename*=UTF-8''h%C3%B6he.safetensors", "höhe.safetensors"),
    ("attachment; filename=\"plain.sft\"; filename*=utf-8'en'b%20c.sft", "b c.sft"),
    ("attachment; filename*=iso-8859-1''%E9.sft", "é.sft"), ("attachment; filename*=no-such-code''a.sft", None),
    ("attachment; filename=\"h\xc3\xb6he.sft\"", "höhe.sft"), ("attachment; filename=\"\"", None),
    ('attachment; filename="../../etc/passwd"', "passwd"), ('attachment; filename="C:\\x\\y.sft"', "y.sft"),
    ('attachment; filename="a\x00\x1b[31mb"', "a[31mb"), (f'attachment; filename="{"a" * 500}"', "a" * 200),
    ("attachment; " + "a=b; " * 1000, None), ('attachment; filename="/"', None),
])
def test_names_that_servers_say(header: str | None, name: str | None) -> None:
    assert said_name(header) == name


def test_a_name_of_the_loras_folder(tmp_path: Path) -> None:
    def full_path(kind: str, name: str) -> str | None:
        path = tmp_path / kind / name
        return str(path) if path.is_file() else None

    path = tmp_path / "loras" / "wan" / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert named_file("wan/a.safetensors", full_path) == named_file("wan\\a.safetensors", full_path) == path
    assert named_file("b.safetensors", full_path) is None
    bundled = named_file(DRAIN["high"].name, full_path)
    assert bundled is not None and bundled.is_file()


def test_a_full_path_on_another_drive_is_no_name() -> None:
    """ComfyUI's get_full_path begins with this, which Windows answers with an error."""
    assert named_file("D:\\a.safetensors",
                      lambda kind, name: ntpath.relpath(ntpath.join("C:\\", name), "C:\\")) is None
