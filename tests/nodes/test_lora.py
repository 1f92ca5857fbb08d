"""LoRAs by link on the real server: the shipped pair, off a loopback https server, bends the clip as it was trained."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from devtools.paths import ROOT
from devtools.workflow import Workflow
from tests.nodes.test_long_clip import frames_of as frames_of_file
from tests.support import layouts
from tests.support.comfy_client import ComfyClient, RejectedError, Run, added, changed, without
from tests.support.hostile_server import File, HostileServer, status
from tests.support.lora_files import DRAIN

LINKS = {noise: f"https://a.example/files/{path.name}" for noise, path in DRAIN.items()}


@pytest.fixture
def shelf(internet: HostileServer) -> Iterator[dict[str, File]]:
    """The shipped pair as files of a server, which it forgets afterwards."""
    files = {noise: File(path.read_bytes()) for noise, path in DRAIN.items()}
    before = dict(internet.routes)
    internet.routes.update({LINKS[noise].removeprefix("https://a.example"): file for noise, file in files.items()})
    yield files
    internet.routes.clear()
    internet.routes.update(before)


@pytest.fixture
def graph(clip: Workflow) -> Workflow:
    """The shipped graph with both LoRAs of the pair at full scale, up to a preview of its frames."""
    graph = without(clip, "save")
    graph = changed(graph, "sampler", num_inference_steps=8, loras=["lora", 0])
    graph = changed(graph, "frame", **{"num_frames": 17, "resolution.width": 96, "resolution.height": 96})
    graph = changed(graph, "prompt", prompt="nothing moves")
    graph = added(graph, "lora", "Wan22Lora", source=LINKS["high"], source_low=LINKS["low"], scale=1.0, expert="auto")
    return added(graph, "frames", "PreviewImage", images=["decode", 0])


def bridged(graph: Workflow, models: dict[str, str]) -> Workflow:
    """The graph with the bridge on core's MODELs in the sampler's place, up to its latents."""
    settings = {key: value for key, value in graph["sampler"]["inputs"].items() if key != "model"}
    graph = without(graph, "frames", "decode", "sampler")
    for expert in ("high", "low"):
        graph = added(graph, expert, "UNETLoader", unet_name=models[expert], weight_dtype="default")
    return added(graph, "bridge", "Wan22BridgeSampler", model_high=["high", 0], model_low=["low", 0], **settings)


def saturation(frames: np.ndarray) -> float:
    """Mean distance of the strongest to the weakest colour in the last frame, 0..1."""
    return float(np.ptp(frames[-1].astype(float), axis=-1).mean() / 255)


def frames_of(comfy: ComfyClient, graph: Workflow) -> np.ndarray:
    return comfy.frames(comfy.finish(graph), "frames")


def test_the_pair_drains_the_colours_the_more_the_larger_its_scale(comfy: ComfyClient, graph: Workflow, shelf: dict):
    plain = changed(graph, "sampler")
    del plain["sampler"]["inputs"]["loras"]
    before = frames_of(comfy, plain)
    by_scale = {scale: frames_of(comfy, changed(graph, "lora", scale=scale)) for scale in (0.0, 0.4, 0.8, 1.0)}
    assert np.array_equal(by_scale[0.0], before)
    found = [saturation(frames) for frames in by_scale.values()]
    assert found == sorted(found, reverse=True) and len(set(found)) == 4, found
    assert found[3] < 0.6 * found[0]
    one = {noise: frames_of(comfy, changed(graph, "lora", source=LINKS[noise], source_low="", expert=noise))
           for noise in ("high", "low")}
    assert not np.array_equal(one["high"], one["low"])
    assert all(found[3] < saturation(frames) < found[0] + 0.02 for frames in one.values())
    assert np.array_equal(frames_of(comfy, changed(plain, "decode")), before)
    comfy.forget()
    assert np.array_equal(frames_of(comfy, plain), before)


def test_the_node_tells_what_fitted_and_the_network_is_asked_once(comfy: ComfyClient, graph: Workflow, shelf: dict,
                                                                  internet: HostileServer):
    first = comfy.finish(changed(graph, "sampler", seed=11))
    said = "\n".join(first.texts("sampler"))
    for noise, path in DRAIN.items():
        assert f"{path.name}, scale 1, {noise}-noise expert: 150 of 150 keys; alpha" in said
    sent = {noise: file.sent for noise, file in shelf.items()}
    again = comfy.finish(changed(graph, "sampler", seed=12))
    assert "150 of 150" in "\n".join(again.texts("sampler"))
    assert {noise: file.sent for noise, file in shelf.items()} == sent, "the bodies came twice"
    pins = {f"sha256{end}": hashlib.sha256(DRAIN[noise].read_bytes()).hexdigest()
            for noise, end in (("high", ""), ("low", "_low"))}
    before = len(internet.seen)
    comfy.finish(changed(changed(graph, "sampler", seed=13), "lora", **pins))
    assert len(internet.seen) == before, "a pinned file asks nobody"


def test_auto_goes_by_the_name_and_says_so(comfy: ComfyClient, graph: Workflow, shelf: dict):
    for noise in DRAIN:
        run = comfy.finish(changed(graph, "lora", source=LINKS[noise], source_low=""))
        assert f"{noise}-noise expert (its file name says {noise} noise): 150 of 150" in "\n".join(run.texts("sampler"))


def test_a_segment_has_loras_of_its_own_by_link(comfy: ComfyClient, graph: Workflow, shelf: dict) -> None:
    """Fetched for the second of two segments, whose colours it drains; a link that leads nowhere is told before the
    first is sampled."""
    nodes = {name: graph[name] for name in ("picture", "load", "lora")}
    own = {"prompt": "nothing moves", "num_frames": 17}
    nodes = added(nodes, "first", "Wan22Segment", **own, seed=1)
    nodes = added(nodes, "second", "Wan22Segment", **own, seed=2, segments=["first", 0], loras=["lora", 0])
    nodes = added(nodes, "long", "Wan22LongClip", model=["load", 0], clip=["load", 1], vae=["load", 2],
                  image=["picture", 0], segments=["second", 0], negative_prompt="", resolution="custom",
                  **{"resolution.width": 96, "resolution.height": 96}, way="frames", known_frames="5",
                  num_inference_steps=8, guidance_scale=5.0, fps=16.0,
                  filename_prefix="drained/clip")
    _, message = failing(comfy, changed(nodes, "lora", source_low="https://a.example/nowhere.safetensors"), "long")
    assert "nowhere.safetensors" in message
    run = comfy.finish(nodes)
    said = run.texts("long")[-1]
    for noise, path in DRAIN.items():
        assert said.count(f"{path.name}, scale 1, {noise}-noise expert: 150 of 150 keys") == 1
    (made,) = comfy.files(run, "long")
    frames = frames_of_file(made)
    whole, own, drained = (saturation(frames[:count]) for count in (1, 12, len(frames)))
    assert own > 0.85 * whole and drained < 0.7 * own


@pytest.mark.parametrize("layout", ["fp8", "gguf"])
def test_packed_experts_take_the_same_loras(layout: str, comfy: ComfyClient, graph: Workflow, shelf: dict):
    write = {"fp8": layouts.fp8_comfy(torch.float8_e4m3fn), "gguf": layouts.gguf_file("Q8_0")}[layout]
    chosen = {}
    for noise in ("high", "low"):
        source = next((ROOT / "models" / "demo" / "diffusion_models").glob(f"*{noise}_noise*"))
        path = comfy.server.base / "models" / "diffusion_models" / f"demo_{noise}_noise.{layout}".replace(
            ".fp8", "_fp8.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(load_file(source), path)
        chosen[f"{noise}_noise_model"] = path.name
    packed = changed(graph, "load", **{name: chosen[key] for name in graph["load"]["inputs"] for key in chosen
                                       if key.split("_")[0] in name.split("_")})
    assert packed["load"]["inputs"] != graph["load"]["inputs"]
    found = [saturation(frames_of(comfy, changed(packed, "lora", scale=scale))) for scale in (0.0, 1.0)]
    assert found[1] < 0.6 * found[0]


def test_a_file_of_the_loras_folder(comfy: ComfyClient, graph: Workflow):
    folder = comfy.server.base / "models" / "loras" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    for path in DRAIN.values():
        shutil.copy(path, folder)
    local = changed(graph, "lora", source=f"mine/{DRAIN['high'].name}", source_low=f"mine/{DRAIN['low'].name}")
    found = [saturation(frames_of(comfy, changed(local, "lora", scale=scale))) for scale in (0.0, 1.0)]
    assert found[1] < 0.6 * found[0]


def test_the_bundled_pair_by_name(comfy: ComfyClient, graph: Workflow):
    run = comfy.finish(changed(graph, "lora", source=DRAIN["high"].name, source_low=DRAIN["low"].name))
    assert "\n".join(run.texts("sampler")).count("150 of 150 keys") == 2


def test_the_bridge_takes_the_same_list(comfy: ComfyClient, graph: Workflow, shelf: dict,
                                        models_of_comfyui: dict[str, str]):
    """ComfyUI's own patcher merges where ours works the weights out for each use; the clip is the same."""
    steps = changed(graph, "sampler", num_inference_steps=10)
    ours = comfy.finish(added(without(steps, "frames", "decode"), "latents", "SaveLatent", samples=["sampler", 0],
                              filename_prefix="latents/ours"))
    bridge = bridged(steps, models_of_comfyui)
    theirs = comfy.finish(added(bridge, "latents", "SaveLatent", samples=["bridge", 0], filename_prefix="latents/core"))
    assert "150 of 150 keys" in "\n".join(theirs.texts("bridge"))
    found, wanted = comfy.latents(ours, "latents"), comfy.latents(theirs, "latents")
    assert np.abs(found - wanted).max() / wanted.std() < 5e-3  # core rounds its merged weights to float16


