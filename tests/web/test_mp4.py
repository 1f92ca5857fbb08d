"""MP4s in a real browser: they play, in the colours of the frames, and bring the workflow back when dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from devtools.paths import ROOT
from devtools.workflow import Workflow
from tests.support.canvas import READY, TIMEOUT
from tests.support.comfy_client import ComfyClient, added

# No strong blue: Chromium without a GPU shows it darker, and green bluer, whatever the file (libyuv's factor for blue
# ends at 2 where BT.709 has 2.11). Taken for BT.601 the red would be off by 14.
COLOURS = [(200, 30, 30), (30, 180, 30), (60, 60, 110), (128, 128, 128)]

PLAYED = """async url => {
    const video = document.createElement('video');
    video.muted = true;
    video.src = url;
    await new Promise((done, fail) => {
        video.onended = done;
        video.onerror = () => fail(new Error(video.error.message));
        video.play().catch(fail);
    });
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0);
    const middle = n => [...context.getImageData((n + 0.5) * canvas.width / 4, canvas.height / 2, 1, 1).data];
    return {size: [video.videoWidth, video.videoHeight], duration: video.duration, colours: [0, 1, 2, 3].map(middle)};
}"""
DROPPED = """async url => {
    const file = new File([await (await fetch(url)).blob()], 'clip.mp4', {type: 'video/mp4'});
    const dropped = new DataTransfer();
    dropped.items.add(file);
    const place = document.querySelector('#graph-canvas') ?? document.querySelector('canvas');
    place.dispatchEvent(new DragEvent('drop', {dataTransfer: dropped, bubbles: true, cancelable: true}));
}"""
HAS_SEED = """seed => window.app.graph.nodes.some(node => node.type === 'Wan22Sampler'
    && node.widgets.some(widget => widget.name === 'seed' && widget.value === seed))"""


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Any]:
    """A page on the server's origin."""
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    yield page
    page.close()


@pytest.fixture(scope="module")
def bars(comfy: ComfyClient) -> Workflow:
    """Nine frames of coloured bars, 128x64, and a sound."""
    picture = np.zeros((64, 128, 3), np.uint8)
    for n, colour in enumerate(COLOURS):
        picture[:, n * 32 : (n + 1) * 32] = colour
    graph = added({}, "picture", "LoadImage", image=comfy.upload("bars", picture))
    graph = added(graph, "frames", "RepeatImageBatch", image=["picture", 0], amount=9)
    return added(graph, "sound", "EmptyAudio", duration=3.0, sample_rate=44100, channels=2)


def saved(comfy: ComfyClient, graph: Workflow, canvas: dict[str, Any] | None = None, **settings: Any) -> str:
    """Address of the file that Save MP4 makes of the frames."""
    graph = added(graph, "save", "Wan22SaveMP4", images=["frames", 0], fps=16.0, filename_prefix="browser/clip",
                  **settings)
    run = comfy.run(graph, canvas=canvas)
    assert run.outcome == "execution_success", run.events[-1]
    (entry,) = comfy.history(run.prompt_id)["outputs"]["save"]["images"]
    return f"{comfy.server.url}/view?filename={entry['filename']}&subfolder={entry['subfolder']}&type=output"


@pytest.mark.parametrize("settings", [
    {}, {"audio": ["sound", 0]}, {"pix_fmt": "yuv420p10le"}, {"pix_fmt": "yuv444p"}, {"codec": "av1"}], ids=str)
def test_it_plays_in_the_colours_of_the_frames(comfy: ComfyClient, page: Any, bars: Workflow, settings: dict) -> None:
    url = saved(comfy, bars, **settings)
    page.goto(f"{comfy.server.url}/system_stats")
    shown = page.evaluate(PLAYED, url)
    assert shown["size"] == [128, 64]
    assert shown["duration"] == pytest.approx(9 / 16, abs=0.003)
    assert np.abs(np.array(shown["colours"])[:, :3] - COLOURS).max() <= 6, shown["colours"]


@pytest.mark.parametrize("with_canvas", [True, False])
def test_a_dropped_file_brings_the_workflow_back(comfy: ComfyClient, page: Any, bars: Workflow, clip: Workflow,
                                                 with_canvas: bool) -> None:
    """The drawn workflow, or for a graph that was sent without a canvas the graph itself."""
    canvas = json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8"))
    seed = 1234 if with_canvas else 4321
    if with_canvas:
        sampler = next(node for node in canvas["nodes"] if node["type"] == "Wan22Sampler")
        seeds = [n for n, value in enumerate(sampler["widgets_values"]) if value == 0]
        sampler["widgets_values"][seeds[0]] = seed
        url = saved(comfy, bars, canvas=canvas)
    else:
        clip["sampler"]["inputs"]["seed"] = seed
        clip["frames"] = clip.pop("decode")
        del clip["save"]
        url = saved(comfy, clip)
    page.goto(comfy.server.url)
    page.wait_for_function(READY)
    assert not page.evaluate(HAS_SEED, seed)
    page.evaluate(DROPPED, url)
    page.wait_for_function(HAS_SEED, arg=seed)
