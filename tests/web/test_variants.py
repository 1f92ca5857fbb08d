"""The variants tab in a real browser: from the open workflow to a grid of clips, over a reload and a restart.

The network between page and server is held or cut where a test says so; what answers is the real ComfyUI.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from devtools.server import ComfyServer
from devtools.workflow import Workflow
from pipeline.remote.providers import PROVIDERS
from tests.support.canvas import NODES_2, Canvas
from tests.support.comfy_outside import PICTURE, Outside, remote_node
from tests.support.providers.job import FOREVER, Script

TAB = "wan22-variants"
PROMPTS = ("everything turns red", "the scene fades to black")
CELL = ".wan22-variants-cell"
SET = """([type, name, value]) => {
    const node = window.app.graph.nodes.find(node => node.type === type);
    node.widgets.find(widget => widget.name === name).value = value;
}"""
GET = """([type, name]) => window.app.graph.nodes.find(node => node.type === type)
    ?.widgets.find(widget => widget.name === name).value"""
FILE = "/userdata/wan22%2Fvariants.json"
CORE = {"1": {"class_type": "EmptyImage", "_meta": {"title": "Still"},
              "inputs": {"width": 64, "height": 64, "batch_size": 5, "color": 0}},
        "2": {"class_type": "SaveWEBM", "inputs": {"images": ["1", 0], "filename_prefix": "core", "codec": "vp9",
                                                   "fps": 24.0, "crf": 32.0}}}
"""A clip without a node of the pack: the list of jobs never has its runs."""
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
    load_demo(canvas, num_frames=5, steps=4)
    open_tab(canvas)
    yield canvas
    canvas.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A ComfyUI with every provider's key, whose providers are on loopback."""
    shop = Outside(tmp_path_factory.mktemp("shop"), pace=0.05)
    shop.server.environ |= {PROVIDERS[name].variables[0]: provider.key for name, provider in shop.providers.items()
                            if PROVIDERS[name].variables}
    with shop:
        yield shop
        shop.check()


def open_tab(canvas: Canvas) -> None:
    canvas.page.locator(f".{TAB}-tab-button, [data-testid={TAB}-tab-button]").click()
    canvas.page.locator(".wan22-variants").wait_for()


