"""Every bad input gets one clear sentence, in the answer or on the node, before any model works for it.

What can be known when a graph is queued is refused there (HTTP 400); what comes over a link or out of a file, on the
node that it concerns.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file, save

from devtools.paths import ROOT
from devtools.server import ComfyServer
from devtools.workflow import Workflow
from tests.support.comfy_client import (
    ComfyClient,
    Event,
    RejectedError,
    added,
    changed,
    messages,
    sample_picture,
    without,
)

DEMO = ROOT / "models" / "demo"
HIGH = DEMO / "diffusion_models" / "wan2.2_i2v_high_noise_demo_fp16.safetensors"
VAE = DEMO / "vae" / "wan_2.1_vae_demo.safetensors"
TEXT_ENCODER = DEMO / "text_encoders" / "umt5_demo_fp16.safetensors"


def refused(comfy: ComfyClient, workflow: Workflow, node: str) -> set[str]:
    """Queue a workflow that is refused for one node alone; returns the sentences about that node."""
    with pytest.raises(RejectedError) as caught:
        comfy.run(workflow)
    assert set(caught.value.errors) == {node}, caught.value
    return messages(caught.value.errors[node])


def failing(comfy: ComfyClient, workflow: Workflow, node: str, *, typed: bool = True) -> str:
    """Run a workflow that fails on one node before that does any work; returns the sentence, which the node shows."""
    run = comfy.run(workflow)
    assert run.outcome == "execution_error", run.events[-1]
    assert run.error["node_id"] == node
    assert run.executed[-1] == node, "something ran after the error"
    assert run.progress(node) == [] and run.previews(node) == []
    assert comfy.job(run.prompt_id)["status"] == "failed"
    assert comfy.history(run.prompt_id)["status"]["status_str"] == "error"
    sentence = run.error["exception_message"].strip()
    if typed:
        assert [text.strip() for text in run.texts(node)[-1:]] == [sentence]
    return sentence


# ---- values of a wrong kind -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("node", "name", "kind"), [
    ("sampler", "seed", "INT"), ("sampler", "num_inference_steps", "INT"), ("sampler", "guidance_scale", "FLOAT"),
    ("sampler", "guidance_scale_2", "FLOAT"), ("sampler", "shift", "FLOAT"), ("frame", "num_frames", "INT"),
    ("save", "fps", "FLOAT"), ("save", "crf", "FLOAT"),
])
@pytest.mark.parametrize("value", ["abc", {"a": 1}, None], ids=str)
def test_a_value_of_a_wrong_kind_gets_comfyuis_own_sentence(comfy: ComfyClient, clip: Workflow, node: str, name: str,
                                                            kind: str, value: object) -> None:
    """And no Python error of ours beside it, such as a comparison of text with a number."""
    with pytest.raises(RejectedError) as caught:
        comfy.run(changed(clip, node, **{name: value}))
    found = caught.value.errors[node]
    assert [error["type"] for error in found] == ["invalid_input_type"], found
    assert kind in found[0]["message"] and found[0]["details"].startswith(f"{name}, ")


@pytest.mark.parametrize(("node", "name", "value"), [
    ("load", "vae", 5), ("load", "high_noise_expert", {"__value__": ["a", "b", "c"]}), ("sampler", "scheduler", 5),
    ("sampler", "stage", {"__value__": ["both"]}), ("save", "codec", 5), ("save", "metadata", {"a": 1}),
    ("save", "pix_fmt", {"__value__": []}), ("frame", "resolution", 7), ("frame", "resolution", {"a": 1}),
])
def test_a_choice_of_a_wrong_kind_gets_a_sentence(comfy: ComfyClient, clip: Workflow, node: str, name: str,
                                                  value: object) -> None:
    with pytest.raises(RejectedError) as caught:
        comfy.run(changed(clip, node, **{name: value}))
    said = str(caught.value.errors[node])
    assert name in said and not re.search("not supported|unhashable|has no attribute|object is not", said), said


# ---- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "name", "value", "sentence"),
    [
        ("sampler", "num_inference_steps", 0, "num_inference_steps is 0; choose 1 to 100."),
        ("sampler", "num_inference_steps", 101, "num_inference_steps is 101; choose 1 to 100."),
        ("sampler", "guidance_scale", 0.5, "guidance_scale is 0.5; choose 1 to 10."),
        ("sampler", "guidance_scale", 11.0, "guidance_scale is 11; choose 1 to 10."),
        ("sampler", "guidance_scale", float("nan"), "guidance_scale is nan; choose 1 to 10."),
        ("sampler", "guidance_scale_2", 0.5, "guidance_scale_2 is 0.5; choose 1 to 10."),
        ("sampler", "guidance_scale_2", 11.0, "guidance_scale_2 is 11; choose 1 to 10."),
        ("sampler", "seed", -1, f"seed is -1; choose 0 to {2**64 - 1}."),
        ("sampler", "seed", 2**64, f"seed is {2**64}; choose 0 to {2**64 - 1}."),
        ("sampler", "shift", 0.5, "Value 0.5 smaller than min of 1.0"),
        ("sampler", "shift", 21.0, "Value 21.0 bigger than max of 20.0"),
        ("sampler", "boundary", -0.1, "Value -0.1 smaller than min of 0.0"),
        ("sampler", "boundary", 1.1, "Value 1.1 bigger than max of 1.0"),
        ("sampler", "scheduler", "wat", "Value not in list"),
        ("sampler", "sigma_schedule", "wat", "sigma_schedule is 'wat'; choose one of official, thinned 4 + 14, thinned "
         "4 + 10, lightx2v 4 steps, TurboDiffusion 4 steps."),
        ("sampler", "sigmas", "1, 0,5", "sigmas lists 0; a step starts at 1 (noise alone) or below, and above 0 (the "
         "clip), which may stand at the end. Write decimals with a point, such as 0.9375."),
        ("sampler", "sigmas", 0.5, "sigmas is neither text nor a SIGMAS with a step in it. Connect a node such as "
         "BasicScheduler, or write a list such as 1, 0.9375, 0.8333, 0.625."),
        ("sampler", "negative_pass_every", 0, "Value 0 smaller than min of 1"),
        ("frame", "num_frames", 34,
         "num_frames is 34; it must be a multiple of 4 plus 1, such as 33 or 37."),
        ("frame", "num_frames", 1, "num_frames is 1; choose 5 to 1025 (33, 49 and 81 are usual)."),
        ("frame", "num_frames", 1029, "num_frames is 1029; choose 5 to 1025 (33, 49 and 81 are usual)."),
        ("save", "fps", 0.0, "Value 0.0 smaller than min of 1.0"),
        ("save", "crf", 52.0, "Value 52.0 bigger than max of 51.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(comfy: ComfyClient, clip: Workflow, node: str, name: str, value: Any,
                                           sentence: str):
    assert refused(comfy, changed(clip, node, **{name: value}), node) == {sentence}


def test_an_unknown_resolution_is_refused(comfy: ComfyClient, clip: Workflow):
    # ComfyUI takes any value for a choice with inputs of its own, and drops one that it does not know.
    (sentence,) = refused(comfy, changed(clip, "frame", resolution="8k"), "frame")
    assert re.match(r"resolution .* choose one of .*480p \(832x480\).*custom", sentence)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("width", 100, "width is 100 pixels; Wan 2.2 needs a multiple of 16. The nearest is 96."),
        ("height", 72, "height is 72 pixels; Wan 2.2 needs a multiple of 16. The nearest is 64."),
        ("width", 16, r"width is 16 pixels; choose 32 to 4096.|Value 16 smaller than min of 32"),
        ("height", 4112, r"height is 4112 pixels; choose 32 to 4096.|Value 4112 bigger than max of 4096"),
    ],
)
def test_a_size_that_does_not_fit_is_told(comfy: ComfyClient, clip: Workflow, name: str, value: int,
                                          sentence: str):
    # ComfyUI keeps the inputs of a choice from a node's own validation, so some of this is found on the node.
    graph = changed(clip, "frame", **{f"resolution.{name}": value})
    try:
        said = failing(comfy, graph, "frame")
    except RejectedError as rejected:
        assert set(rejected.errors) == {"frame"}
        (said,) = messages(rejected.errors["frame"])
    assert re.fullmatch(sentence, said)


@pytest.mark.parametrize(
    ("node", "name", "source", "value", "sentence"),
    [
        ("sampler", "num_inference_steps", "PrimitiveInt", 0, "num_inference_steps is 0; choose 1 to 100."),
        ("sampler", "seed", "PrimitiveInt", -1, f"seed is -1; choose 0 to {2**64 - 1}."),
        ("sampler", "guidance_scale", "PrimitiveFloat", 11.0, "guidance_scale is 11; choose 1 to 10."),
        ("sampler", "guidance_scale_2", "PrimitiveFloat", 0.5, "guidance_scale_2 is 0.5; choose 1 to 10."),
        ("sampler", "shift", "PrimitiveFloat", 21.0, "shift is 21; choose 1 to 20 (Wan 2.2 uses 5)."),
        ("sampler", "boundary", "PrimitiveFloat", 1.5,
         "boundary is 1.5; choose 0 to 1 (Wan 2.2 image-to-video uses 0.9)."),
        ("frame", "num_frames", "PrimitiveInt", 34,
         "num_frames is 34; it must be a multiple of 4 plus 1, such as 33 or 37."),
        ("frame", "resolution.width", "PrimitiveInt", 100,
         "width is 100 pixels; Wan 2.2 needs a multiple of 16. The nearest is 96."),
        ("frame", "resolution.height", "PrimitiveInt", 16, "height is 16 pixels; choose 32 to 4096."),
    ],
)
def test_a_linked_value_out_of_range_fails_on_its_node(comfy: ComfyClient, clip: Workflow, node: str, name: str,
                                                       source: str, value: float, sentence: str):
    graph = changed(added(clip, "value", source, value=value), node, **{name: ["value", 0]})
    assert failing(comfy, graph, node) == sentence


# ---- the picture ------------------------------------------------------------------------------------------------


def test_a_clip_without_a_picture_is_refused(comfy: ComfyClient, clip: Workflow):
    graph = without(clip, "picture")
    del graph["frame"]["inputs"]["image"]
    assert refused(comfy, graph, "frame") == {"Required input is missing"}


@pytest.mark.parametrize(("width", "height"), [(40, 31), (31, 40), (1, 1)])
def test_a_picture_that_is_too_small(comfy: ComfyClient, clip: Workflow, width: int, height: int):
    graph = changed(clip, "picture", image=comfy.upload("small", sample_picture(width, height)))
    assert failing(comfy, graph, "frame") == f"The image is {width}x{height} pixels; each side must be at least 32."


def test_a_picture_of_the_smallest_size_is_enough(comfy: ComfyClient, clip: Workflow):
    comfy.finish(changed(clip, "picture", image=comfy.upload("smallest", sample_picture(32, 32))))


def test_a_picture_with_an_alpha_channel(comfy: ComfyClient, clip: Workflow):
    graph = added(clip, "alpha", "JoinImageWithAlpha", image=["picture", 0], alpha=["picture", 1])
    sentence = failing(comfy, changed(graph, "frame", image=["alpha", 0]), "frame")
    assert sentence.startswith("The image has an alpha channel. Put it on a background first")


def test_several_pictures(comfy: ComfyClient, clip: Workflow):
    graph = added(clip, "batch", "RepeatImageBatch", image=["picture", 0], amount=3)
    sentence = failing(comfy, changed(graph, "frame", image=["batch", 0]), "frame")
    assert sentence.startswith("The image is a batch of 3 pictures; a clip takes one.")


# ---- the prompts ------------------------------------------------------------------------------------------------


def text_of(tokens: int) -> str:
    """A text of so many tokens, the end token included."""
    vocabulary = load_file(TEXT_ENCODER)["spiece_model"].tobytes()
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    for text in itertools.accumulate(itertools.cycle("the camera pans right, ")):
        if len(tokenizer.encode(text)) == tokens - 1:
            return text
    raise AssertionError


@pytest.mark.parametrize("tokens", [513, 700])
@pytest.mark.parametrize(("name", "called"), [("prompt", "prompt"), ("negative_prompt", "negative prompt")])
def test_a_prompt_that_is_too_long(comfy: ComfyClient, clip: Workflow, name: str, called: str, tokens: int):
    sentence = failing(comfy, changed(clip, "prompt", **{name: text_of(tokens)}), "prompt")
    assert sentence.startswith(f"The {called} is {tokens} tokens long; Wan 2.2 reads at most 512. Shorten it by "
                               f"{tokens - 512} token")


def test_prompts_of_the_greatest_length_are_read(comfy: ComfyClient, clip: Workflow):
    longest = text_of(512)
    comfy.finish(changed(clip, "prompt", prompt=longest, negative_prompt=longest))


def test_cores_text_encode_is_told_of_a_prompt_that_is_too_long_too(comfy: ComfyClient, clip: Workflow):
    graph = added(clip, "core", "CLIPTextEncode", clip=["load", 1], text=text_of(600))
    sentence = failing(comfy, changed(graph, "sampler", positive=["core", 0]), "core", typed=False)
    assert sentence.startswith("The prompt is 600 tokens long")


# ---- what is linked to the wrong place --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "inputs", "node", "takes", "sentence"),
    [
        ("ConditioningCombine", {"conditioning_1": ["prompt", 0], "conditioning_2": ["prompt", 1]}, "sampler",
         "positive", "The positive conditioning has 2 parts; this sampler takes one."),
        ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}, "decode", "latent",
         "The latent has the shape (1, 4, 8, 8); a Wan 2.2 A14B clip has (1, 16,"),
        ("JoinImageWithAlpha", {"image": ["picture", 0], "alpha": ["picture", 1]}, "save", "images",
         "The images have the shape (1, 64, 96, 4)"),
    ],
    ids=["conditioning of two parts", "latents of another model", "frames with an alpha channel"])
def test_a_link_that_brings_something_else(comfy: ComfyClient, clip: Workflow, maker: str, inputs: dict[str, Any],
                                           node: str, takes: str, sentence: str):
    graph = changed(added(clip, "wrong", maker, **inputs), node, **{takes: ["wrong", 0]})
    assert failing(comfy, graph, node).startswith(sentence)


def test_nothing_is_written_outside_the_output_folder(comfy: ComfyClient, clip: Workflow):
    outside = comfy.server.base / "outside"
    outside.mkdir(exist_ok=True)
    (sentence,) = refused(comfy, changed(clip, "save", filename_prefix="../outside/clip"), "save")
    assert sentence.startswith("filename_prefix is '../outside/clip'; give a name inside ComfyUI's output folder")
    graph = added(clip, "prefix", "PrimitiveString", value="../outside/clip")
    sentence = failing(comfy, changed(graph, "save", filename_prefix=["prefix", 0]), "save")
    assert sentence.startswith("filename_prefix is '../outside/clip'")
    assert list(outside.iterdir()) == []


# ---- weight files -----------------------------------------------------------------------------------------------

Weights = dict[str, np.ndarray]
FOLDERS = {"high_noise_expert": "diffusion_models", "low_noise_expert": "diffusion_models",
           "text_encoder": "text_encoders", "vae": "vae"}


class ModelFolders:
    """Puts files into ComfyUI's model folders and takes them out again."""

    def __init__(self, base: Path) -> None:
        self._base, self._made = base / "models", []

    def put(self, name: str, widget: str, content: bytes) -> Path:
        """Write a file where a widget of Load Wan 2.2 finds it."""
        path = self._base / FOLDERS[widget] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._made.append(path)
        return path

    def clear(self) -> None:
        """Remove every file that was put here."""
        for path in self._made:
            path.unlink(missing_ok=True)


