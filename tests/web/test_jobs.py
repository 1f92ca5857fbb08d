"""The jobs tab in a real browser, on a real ComfyUI whose providers are on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.workflow import Workflow
from pipeline.remote.database import opened
from pipeline.remote.job import JobState
from pipeline.remote.ledger import Ledger
from pipeline.remote.providers import PROVIDERS
from tests.support.canvas import Canvas
from tests.support.comfy_client import clip_workflow
from tests.support.comfy_outside import PICTURE, Outside, remote_node
from tests.support.faults import answer, reset
from tests.support.providers.job import FOREVER, Script
from tests.support.runner import OWN

TAB = "wan22-jobs"
PALE = """() => {
    const luminance = words => {
        const [r, g, b] = words.match(/[\\d.]+/g).map(Number);
        const scale = words.startsWith('color(') ? 1 : 255;
        const linear = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        const [R, G, B] = [r, g, b].map(value => linear(value / scale));
        return 0.2126 * R + 0.7152 * G + 0.0722 * B;
    };
    const ground = luminance(getComputedStyle(document.querySelector('.wan22-jobs')).backgroundColor);
    return [...document.querySelectorAll('.wan22-jobs *')].filter(one => one.checkVisibility()
            && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(one => {
        const ink = luminance(getComputedStyle(one).color);
        return [one.className, (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)];
    }).filter(([, contrast]) => contrast < 4.5);
}"""
"""Texts with less contrast than WCAG's 4.5, on the tab's own ground."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A ComfyUI of its own, which is stopped and started again, with every provider's key."""
    shop = Outside(tmp_path_factory.mktemp("shop"), pace=0.05)
    shop.server.environ |= {PROVIDERS[name].variables[0]: provider.key for name, provider in shop.providers.items()}
    shop.server.environ["WAN22_OWN_SERVER"] = shop.providers[OWN].address
    with shop:
        yield shop
        shop.check()


@pytest.fixture(scope="module")
def canvas(browser: Any, shop: Outside) -> Iterator[Canvas]:
    canvas = Canvas(browser, shop.server)
    canvas.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_tab(canvas)
    yield canvas
    canvas.close()


def open_tab(canvas: Canvas) -> None:
    canvas.page.locator(f".{TAB}-tab-button, [data-testid={TAB}-tab-button]").click()
    canvas.page.locator(".wan22-jobs").wait_for()


def reload(canvas: Canvas) -> None:
    canvas.open()
    open_tab(canvas)


def card(canvas: Canvas, job: str) -> Any:
    return canvas.page.locator(f".wan22-jobs-card[data-job='{job}']")


def newest(canvas: Canvas, words: str) -> str:
    """Wait for a job whose state reads so; its id."""
    found = canvas.page.locator(".wan22-jobs-card", has=canvas.page.locator(".wan22-jobs-state", has_text=words))
    found.first.wait_for()
    return found.first.get_attribute("data-job")


def reads(canvas: Canvas, job: str, words: str) -> None:
    """Wait until a job's state reads so."""
    card(canvas, job).locator(".wan22-jobs-state", has_text=words).wait_for()


def press(canvas: Canvas, job: str, action: str) -> None:
    card(canvas, job).locator(f"[data-action={action}]").click()


def width(canvas: Canvas, job: str) -> int:
    """Of the clip that is shown, once its first frame is."""
    shown = "job => document.querySelector(`[data-job='${job}'] video`)?.videoWidth"
    return canvas.page.wait_for_function(shown, arg=job).json_value()


def graph(name: str, seed: int) -> Workflow:
    return {"1": PICTURE, "2": remote_node(name, seed, image=["1", 0]),
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}}}


def load(canvas: Canvas, graph: Workflow) -> None:
    canvas.page.evaluate("graph => window.app.loadApiJson(graph, 'test')", graph)


def seeds(canvas: Canvas) -> list[int]:
    return canvas.page.evaluate("""() => window.app.graph.nodes.flatMap(node => node.widgets ?? [])
        .filter(widget => widget.name === 'seed').map(widget => widget.value)""")


def test_nothing_yet(canvas: Canvas) -> None:
    canvas.page.get_by_text("No clips yet.").wait_for()
    assert canvas.page.locator(".wan22-jobs-card").count() == 0
    assert "$0.00" in canvas.page.locator(".wan22-jobs-money").inner_text()
    assert canvas.errors == []


