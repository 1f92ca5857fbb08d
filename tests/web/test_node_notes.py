"""The notes on samplers, LoRA and Remote Image to Video on the real canvas, in both of its renderers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.paths import ROOT
from devtools.server import ComfyServer
from tests.support.canvas import Canvas
from tests.support.hostile_server import File, HostileServer
from tests.support.lora_files import DRAIN

HIGH = DRAIN["high"]
ADD = """([type, values]) => {
    const node = LiteGraph.createNode(type);
    node.pos = [60 + 420 * app.graph.nodes.length, 100];
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) change(node, name, value);
    return String(node.id);
}"""
CHANGE = """window.change = (node, name, value) => {  // as either renderer does for a user
    const widget = node.widgets.find(widget => widget.name === name);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
}"""
SAID = """([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === 'wan22_' + name).element.innerText"""
SAVED = """async () => [app.graph.serialize().nodes.map(node => [node.type, node.widgets_values, node.inputs]),
    (await app.graphToPrompt()).output]"""
NODES = (("Wan22Sampler", {"num_inference_steps": 21, "stage": "both"}), ("Wan22BridgeSampler", {"shift": 7}),
         ("Wan22Lora", {"source": HIGH.name, "min_match": 0.5}),
         ("Wan22RemoteImageToVideo", {"provider": "fal.ai", "num_frames": 49, "strict": False}))


class Notes:
    """A canvas with notes."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas, self.page = canvas, canvas.page
        self._ids = 0
        self.page.keyboard.press("Escape")
        self.clear()

    def clear(self) -> None:
        """An empty canvas, on which no node gets the id of an earlier one: values of widgets are kept by it."""
        self._ids += 100
        self.load({"last_node_id": self._ids, "last_link_id": self._ids, "nodes": [], "links": [], "version": 0.4})

    def load(self, workflow: dict[str, Any]) -> None:
        self.canvas.load(workflow)
        self.page.evaluate(f"() => {{ {CHANGE} }}")

    def add(self, kind: str, **values: object) -> str:
        return self.page.evaluate(ADD, [kind, values])

    def change(self, node: str, **values: object) -> None:
        for name, value in values.items():
            self.page.evaluate("([id, name, value]) => change(app.graph.getNodeById(id), name, value)",
                               [node, name, value])

    def hear(self, node: str, name: str, words: str) -> str:
        """Wait until the note says so; returns all that it says."""
        self.page.wait_for_function(f"([id, name, words]) => ({SAID})([id, name]).includes(words)",
                                    arg=[node, name, words])
        return self.page.evaluate(SAID, [node, name])


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "Nodes 2.0"])
def notes(request: pytest.FixtureRequest, browser: Any, server: ComfyServer) -> Iterator[Notes]:
    canvas = Canvas(browser, server, Comfy_VueNodes_Enabled=request.param)
    yield Notes(canvas)
    assert canvas.errors == []
    canvas.close()


def test_steps_follow_the_settings(notes: Notes) -> None:
    notes.clear()
    for kind in ("Wan22Sampler", "Wan22BridgeSampler"):
        node = notes.add(kind)
        notes.hear(node, "steps", "Steps 1-11 high-noise, 12-30 low-noise")
        notes.change(node, num_inference_steps=6)
        notes.hear(node, "steps", "a 4-step distill LoRA wants 2 + 2 steps")
        notes.change(node, guidance_scale=1.0, stage="high-noise only")
        assert "wants" not in notes.hear(node, "steps", "this run takes 1-3")
        notes.change(node, stage="low-noise only", boundary=0.0)
        notes.hear(node, "steps", "Change the boundary")
        notes.change(node, stage="both", boundary=0.9, sigmas="1, .95, .91, .6")
        notes.hear(node, "steps", "Steps 1-3 high-noise, 4 low-noise")
        notes.change(node, sigma_schedule="thinned 4 + 14")
        notes.hear(node, "steps", "sigmas is a list too")
        notes.change(node, sigmas="", num_inference_steps=30)
        notes.hear(node, "steps", "Steps 1-4 high-noise, 5-18 low-noise")


@pytest.mark.parametrize(("source", "name"), [("PrimitiveInt", "num_inference_steps"), ("ManualSigmas", "sigmas"),
                                              ("PrimitiveString", "sigmas")])
def test_a_linked_value_is_said_to_be_unknown(notes: Notes, source: str, name: str) -> None:
    notes.clear()
    other, node = notes.add(source), notes.add("Wan22Sampler")
    notes.hear(node, "steps", "1-11")
    notes.page.evaluate("""([from, to, name]) => { const node = app.graph.getNodeById(to);
        app.graph.getNodeById(from).connect(0, node, node.inputs.findIndex(i => i.name === name)) }""",
                        [other, node, name])
    notes.hear(node, "steps", f"{name} comes from another node")