@pytest.fixture
def folders(server: ComfyServer) -> Iterator[ModelFolders]:
    """The server's model folders; what a test puts there is gone after it."""
    folders = ModelFolders(server.base)
    yield folders
    folders.clear()


def edited(source: Path, edit: Callable[[Weights], object]) -> Callable[[], bytes]:
    """A file as bytes, made from a bundled one by changing its tensors."""

    def make() -> bytes:
        tensors = load_file(source)
        edit(tensors)
        return save(tensors)

    return make


def missing(source: Path, key: str) -> Callable[[], bytes]:
    return edited(source, lambda tensors: tensors.pop(key))


def with_input_channels(count: int) -> Callable[[], bytes]:
    key = "patch_embedding.weight"
    return edited(HIGH, lambda t: t.update({key: np.zeros((t[key].shape[0], count, 1, 2, 2), np.float16)}))


def lora() -> bytes:
    key = "blocks.0.self_attn.q"
    return save({f"{key}.lora_down.weight": np.zeros((4, 128), np.float16),
                 f"{key}.lora_up.weight": np.zeros((128, 4), np.float16)})


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 28576654048\n"
EXTRA = {"blocks.0.extra.weight": np.zeros((2, 2), np.float16)}
UNREADABLE = r"{name} is not a safetensors file, or it is cut short \([\d,]+ bytes\)\. Fetch it again\."
NOT_WHOLE = r"{name} is not a whole Wan 2\.2 I2V-A14B expert: "