def test_a_bought_clip_from_the_run_button_to_the_file(canvas: Canvas, shop: Outside) -> None:
    """And it is there after the page is loaded again, while it is made and later."""
    fal = shop.providers["fal"]
    fal.script = Script(queued=1, running=FOREVER)
    load(canvas, graph("fal", 77))
    canvas.page.locator("[data-testid=queue-button]").first.click()
    job = newest(canvas, "Running at fal.ai")
    reload(canvas)
    reads(canvas, job, "Running at fal.ai")
    card(canvas, job).locator("[role=progressbar]").wait_for()
    fal.finish(list(fal.jobs.values())[-1])
    reads(canvas, job, "Done")
    assert width(canvas, job) == 96
    price = Ledger(shop.own).get(job).price
    assert f"${price:.3f}"[:5] in card(canvas, job).inner_text()
    assert f"${price:.3f}"[:5] in canvas.page.locator(".wan22-jobs-money").inner_text()
    press(canvas, job, "copy")
    canvas.page.get_by_text("Request copied to the clipboard").first.wait_for()
    asked = json.loads(canvas.page.evaluate("navigator.clipboard.readText()"))
    assert asked["seed"] == 77 and asked["provider"] == "fal" and fal.key not in json.dumps(asked)
    load(canvas, graph("fal", 5))
    press(canvas, job, "workflow")
    canvas.page.wait_for_function("window.app.graph.nodes.some(n => n.widgets?.some(w => w.value === 77))")
    assert seeds(canvas) == [77]
    assert canvas.errors == []


@pytest.mark.parametrize("name", ["fal", "wavespeed"])
def test_cancel_says_what_it_costs(name: str, canvas: Canvas, shop: Outside) -> None:
    provider = shop.providers[name]
    title = PROVIDERS[name].title
    provider.script = Script(queued=0, running=FOREVER)
    shop.comfy.submit(graph(name, 2))
    job = newest(canvas, f"Running at {title}")
    press(canvas, job, "cancel")
    dialog = canvas.page.get_by_role("dialog")
    dialog.get_by_text("is cancelled at" if name == "fal" else "cannot cancel").wait_for()
    dialog.get_by_role("button", name="Confirm").click()
    there = list(provider.jobs.values())[-1]
    if name == "fal":
        reads(canvas, job, "Cancelled")
        assert there.cancelled and card(canvas, job).locator("[data-action=resume]").count() == 0
        return
    reads(canvas, job, "not watched here")
    assert not there.cancelled
    press(canvas, job, "resume")
    reads(canvas, job, "Running at WaveSpeed")
    provider.finish(there)
    reads(canvas, job, "Done")
    assert provider.accepted == 1 and canvas.errors == []


def test_a_job_of_unknown_outcome_is_settled_on_the_canvas(canvas: Canvas, shop: Outside) -> None:
    shop.providers["atlascloud"].script = Script()
    shop.providers["atlascloud"].fail("submit", reset(after=True))
    shop.providers["atlascloud"].fail("history", answer(403, {"code": 403, "msg": "forbidden"}))
    shop.comfy.submit(graph("atlascloud", 3))
    job = newest(canvas, "Not known whether AtlasCloud accepted it")
    press(canvas, job, "settle")
    canvas.page.wait_for_function("window.app.graph.nodes.some(node => node.type === 'Wan22ResumeRemoteClip')")
    canvas.page.get_by_text("Did the provider accept the job?").first.wait_for()
    canvas.page.evaluate("""there => { window.app.graph.nodes.flatMap(node => node.widgets ?? [])
        .find(widget => widget.name === 'remote_id').value = there }""", list(shop.providers["atlascloud"].jobs)[-1])
    canvas.page.locator("[data-testid=queue-button]").first.click()
    reads(canvas, job, "Done")
    assert shop.providers["atlascloud"].accepted == 1 and canvas.errors == []


def test_a_job_of_ones_own_server_needs_no_look_at_a_site(canvas: Canvas, shop: Outside) -> None:
    there = shop.providers[OWN]
    there.script = Script()
    there.fail("submit", reset(after=True), times=8)
    there.fail("history", answer(403, {"error": {"code": "forbidden", "message": "No."}}))
    shop.comfy.submit(graph(OWN, 4))
    job = newest(canvas, "Not known whether Another ComfyUI accepted it")
    press(canvas, job, "settle")
    canvas.page.get_by_text("Press Run to look for the job on Another ComfyUI again.").first.wait_for()
    canvas.page.locator("[data-testid=queue-button]").first.click()
    reads(canvas, job, "Done")
    assert there.accepted == 1 and canvas.errors == []