def test_price_and_notes_follow_the_inputs(notes: Notes) -> None:
    notes.clear()
    notes.page.evaluate("""() => fetch("/wan22/settings", { method: "POST", headers: { "Content-Type":
        "application/json" }, body: JSON.stringify({ accepted_estimates: null }) })""")
    node = notes.add("Wan22RemoteImageToVideo")
    notes.hear(node, "quote", "price list of 2026-11")
    model = "wavespeed-ai/wan-2.2/image-to-video-lora"
    notes.change(node, **{"provider.model": model}, max_cost=0.3)
    notes.hear(node, "quote", "Price not known: $0.15 to $0.20")
    notes.hear(node, "quote", "Accept the estimates of this model once")
    notes.page.get_by_role("button", name="Count $0.20 for this model").click()
    notes.hear(node, "quote", "≈ $0.20 for 5 s")
    notes.change(node, provider="fal.ai")
    notes.hear(node, "quote", "There is no API key of fal.ai")
    model = "fal-ai/wan/v2.2-a14b/image-to-video"
    notes.change(node, **{"provider.model": model, "num_inference_steps": 50})
    notes.hear(node, "quote", "50 becomes 40")
    notes.change(node, num_frames=161, max_cost=0.05)
    notes.hear(node, "quote", "more than max_cost")


def test_the_button_is_for_the_model_that_is_chosen_and_says_why_it_fails(notes: Notes, server: ComfyServer) -> None:
    """The two models are quoted alike, and the button is pressed too early."""
    accepted = "async () => (await (await fetch('/wan22/settings')).json()).settings.accepted_estimates.value"
    button = notes.page.get_by_role("button", name="Count $")
    notes.clear()
    notes.page.evaluate("""() => fetch("/wan22/settings", { method: "POST", headers: { "Content-Type":
        "application/json" }, body: JSON.stringify({ accepted_estimates: null }) })""")
    node = notes.add("Wan22RemoteImageToVideo", provider="AtlasCloud", max_cost=1.0)
    notes.change(node, **{"provider.model": "atlascloud/wan-2.2-turbo-spicy/image-to-video-lora"})
    button.wait_for()
    before = notes.page.evaluate(SAID, [node, "quote"])
    chosen = "atlascloud/wan-2.2-turbo/image-to-video"
    quoted: list[Any] = []

    def keep(request: Any) -> None:
        if "/wan22/quote" in request.url:
            quoted.append(request)

    notes.page.on("request", keep)
    notes.page.evaluate("""async ([id, chosen]) => {
        change(app.graph.getNodeById(id), "provider.model", chosen);
        const press = () => document.querySelector(".wan22-note button").click();
        press(); // before the request for the new model, and before its answer: nothing is accepted
        queueMicrotask(press);
        setTimeout(press);
        await new Promise((done) => setTimeout(done, 600)); // the change itself is asked about a moment later
    }""", [node, chosen])
    notes.page.remove_listener("request", keep)
    assert chosen in quoted[-1].post_data
    for request in quoted:
        request.response().finished()
    notes.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert notes.page.evaluate(SAID, [node, "quote"]) == before

    settings = server.base / "user" / "__wan22" / "remote.json"
    held = settings.read_bytes()
    settings.write_text("[]")
    button.click()
    notes.hear(node, "quote", "Not done: The settings in")
    settings.write_bytes(held)
    assert notes.canvas.errors.pop().startswith("Failed to load resource: the server responded with a status of 409")
    button.click()
    assert "Not done" not in notes.hear(node, "quote", "≈ $")
    assert notes.page.evaluate(accepted) == [chosen]


SHOWN_MODEL = """id => {
    const widget = app.graph.getNodeById(id).widgets.find(one => one.name === "provider.model");
    return [widget.value, widget.options.getOptionLabel?.(widget.value) ?? "", widget.displayValue ?? ""];
}"""


@pytest.mark.parametrize("kind", ["Wan22RemoteImageToVideo", "Wan22RemoteFallback"])
def test_models_are_shown_by_name_and_saved_by_id(notes: Notes, kind: str) -> None:
    notes.clear()
    node = notes.add(kind)
    for provider, model, name in (("WaveSpeed", "wavespeed-ai/wan-2.2/i2v-{resolution}-lora", "Wan 2.2, LoRAs"),
                                  ("Replicate", "wan-video/wan-2.2-i2v-fast", "Wan 2.2 fast, LoRAs")):
        notes.change(node, provider=provider)
        notes.page.wait_for_function(f"([id, name]) => ({SHOWN_MODEL})(id)[1] === name", arg=[node, name])
        assert notes.page.evaluate(SHOWN_MODEL, node)[0] == model
    output = notes.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert output[node]["inputs"]["provider.model"] == model
    assert model in json.dumps(notes.page.evaluate("() => app.graph.serialize()"))