Cases = dict[str, tuple[str, Callable[[], bytes], str]]
NOT_AN_EXPERT = r"not a Wan 2\.2 I2V-A14B expert\. Choose a Wan 2\.2 I2V-A14B expert such as "

BAD_HEADERS: Cases = {
    "empty": ("high_noise_expert", lambda: b"", r"{name} is empty \(0 bytes\): its download failed\. Fetch it again\."),
    "empty low": ("low_noise_expert", lambda: b"", r"{name} is empty \(0 bytes\)"),
    "empty vae": ("vae", lambda: b"", r"{name} is empty \(0 bytes\)"),
    "empty text encoder": ("text_encoder", lambda: b"", r"{name} is empty \(0 bytes\)"),
    "cut": ("low_noise_expert", lambda: HIGH.read_bytes()[:-1000],
            r"{name} is cut short: it should hold [\d,]+ bytes and holds [\d,]+\. Fetch it again\."),
    "cut in the header": ("high_noise_expert", lambda: HIGH.read_bytes()[:500], UNREADABLE),
    "cut in the length": ("high_noise_expert", lambda: HIGH.read_bytes()[:5], UNREADABLE),
    "cut vae": ("vae", lambda: VAE.read_bytes()[:-1], r"{name} is cut short"),
    "cut gguf": ("high_noise_expert", lambda: b"GGUF\x03\0\0\0", r"{name} is cut short \(8 bytes\) or damaged"),
    "text": ("high_noise_expert", lambda: b"These are not the weights.\n", UNREADABLE),
    "html": ("high_noise_expert", lambda: b"<!doctype html><html>Sign in</html>",
             r"{name} is a web page, not weights\."),
    "lfs pointer": ("vae", lambda: LFS_POINTER, r"{name} is a Git LFS pointer, not the weights\. Run `git lfs pull`"),
    "no json": ("high_noise_expert", lambda: (4).to_bytes(8, "little") + b"abcd",
                r"{name} is not a safetensors file, or it is damaged: its header cannot be read"),
    "longer": ("high_noise_expert", lambda: HIGH.read_bytes() + bytes(10),
               r"{name} is damaged: it should hold [\d,]+ bytes and holds [\d,]+\. Fetch it again\."),
    "no tensors": ("high_noise_expert", lambda: save({}), r"{name} holds no Wan transformer\. Choose "),
    "t2v": ("high_noise_expert", with_input_channels(16),
            r"{name} is a text-to-video model: 16 input channels, Wan 2\.2 I2V-A14B needs 36\. Choose "),
    "5b": ("low_noise_expert", with_input_channels(48), r"{name} is a 5B text-and-image-to-video model: 48 input"),
    "wan 2.1": ("high_noise_expert",
                edited(HIGH, lambda t: t.update({"img_emb.proj.0.weight": np.zeros(4, np.float16)})),
                r"{name} is a Wan 2\.1 image-to-video model \(it has an image projection\), " + NOT_AN_EXPERT),
    "vae as expert": ("high_noise_expert", VAE.read_bytes, r"{name} is the VAE of Wan 2\.1, " + NOT_AN_EXPERT),
    "lora as expert": ("low_noise_expert", lora, r"{name} is a LoRA, " + NOT_AN_EXPERT),
    "expert as vae": ("vae", HIGH.read_bytes,
                      r"{name} is a Wan 2\.2 I2V-A14B expert, not the VAE of Wan 2\.1 \(16 channels\), which the 14B "
                      r"models use\. Choose wan_2\.1_vae\.safetensors\."),
    "expert as text encoder": ("text_encoder", HIGH.read_bytes,
                               r"{name} is a Wan 2\.2 I2V-A14B expert, not a UMT5 text encoder\. Choose "),
    "vae as text encoder": ("text_encoder", VAE.read_bytes,
                            r"{name} is the VAE of Wan 2\.1, not a UMT5 text encoder\."),
    "vae of 5b": ("vae", edited(VAE, lambda t: t.update({"conv2.weight": np.zeros((48, 48, 1, 1, 1), np.float16)})),
                  r"{name} is the VAE of Wan 2\.2 5B \(48 latent channels\), not the VAE of Wan 2\.1"),
    "no vocabulary": ("text_encoder", missing(TEXT_ENCODER, "spiece_model"), r"{name} holds no vocabulary"),
}

