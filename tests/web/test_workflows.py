"""Every shipped workflow in ComfyUI's own canvas, in both renderers: it opens without a fault, and Run makes its clip.

The real weights are stood in for by the bundled ones under the real files' names, and the internet by servers on
loopback, so that loaders, links and providers run as they are in the file; only size and length are made small.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from devtools.paths import ROOT
from devtools.twins import TWINS, canvas_files, twin_of
from tests.nodes.test_workflows import BLUEPRINTS
from tests.support.canvas import Canvas
from tests.support.comfy_outside import Outside
from tests.support.hostile_server import File, HostileServer
from tests.support.lora_files import DRAIN

FILES = canvas_files()
BUNDLED = ROOT / "models" / "demo"
REAL = {
    "diffusion_models/wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": "diffusion_models/*high_noise*",
    "diffusion_models/wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": "diffusion_models/*low_noise*",
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": "text_encoders/*.safetensors",
    "vae/wan_2.1_vae.safetensors": "vae/*.safetensors",
}
"""Place below ComfyUI's models -> the bundled file that stands there."""
LINKS = {noise: (f"/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/loras/"
                 f"wan2.2_i2v_lightx2v_4steps_lora_v1_{noise}_noise.safetensors",
                 f"/ostris/wan22_i2v_14b_orbit_shot_lora/resolve/main/wan22_14b_i2v_orbit_{noise}_noise.safetensors")
         for noise in ("high", "low")}
SMALL = {"width": 96, "height": 96, "num_frames": 5, "num_inference_steps": 4}
MAKE_SMALL = """values => {
    for (const node of window.app.graph.nodes.filter(node => node.type !== 'Wan22RemoteImageToVideo')) {
        const named = name => node.widgets?.find(widget => widget.name === name)
        if (named('resolution')) named('resolution').value = 'custom'
        const goesOn = node.type === 'Wan22Segment' || node.type === 'Wan22ExtendClip' || named('prompt_2')
        for (const [name, value] of Object.entries(values)) {
            const widget = named(name) ?? named('resolution.' + name)
            if (widget) widget.value = goesOn && name === 'num_frames' ? value + 4 : value  // 5 are known already
        }
    }
}"""
FAULTS = """() => window.app.graph.nodes
    .filter(node => !(node.type in window.LiteGraph.registered_node_types) || node.has_errors)
    .map(node => node.type)"""
BOXES = """() => {
    const drawn = [...document.querySelectorAll('[data-node-id]')]
    return Object.fromEntries(window.app.graph.nodes.map(node => {
        const element = drawn.find(element => element.dataset.nodeId === String(node.id))
        if (!element) { const [x, y, w, h] = node.getBounding(); return [node.title, [x, y, x + w, y + h]] }
        const {left, top, right, bottom} = element.getBoundingClientRect()
        return [node.title, [left, top, right, bottom]]
    }))
}"""
PLAYS = """() => [...document.querySelectorAll('video')].some(video => video.readyState >= 2 && video.videoWidth)"""
STOP_AT = """step => window.app.api.addEventListener('progress', function stop({detail}) {
    if (detail.value !== step) return
    window.app.api.removeEventListener('progress', stop)
    document.querySelector("[aria-label='Cancel current run']").click()
})"""
BUNDLED_CLIP = """() => {
    const {graph} = window.app, loader = graph.nodes.find(node => node.type === 'CLIPLoader')
    if (!loader) return
    const bundled = window.LiteGraph.createNode('Wan22Load')
    graph.add(bundled)
    for (const id of [...loader.outputs[0].links]) {
        const {target_id, target_slot} = graph.getLink(id)
        const clip = bundled.outputs.findIndex(output => output.name === 'clip')
        bundled.connect(clip, graph.getNodeById(target_id), target_slot)
    }
    graph.remove(loader)
}"""
"""Core's Load CLIP knows UMT5 in its one real size alone, so the bundled encoder comes from our loader."""
USE_BLUEPRINT = """() => {
    const {graph} = window.app, [made] = graph.nodes
    const [picture, save] = ['LoadImage', 'SaveVideo'].map(type => window.LiteGraph.createNode(type))
    for (const node of [picture, save]) graph.add(node)
    picture.widgets[0].value = 'wan22_coffee.png'
    picture.connect(0, made, made.inputs.findIndex(input => input.name === 'image'))
    made.connect(0, save, 0)
}"""


@pytest.fixture(scope="module")
def keys(outside: Outside, internet: HostileServer) -> Iterator[None]:
    """A key for every provider, and LoRAs at Hugging Face."""
    for noise, links in LINKS.items():
        lora = DRAIN[noise]
        internet.routes.update(dict.fromkeys(links, File(lora.read_bytes())))
    outside.spent_long_ago()  # one of the workflows has a limit for a day
    with outside.keys({name: provider.key for name, provider in outside.providers.items()}):
        yield


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes 2.0"])
def canvas(request: pytest.FixtureRequest, browser: Any, outside: Outside, keys: None) -> Iterator[Canvas]:
    """Opened where no real weights are."""
    for name in REAL:
        (outside.server.base / "models" / name).unlink(missing_ok=True)
    with closing(Canvas(browser, outside.server, Comfy_VueNodes_Enabled=request.param)) as canvas:
        yield canvas


