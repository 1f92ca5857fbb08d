"""The real canvas in headless Chromium: a page that reaches this machine alone, and remembers what went wrong on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devtools.server import ComfyServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]
READY = """() => window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader')
    && window.app.isGraphReady !== false && window.LiteGraph?.registered_node_types['Wan22SaveMP4']"""
OF_COMFYUI = ("user.css)", "/api/userdata", "ComfyApp graph accessed before initialization", "huggingface.co",
              "comfy.org", "ERR_FAILED")
"""Complaints of an empty canvas of ComfyUI's own: files that a new user has not, and the internet that is shut."""
HEAR_THE_END = """() => {
    window.ended = null;
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
        window.app.api.addEventListener(kind, event => { window.ended = [kind, event.detail] }, {once: true});
}"""
DEPRECATIONS = """() => {
    const warn = console.warn, between = /console.warn|warnDeprecated|at get |ReactiveHandler/;
    console.warn = (...words) => {
        const cause = new Error().stack.split('\\n').slice(1).find(line => !between.test(line)) ?? '';
        const ours = cause.includes('/extensions/') && /deprecat/i.test(words.join(' '));
        (ours ? console.error : warn)(...words);
    };
}"""
"""Warnings that something is deprecated are faults when the line that causes them is of the pack's scripts."""
TIMEOUT = 180_000
"""Milliseconds that anything may take on the page; far more than it needs, for machines that are busy otherwise."""
NODES_2, PALETTE = "Comfy.VueNodes.Enabled", "Comfy.ColorPalette"
PLAIN = {NODES_2: False, PALETTE: "dark", "Comfy.TutorialCompleted": True}


class Canvas:
    """One tab with ComfyUI's canvas. `errors`: what the console and the page complained of."""

    def __init__(self, browser: Any, server: ComfyServer, **settings: object) -> None:
        """settings: ids with "_" for "." -> values of ComfyUI's own settings, beside those of PLAIN."""
        self.server = server
        self.errors: list[str] = []
        self.context = browser.new_context(viewport={"width": 1500, "height": 950})
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.route(lambda url: not url.startswith((server.url, "blob:", "data:")), lambda route: route.abort())
        self.page.add_init_script(f"({DEPRECATIONS})()")
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.settle(**settings)
        self.open()

    def _note(self, message: Any) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(noise in text for noise in OF_COMFYUI):
            self.errors.append(text)

    def settle(self, **settings: object) -> None:
        """Set ComfyUI's settings, as of the next load."""
        values = PLAIN | {name.replace("_", "."): value for name, value in settings.items()}
        self.server.request("/settings", json.dumps(values).encode())

    def open(self) -> None:
        """Load the page, or load it again."""
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.page.wait_for_function(READY)
        self.page.evaluate("() => { window.LiteGraph.alwaysRepeatWarnings = true }")  # else of a cause the first only

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow in canvas format."""
        self.page.evaluate("async workflow => { await window.app.loadGraphData(workflow) }", workflow)

    def prompt(self) -> dict[str, Any]:
        """Return what Run would send, in API format."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def run(self) -> None:
        """Press Run and wait until the run has succeeded. Raises AssertionError with what was said when it was refused
        or has not."""
        self.page.evaluate(HEAR_THE_END)
        with self.page.expect_response(_is_of_run) as asked:
            self.page.locator("[data-testid=queue-button]").first.click()
        assert asked.value.ok, asked.value.text()
        self.page.wait_for_function("() => window.ended")
        kind, detail = self.page.evaluate("() => window.ended")
        assert kind == "execution_success", detail

    def picture(self, path: Path) -> None:
        """Keep what is on the screen as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path))

    def close(self) -> None:
        self.context.close()


def _is_of_run(answer: Any) -> bool:
    """Return True for the server's answer to a graph that was queued."""
    return answer.request.method == "POST" and urlsplit(answer.url).path.endswith("/prompt")