BAD_INSIDE: Cases = {
    "key missing": ("low_noise_expert", missing(HIGH, "blocks.1.self_attn.q.weight"),
                    NOT_WHOLE + r"blocks\.1\.attn1\.to_q\.weight missing\."),
    "key missing that tells a size": ("high_noise_expert", missing(HIGH, "blocks.0.ffn.0.weight"), NOT_WHOLE),
    "extra key": ("high_noise_expert", edited(HIGH, lambda t: t.update(EXTRA)),
                  NOT_WHOLE + r"blocks\.0\.extra\.weight not known\."),
    "odd shape": ("high_noise_expert",
                  edited(HIGH, lambda t: t.update({"blocks.0.norm3.weight": np.zeros(3, np.float16)})),
                  r"{name} is not a usable Wan 2\.2 I2V-A14B expert: blocks\.0\.norm2\.weight is \(3,\) and should be"),
    "vae key missing": ("vae", missing(VAE, "decoder.conv1.weight"), r"{name} is not a whole Wan 2\.1 VAE"),
    "vae key missing that tells a size": ("vae", missing(VAE, "conv2.weight"), r"{name} is not a whole Wan 2\.1 VAE"),
    "text encoder key missing": ("text_encoder", missing(TEXT_ENCODER, "encoder.final_layer_norm.weight"),
                                 r"{name} is not a whole UMT5 encoder"),
    "text encoder key missing that tells a size": ("text_encoder", missing(TEXT_ENCODER, "shared.weight"),
                                                   r"{name} is not a whole UMT5 encoder"),
}


