"""The player on the MP4 nodes, in Chromium: frames by their number, two clips at once, nothing left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.paths import ROOT
from devtools.server import ComfyServer
from pipeline.video.probe import probe_video
from tests.support.canvas import Canvas

FRAMES = 24
NEAR = 4
"""Levels that encoding and the browser may be off; two frames of a clip differ by 10, those of two clips by 5."""
CODECS = {
    "usual": {},
    "10 bits": {"pix_fmt": "yuv420p10le"},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "AV1": {"codec": "av1"},
    "NTSC with sound": {"fps": 23.98},
    "HEVC": {"codec": "hevc"},
}
FEW = {"usual": {}, "HEVC": CODECS["HEVC"]}
LOOKS = {"classic, dark": (False, "dark", CODECS), "Nodes 2.0, light": (True, "light", FEW)}

BUILD = """([picture, savers]) => {
    const graph = window.app.graph;
    graph.clear();
    graph.id = crypto.randomUUID();
    const add = (type, x, y, values = {}) => {
        const node = window.LiteGraph.createNode(type);
        graph.add(node);
        node.pos = [x, y];
        for (const [name, value] of Object.entries(values))
            node.widgets.find(widget => widget.name === name).value = value;
        return node;
    };
    const load = add('LoadImage', 0, 0, {image: picture});
    const sound = add('EmptyAudio', 0, 500, {duration: 3});
    Object.entries(savers).forEach(([title, values], n) => {
        const save = add('Wan22SaveMP4', 300 + 420 * (n % 3), 700 * Math.floor(n / 3), values);
        save.title = title;
        load.connect(0, save, 0);
        if (title.includes('sound')) sound.connect(0, save, save.findInputSlot('audio'));
    });
    Object.assign(window.app.canvas.ds, {scale: 0.6, offset: [40, 140]});
    window.app.canvas.setDirty(true, true);
}"""
PLAYER = """title => {
    const node = window.app.graph.nodes.find(node => node.title === title);
    return node.widgets.find(widget => widget.name === 'video-preview')?.element;
}"""
LEVELS = """([player, frame]) => new Promise((done, fail) => {
    const begun = performance.now();
    let before = '', since = 0;
    const watch = setInterval(() => {
        if (performance.now() - begun > 60_000) {
            clearInterval(watch);
            const states = [...player.querySelectorAll('.wan22-player-screen')].map(screen => {
                const { currentTime, seeking, paused } = screen.querySelector('video');
                return JSON.stringify({ frame: screen.dataset.frame, currentTime, seeking, paused });
            });
            return void fail(new Error(`not at frame ${frame}: ${states}`));
        }
        const screens = [...player.querySelectorAll('.wan22-player-screen')].filter(s => s.querySelector('video').src);
        if (screens.some(s => s.dataset.frame !== String(frame) || s.querySelector('video').seeking))
            return void (since = 0);
        const found = screens.map(screen => {
            const context = new OffscreenCanvas(1, 1).getContext('2d');
            context.drawImage(screen.querySelector('video'), 0, 0, 1, 1);
            return context.getImageData(0, 0, 1, 1).data[0];
        });
        if (since === 0 || before !== found.join()) since = performance.now();
        before = found.join();
        if (performance.now() - since < 250) return;
        clearInterval(watch);
        done(found);
    }, 20);
})"""
"""Drawn until it stays the same: Chromium may call a seek done a moment before its picture is there."""
SET = """([input, value]) => {
    input.value = value;
    input.dispatchEvent(new Event('input'));
}"""
SHOWN = """() => [...document.querySelectorAll('video')].filter(video => video.checkVisibility()).length"""

KEPT = """() => Object.entries(localStorage).some(([name, draft]) => name.startsWith('Comfy.Workflow.Draft')
    && draft.includes(window.app.rootGraph.id))"""
"""Whether the browser would find this workflow again after a reload: ComfyUI's canvas keeps it a little later."""

