"""The API in the real ComfyUI: the examples of its page run, a clip with everything, generated requests."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest
import requests

from devtools.paths import ROOT
from pipeline.remote.signatures import read_secret, signed_headers
from pipeline.serve.operations import BASE
from tests.support.api_client import PICTURE, SHORT, Api, error_of, owner
from tests.support.comfy_outside import Outside
from tests.support.hook_server import HOST
from tests.support.lora_files import DRAIN

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
SNIPPETS = {kind: re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S) for kind in ("bash", "python")}
LORA = DRAIN["high"]


def short(snippet: str) -> str:
    """Return an example that asks for a clip of a second's work."""
    return snippet.replace('"num_frames": 33', ", ".join(f'"{name}": {value}' for name, value in SHORT.items()))


def frames_of(data: bytes) -> tuple[int, int, int]:
    """Return the number, width and height of an MP4's frames."""
    with av.open(io.BytesIO(data)) as file:
        frames = [(frame.width, frame.height) for frame in file.decode(video=0)]
    return len(frames), *frames[0]


def shell(snippet: str, folder: Path, **variables: str) -> str:
    run = subprocess.run(["bash", "-ec", short(snippet)], cwd=folder, env=os.environ | variables, capture_output=True,
                         text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_pages_curl_commands(api: Api, tmp_path: Path) -> None:
    (tmp_path / "coffee.png").write_bytes(PICTURE.read_bytes())
    ask, poll, fetch, upload = SNIPPETS["bash"]
    known = {"BASE": api.url + BASE, "KEY": api.key}
    found = json.loads(shell(ask, tmp_path, **known))
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.S)[1])
    assert found.keys() == example.keys() and found["warnings"] == example["warnings"]
    assert found["request"].keys() == example["request"].keys() and found["urls"].keys() == example["urls"].keys()
    ended = api.wait(found["id"])
    assert ended["status"] == "completed" and ended["request"]["seed"] == 7, ended["error"]
    assert json.loads(shell(poll, tmp_path, ID=found["id"], **known))["status"] == "completed"
    assert shell(fetch, tmp_path, ID=found["id"], **known) == ""
    assert frames_of((tmp_path / "clip.mp4").read_bytes()) == (5, 128, 128)
    error_of(api.ask("GET", f"/predictions/{found['id']}"), 404, "not_found")
    sent = json.loads(shell(upload, tmp_path, **known))
    assert sent["id"] == f"upload:{hashlib.sha256(PICTURE.read_bytes()).hexdigest()}" and sent["kind"] == "picture"