def put(folders: ModelFolders, case: str, cases: Cases) -> tuple[str, str, str]:
    """Write a case's file; returns its name, the input it is for and the pattern of its sentence."""
    widget, content, sentence = cases[case]
    name = f"{case.replace(' ', '_')}.safetensors"
    folders.put(name, widget, content())
    return name, widget, sentence.format(name=re.escape(name))


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_file_whose_header_shows_that_it_is_wrong_is_refused(comfy: ComfyClient, clip: Workflow,
                                                               folders: ModelFolders, case: str):
    name, widget, sentence = put(folders, case, BAD_HEADERS)
    (said,) = refused(comfy, changed(clip, "load", **{widget: name}), "load")
    assert re.match(sentence, said), said
    assert name not in offered(comfy, widget)


@pytest.mark.parametrize("case", BAD_INSIDE)
def test_a_file_that_turns_out_to_be_wrong_fails_on_its_node(comfy: ComfyClient, clip: Workflow, folders: ModelFolders,
                                                            case: str):
    name, widget, sentence = put(folders, case, BAD_INSIDE)
    said = failing(comfy, changed(clip, "load", **{widget: name}), "load")
    assert re.match(sentence, said), said


def test_two_wrong_files_get_a_sentence_each(comfy: ComfyClient, clip: Workflow):
    (said,) = refused(comfy, changed(clip, "load", vae="a", high_noise_expert="b"), "load")
    assert said.startswith("b is not in ComfyUI's diffusion_models folder.")
    assert " a is not in ComfyUI's vae folder." in said