def test_in_some_of_the_steps(comfy: ComfyClient, graph: Workflow, shelf: dict, models_of_comfyui: dict[str, str]):
    """Every change of the curve makes another clip; the bridge refuses it."""
    fading = changed(graph, "lora", fade_out=1.0)
    run = comfy.finish(fading)
    assert f"{DRAIN['low'].name}, low-noise expert: in steps " in "\n".join(run.texts("sampler"))
    found = {"fading": comfy.frames(run, "frames")}
    found |= {name: frames_of(comfy, changed(graph, "lora", **settings)) for name, settings in (
        ("all", {}), ("half", {"end_percent": 0.5}))}
    assert len({frames.tobytes() for frames in found.values()}) == 3
    assert saturation(found["all"]) < saturation(found["fading"])
    _, said = failing(comfy, added(bridged(fading, models_of_comfyui), "latents", "SaveLatent", samples=["bridge", 0],
                                   filename_prefix="latents/never"), "bridge")
    assert "keeps its scale in every step" in said
    _, said = failing(comfy, changed(graph, "lora", start_percent=0.99))
    assert "of 8 steps, which is no step" in said


def failing(comfy: ComfyClient, graph: Workflow, node: str = "sampler") -> tuple[Run, str]:
    run = comfy.run(graph)
    assert run.outcome == "execution_error" and run.error["node_id"] == node
    message = run.error["exception_message"].strip()
    assert message in "\n".join(run.texts(node)), "it has to be on the node too"
    assert run.previews(node) == [], "it has to be told before sampling"
    return run, message