UNDO = """async () => await window.app.loadGraphData(window.app.rootGraph.serialize(), false, false,
    window.app.extensionManager.workflow.activeWorkflow)"""
"""What the canvas does on undo, redo and a change of tabs: it makes every node anew."""


def level(frame: int, clip: int = 0) -> int:
    """Grey of a frame of the first or the second clip."""
    return 5 + 10 * frame + 5 * clip


@pytest.fixture(scope="module", autouse=True)
def pictures(server: ComfyServer) -> None:
    """Two clips in the input folder, whose frames tell their numbers."""
    folder = server.base / "input"
    for clip in (0, 1):
        first, *others = [Image.new("L", (96, 64), level(frame, clip)) for frame in range(FRAMES)]
        first.save(folder / f"greys{clip}.gif", save_all=True, append_images=others, duration=60, optimize=False)


@pytest.fixture(scope="module", params=LOOKS)
def canvas(request: pytest.FixtureRequest, browser: Any, server: ComfyServer) -> Iterator[Canvas]:
    """A Save MP4 for each of the look's codecs, all of them run."""
    nodes_2, palette, codecs = LOOKS[request.param]
    canvas = Canvas(browser, server, Comfy_VueNodes_Enabled=nodes_2, Comfy_ColorPalette=palette)
    canvas.page.emulate_media(reduced_motion="reduce")  # clips wait until they are played
    canvas.page.evaluate(BUILD, ["greys0.gif", codecs])
    canvas.run()
    yield canvas
    canvas.close()
    assert canvas.errors == []


def player(canvas: Canvas, title: str) -> Any:
    """The player on a node, once it is there."""
    return canvas.page.wait_for_function(PLAYER, arg=title).as_element()


def levels(canvas: Canvas, made: Any, frame: int) -> list[int]:
    """The greys of a player's pictures, once they are at a frame."""
    return canvas.page.evaluate(LEVELS, [made, frame])


def titles(canvas: Canvas) -> set[str]:
    """Of the nodes that save."""
    return set(canvas.page.evaluate("app.graph.nodes.filter(n => n.type === 'Wan22SaveMP4').map(n => n.title)"))


def pull(canvas: Canvas, made: Any, frame: int) -> None:
    """Pull the player's slider to a frame."""
    canvas.page.evaluate(SET, [made.query_selector(".wan22-controls-bar input"), frame])


def press(canvas: Canvas, made: Any, *keys: str) -> None:
    made.focus()
    for key in keys:
        canvas.page.keyboard.press(key)


def test_a_frame_is_the_one_of_its_number(canvas: Canvas):
    for kind in titles(canvas) - {"HEVC"}:
        made = player(canvas, kind)
        for frame in (FRAMES - 1, 0, 7, 16, 8):
            pull(canvas, made, frame)
            assert levels(canvas, made, frame) == [pytest.approx(level(frame), abs=NEAR)], (kind, frame)
        assert made.query_selector("output").inner_text() == f"{frame + 1} / {FRAMES}"


def test_it_plays_and_keys_step_through_it(canvas: Canvas):
    made = player(canvas, "usual")
    press(canvas, made, "Home", " ")
    canvas.page.wait_for_function("player => player.querySelector('.wan22-player-screen').dataset.frame > 2", arg=made)
    loops = "player => player.querySelector('video').loop"
    assert canvas.page.evaluate(loops, made)
    press(canvas, made, "Home", ".", ".", ".", ",")
    assert levels(canvas, made, 2) == [pytest.approx(level(2), abs=NEAR)]
    press(canvas, made, "End", ".")
    assert not canvas.page.evaluate(loops, made), "its last frame would be taken for the end, and the first one shown"
    assert levels(canvas, made, FRAMES - 1) == [pytest.approx(level(FRAMES - 1), abs=NEAR)]