@pytest.mark.parametrize("widget", FOLDERS)
@pytest.mark.parametrize("name", ["nowhere.safetensors", "../custom_nodes.yaml", ""])
def test_a_file_that_is_not_there_is_refused(comfy: ComfyClient, clip: Workflow, widget: str, name: str):
    assert refused(comfy, changed(clip, "load", **{widget: name}), "load") == {
        f"{name} is not in ComfyUI's {FOLDERS[widget]} folder. Refresh the list of files (R on the canvas), or choose "
        "another."}


# ---- the lists --------------------------------------------------------------------------------------------------


def offered(comfy: ComfyClient, widget: str) -> list[str]:
    """Return the choices of a list of Load Wan 2.2."""
    (node,) = comfy.get("/object_info/Wan22Load").values()
    return node["input"]["required"][widget][1]["options"]


def expert_gguf(path: Path) -> bytes:
    """The bundled expert as a GGUF file in float16."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in load_file(HIGH).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_lists_show_only_what_fits(comfy: ComfyClient, folders: ModelFolders, tmp_path: Path):
    files = {
        "list_wan_high_noise.safetensors": ("high_noise_expert", HIGH.read_bytes()),
        "sub/list_wan_low_noise.safetensors": ("high_noise_expert", HIGH.read_bytes()),
        "list_wan.gguf": ("high_noise_expert", expert_gguf(tmp_path / "wan.gguf")),
        "list_folder/config.json": ("high_noise_expert", b"{}"),
        "list_folder/diffusion_pytorch_model.safetensors": ("high_noise_expert", HIGH.read_bytes()),
        "list_t2v.safetensors": ("high_noise_expert", with_input_channels(16)()),
        "list_lora.safetensors": ("high_noise_expert", lora()),
        "list_vae_among_experts.safetensors": ("high_noise_expert", VAE.read_bytes()),
        "list_vae.safetensors": ("vae", VAE.read_bytes()),
        "list_expert_among_vaes.safetensors": ("vae", HIGH.read_bytes()),
        "list_broken_vae.safetensors": ("vae", b"<html>"),
        "list_umt5.safetensors": ("text_encoder", TEXT_ENCODER.read_bytes()),
        "list_cut_umt5.safetensors": ("text_encoder", TEXT_ENCODER.read_bytes()[:-5]),
    }
    for name, (widget, content) in files.items():
        folders.put(name, widget, content)
    shown = {widget: [name for name in offered(comfy, widget) if "list_" in name] for widget in FOLDERS}
    low = str(Path("sub") / "list_wan_low_noise.safetensors")
    assert shown == {
        "high_noise_expert": ["list_folder", "list_wan.gguf", "list_wan_high_noise.safetensors", low],
        "low_noise_expert": ["list_folder", "list_wan.gguf", low, "list_wan_high_noise.safetensors"],
        "text_encoder": ["list_umt5.safetensors"],
        "vae": ["list_vae.safetensors"],
    }
    assert all(offered(comfy, widget)[0] == "bundled demo model" for widget in FOLDERS)


def test_a_file_of_any_name_can_be_given(comfy: ComfyClient, clip: Workflow, folders: ModelFolders):
    folders.put("unlisted.weights", "vae", VAE.read_bytes())
    assert "unlisted.weights" not in offered(comfy, "vae")
    comfy.finish(changed(clip, "load", vae="unlisted.weights"))


def test_experts_in_each_others_place_are_told_of_and_used(comfy: ComfyClient, clip: Workflow, folders: ModelFolders):
    for noise in ("high", "low"):
        folders.put(f"mine_{noise}_noise.safetensors", "high_noise_expert", HIGH.read_bytes())
    high, low = "mine_high_noise.safetensors", "mine_low_noise.safetensors"

    def said(first: str, second: str) -> list[str]:
        return comfy.finish(changed(clip, "load", high_noise_expert=first, low_noise_expert=second)).texts("load")

    assert said(high, low) == []
    (swapped,) = said(low, high)
    assert swapped.startswith(f"{low} is named as the low-noise expert but chosen for high noise.")
    assert f" {high} is named as the high-noise expert but chosen for low noise." in swapped
    (same,) = said(high, high)
    assert same.startswith(f"{high} is chosen as both experts;")


def test_a_file_that_goes_away_while_the_run_waits(comfy: ComfyClient, clip: Workflow, folders: ModelFolders):
    file = folders.put("goes.safetensors", "high_noise_expert", HIGH.read_bytes())
    before = changed(clip, "sampler", seed=99, num_inference_steps=50)
    deleted = threading.Event()

    def on_event(event: Event) -> None:
        if event.kind == "progress" and not deleted.is_set():
            waiting.append(comfy.submit(changed(clip, "load", high_noise_expert=file.name)))
            file.unlink()
            deleted.set()
            comfy.cancel(first)

    waiting: list[str] = []
    first = comfy.submit(before)
    comfy.follow(first, on_event)
    run = comfy.follow(waiting[0])
    assert (run.outcome, run.error["node_id"]) == ("execution_error", "load")
    sentence = run.error["exception_message"].strip()
    assert sentence.startswith("goes.safetensors is not in ComfyUI's diffusion_models folder.")
    assert run.texts("load") == [sentence]


# ---- afterwards -------------------------------------------------------------------------------------------------


def test_compile_without_a_compiler(comfy: ComfyClient, clip: Workflow):
    """The server of the tests is told of a compiler that is not there."""
    said = failing(comfy, changed(clip, "load", compile=True), "load")
    assert said.startswith("compile is on, but nothing can be compiled for this machine's CPU: ")


def test_the_server_makes_a_clip_after_all_this(comfy: ComfyClient, clip: Workflow):
    comfy.forget()
    run = comfy.finish(clip)
    assert set(run.executed) == set(clip)
    (mp4,) = comfy.files(run, "save")
    assert mp4[4:8] == b"ftyp"
