"""The questions of the canvas before a run, over HTTP of the real server: steps, LoRA headers, and who may not ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from devtools.server import ComfyServer
from pipeline.download import peek
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from pipeline.node_inputs import MAX_BODY
from pipeline.request import STAGES, Sampling
from pipeline.sampling.schedule import describe_run, spans
from pipeline.sampling.sigma_lists import read_sigmas
from tests.support.hostile_server import File, HostileServer
from tests.support.lora_files import DRAIN

STEPS, LORA, QUOTE = ROUTES = ("/wan22/steps", "/wan22/lora/check", "/wan22/quote")
HIGH, LOW = DRAIN["high"], DRAIN["low"]


def post(server: ComfyServer, path: str, body: object, **headers: str) -> tuple[int, str]:
    """The status and the text of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data, sent), timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(server: ComfyServer, path: str, *linked: str, **inputs: object) -> dict[str, Any]:
    status, text = post(server, path, {"inputs": inputs, "linked": linked})
    assert status == 200, text
    return json.loads(text)


@pytest.mark.parametrize("settings", [
    {}, {"num_inference_steps": 4, "guidance_scale": 1.0}, {"num_inference_steps": 6}, {"shift": 1.0},
    {"denoise": 0.3}, {"boundary": 0.5, "stage": STAGES[1]}, {"stage": STAGES[2], "scheduler": "unipc"},
    {"sigma_schedule": "thinned 4 + 14", "stage": STAGES[2]}, {"sigmas": "1, .95, .9, .6, .3", "shift": 9.0}], ids=str)
def test_steps_are_those_that_are_sampled(server: ComfyServer, settings: dict[str, Any]) -> None:
    told = ask(server, STEPS, **settings, guidance_scale_2=0.0)
    sampling = Sampling(0, **{**settings, "sigmas": read_sigmas(settings.get("sigmas", ""))})
    assert [told["high"], told["low"]] == [[s.start + 1, s.stop] if s else None for s in spans(sampling).values()]
    said = describe_run(sampling)
    assert (told["warning"] in said) and bool(told["warning"]) == (". " in said)
    assert (told["run"] is not None) == ("this run takes" in said)
    if told["run"]:
        assert f"this run takes {told['run'][0]}-{told['run'][1]}" in said


def test_steps_that_cannot_be_and_inputs_that_are_not_known(server: ComfyServer) -> None:
    assert "choose 1 to 100" in ask(server, STEPS, num_inference_steps=0)["fault"]
    assert "is no number" in ask(server, STEPS, sigmas="1, half")["fault"]
    assert ask(server, STEPS, "sigmas", num_inference_steps=30)["unknown"] == ["sigmas"]
    assert "Change the boundary" in ask(server, STEPS, denoise=0.1, stage=STAGES[1])["fault"]
    assert ask(server, STEPS, "shift", num_inference_steps=30)["unknown"] == ["shift"]
    assert ask(server, STEPS, "guidance_scale", num_inference_steps=8)["warning"] == ""


@pytest.mark.parametrize("body", [
    b"", b"not json", b"[1]", b"null", b"[" * 5000, {"inputs": []}, {"linked": {}}, {"linked": [1]},
    {"inputs": {"who": 1}}, {"inputs": {"source": 1, "num_frames": "a", "shift": "a"}},
    b'{"inputs": {"shift": NaN, "min_match": Infinity, "max_cost": NaN}}',
    {"inputs": {"num_inference_steps": 1.5, "ask": 1}}])
@pytest.mark.parametrize("path", ROUTES)
def test_wrong_bodies_are_refused(server: ComfyServer, path: str, body: object) -> None:
    status, text = post(server, path, body)
    assert status == 400 and text.startswith("The body is JSON such as")


@pytest.mark.parametrize("path", ROUTES)
def test_who_may_not_ask(server: ComfyServer, path: str, internet: HostileServer) -> None:
    before, body = len(internet.seen), {"inputs": {"ask": True, "source": "https://a.example/x.safetensors"}}
    for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}):
        assert post(server, path, body, **headers)[0] == 403
    assert post(server, path, body, Content_Type="text/plain")[0] == 415
    assert post(server, path, b" " * (MAX_BODY + 1))[0] == 413
    assert len(internet.seen) == before