def load_demo(canvas: Canvas, num_frames: int, steps: int) -> None:
    canvas.load(json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8")))
    canvas.page.evaluate(SET, ["Wan22FirstFrame", "num_frames", num_frames])
    canvas.page.evaluate(SET, ["Wan22Sampler", "num_inference_steps", steps])


def load(canvas: Canvas, graph: Workflow) -> None:
    canvas.page.evaluate("graph => window.app.loadApiJson(graph, 'test')", graph)


def kept(own: ComfyServer) -> list[str]:
    """The variants' captions in the user's file."""
    found = json.loads(own.request(FILE))["variants"]
    return [", ".join(str(change["value"]) for change in one["changes"]) for one in found]


def vary(canvas: Canvas, title: str, name: str, value: str) -> None:
    """Choose an input to vary, and its values."""
    choice = canvas.page.get_by_label("Input to vary")
    choice.focus()
    option = choice.locator(f"optgroup[label='{title}'] option", has_text=name).first
    option.wait_for(state="attached")
    choice.select_option(value=option.get_attribute("value"))
    canvas.page.get_by_label(f"{title}: {name}", exact=True).fill(value)


def vary_nothing(canvas: Canvas) -> None:
    for remove in canvas.page.get_by_role("button", name="Do not vary this input").all()[::-1]:
        remove.click()


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


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


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


def test_what_is_discarded_while_it_is_queued_is_not_made(canvas: Canvas, own: ComfyServer) -> None:
    """The run that was sent already is taken out of the queue again; one that cannot be stays to be seen."""
    load_demo(canvas, num_frames=81, steps=100)
    vary(canvas, "Sampler", "seed", "4")
    held: list[Any] = []
    canvas.page.route("**/api/prompt", lambda route: held.append(route))
    with canvas.page.expect_request("**/api/prompt"):
        queue(canvas, 4)
    canvas.page.locator(CELL).nth(4).wait_for()
    canvas.page.get_by_role("button", name="Discard those without a star").click()
    canvas.page.locator(CELL).nth(1).wait_for(state="detached")
    with canvas.page.expect_response("**/cancel") as stopped:
        held[0].continue_()
    assert stopped.value.json() == {"cancelled": True}
    canvas.page.locator(".wan22-variants-run:enabled").wait_for()
    assert len(held) == 1 and len(kept(own)) == 1
    assert open_runs(canvas, own, 0) == []
    canvas.page.unroute("**/api/prompt")

    queue(canvas, 4)
    assert len(open_runs(canvas, own, 4)) == 4
    canvas.page.route("**/cancel", lambda route: route.fulfill(status=500, body="The disk is full."))
    canvas.page.locator(CELL).nth(4).get_by_role("button", name="Discard").click()
    canvas.page.get_by_text("The disk is full.").first.wait_for()
    assert canvas.page.locator(CELL).count() == 5
    canvas.page.unroute("**/cancel")
    canvas.page.get_by_role("button", name="Discard those without a star").click()
    canvas.page.locator(CELL).nth(1).wait_for(state="detached")
    assert open_runs(canvas, own, 0) == []
    assert all("/cancel" in error or "/api/jobs/" in error for error in canvas.errors)
    canvas.errors.clear()


def test_two_pages_keep_each_others_variants(canvas: Canvas, own: ComfyServer) -> None:
    """And a page that could not read the file does not take it for an empty one."""
    with canvas.context.new_page() as page:
        other = Canvas.__new__(Canvas)
        other.page = page
        page.set_default_timeout(180_000)
        page.route(f"**{FILE}", lambda route: route.fulfill(status=500))
        page.goto(own.url)
        open_tab(other)
        page.get_by_text("The list of variants could not be read: 500").first.wait_for()
        before = kept(own)
        page.unroute(f"**{FILE}")
        load(canvas, CORE)
        vary_nothing(canvas)
        vary(canvas, "Still", "color", "16711680")
        queue(canvas, 1)
        made(canvas, len(before) + 1, len(before) + 1)  # although its run is in no list of jobs
        load(other, CORE)
        vary(other, "Still", "color", "255, 65280")
        queue(other, 2)
        made(other, len(before) + 3, len(before) + 3)
        assert kept(own) == [*before, "16711680", "255", "65280"]
        canvas.page.locator(CELL, has_text="16711680").get_by_role("button", name="Discard").click()
        canvas.page.locator(CELL, has_text="16711680").wait_for(state="detached")
        canvas.page.locator(CELL, has_text="65280").wait_for()
        page.locator(CELL, has_text="255").get_by_role("button", name="Keep").click()
        page.locator(CELL, has_text="16711680").wait_for(state="detached")
        assert kept(own) == [*before, "255", "65280"]
        assert json.loads(own.request(FILE))["variants"][-2]["kept"]
    assert canvas.errors == []


def test_what_is_queued_is_of_the_workflow_as_it_is(canvas: Canvas, own: ComfyServer) -> None:
    vary_nothing(canvas)
    before = kept(own)
    sampled = CORE | {"3": {"class_type": "RandomNoise", "_meta": {"title": "Noise"}, "inputs": {"noise_seed": 5}},
                      "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}}
    load(canvas, sampled)
    vary(canvas, "Noise", "noise_seed", "2")
    canvas.page.evaluate(SET, ["RandomNoise", "noise_seed", 70])
    queue(canvas, 2)
    made(canvas, len(before) + 2, len(before) + 2)
    assert kept(own) == [*before, "70", "71"]

    other = canvas.page.evaluate("window.app.graph.serialize()") | {"id": str(uuid.uuid4())}
    canvas.load(other)  # the same nodes, of another workflow
    canvas.page.get_by_role("button", name="Queue", exact=True).click()
    canvas.page.get_by_text("is no longer in the workflow").first.wait_for()
    assert len(kept(own)) == len(before) + 2
    names = """async graph => {
        const script = performance.getEntriesByType('resource').find(({name}) => name.endsWith('/variants/axes.js'));
        return (await import(script.name)).findAxes(graph).map(({name}) => name);
    }"""
    sent = canvas.prompt()
    assert {"codec", "fps"} <= {*canvas.page.evaluate(names, sent)}
    sent["2"]["inputs"]["codec"] = ["4", 0]
    found = canvas.page.evaluate(names, sent)
    assert "codec" not in found and "fps" in found, "a linked input has no values of its own"
    assert canvas.errors == []


def test_bought_clips_that_ended_while_the_page_was_elsewhere(browser: Any, shop: Outside) -> None:
    fal = shop.providers["fal"]
    fal.script = Script(queued=0, running=FOREVER)
    canvas = Canvas(browser, shop.server)
    load(canvas, {"1": PICTURE, "2": remote_node("fal", 7, image=["1", 0]),
                  "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}}})
    open_tab(canvas)
    vary(canvas, canvas.page.evaluate("window.app.graph.nodes.find(node => node.type.startsWith('Wan22Remote')).title"),
         "seed", "3")
    queue(canvas, 3)
    bought = canvas.page.locator(CELL, has_text="Running at fal.ai")
    bought.get_by_role("button", name="Discard").click()
    dialog = canvas.page.get_by_role("dialog")
    dialog.get_by_text("is cancelled at fal.ai").wait_for()
    dialog.get_by_role("button", name="Confirm").click()
    canvas.page.locator(CELL, has_text="seed: 7").wait_for(state="detached")
    bought.wait_for()
    canvas.page.locator(CELL, has_text="Waiting").wait_for()
    canvas.page.goto("about:blank")
    assert [job.cancelled for job in fal.jobs.values()] == [True, False]
    fal.finish([*fal.jobs.values()][1])
    until(lambda: len(fal.jobs) == 3)
    fal.finish([*fal.jobs.values()][2])
    until(lambda: not any(json.loads(shop.server.request("/queue")).values()))
    canvas.open()
    open_tab(canvas)
    made(canvas, 2, 2)
    canvas.page.wait_for_function(PLAYING, arg=2)
    assert fal.accepted == 3
    assert canvas.errors == []
    canvas.close()
