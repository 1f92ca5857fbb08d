"""The variants tab in a real browser: from the open workflow to a grid of clips, over a reload and a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from devtools.server import ComfyServer
from tests.support.canvas import NODES_2, Canvas

TAB = "wan22-variants"
PROMPTS = ("everything turns red", "the scene fades to black")
CELL = ".wan22-variants-cell"
SET = """([type, name, value]) => {
    const node = window.app.graph.nodes.find(node => node.type === type);
    node.widgets.find(widget => widget.name === name).value = value;
}"""
GET = """([type, name]) => window.app.graph.nodes.find(node => node.type === type)
    ?.widgets.find(widget => widget.name === name).value"""
PLAYING = """count => [...document.querySelectorAll('.wan22-variants-cell video')]
    .filter(video => video.readyState > 2 && !video.paused).length === count"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI that is stopped and started again."""
    base = tmp_path_factory.mktemp("variants")
    with ComfyServer(local_comfyui(), base, base / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def canvas(browser: Any, own: ComfyServer) -> Iterator[Canvas]:
    canvas = Canvas(browser, own, **{NODES_2.replace(".", "_"): True})
    canvas.load(json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8")))
    canvas.page.evaluate(SET, ["Wan22FirstFrame", "num_frames", 5])
    canvas.page.evaluate(SET, ["Wan22Sampler", "num_inference_steps", 4])
    open_tab(canvas)
    yield canvas
    canvas.close()


def open_tab(canvas: Canvas) -> None:
    canvas.page.locator(f".{TAB}-tab-button, [data-testid={TAB}-tab-button]").click()
    canvas.page.locator(".wan22-variants").wait_for()


def vary(canvas: Canvas, title: str, name: str, value: str) -> None:
    """Choose an input to vary, and its values."""
    choice = canvas.page.get_by_label("Input to vary")
    choice.focus()
    option = choice.locator(f"optgroup[label='{title}'] option", has_text=name).first
    option.wait_for(state="attached")
    choice.select_option(value=option.get_attribute("value"))
    canvas.page.get_by_label(f"{title}: {name}", exact=True).fill(value)


def queue(canvas: Canvas, count: int) -> None:
    canvas.page.locator(".wan22-variants-total", has_text=f"{count} clips").wait_for()
    canvas.page.get_by_role("button", name="Queue", exact=True).click()


def made(canvas: Canvas, count: int, of: int) -> None:
    canvas.page.locator(".wan22-variants-made", has_text=f"{count} of {of} made").wait_for()


def open_runs(canvas: Canvas, own: ComfyServer, count: int) -> list[str]:
    """Wait until so many runs are in ComfyUI's queue, for a minute; return the ids of those that are."""
    until = time.monotonic() + 60
    while True:
        queue = json.loads(own.request("/queue"))
        found = sorted(run[1] for run in (*queue["queue_running"], *queue["queue_pending"]))
        if len(found) == count or time.monotonic() > until:
            return found
        canvas.page.wait_for_timeout(100)  # the page's requests go on meanwhile


def test_every_combination_is_made_and_plays(canvas: Canvas) -> None:
    vary(canvas, "Sampler", "seed", "2")
    vary(canvas, "Prompt", "prompt", "\n".join(PROMPTS) + "\n")
    queue(canvas, 4)
    made(canvas, 4, 4)
    canvas.page.wait_for_function(PLAYING, arg=4)
    told = canvas.page.locator(".wan22-variants-changes").all_inner_texts()
    assert told == [f"seed: {seed}\nprompt: {prompt}" for seed in (0, 1) for prompt in PROMPTS]
    files = canvas.page.locator(f"{CELL} a").evaluate_all("links => links.map(link => link.href)")
    assert len({canvas.page.request.get(url).body() for url in files}) == 4

    cell = canvas.page.locator(CELL).nth(2)
    cell.get_by_role("button", name="Open its workflow").click()
    canvas.page.wait_for_function(f"([want, ...given]) => ({GET})(given) === want", arg=[1, "Wan22Sampler", "seed"])
    assert canvas.page.evaluate(GET, ["Wan22EncodePrompt", "prompt"]) == PROMPTS[0]
    assert canvas.errors == []


def test_what_is_kept_and_what_is_queued_survives_a_reload_and_a_restart(canvas: Canvas, own: ComfyServer) -> None:
    canvas.page.locator(CELL).nth(1).get_by_role("button", name="Keep").click()
    canvas.page.evaluate(SET, ["Wan22Sampler", "num_inference_steps", 100])
    canvas.page.evaluate(SET, ["Wan22FirstFrame", "num_frames", 81])
    queue(canvas, 4)
    canvas.page.locator(CELL).nth(7).wait_for()
    queued = open_runs(canvas, own, 4)
    with canvas.context.new_page() as other:  # a second tab, which asks for the runs too
        other.goto(own.url)
        other.locator(f".{TAB}-tab-button, [data-testid={TAB}-tab-button]").click()
        other.locator(CELL).nth(7).wait_for()
        own.stop()
        own.__enter__()
        canvas.open()
        open_tab(canvas)
        made(canvas, 4, 8)
        other.wait_for_timeout(3000)
    canvas.page.locator(CELL, has_text="Waiting").nth(2).wait_for()
    canvas.errors.clear()  # of the server that was gone, and of runs that the new one does not know
    assert open_runs(canvas, own, 4) == queued, "what ComfyUI forgot was queued again, once"
    own.request("/queue", json.dumps({"delete": queued[:1] + queued[-1:]}).encode())
    canvas.page.locator(CELL, has_text="Cancelled").first.wait_for()

    canvas.page.get_by_role("button", name="Queue the missing again").click()
    canvas.page.locator(CELL, has_text="Cancelled").first.wait_for(state="detached")
    canvas.page.get_by_role("button", name="Discard those without a star").click()
    made(canvas, 1, 1)
    assert json.loads(own.request("/queue"))["queue_pending"] == []
    assert all("/api/jobs/" in error for error in canvas.errors), "the runs that were taken out are unknown"