@pytest.fixture
def link(internet: HostileServer, request: pytest.FixtureRequest) -> Iterator[tuple[str, File]]:
    """A link to the bundled high-noise LoRA that no other test has, and its file."""
    file, path = File(HIGH.read_bytes()), f"/{abs(hash(request.node.name))}/{HIGH.name}"
    internet.routes[path] = file
    yield f"https://a.example{path}", file
    del internet.routes[path]


def test_bundled_pair(server: ComfyServer, internet: HostileServer) -> None:
    before = len(internet.seen)
    (high, low) = ask(server, LORA, source=HIGH.name, source_low=LOW.name, expert="auto", ask=True,
                      ask_low=True)["files"]
    for file, path, expert in ((high, HIGH, "high"), (low, LOW, "low")):
        assert (file["name"], file["size"], file["expert"], file["ranks"]) == (path.name, path.stat().st_size, expert,
                                                                             [8, 8])
        assert file["keys"] == [[expert, 150, 150]] and not file["warning"] and not file["fault"]
    (alone,) = ask(server, LORA, source=LOW.name, expert="auto", min_match=0.9)["files"]
    assert (alone["expert"], alone["why"]) == ("low", "its file name says low noise")
    (both,) = ask(server, LORA, source=LOW.name, expert="both")["files"]
    assert both["keys"] == [["high", 150, 150], ["low", 150, 150]]
    assert len(internet.seen) == before, "files that are here are asked of nobody"


def test_link_is_asked_of_its_server_only_when_allowed_and_for_its_header_alone(
        server: ComfyServer, internet: HostileServer, link: tuple[str, File]) -> None:
    source, file = link
    before = len(internet.seen)
    (unasked,) = ask(server, LORA, source=source, expert="auto")["files"]
    assert unasked["host"] == "a.example" and not unasked["name"] and len(internet.seen) == before
    settings = server.base / "user" / "__wan22" / "remote.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"local_only": true}')
    try:
        (held,) = ask(server, LORA, source=source, expert="auto", ask=True)["files"]
    finally:
        settings.unlink()
    assert held["local_only"] and held["host"] == "a.example" and len(internet.seen) == before
    (seen,) = ask(server, LORA, source=source, expert="auto", ask=True)["files"]
    assert (seen["name"], seen["size"], seen["keys"]) == (HIGH.name, len(file.data), [["high", 150, 150]])
    assert len(internet.seen) == before + 1 and file.sent <= 2**16 < len(file.data)
    (again,) = ask(server, LORA, source=source, expert="both")["files"]
    assert len(again["keys"]) == 2 and len(internet.seen) == before + 1, "it is remembered"


@pytest.mark.parametrize("source, said", [
    ("https://127.0.0.1/a.safetensors", "not on the public internet"),
    ("https://10.0.0.1:8443/a.safetensors", "not on the public internet"),
    ("https://[::1]/a.safetensors", "not on the public internet"),
    ("http://a.example/a.safetensors", "only https links"),
    ("https://a.example/a.safetensors?token=x", "holds a token"),
    ("https://a.example/nothing-here", "does not exist"),
    ("nothing.safetensors", "There is no"), ("../../../etc/passwd", "There is no")])
def test_sources_that_will_not_do(server: ComfyServer, source: str, said: str) -> None:
    answer = ask(server, LORA, source=source, expert="auto", ask=True)
    assert said in (answer.get("fault") or answer["files"][0]["fault"])