def test_it_knows_the_file_as_it_is(canvas: Canvas, server: ComfyServer):
    saved = "app.graph.nodes.filter(n => n.type === 'Wan22SaveMP4').map(n => app.nodeOutputs[n.id].images[0])"
    for shown in canvas.page.evaluate(saved):
        clip = probe_video(server.base / "output" / shown["subfolder"] / shown["filename"])
        assert shown | {"fps": str(clip.rate), "num_frames": clip.frames, "width": clip.width, "height": clip.height,
                        "codec": clip.codec, "pix_fmt": clip.pix_fmt, "has_sound": int(clip.has_sound)} == shown


def test_it_says_that_the_browser_cannot_play_a_clip(canvas: Canvas):
    fault = player(canvas, "HEVC").query_selector("p")
    fault.wait_for_element_state("visible")
    assert fault.inner_text().startswith("This browser cannot play HEVC, yuv420p.")


def test_there_is_no_other_player_and_nothing_of_it_is_saved(canvas: Canvas):
    page = canvas.page
    assert page.evaluate(SHOWN) == len(titles(canvas))
    for node in page.evaluate("app.graph.serialize().nodes.filter(node => node.type === 'Wan22SaveMP4')"):
        assert len(node["widgets_values"]) == 10, node["widgets_values"]
    prompt = canvas.prompt()
    assert all("video-preview" not in node["inputs"] for node in prompt.values())
    height = page.evaluate("Math.max(...app.graph.nodes.map(node => node.size[1]))")
    assert height < 800