def test_a_local_clip(canvas: Canvas, shop: Outside) -> None:
    """With the sampler's steps while it runs, although another page has queued it."""
    canvas.page.evaluate("""() => {
        window.notes = new Set();
        new MutationObserver(() => document.querySelectorAll('.wan22-jobs-note').forEach(
            note => window.notes.add(note.textContent))).observe(document.querySelector('.wan22-jobs'),
            {subtree: true, childList: true, characterData: true});
    }""")
    clip = clip_workflow("picture.png", num_frames=81, steps=50)  # so long that the tab asks while it samples
    clip["sampler"]["inputs"]["seed"] = 99
    run = shop.comfy.submit(clip)
    reads(canvas, run, "Running")
    reads(canvas, run, "Done")
    assert width(canvas, run) == 96
    assert "This machine" in card(canvas, run).inner_text().replace("\u00a0", " ")
    assert any(note.startswith("Wan 2.2 Sampler: ") and note.endswith(" of 50")
               for note in canvas.page.evaluate("[...window.notes]")), canvas.page.evaluate("[...window.notes]")
    press(canvas, run, "workflow")
    canvas.page.wait_for_function("window.app.graph.nodes.some(n => n.widgets?.some(w => w.value === 99))")
    assert canvas.errors == []


def test_a_run_that_fails_before_it_has_a_job(canvas: Canvas, shop: Outside) -> None:
    node = {"class_type": "Wan22ResumeRemoteClip", "inputs": {"job": "nobody's"}}
    run = shop.comfy.submit({"1": node, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 2]}}})
    reads(canvas, run, "Failed")
    assert "There is no job" in card(canvas, run).inner_text()
    assert canvas.errors == []


def test_a_restart_in_the_middle(canvas: Canvas, shop: Outside) -> None:
    """The page says that the server is gone, and finds what was under way when it is back."""
    replicate = shop.providers["replicate"]
    replicate.script = Script(queued=0, running=FOREVER)
    shop.comfy.submit(graph("replicate", 4))
    job = newest(canvas, "Running at Replicate")
    shop.stop()
    canvas.page.get_by_text("ComfyUI does not respond").wait_for()
    shop.start()
    reads(canvas, job, "not watched here")
    assert canvas.page.locator(".wan22-jobs-fault").is_hidden()
    press(canvas, job, "resume")
    reads(canvas, job, "Running at Replicate")
    replicate.finish(list(replicate.jobs.values())[-1])
    reads(canvas, job, "Done")
    assert replicate.accepted == 1
    canvas.errors.clear()  # of the minutes without a server


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_every_word_can_be_read(palette: str, canvas: Canvas) -> None:
    canvas.settle(Comfy_ColorPalette=palette)
    reload(canvas)
    newest(canvas, "Done")
    assert canvas.page.evaluate(PALE) == []
    assert canvas.errors == []


def test_a_thousand_jobs(canvas: Canvas, shop: Outside) -> None:
    """Come as the list is scrolled, and no more of their clips are loaded than are to be seen."""
    job = Ledger(shop.own).jobs((JobState.DONE,))[0]
    with opened(shop.own) as base:
        base.execute("CREATE TEMP TABLE more AS SELECT * FROM jobs WHERE id = ?", (job.id,))
        for number in range(1000):
            base.execute("UPDATE more SET id = ?, created = ?, digest = ?",
                         (f"{number:032x}", job.created - 10 - number, str(number)))
            base.execute("INSERT INTO jobs SELECT * FROM more")
    reload(canvas)
    newest(canvas, "Done")
    assert canvas.page.locator(".wan22-jobs-card").count() <= 200
    canvas.page.wait_for_function("""() => {
        const scroller = document.querySelector('.wan22-jobs-scroller');
        scroller.scrollTop = scroller.scrollHeight;
        return document.querySelector(`[data-job='${(999).toString(16).padStart(32, '0')}']`);
    }""", polling=100)
    listed = canvas.page.locator(".wan22-jobs-card").evaluate_all("cards => cards.map(card => card.dataset.job)")
    assert len(listed) == len(set(listed)) > 1000
    assert canvas.page.locator(".wan22-jobs video[src]").count() < 60
    assert canvas.errors == []


def test_another_sites_page_is_not_answered(shop: Outside) -> None:
    import urllib.error
    import urllib.request

    for path in ("jobs", "jobs/a/request", "jobs/a/workflow"):
        request = urllib.request.Request(f"{shop.server.url}/wan22/{path}", headers={"Origin": "https://evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
    for path, status in (("jobs?before=x", 400), ("jobs?limit=inf", 400), ("jobs/a/request", 404),
                         ("jobs/a/workflow", 404)):
        with pytest.raises(urllib.error.HTTPError, match=str(status)):
            shop.server.request(f"/wan22/{path}")