def test_wrong_files_say_what_they_are(server: ComfyServer, internet: HostileServer) -> None:
    other = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"
    wide = "diffusion_model.blocks.0.self_attn.q"
    for name, tensors, said in (
            ("sdxl", {f"{other}.lora_down.weight": (4, 640), f"{other}.lora_up.weight": (640, 4)}, "SDXL"),
            ("wan5b", {f"{wide}.lora_down.weight": (4, 3072), f"{wide}.lora_up.weight": (3072, 4)}, "3072 wide")):
        internet.routes[f"/{name}.safetensors"] = File(save({n: torch.zeros(s) for n, s in tensors.items()}))
        (found,) = ask(server, LORA, source=f"https://a.example/{name}.safetensors", expert="auto", ask=True)["files"]
        assert said in found["fault"]
    half = {f"{wide}.lora_down.weight": torch.zeros(4, 5120), f"{wide}.lora_up.weight": torch.zeros(5120, 4),
            "blocks.0.self_attn.who.lora_down.weight": torch.zeros(4, 5120),
            "blocks.0.self_attn.who.lora_up.weight": torch.zeros(5120, 4)}
    internet.routes["/half.safetensors"] = File(save(half))
    (found,) = ask(server, LORA, source="https://a.example/half.safetensors", expert="high", ask=True)["files"]
    assert found["keys"] == [["high", 2, 4]] and "That is 50%, and min_match asks for 90%" in found["warning"]


def test_price_of_the_table_without_a_key(server: ComfyServer) -> None:
    told = ask(server, QUOTE, "prompt", "loras", **{
        "provider": "WaveSpeed", "provider.model": "wavespeed-ai/wan-2.2/i2v-{resolution}-lora-ultra-fast",
        "resolution": "480p", "num_frames": 33, "num_inference_steps": 20, "max_cost": 0.05, "ask": True})
    assert (told["price"], told["asked"], told["seconds"]) == (pytest.approx(0.1), False, 5)
    assert told["notes"][:2] == ["5 seconds are bought and billed; the clip is cut to 33 frames here.",
                                 "The model sets the number of steps itself: 20 is not sent."]
    assert "no API key" in told["warnings"][0] and "more than max_cost" in told["warnings"][1]
    assert ask(server, QUOTE, "num_frames", **{"provider": "WaveSpeed"})["unknown"] == ["num_frames"]
    model = {"provider": "fal.ai", "provider.model": "fal-ai/wan/v2.2-a14b/image-to-video"}
    assert "takes no LoRAs" in ask(server, QUOTE, "loras", **model)["fault"]
    assert "strict is on" in ask(server, QUOTE, **model, num_inference_steps=50, strict=True)["fault"]
    linked = ask(server, QUOTE, "num_inference_steps", **model, strict=True)
    assert linked["notes"] == [] and linked["price"] == pytest.approx(0.04 * 81 / 16)
    model = {"provider": "AtlasCloud", "provider.model": "atlascloud/wan-2.2/image-to-video-lora"}
    unknown = ask(server, QUOTE, "segments", **model, num_frames=81, max_cost=9.0)
    assert unknown["price"] is None and unknown["estimates"] == pytest.approx([0.15, 0.25])
    assert "Accept the estimates of this model once" in unknown["warnings"][-1]
    assert unknown["notes"][0].startswith("This is the price of the first clip. Each segment is bought too")


def looked(read: Any, size: int | None, name: str) -> bytes:
    return read(0, 16)


def test_files_are_asked_anew_by_etag_and_never_offline(hostile: HostileServer, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    file = hostile.routes["/f"] = File(bytes(range(256)) * 400)
    peeks = peek.Peeks(looked, lambda found: True)
    given = {"folder": tmp_path / "none", "tokens": Tokens({}), "ask": True}
    with pytest.raises(DownloadError, match="WAN22_OFFLINE"):
        peeks.peek("https://a.example/f", policy=hostile.policy(offline=True), **given)
    assert not hostile.seen
    monkeypatch.setattr(peek, "FRESH", 0.0)
    first = peeks.peek("https://a.example/f", policy=hostile.policy(), **given)
    sent = file.sent
    assert peeks.peek("https://a.example/f", policy=hostile.policy(), **given) == first
    assert file.sent == sent and hostile.seen[-1].headers["if-none-match"] == file.etag
    file.etag, file.data = '"two"', b"x" * 100
    assert peeks.peek("https://a.example/f", policy=hostile.policy(), **given) == b"x" * 16
    monkeypatch.setattr(peek, "SECONDS", 0.3)
    hostile.routes["/slow"] = File(b"x" * 100, hang_at=10)
    with pytest.raises(DownloadError, match="took more than"):
        peeks.peek("https://a.example/slow", policy=hostile.policy(), **given)