def test_two_clips_at_the_same_frame(canvas: Canvas):
    """The one before, beside the new one and under a wipe; by steps, and where playing was stopped."""
    page = canvas.page
    page.evaluate("app.graph.nodes.find(node => node.type === 'LoadImage').widgets[0].value = 'greys1.gif'")
    canvas.run()
    made = player(canvas, "usual")
    made.query_selector("[aria-label^=Compare]").click()
    both = [pytest.approx(level(9, clip), abs=NEAR // 2) for clip in (1, 0)]
    pull(canvas, made, 9)
    assert levels(canvas, made, 9) == both
    names = [option.inner_text() for option in made.query_selector_all("[aria-label^='Clip to'] option")]
    assert len(names) == len(titles(canvas)) and re.fullmatch(r"clip_\d+_\.mp4", names[0]), names
    made.query_selector("[aria-label^=Layout]").select_option("wipe")
    right = made.query_selector_all(".wan22-player-screen")[1]
    edges = []
    for place in (0.25, 0.75):
        page.evaluate(SET, [made.query_selector(".wan22-player-wipe"), place])
        edges.append(right.evaluate("screen => getComputedStyle(screen).clipPath"))
    assert edges[0] != edges[1] and "none" not in edges
    press(canvas, made, " ")
    page.wait_for_function("player => !player.querySelector('video').paused", arg=made)
    press(canvas, made, " ")
    stopped = page.evaluate("player => Number(player.querySelector('output').textContent.split('/')[0]) - 1", made)
    assert levels(canvas, made, stopped) == [pytest.approx(level(stopped, clip), abs=NEAR // 2) for clip in (1, 0)]


def test_it_comes_back_with_its_tab(canvas: Canvas, server: ComfyServer):
    page = canvas.page
    lost = page.evaluate("app.nodeOutputs[app.graph.nodes.find(node => node.title === 'HEVC').id].images[0]")
    page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("() => app.graph.nodes.length === 0")
    assert page.evaluate(SHOWN) == 0
    (server.base / "output" / lost["subfolder"] / lost["filename"]).unlink()
    page.locator(".workflow-tab").first.click()
    made = player(canvas, "usual")
    pull(canvas, made, 4)
    assert levels(canvas, made, 4) == [pytest.approx(level(4, 1), abs=NEAR // 2)]
    fault = player(canvas, "HEVC").query_selector("p")
    fault.wait_for_element_state("visible")
    assert fault.inner_text() == f"{lost['filename']} is gone: it was moved or deleted."
    canvas.errors[:] = [error for error in canvas.errors if lost["filename"] not in error]  # Chromium tells of a 404


def test_a_removed_node_lets_go_of_its_clips(canvas: Canvas):
    page = canvas.page
    made = player(canvas, "usual")
    videos = page.evaluate_handle("player => [...player.querySelectorAll('video')]", made)
    page.evaluate("app.graph.remove(app.graph.nodes.find(node => node.title === 'usual'))")
    page.wait_for_function("videos => videos.every(v => v.networkState === 0 && !v.src && !v.isConnected)", arg=videos)


def test_it_plays_by_itself_and_is_still_there_after_a_reload(canvas: Canvas):
    canvas.page.emulate_media(reduced_motion="no-preference")
    canvas.page.evaluate("app.clean()")  # else a new node gets the outputs of an old one of its number
    canvas.page.evaluate(BUILD, ["greys0.gif", {"usual": {}}])
    canvas.run()
    made = player(canvas, "usual")
    canvas.page.wait_for_function("player => !player.querySelector('video').paused", arg=made)
    pull(canvas, made, 5)
    assert levels(canvas, made, 5) == [pytest.approx(level(5), abs=NEAR // 2)]
    canvas.page.wait_for_function(KEPT)
    canvas.open()
    made = player(canvas, "usual")
    pull(canvas, made, 7)
    assert levels(canvas, made, 7) == [pytest.approx(level(7), abs=NEAR // 2)]
    canvas.page.evaluate(UNDO)
    pull(canvas, player(canvas, "usual"), 3)


def test_a_name_that_is_used_again_and_a_history_that_did_not_come(canvas: Canvas, server: ComfyServer):
    page = canvas.page

    def saved() -> Path:
        shown = page.evaluate("app.nodeOutputs[app.graph.nodes.find(node => node.title === 'usual').id].images[0]")
        return server.base / "output" / shown["subfolder"] / shown["filename"]

    def sees(clip: int) -> str:
        made = player(canvas, "usual")
        pull(canvas, made, 5)
        assert levels(canvas, made, 5) == [pytest.approx(level(5, clip), abs=NEAR // 2)]
        return made.query_selector("video").get_attribute("src")

    def choose(clip: int) -> None:
        page.evaluate("name => app.graph.nodes.find(node => node.type === 'LoadImage').widgets[0].value = name",
                      f"greys{clip}.gif")

    def open_again() -> None:
        """The same workflow, on a page that keeps no outputs of it."""
        workflow = page.evaluate("app.graph.serialize()")
        page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        page.wait_for_function("() => app.graph.nodes.length === 0")
        page.evaluate("app.clean()")
        canvas.load(workflow)

    page.evaluate("app.clean()")
    page.evaluate(BUILD, ["greys0.gif", {"usual": {"filename_prefix": "again"}}])
    canvas.run()
    first, path = sees(0), saved()
    canvas.run()
    assert sees(0) == first, "it was not executed: the clip that is played goes on"
    path.unlink()
    choose(1)
    canvas.run()
    assert saved() == path and sees(1) != first

    history = "**/history?max_items=*"
    page.route(history, lambda route: route.abort())
    with page.expect_event("requestfailed", lambda request: "/history?" in request.url):
        open_again()
    page.unroute(history)
    canvas.errors[:] = [error for error in canvas.errors if "/history?" not in error]
    open_again()
    sees(1)


def test_its_words_are_there_in_every_language():
    words = [json.loads((ROOT / "locales" / language / "main.json").read_text("utf-8"))["wan22"]["player"]
             for language in ("en", "zh", "ja")]
    assert all(texts.keys() == words[0].keys() for texts in words)
    used = "".join(path.read_text("utf-8") for path in Path(ROOT, "web", "js", "player").glob("*.js"))
    assert set(re.findall(r'"player\.([\w-]+)"', used)) <= words[0].keys()