@pytest.fixture
def real_weights(outside: Outside, canvas: Canvas) -> None:
    """Files under the names of the real weights, which the canvas knows of."""
    models = outside.server.base / "models"
    if not all((models / name).is_file() for name in REAL):
        for name, bundled in REAL.items():
            (source,) = BUNDLED.glob(bundled)
            (models / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, models / name)
        canvas.open()


def opened(canvas: Canvas, path: Path) -> None:
    """Open a file as the template browser does."""
    canvas.page.evaluate("async ([workflow, name]) => "
                         "await window.app.loadGraphData(workflow, true, true, name, {openSource: 'template'})",
                         [json.loads(path.read_text("utf-8")), path.stem])


def test_comfyui_offers_the_weights_that_are_missing(canvas: Canvas) -> None:
    for path in (TWINS.parent / "image-to-video.json", TWINS.parent / "core-loaders-bridge.json", *BLUEPRINTS):
        opened(canvas, path)
        canvas.page.get_by_role("button", name="View details").click()
        for name in REAL:
            canvas.page.get_by_text(Path(name).name).first.wait_for()
        canvas.page.get_by_text("Download", exact=True).nth(len(REAL) - 1).wait_for()
    assert canvas.errors == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_opens_without_a_fault_and_its_twin_is_what_run_sends(canvas: Canvas, real_weights: None,
                                                                 path: Path) -> None:
    opened(canvas, path)
    assert canvas.page.evaluate(FAULTS) == []
    assert (TWINS / path.name).read_text("utf-8") == twin_of(canvas, path), "run `python3 dev.py twins`"
    for (name, a), (other, b) in combinations(canvas.page.evaluate(BOXES).items(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{name} and {other}"
    assert canvas.errors == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_run_makes_a_clip_that_plays(canvas: Canvas, real_weights: None, path: Path) -> None:
    opened(canvas, path)
    canvas.page.evaluate(MAKE_SMALL, SMALL)
    canvas.page.evaluate(BUNDLED_CLIP)
    canvas.run()
    canvas.page.wait_for_function(PLAYS)
    assert canvas.errors == []


def test_a_long_clip_is_stopped_and_gone_on_with(canvas: Canvas, real_weights: None) -> None:
    """Press Stop in segment 2, then Run again."""
    opened(canvas, TWINS.parent / "long-clip.json")
    canvas.page.evaluate(MAKE_SMALL, {**SMALL, "num_inference_steps": 10})
    # of its own in each renderer, or the second would find the segments of the first on the disk
    name = canvas.page.evaluate("""() => {
        const widgets = window.app.graph.nodes.find(node => node.type === 'Wan22LongClip').widgets
        return widgets.find(widget => widget.name === 'filename_prefix').value = `stopped/${Date.now()}`
    }""")
    said = canvas.page.get_by_text
    canvas.page.evaluate(STOP_AT, 13)  # of 30 steps
    with pytest.raises(AssertionError, match="Wan22LongClip"):
        canvas.run()
    said("Stopped in segment 2 of 3. Run the same again").first.wait_for()
    output = canvas.server.base / "output"
    assert (output / f"{name}_segments" / "so_far.mp4").is_file() and not list(output.glob(f"{name}*.mp4"))
    canvas.errors.clear()  # of the run that was stopped

    canvas.run()
    said("Segment 1 (9 frames): taken from the disk.").first.wait_for()
    said("Segment 2 (9 frames): made; joint: seam").first.wait_for()
    canvas.page.wait_for_function(PLAYS)
    assert canvas.errors == []

    # The previews of another run are pictures, though the node has a clip: ComfyUI must not try to play them.
    canvas.page.evaluate("""() => {
        const {widgets} = window.app.graph.nodes.find(node => node.type === 'Wan22LongClip')
        widgets.find(widget => widget.name === 'filename_prefix').value += '-again'
        window.previews = 0
        window.app.api.addEventListener('b_preview_with_metadata', () => window.previews++)
    }""")
    canvas.run()
    assert canvas.page.evaluate("() => window.previews") > 0
    assert canvas.errors == []


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda p: p.stem)
def test_the_blueprint_makes_a_clip_that_plays(canvas: Canvas, real_weights: None, path: Path) -> None:
    opened(canvas, path)
    assert canvas.page.evaluate(FAULTS) == []
    canvas.page.evaluate(USE_BLUEPRINT)
    canvas.page.evaluate(MAKE_SMALL, SMALL)
    canvas.run()
    canvas.page.wait_for_function(PLAYS)
    assert canvas.errors == []


def test_a_graph_that_the_server_refuses_is_told_at_once(canvas: Canvas) -> None:
    """Of the tests' own canvas: a refused graph has no end that could be waited for."""
    canvas.page.evaluate("() => { const {graph} = window.app; graph.clear(); "
                         "graph.add(window.LiteGraph.createNode('Wan22Notify')) }")
    with pytest.raises(AssertionError, match="callback_url is empty"):
        canvas.run()
    canvas.errors.clear()