def test_the_pages_python_client(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("coffee.png").write_bytes(PICTURE.read_bytes())
    client, _, _ = SNIPPETS["python"]
    exec(short(client), {"BASE": api.url + BASE, "KEY": api.key})
    assert frames_of(Path("clip.mp4").read_bytes()) == (5, 128, 128)


def test_a_client_of_the_hosted_api_needs_another_base_and_key(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    client = short(SNIPPETS["python"][2]).replace("http://127.0.0.1:8188", api.url)
    exec(client, {"KEY": api.key})
    assert frames_of(requests.get(capsys.readouterr().out.strip(), timeout=60).content) == (5, 128, 128)


def test_the_pages_receiver_takes_what_is_signed_and_nothing_else(made: dict[str, str]) -> None:
    receiver = SNIPPETS["python"][1].partition("HTTPServer((")[0]
    found: dict[str, Any] = {"SECRET": made["callback_secret"]}
    exec(receiver, found)
    body = json.dumps({"data": {"status": "completed"}}).encode()
    headers = signed_headers(read_secret(made["callback_secret"]), "msg_1", int(time.time()), body)
    assert found["is_right"](headers, body) and not found["is_right"](headers, body + b" ")
    old = signed_headers(read_secret(made["callback_secret"]), "msg_1", int(time.time()) - 1000, body)
    assert not found["is_right"](old, body)


# ---- a clip with everything ----------------------------------------------------------------------------------------


def test_uploads_a_lora_a_callback_and_the_queue(api: Api, outside: Outside, made: dict[str, str]) -> None:
    sha256 = hashlib.sha256(LORA.read_bytes()).hexdigest()
    assert api.ask("HEAD", f"/uploads/{sha256}").status_code == 404
    sent = api.ask("POST", "/uploads", data=LORA.read_bytes(), headers={"Content-Type": "application/octet-stream"})
    assert sent.status_code == 201 and sent.json() == {"id": f"upload:{sha256}", "sha256": sha256, "kind": "lora",
                                                       "size": LORA.stat().st_size}
    assert api.ask("HEAD", f"/uploads/{sha256}").status_code == 200
    outside.hook.told.clear()
    secret, outside.hook.secret = outside.hook.secret, made["callback_secret"]
    found = api.submit(loras=[{"url": f"upload:{sha256}", "expert": "high", "scale": 1.0, "sha256": sha256}],
                       resolution="96x64", callback_url=f"https://{HOST}/api").json()
    second = api.submit().json()
    assert api.ask("POST", f"/predictions/{second['id']}/cancel").json()["status"] == "cancelled"
    ended = api.wait(found["id"])
    assert ended["status"] == "completed" and ended["warnings"] == [], ended["error"]
    assert ended["request"]["loras"][0]["url"] == f"upload:{sha256}"
    clip = api.ask("GET", f"/predictions/{found['id']}/result")
    assert clip.headers["Content-Type"] == "video/mp4" and frames_of(clip.content) == (5, 96, 64)
    part = requests.get(ended["outputs"][0], headers={"Range": "bytes=4-7"}, timeout=60)
    assert part.status_code == 206 and part.content == b"ftyp"
    while not outside.hook.told:
        time.sleep(0.05)
    outside.hook.secret = secret
    (event,) = outside.hook.told
    assert event["type"] == "clip.done" and event["data"]["id"] == found["id"]
    assert requests.get(event["data"]["outputs"][0], timeout=60).content == clip.content
    jobs = {one["id"]: one for one in json.loads(outside.server.request("/wan22/jobs"))["jobs"]}
    assert jobs[found["id"]]["state"] == "done" and jobs[found["id"]]["prompt"] == "it turns blue"


def test_a_picture_that_is_not_there_fails_its_clip_alone(api: Api) -> None:
    ended = api.wait(api.submit(image="https://cdn.example/none.png").json()["id"])
    assert ended["status"] == "failed" and ended["error"]["code"] == "image" and "404" in ended["error"]["message"]
    error_of(api.ask("GET", f"/predictions/{ended['id']}/result"), 409, "not_completed")


def test_a_workflow_of_the_owner_is_a_model(api: Api, outside: Outside) -> None:
    graph = json.loads((ROOT / "workflows" / "api" / "image-to-video-demo.json").read_text("utf-8"))
    graph["5"]["inputs"]["num_inference_steps"] = 1
    assert owner(outside, "POST", "/models", json={"name": "mine", "graph": graph}).status_code == 200
    listed = {model["id"]: model for model in api.ask("GET", "/models").json()["models"]}
    assert listed["mine"]["defaults"] == {"negative_prompt": "", "num_frames": 33, "resolution": "128x128",
                                          "num_inference_steps": 1, "guidance_scale": 5.0}
    found = api.submit(model="mine", num_frames=5, num_inference_steps=None, resolution="64x64")
    assert found.json()["request"]["num_inference_steps"] == 1
    assert api.wait(found.json()["id"])["status"] == "completed"
    refused = owner(outside, "POST", "/models", json={"name": "../x", "graph": graph})
    assert refused.status_code == 400
    del graph["3"]
    refused = owner(outside, "POST", "/models", json={"name": "other", "graph": graph})
    assert refused.status_code == 400 and "Encode Prompt" in refused.text
    assert owner(outside, "DELETE", "/models", json={"name": "mine"}).json()["saved_models"] == []


def test_generated_requests_get_answers_of_the_document(api: Api, tmp_path: Path) -> None:
    """A few of what bench/serving.py sends thousands of."""
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}{BASE}/openapi.json", "--max-examples", "5",
         "--phases", "fuzzing", "--seed", "3", "--no-shrink", "--warnings", "off", "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth",
         "-H", f"Authorization: Bearer {api.key}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "generated" in run.stdout, run.stdout[-4000:] + run.stderr[-2000:]
    for one in api.ask("GET", "/predictions", params={"limit": "100"}).json()["predictions"]:
        api.ask("POST", f"/predictions/{one['id']}/cancel")