@pytest.mark.parametrize("node, settings, said", [
    ("sampler", {"positive": ["two", 0]}, "The positive conditioning has 2 parts"),
    *((node, settings, said) for node in ("sampler", "bridge") for settings, said in (
        ({"latent": ["other", 0], "denoise": 0.5}, "The latent has the shape"),
        ({"stage": "low-noise only"}, "no latent is connected"),
        ({"denoise": 0.5}, "no latent is connected"))),
])
def test_what_is_at_hand_is_checked_before_a_lora_is_asked_for(
        node: str, settings: dict, said: str, comfy: ComfyClient, graph: Workflow, shelf: dict, internet: HostileServer,
        models_of_comfyui: dict[str, str]):
    graph = bridged(graph, models_of_comfyui) if node == "bridge" else without(graph, "frames", "decode")
    graph = added(graph, "latents", "SaveLatent", samples=[node, 0], filename_prefix="latents/never")
    graph = added(graph, "other", "EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)
    graph = added(graph, "two", "ConditioningCombine", conditioning_1=["prompt", 0], conditioning_2=["prompt", 1])
    before = len(internet.seen)
    _, message = failing(comfy, changed(graph, node, **settings), node)
    assert said in message
    assert len(internet.seen) == before


@pytest.mark.parametrize("content, said", [
    ("page", "web page"),
    ("checkpoint", "not a LoRA"),
    ("other size", "5120 wide.*256 wide"),
    ("pickle", "pickle"),
])
def test_a_wrong_file_is_told_by_its_beginning(content: str, said: str, comfy: ComfyClient, graph: Workflow,
                                               internet: HostileServer, tmp_path: Path):
    import re

    name = "diffusion_model.blocks.0.self_attn.q"
    data = {
        "page": b"<!DOCTYPE html><html>" + b" " * 3_000_000,
        "checkpoint": next((ROOT / "models" / "demo" / "diffusion_models").glob("*high*")).read_bytes(),
        "other size": save({f"{name}.lora_down.weight": torch.zeros(64, 5120),
                            f"{name}.lora_up.weight": torch.zeros(5120, 64)}),
        "pickle": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(3_000_000),
    }[content]
    route = f"/wrong/{content.replace(' ', '_')}.safetensors"
    internet.routes[route] = file = File(data)
    _, message = failing(comfy, changed(graph, "lora", source=f"https://a.example{route}", source_low=""))
    assert re.search(said, message), message
    assert file.bodies == 0 and file.sent < 600_000, "more than its beginning was fetched"


def test_what_the_network_does_is_told(comfy: ComfyClient, graph: Workflow, internet: HostileServer):
    internet.routes["/gated.safetensors"] = status(401)
    _, message = failing(comfy, changed(graph, "lora", source="https://a.example/gated.safetensors?sig=hidden",
                                        source_low=""))
    assert "401" in message and "hidden" not in message
    _, message = failing(comfy, changed(graph, "lora", source="https://127.0.0.1/x.safetensors", source_low=""))
    assert "127.0.0.1" in message
    _, message = failing(comfy, changed(graph, "lora", source="missing.safetensors", source_low=""))
    assert "no 'missing.safetensors' in the loras folder" in message


@pytest.mark.parametrize("inputs, said", [
    ({"source": ""}, "no source"), ({"source": "http://a.example/x.safetensors"}, "https"),
    ({"source": "https://a.example/x.safetensors?token=hidden"}, "holds a token"),
    ({"sha256": "12"}, "64 hexadecimal"), ({"expert": "low"}, "file for each"),
    ({"source_low": "", "sha256_low": "a" * 64}, "no source_low"), ({"scale": 1.5}, "bigger than max"),
    ({"exact_scale": -4.5}, "smaller than min"), ({"start_percent": 0.6, "end_percent": 0.5}, "start below the end"),
    ({"fade_in": 0.6, "fade_out": 0.5}, "both together"), ({"end_percent": 1.2}, "end_percent 1.2"),
])
def test_refused_before_anything_runs(inputs: dict, said: str, comfy: ComfyClient, graph: Workflow):
    with pytest.raises(RejectedError, match=said) as refused:
        comfy.submit(changed(graph, "lora", **inputs))
    assert "lora" in refused.value.errors


def test_stop_while_a_lora_is_on_its_way(comfy: ComfyClient, graph: Workflow, internet: HostileServer):
    data = DRAIN["high"].read_bytes()
    internet.routes["/slow.safetensors"] = file = File(data, hang_at=len(data) // 2)
    run = comfy.run(changed(graph, "lora", source="https://a.example/slow.safetensors", source_low=""),
                    on_event=lambda event: comfy.interrupt() if event.kind == "text" and "Fetching" in str(event.data)
                    else None)
    assert run.outcome == "execution_interrupted" and file.sent > 0