@pytest.fixture
def link(internet: HostileServer, request: pytest.FixtureRequest) -> Iterator[str]:
    path = f"/browser/{abs(hash(request.node.name))}/{HIGH.name}"
    internet.routes[path] = File(HIGH.read_bytes())
    yield f"https://a.example{path}"
    del internet.routes[path]


def test_opened_workflow_asks_nobody_until_the_button_is_pressed(notes: Notes, internet: HostileServer, link: str,
                                                                 ) -> None:
    notes.clear()
    node = notes.add("Wan22Lora")
    saved = notes.page.evaluate("() => app.graph.serialize()")
    saved["nodes"][0]["widgets_values"][0] = link
    before = len(internet.seen)
    notes.load(saved)
    notes.hear(node, "lora", "a.example was not asked")
    notes.change(node, source_low="nothing.safetensors", min_match=0.5)
    notes.hear(node, "lora", "There is no 'nothing.safetensors'")
    assert len(internet.seen) == before, "another input was changed, not the stranger's link"
    notes.change(node, source_low="")
    notes.page.wait_for_function(f"id => !({SAID})([id, 'lora']).includes('There is no')", arg=node)
    notes.page.locator(".wan22-note button").focus()
    notes.page.keyboard.press("Enter")
    said = notes.hear(node, "lora", "150 of 150 keys")
    assert HIGH.name in said and "508 kB" in said and "rank 8" in said and "its file name says high noise" in said
    assert len(internet.seen) == before + 1


def test_link_that_the_user_gives_is_asked_once_typing_has_ended(notes: Notes, internet: HostileServer, link: str,
                                                                 ) -> None:
    notes.clear()
    node, before = notes.add("Wan22Lora"), len(internet.seen)
    notes.hear(node, "lora", "Enter a link")
    field = notes.page.evaluate_handle("() => document.body.appendChild(document.createElement('input'))")
    field.focus()
    notes.change(node, source=link[:-3])
    notes.page.wait_for_timeout(1000)
    assert len(internet.seen) == before
    notes.change(node, source=link)
    field.evaluate("field => field.remove()")
    notes.hear(node, "lora", "150 of 150 keys")
    assert len(internet.seen) == before + 1
    notes.change(node, source="https://127.0.0.1:8443/x.safetensors")
    notes.hear(node, "lora", "not on the public internet")


def test_notes_never_change_the_size_of_a_node(notes: Notes) -> None:
    notes.clear()
    node = notes.add("Wan22Sampler")
    notes.hear(node, "steps", "1-11")
    size = "id => [...app.graph.getNodeById(id).size]"
    notes.page.wait_for_timeout(500)
    before = notes.page.evaluate(size, node)
    notes.change(node, num_inference_steps=6)
    notes.hear(node, "steps", "wants")
    notes.page.wait_for_timeout(500)
    assert notes.page.evaluate(size, node) == before


def test_workflows_are_the_same_with_and_without_notes(notes: Notes) -> None:
    """Saved files, what Run sends, and files that were saved before there were notes."""
    notes.clear()
    for kind, values in NODES:
        notes.add(kind, **values)
    page = notes.page
    page.wait_for_timeout(500)
    with_notes, graph = page.evaluate(SAVED), page.evaluate("() => app.graph.serialize()")
    features = ("steps", "quote", "lora_check")
    for feature in features:
        page.route(f"**/js/{feature}.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    notes.canvas.open()
    notes.canvas.load(graph)
    assert page.evaluate("() => app.graph.nodes.flatMap(n => n.widgets ?? []).every(w => !/^wan22_/.test(w.name))")
    without, old = page.evaluate(SAVED), page.evaluate("() => app.graph.serialize()")
    assert without == with_notes
    assert "wan22_" not in json.dumps(without)
    for feature in features:
        page.unroute(f"**/js/{feature}.js")
    notes.canvas.open()
    shipped = json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8"))
    for workflow, saved in ((old, without), (shipped, None)):
        notes.canvas.load(workflow)
        notes.page.wait_for_selector(".wan22-note")
        again = page.evaluate(SAVED)
        assert saved is None or again == saved
        for (kind, values, _), node in zip(again[0], workflow["nodes"], strict=True):  # old files have fewer
            given = node.get("widgets_values") or []  # some frontends say null of a node without widgets
            assert (values or [])[:len(given)] == given, kind
