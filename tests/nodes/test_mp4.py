"""Save MP4 and Decode to MP4 on the real server."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path

import av
import pytest

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Event, RejectedError, Run, added, changed, without


@pytest.fixture
def graph(clip: Workflow) -> Workflow:
    """Latents that need no sampler, decoded and saved by two nodes and by one."""
    graph = added({node: clip[node] for node in ("load", "decode", "save")}, "latents", "EmptyHunyuanLatentVideo",
                  width=96, height=64, length=9, batch_size=1)
    graph = changed(graph, "decode", latent=["latents", 0])
    return added(graph, "both", "Wan22DecodeToMP4", vae=["load", 2], latent=["latents", 0], fps=16.0,
                 filename_prefix="both/clip")


def metadata(comfy: ComfyClient, run: Run, node: str) -> dict[str, str]:
    (mp4,) = comfy.files(run, node)
    with av.open(io.BytesIO(mp4)) as container:
        return dict(container.metadata)


def test_decode_to_mp4_gives_the_file_of_decode_and_save(comfy: ComfyClient, graph: Workflow):
    run = comfy.finish(graph)
    assert comfy.files(run, "both") == comfy.files(run, "save")
    assert run.progress("both")[-1] == (9, 9)
    (entry,) = comfy.history(run.prompt_id)["outputs"]["both"]["images"]
    assert (entry["subfolder"], entry["type"]) == ("both", "output")


def test_core_reads_the_video(comfy: ComfyClient, graph: Workflow):
    run = comfy.finish(added(graph, "again", "SaveVideo", video=["both", 0], filename_prefix="again", format="auto",
                             codec="auto"))
    (mp4,) = comfy.files(run, "again")
    with av.open(io.BytesIO(mp4)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9


def test_metadata_is_the_workflow_the_request_or_nothing(comfy: ComfyClient, graph: Workflow):
    found = {}
    for kept in ("full workflow", "request only", "none"):
        found[kept] = metadata(comfy, comfy.finish(changed(graph, "both", metadata=kept)), "both")
    assert "prompt" in found["full workflow"] and "request" not in found["full workflow"]
    assert "prompt" not in found["request only"] and "prompt" not in found["none"] and "request" not in found["none"]
    request = {values["node"]: values for values in json.loads(found["request only"]["request"])}
    assert request["EmptyHunyuanLatentVideo"]["length"] == 9
    assert set(request) == {"Wan22Load", "EmptyHunyuanLatentVideo", "Wan22DecodeToMP4"}
    assert all("AI-generated" in values["comment"] for values in found.values())
    silent = metadata(comfy, comfy.finish(changed(graph, "both", metadata="none", mark_ai_generated=False)), "both")
    assert not {"comment", "prompt", "request", "workflow", "digital_source_type"} & set(silent)


def test_tokens_in_the_name(comfy: ComfyClient, graph: Workflow):
    prefix = "%date:yyyy%/%EmptyHunyuanLatentVideo.length% of %Wan22DecodeToMP4.fps%"
    run = comfy.finish(changed(graph, "both", filename_prefix=prefix))
    (entry,) = comfy.history(run.prompt_id)["outputs"]["both"]["images"]
    assert entry["subfolder"] == str(datetime.now().year)
    assert entry["filename"] == "9 of 16_00001_.mp4"


@pytest.mark.parametrize(("prefix", "subfolder", "name"), [
    ("ending/", "", "ending"), ("in//two///parts", "in/two", "parts"), ("./here/./clip", "here", "clip"),
    ("dates/%date:yyyy/MM%/clip", datetime.now().strftime("dates/%Y/%m"), "clip"),
])
def test_every_clip_of_a_prefix_gets_a_number_of_its_own(comfy: ComfyClient, graph: Workflow, prefix: str,
                                                         subfolder: str, name: str):
    for number, crf in enumerate((20.0, 30.0), start=1):
        run = comfy.finish(changed(graph, "both", filename_prefix=prefix, crf=crf))
        (entry,) = comfy.history(run.prompt_id)["outputs"]["both"]["images"]
        assert (entry["subfolder"], entry["filename"]) == (subfolder, f"{name}_{number:05}_.mp4")


@pytest.mark.parametrize("odd", [[[1, 2], [3, 4]], [["a.safetensors", 1.0], {"b": 1}], [{}], [[], 0], ["latents"],
                                 ["nobody", 0.5], {"nested": [["x", 1]]}, None, True], ids=str)
def test_a_widget_of_any_value_upstream_costs_no_clip(comfy: ComfyClient, graph: Workflow, odd: object):
    """Point lists, LoRA stacks and their like, of nodes that the pack does not know."""
    graph = changed(graph, "both", metadata="request only")
    graph["latents"]["inputs"]["points"] = odd if odd != ["nobody", 0.5] else {"__value__": odd}
    found = metadata(comfy, comfy.finish(graph), "both")
    request = {values["node"]: values for values in json.loads(found["request"])}
    assert request["EmptyHunyuanLatentVideo"]["length"] == 9 and "AI-generated" in found["comment"]


def test_an_encoder_that_is_missing_is_told_on_the_node(comfy: ComfyClient, graph: Workflow):
    run = comfy.finish(changed(graph, "both", codec="h264_nvenc"))
    said = run.texts("both")
    with av.open(io.BytesIO(comfy.files(run, "both")[0])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert said == [] or (said[0].startswith("h264_nvenc does not work here (") and "libx264" in said[0])


@pytest.mark.parametrize(("values", "sentence"), [
    ({"codec": "av1", "pix_fmt": "yuv444p"}, "av1 cannot hold yuv444p"),
    ({"codec": "vp9"}, "codec is 'vp9'"),
    ({"filename_prefix": "/etc/clip"}, "filename_prefix is '/etc/clip'"),
    ({"preset": "placebo"}, "preset"),
])
def test_what_cannot_be_is_refused_before_anything_runs(comfy: ComfyClient, graph: Workflow, values: dict,
                                                        sentence: str):
    with pytest.raises(RejectedError, match=sentence):
        comfy.run(changed(graph, "both", **values))


def test_sound(comfy: ComfyClient, graph: Workflow):
    graph = added(graph, "sound", "EmptyAudio", duration=60.0, sample_rate=44100, channels=2)
    run = comfy.finish(changed(graph, "both", audio=["sound", 0]))
    with av.open(io.BytesIO(comfy.files(run, "both")[0])) as container:
        sound = container.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(9 / 16, abs=0.002)


def test_stop_while_decoding_into_the_file(comfy: ComfyClient, graph: Workflow):
    graph = without(changed(graph, "latents", width=128, height=128, length=401), "decode", "save")
    before = list((comfy.server.base / "output").rglob("*.mp4"))
    stopped = False

    def stop(event: Event) -> None:
        nonlocal stopped
        if not stopped and event.kind == "progress" and event.data["node"] == "both" and event.data["value"] > 8:
            stopped = True
            comfy.interrupt()

    run = comfy.run(graph, stop)
    assert run.outcome == "execution_interrupted"
    assert 8 < run.progress("both")[-1][0] < 401
    assert list((comfy.server.base / "output").rglob("*.mp4")) == before, "unfinished ones end in .mp4 too"


def test_one_name_for_two_nodes(comfy: ComfyClient, graph: Workflow):
    run = comfy.finish(changed(graph, "save", filename_prefix="both/clip"))
    names = [comfy.history(run.prompt_id)["outputs"][node]["images"][0]["filename"] for node in ("both", "save")]
    assert len(set(names)) == 2
    assert comfy.files(run, "both") == comfy.files(run, "save")


@pytest.mark.parametrize("text", ["/etc", "..", "../../clip"])
def test_a_linked_name_that_leads_out(comfy: ComfyClient, graph: Workflow, text: str):
    """What no validation sees before the run, straight and through a token."""
    def outside() -> set[Path]:
        return {path for path in comfy.server.base.rglob("*.mp4") if "output" not in path.parts}

    before = outside()
    graph = added(graph, "name", "PrimitiveString", value=f"{text}/clip")
    run = comfy.run(changed(graph, "both", filename_prefix=["name", 0]))
    assert run.outcome == "execution_error" and run.error["node_id"] == "both"
    assert "give a name inside ComfyUI's output folder" in run.error["exception_message"]
    assert "give a name inside ComfyUI's output folder" in run.texts("both")[0]
    graph = changed(graph, "name", value=text)
    run = comfy.run(changed(graph, "both", filename_prefix="both/%PrimitiveString.value%"))
    assert outside() == before


def test_a_latent_is_named_by_tokens_too(comfy: ComfyClient, graph: Workflow):
    name = "%date:yyyy% %EmptyHunyuanLatentVideo.width%"
    run = comfy.finish(added(graph, "kept", "Wan22SaveLatent", latent=["latents", 0], name=name))
    (entry,) = comfy.history(run.prompt_id)["outputs"]["kept"]["latents"]
    assert entry["filename"].startswith(f"{datetime.now().year} 96_")
    assert entry["subfolder"] == "wan22/latents"
