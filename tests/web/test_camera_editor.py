"""The editor of a camera's and of an object's path, in Chromium: what is drawn is the JSON that Python reads."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from devtools.paths import ROOT
from devtools.server import ComfyServer
from pipeline.motion.camera import Frame, camera_of, seen_points
from pipeline.motion.motion import Motion, move_object
from pipeline.motion.path import (
    CAMERA_FIELDS,
    EASINGS,
    LIMITS,
    MOST_KEYFRAMES,
    read_camera_path,
    read_object_path,
)
from pipeline.motion.strength import Strength
from pipeline.request import RequestError
from tests.support.canvas import Canvas

LOOKS = {"classic, dark": (False, "dark"), "Nodes 2.0, light": (True, "light")}
STRENGTH = Strength(0.9, 0.5)
SIZE = (320, 240)
"""Of the picture in pixels."""
SIDE = 128
"""Of the clip."""
OBJECT = (96, 80, 160, 160)
"""Left, top, right and lower side of the object in the picture."""
FROM_JS = f"""async paths => {{
    const {{ CAMERA, parsePath, between, placeAt }} = await import('/extensions/{ROOT.name}/js/camera/path.js');
    const {{ apply, CORNERS, frameMatrix }} = await import('/extensions/{ROOT.name}/js/camera/frame.js');
    return paths.map(([text, frame, count, picture, aspect]) => {{
        const path = parsePath(text, CAMERA);
        const {{ t, ...view }} = between(path.keyframes, placeAt(path.easing, frame, count));
        const matrix = frameMatrix(view, picture, aspect, path.fov);
        return [view, CORNERS.map(corner => apply(matrix, corner))];
    }});
}}"""
BUILD = """([kind, picture, values]) => {
    const graph = window.app.graph;
    window.app.clean(); // else a new node gets the outputs of an old one of its number
    graph.clear();
    graph.id = crypto.randomUUID();
    const add = (type, x, y, values = {}) => {
        const node = LiteGraph.createNode(type);
        graph.add(node);
        node.pos = [x, y];
        for (const [name, value] of Object.entries(values)) window.change(node, name, value);
        return node;
    };
    window.change = (node, name, value) => {  // as either renderer does for a user
        const widget = node.widgets.find(widget => widget.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
    };
    const node = add(kind, 340, 0, values);
    if (picture) {
        const load = add('LoadImage', 0, 0, {image: picture});
        load.connect(0, node, 'image');
        if (kind === 'Wan22MoveObject') load.connect(1, node, 'mask');
    }
    Object.assign(app.canvas.ds, {scale: 0.9, offset: [60, 120]});
    app.canvas.setDirty(true, true);
}"""
NODE = "window.app.graph.nodes.find(node => node.type.startsWith('Wan22'))"
PATH = f"() => {NODE}.widgets.find(widget => widget.name === 'path').value"
SHOWN = """() => { const image = document.querySelector('.wan22-camera-world .picture');
    return image && !image.hidden && image.naturalWidth > 0 && document.querySelector('.wan22-camera svg .path') }"""
STILL = """() => new Promise(done => {
    let before = '', since = 0;
    const look = setInterval(() => {
        const now = JSON.stringify(app.graph.nodes.map(node => [...node.size]));
        if (now !== before) [before, since] = [now, performance.now()];
        else if (performance.now() - since > 500) done(clearInterval(look));
    }, 50);
})"""
"""Until no node changes its size: ComfyUI takes that for a change of the workflow, a step of undo."""
MIDDLE = """([part, number]) => {
    const box = document.querySelectorAll('.wan22-camera ' + part)[number].getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}"""
RESIZE = """async () => {
    const { style } = document.querySelector('.wan22-camera-stage');
    for (const width of ['90%', '']) {
        style.width = width;
        for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    }
}"""
KEPT = """text => Object.entries(localStorage).some(([name, draft]) => name.startsWith('Comfy.Workflow.Draft')
    && draft.replaceAll('\\\\', '').includes(text))"""
"""True when the browser would find this text again after a reload: ComfyUI's canvas keeps it a little later."""
WRONG = [
    "", "[1]", '{"keyframes": []}', '{"keyframes": [{"t": 0}], "esing": "linear"}',
    '{"keyframes": [{"t": 0}], "easing": "slowly"}', '{"keyframes": [{"x": 0}]}', '{"keyframes": [{"t": 0, "zom": 2}]}',
    '{"keyframes": [{"t": 0}, {"t": 0.5}, {"t": 0.25}]}', '{"keyframes": [{"t": 0}, {"t": 0}]}',
    '{"keyframes": [{"t": 0, "zoom": 0}]}', '{"keyframes": [{"t": 0, "x": "1"}]}',
    '{"keyframes": [{"t": 0, "x": null}]}', '{"keyframes": [{"t": 1.5}]}', '{"keyframes": [{"t": 0}], "fov": 170}',
    json.dumps({"keyframes": [{"t": n / MOST_KEYFRAMES} for n in range(MOST_KEYFRAMES + 1)]}),
]
MOST = json.dumps({"keyframes": [{"t": n / MOST_KEYFRAMES} for n in range(MOST_KEYFRAMES)]})
"""A path with as many keyframes as it may have."""


def picture() -> Image.Image:
    """A picture without two places alike."""
    across, down = np.meshgrid(np.linspace(30, 225, SIZE[0]), np.linspace(30, 225, SIZE[1]))
    waves = 128 + 90 * np.sin(across / 9) * np.cos(down / 13)
    return Image.fromarray(np.stack([across, down, waves], -1).astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def pictures(server: ComfyServer) -> None:
    """In the input folder: the picture, and the same with an object that a mask covers."""
    picture().save(server.base / "input" / "editor.png")
    masked, alpha = picture().convert("RGBA"), Image.new("L", SIZE, 255)
    ImageDraw.Draw(alpha).rectangle((OBJECT[0], OBJECT[1], OBJECT[2] - 1, OBJECT[3] - 1), fill=0)
    masked.putalpha(alpha)
    masked.save(server.base / "input" / "editor_object.png")


class Drawing:
    """A node with its editor on a canvas, and a hand with a mouse."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas, self.page = canvas, canvas.page

    def new(self, kind: str = "Wan22CameraPath", picture: str | None = "editor.png", **values: object) -> None:
        self.page.evaluate(BUILD, [kind, picture, values])
        if picture:
            self.page.wait_for_function(SHOWN)

    @property
    def text(self) -> str:
        return self.page.evaluate(PATH)

    @property
    def keyframes(self) -> list[dict[str, float]]:
        return json.loads(self.text)["keyframes"]

    def undo(self, command: str, text: str) -> None:
        """Undo or redo, and wait until the path is this one, on the node and in its editor, which are new."""
        self.page.evaluate("() => document.querySelectorAll('.wan22-camera').forEach(old => old.classList.add('old'))")
        self.page.evaluate("async command => { await app.extensionManager.command.execute(command) }", command)
        assert self.text == text
        self.page.wait_for_function("() => !document.querySelector('.wan22-camera.old')")
        self.page.wait_for_function(SHOWN)

    def middle(self, part: str, number: int = 0) -> tuple[float, float]:
        """Of a part of the editor; the shapes are made anew with every change."""
        return self.page.evaluate(MIDDLE, [part, number])

    def drag(self, start: tuple[float, float], *places: tuple[float, float]) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for place in places:
            self.page.mouse.move(*place, steps=3)
        self.page.mouse.up()

    def redraw(self) -> None:
        """Let the editor draw itself anew, as it does when its size changes."""
        self.page.evaluate(RESIZE)

    def press(self, *keys: str) -> None:
        self.page.locator(".wan22-camera-stage").focus()
        for key in keys:
            self.page.keyboard.press(key)

    def look(self) -> np.ndarray:
        """Return what is seen through the camera, (128, 128, 3), 0..1."""
        self.page.locator(".wan22-camera [aria-label^='Look']").click()
        view = self.page.locator(".wan22-camera-view")
        self.page.wait_for_timeout(100)
        shown = Image.open(BytesIO(view.screenshot())).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        self.page.locator(".wan22-camera [aria-label^='Look']").click()
        return np.asarray(shown, np.float32) / 255


@pytest.fixture(scope="module", params=LOOKS)
def drawing(request: pytest.FixtureRequest, browser: Any, server: ComfyServer) -> Iterator[Drawing]:
    nodes_2, palette = LOOKS[request.param]
    canvas = Canvas(browser, server, Comfy_VueNodes_Enabled=nodes_2, Comfy_ColorPalette=palette)
    yield Drawing(canvas)
    canvas.close()
    assert canvas.errors == []


def random_path(chance: random.Random) -> str:
    """A path whose cameras all look at the picture's plane."""
    times = sorted(chance.sample(range(101), chance.randint(1, 5)))
    fields = {**LIMITS, "x": (-1, 1), "y": (-1, 1), "roll": (-200, 200), "tilt": (-20, 20), "orbit": (-20, 20)}
    keyframes: list[dict[str, float]] = [{"t": t / 100} for t in times]
    for keyframe in keyframes:
        keyframe |= {name: chance.uniform(*fields[name]) for name in CAMERA_FIELDS if chance.random() < 0.7}
    return json.dumps({"keyframes": keyframes, "easing": chance.choice(list(EASINGS)), "fov": chance.uniform(5, 70)})


def test_frames_are_where_python_has_them(drawing: Drawing) -> None:
    chance = random.Random(1)
    asked, expected = [], []
    corners = torch.tensor([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)], dtype=torch.float64)
    for _ in range(300):
        text, frame, count = random_path(chance), chance.randrange(33), 33
        size = chance.choice([(640, 480, 128, 128), (832, 480, 832, 480), (480, 960, 480, 240), (300, 100, 80, 80)])
        where = Frame(size[2], size[3], size[0], size[1])
        path = read_camera_path(text)
        view = path.at(frame / (count - 1))
        points = seen_points(camera_of(view, path.fov, where.aspect), corners * torch.tensor([1, where.aspect]))
        pixels = (where.to_grid(points) + 1) / 2 * torch.tensor(size[:2])
        asked.append([text, frame, count, {"width": size[0], "height": size[1]}, size[2] / size[3]])
        expected.append((view, pixels))
    for (view, pixels), (own, own_pixels) in zip(expected, drawing.page.evaluate(FROM_JS, asked), strict=True):
        assert own == pytest.approx(view, abs=1e-9)
        np.testing.assert_allclose(own_pixels, pixels, rtol=1e-6, atol=1e-4)


def test_it_is_drawn_with_the_mouse_undone_copied_and_reloaded(drawing: Drawing) -> None:
    drawing.new()
    drawing.page.evaluate(f"() => {{ const node = {NODE}; "
                          "node.setSize([480, node.size[1] + 60]); "
                          "app.canvas.setDirty(true, true) }")
    drawing.page.wait_for_function("() => document.querySelector('.wan22-camera').clientWidth > 430")
    drawing.page.evaluate(STILL)
    drawing.page.evaluate("() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange() }")
    before = [drawing.text]
    box = drawing.page.locator(".wan22-camera svg .frame").bounding_box()
    start = drawing.middle("svg .frame")
    drawing.drag((start[0] + 30, start[1] + 30), (start[0] + 30 - box["width"] / 4, start[1] + 30 + box["width"] / 8))
    assert drawing.keyframes[0] == pytest.approx({"t": 0, "x": -0.25, "y": 0.125, "zoom": 1, "roll": 0}, abs=0.02)
    before.append(drawing.text)
    centre, corner = drawing.middle("svg .frame"), drawing.middle("svg .handle", 1)
    drawing.drag(corner, ((corner[0] + centre[0]) / 2, (corner[1] + centre[1]) / 2))
    assert drawing.keyframes[0]["zoom"] == pytest.approx(2, abs=0.1)
    before.append(drawing.text)
    centre = drawing.middle("svg .keyframe.here")
    drawing.drag(drawing.middle("svg .turn"), (centre[0] + 40, centre[1] - 40), (centre[0] + 60, centre[1]))
    assert drawing.keyframes[0]["roll"] == pytest.approx(90, abs=2)
    before.append(drawing.text)
    line = drawing.page.locator(".wan22-camera-timeline").bounding_box()
    drawing.page.mouse.click(line["x"] + line["width"] / 2, line["y"] + 4)
    start = drawing.middle("svg .frame")
    drawing.drag(start, (start[0], start[1] + 20))
    assert [keyframe["t"] for keyframe in drawing.keyframes] == pytest.approx([0, 0.5, 1], abs=0.02)
    before.append(drawing.text)
    mark = drawing.middle(".wan22-camera-marks button", 1)
    drawing.drag(mark, (mark[0] + line["width"] / 4, mark[1]))
    assert drawing.keyframes[1]["t"] == pytest.approx(0.75, abs=0.02)
    drawing.page.keyboard.press("Control")  # the step ends, without waiting for another move
    last = drawing.text
    assert read_camera_path(last).times[1] == drawing.keyframes[1]["t"]

    for text in reversed(before):
        drawing.undo("Comfy.Undo", text)
    for text in [*before[1:], last]:
        drawing.undo("Comfy.Redo", text)

    drawing.page.evaluate(f"""() => {{
        app.canvas.selectItems([{NODE}]);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
    }}""")
    texts = "app.graph.nodes.flatMap(n => n.widgets).filter(w => w.name === 'path').map(w => w.value)"
    assert drawing.page.evaluate(texts) == [last, last]
    assert {node["inputs"]["path"] for node in drawing.canvas.prompt().values() if "path" in node["inputs"]} == {last}
    assert all(set(node["inputs"]) <= {"vae", "image", "path", "resolution", "num_frames", "strength", "upload"}
               for node in drawing.canvas.prompt().values())
    drawing.page.evaluate(f"app.graph.remove({NODE})")
    drawing.page.wait_for_function("() => document.querySelectorAll('.wan22-camera').length === 1")
    drawing.page.keyboard.press("Control")  # ComfyUI looks for changes
    drawing.page.wait_for_function(KEPT, arg=last)
    drawing.canvas.open()
    drawing.page.wait_for_function(f"() => {NODE}")
    assert drawing.text == last


def test_what_is_played_is_what_python_renders(drawing: Drawing) -> None:
    view = {"x": 0.2, "y": -0.1, "zoom": 1.3, "roll": 20, "tilt": 5, "orbit": 25}
    text = json.dumps({"keyframes": [{"t": 0}, {"t": 1, **view}], "easing": "ease-out", "fov": 60})
    drawing.new(path=text)
    image = torch.tensor(np.asarray(picture(), np.float32) / 255)[None]
    rendered = Motion(None, image, SIDE, SIDE, 33, read_camera_path(text), STRENGTH).render()
    drawing.press("Home", *["."] * 12)
    for frame in (12, 32):
        inside = rendered.mask[frame].numpy() > 0
        assert 0.5 < inside.mean() < 1, "some of it is a hole"
        seen = drawing.look()
        assert np.abs(seen - rendered.images[frame].numpy())[inside].mean() < 0.03
        assert seen[~inside].max(-1).mean() < 0.35, "holes are hatched"
        drawing.press("End")
    drawing.press("Home", " ")
    drawing.page.wait_for_function(
        "() => parseInt(document.querySelector('.wan22-controls-row output').textContent) > 4")
    assert drawing.page.locator(".wan22-camera-view").is_visible()
    drawing.press(" ")
    assert not drawing.page.locator(".wan22-camera-view").is_visible()
    assert drawing.text == text


def test_keys_and_numbers_do_what_the_mouse_does(drawing: Drawing) -> None:
    drawing.new(path='{"keyframes": [{"t": 0}, {"t": 1, "zoom": 2}]}')
    drawing.press("ArrowRight", "Shift+ArrowUp", "+", "]", "]")
    assert drawing.keyframes[0] == {"t": 0, "x": 0.01, "y": -0.1, "zoom": 1.02, "roll": 2}
    drawing.press("Home", *["."] * 16, "k")
    assert drawing.keyframes[1]["t"] == 0.5 and drawing.keyframes[1]["zoom"] == pytest.approx(math.sqrt(2.04), abs=1e-3)
    drawing.press("Tab", "Tab")
    assert drawing.page.evaluate("document.activeElement.getAttribute('role')") == "slider"
    drawing.press("Delete")
    assert [keyframe["t"] for keyframe in drawing.keyframes] == [0, 1]
    for name, value in (("t", "1"), ("x", "0.3"), ("fov", "70")):
        field = drawing.page.locator(f".wan22-camera input[name={name}]")
        field.fill(value)
        drawing.redraw()  # a number that is being typed stays
        field.press("Enter")
    drawing.page.locator(".wan22-camera select").nth(1).select_option("ease-in")
    assert json.loads(drawing.text)["easing"] == "ease-in" and json.loads(drawing.text)["fov"] == 70
    assert drawing.keyframes[1]["x"] == 0.3
    drawing.page.locator(".wan22-camera select").first.select_option(label="Orbit left")
    assert drawing.keyframes[1]["orbit"] == -20
    drawing.page.locator(".wan22-camera-stage").hover()
    drawing.press("End")
    drawing.page.mouse.wheel(0, -100)  # Chromium does not wait until the page has it
    drawing.page.wait_for_function(f"() => JSON.parse(({PATH})()).keyframes[1].zoom > 1.05")

    drawing.press("ArrowRight")
    kept = drawing.page.evaluate("""() => {
        document.activeElement.blur();
        return JSON.stringify(app.extensionManager.workflow.activeWorkflow.changeTracker.activeState);
    }""")
    assert json.dumps(drawing.text) in kept, "ComfyUI knows of the change when the editor is left"


def test_a_text_that_is_no_path_is_left_alone_and_said_to_be_none(drawing: Drawing) -> None:
    drawing.new(picture=None)
    for text in WRONG:
        with pytest.raises(RequestError) as refused:
            read_camera_path(text)
        drawing.page.evaluate(f"text => change({NODE}, 'path', text)", text)
        start = str(refused.value).split(" (")[0]  # the two have words of their own for what is wrong with JSON
        drawing.page.wait_for_function("text => document.querySelector('.wan22-camera [role=alert]').textContent"
                                       ".startsWith(text)", arg=start if "no JSON" in start else str(refused.value))
        drawing.press("ArrowLeft", "k", "Delete", " ")
        assert drawing.text == text
    drawing.page.locator(".wan22-camera select").first.select_option(label="Pan left")
    assert read_camera_path(drawing.text).values[1]["x"] == -0.25
    drawing.page.evaluate(f"text => change({NODE}, 'path', text)", MOST)
    said = drawing.page.locator(".wan22-camera [role=alert]")
    drawing.page.wait_for_function("count => document.querySelectorAll('.wan22-camera-marks button').length === count",
                                   arg=MOST_KEYFRAMES)
    assert said.is_hidden()
    drawing.press("End", "k")
    said.wait_for()
    assert said.inner_text() == f"path has {MOST_KEYFRAMES + 1} keyframes; it may have {MOST_KEYFRAMES} at most."
    assert drawing.text == MOST


def test_an_objects_path_is_drawn_by_dragging_it(drawing: Drawing) -> None:
    drawing.new("Wan22MoveObject", "editor_object.png", resolution="128x128 (bundled demo model)")
    page = drawing.page
    page.wait_for_function("() => !document.querySelector('.wan22-camera-world .cut').hidden")
    picture_box = page.locator(".wan22-camera-world .picture").bounding_box()
    pixel = picture_box["width"] / SIZE[0]
    start = (picture_box["x"] + 128 * pixel, picture_box["y"] + 120 * pixel)
    assert drawing.middle("svg .keyframe") == pytest.approx(start, abs=1)
    before = drawing.text
    drawing.drag(start, (start[0] + 1, start[1] + 1))
    drawing.drag((start[0] + 80 * pixel, start[1]), (start[0] + 80 * pixel, start[1] + 40))
    assert drawing.text == before, "a click on it is no drag, nor is a drag beside it one of the object"
    drawing.drag(start, (start[0] + 60 * pixel, start[1]), (start[0] + 60 * pixel, start[1] + 60 * pixel))
    times = [keyframe["t"] for keyframe in drawing.keyframes]
    places = [(keyframe["x"] * SIZE[1], keyframe["y"] * SIZE[1]) for keyframe in drawing.keyframes]
    assert times == pytest.approx([0, 0.5, 1], abs=0.02)
    assert np.allclose(places, [(0, 0), (60, 0), (60, 60)], atol=2)
    path = read_object_path(drawing.text)
    image = torch.tensor(np.asarray(picture(), np.float32) / 255)[None]
    mask = torch.zeros(1, SIZE[1], SIZE[0])
    mask[:, OBJECT[1]:OBJECT[3], OBJECT[0]:OBJECT[2]] = 1
    still = Motion(None, image, SIDE, SIDE, 33, read_camera_path('{"keyframes": [{"t": 0}]}'), STRENGTH)
    rendered = move_object(still, mask, path, STRENGTH).render()
    drawing.press("End")
    held = rendered.mask[32].numpy() > 0
    assert np.abs(drawing.look() - rendered.images[32].numpy())[held].mean() < 0.03
    drawing.press("ArrowRight", "Home", "ArrowRight")
    assert drawing.keyframes[-1]["x"] == pytest.approx(places[-1][0] / SIZE[1] + 0.01)
    assert "the object has not moved" in page.locator(".wan22-camera [role=alert]").inner_text()


def test_a_picture_that_is_not_loaded_is_that_of_the_last_run(drawing: Drawing) -> None:
    """It comes over another node, and so does the mask."""
    path = json.dumps({"keyframes": [{"t": 0}, {"t": 1, "x": random.random()}]})  # ComfyUI tells of new results alone
    drawing.new("Wan22MoveObject", None, path=path, resolution="128x128 (bundled demo model)")
    drawing.page.evaluate(f"""() => {{
        const add = (type, place) => {{
            const node = LiteGraph.createNode(type);
            app.graph.add(node);
            node.pos = place;
            return node;
        }};
        const move = {NODE}, load = add('LoadImage', [0, 0]), invert = add('ImageInvert', [0, 500]);
        change(load, 'image', 'editor_object.png');
        const again = add('InvertMask', [0, 600]), mask = add('InvertMask', [0, 700]);
        load.connect(0, invert, 'image');
        load.connect(1, again, 'mask');
        again.connect(0, mask, 'mask');
        invert.connect(0, move, 'image');
        mask.connect(0, move, 'mask');
        add('Wan22Load', [0, 800]).connect(2, move, 'vae');
        move.connect(1, add('PreviewImage', [900, 0]), 'images');
    }}""")
    drawing.page.locator(".wan22-camera-world p", has_text="Load Image").wait_for()
    drawing.canvas.run()
    drawing.page.wait_for_function(SHOWN)
    drawing.page.wait_for_function("() => !document.querySelector('.wan22-camera-world .cut').hidden")
    still = picture().crop((40, 0, 280, 240)).resize((SIDE, SIDE), Image.Resampling.BOX)
    assert np.abs(drawing.look() - (1 - np.asarray(still, np.float32) / 255)).mean() < 0.04


def test_its_words_are_there_in_every_language() -> None:
    used = "".join(path.read_text("utf-8") for path in Path(ROOT, "web", "js", "camera").glob("*.js"))
    words = json.loads((ROOT / "locales" / "en" / "main.json").read_text("utf-8"))["wan22"]["camera"]
    for key in re.findall(r'"camera\.([\w.-]+)"', used):
        found: Any = words
        for part in key.split("."):
            found = found[part]
    assert set(words["numbers"]) == {*LIMITS} and set(words["easings"]) == set(EASINGS)
