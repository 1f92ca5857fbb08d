"""Help and words: every node has a page in each language that says what its schema and its errors say."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from devtools.paths import ROOT
from devtools.server import ComfyServer
from docs.help_pages import NAMES, PAGES, NodeInfo, inputs_of, nodes_of_the_pack, page, with_lists
from tests.support.canvas import Canvas

LANGUAGES = ("en", "zh", "ja")
"""Of the pages."""
LETTERS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]"}
"""Language of the locales -> what a text in it has; English is that of the schemas and of locales/en."""
MOST_BYTES = 1_500_000
"""Of all pictures of the help together: they are part of every install."""
SYNTAX = set("{}|@")
"""Means something to vue-i18n, which reads names and descriptions."""
PLACEHOLDER = re.compile(r"\{\w+\}")


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> dict[str, NodeInfo]:
    return nodes_of_the_pack(server)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_list_what_the_schemas_say(nodes: dict[str, NodeInfo], language: str) -> None:
    """After a change of a node, docs/help_pages.py writes the lists anew."""
    assert len(nodes) == 26
    for node, info in nodes.items():
        text = page(node, language).read_text("utf-8")
        assert text == with_lists(text, node, info, language), node
        name = NAMES[language].get(node, info)["display_name"]
        assert text.startswith(f"# {name}\n")
        with Image.open(PAGES / re.search(r"!\[.+\]\((pictures/\w+\.webp)\)", text)[1]) as picture:
            assert min(picture.size) >= 50


def test_there_are_no_other_pages_and_pictures(nodes: dict[str, NodeInfo]) -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(nodes)
    translations = {path.relative_to(PAGES).as_posix() for path in PAGES.glob("*/*.md")}
    assert translations == {f"{node}/{language}.md" for node in nodes for language in LANGUAGES if language != "en"}
    pictures = list(PAGES.glob("pictures/*"))
    assert {path.stem for path in pictures} == set(nodes)
    assert sum(path.stat().st_size for path in pictures) < MOST_BYTES


def words_of(language: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / file).read_text("utf-8"))


def texts_of(words: dict[str, Any], *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys and text of every text in a locale's file."""
    for key, value in words.items():
        if isinstance(value, dict):
            yield from texts_of(value, *path, key)
        else:
            yield (*path, key), value


@pytest.mark.parametrize("language", LETTERS)
def test_translations_name_every_node_input_and_output(nodes: dict[str, NodeInfo], language: str) -> None:
    names = words_of(language, "nodeDefs.json")
    assert set(names) == set(nodes)
    for node, info in nodes.items():
        words = names[node]
        assert set(words["inputs"]) == {name.replace(".", "_") for name, *_ in inputs_of(info)}, node
        assert set(words.get("outputs", {})) == {str(place) for place in range(len(info["output"]))}, node
        parts = [*words["inputs"].values(), *words.get("outputs", {}).values()]
        assert all(re.search(LETTERS[language], part["tooltip"]) for part in parts), node
        for text in (words["display_name"], words["description"], *(part["name"] for part in parts)):
            assert text and not SYNTAX & set(text), text


@pytest.mark.parametrize("file", ["main.json", "settings.json"])
@pytest.mark.parametrize("language", LETTERS)
def test_translations_have_every_text_and_its_placeholders(language: str, file: str) -> None:
    english, own = (dict(texts_of(words_of(name, file))) for name in ("en", language))
    assert english.keys() <= own.keys(), english.keys() - own.keys()
    # Headings and values of the settings: English shows them as they are.
    more = {path for path in own.keys() - english.keys() if path[0] != "settingsCategories" and "options" not in path}
    assert not more, more
    assert all(text.strip() for text in own.values())
    for path, text in english.items():
        assert set(PLACEHOLDER.findall(own[path])) == set(PLACEHOLDER.findall(text)), path


def _texts_of_the_code() -> Iterator[str]:
    """Every text in nodes/ and pipeline/, with … for each value that is put in."""
    for path in (*(ROOT / "nodes").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")):
        for found in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(found, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in found.values)
            elif isinstance(found, ast.Constant) and isinstance(found.value, str):
                yield found.value


def test_quoted_messages_are_those_of_the_code() -> None:
    known = list(_texts_of_the_code())
    quoted = {message for path in PAGES.rglob("*.md")
              for message in re.findall(r"^- \*\*(.+?)\*\*<br>", path.read_text("utf-8"), re.M)}
    assert len(quoted) > 50
    for message in quoted:
        pieces = [piece.strip() for piece in message.split("…") if len(piece.strip()) > 2]
        pattern = ".*".join(map(re.escape, pieces))
        assert any(re.search(pattern, text, re.S) for text in known), message


OPEN_HELP = """kind => {
    window.app.graph.clear();
    const node = window.LiteGraph.createNode(kind);
    window.app.graph.add(node);
    window.app.canvas.selectNode(node);
}"""
HELP_IS_SHOWN = """title => {
    const heading = [...document.querySelectorAll('.node-help-content h1')].find(h1 => h1.textContent === title);
    const picture = heading?.closest('.node-help-content').querySelector('img');
    return picture?.complete && picture.naturalWidth > 0;
}"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_is_shown_on_the_canvas(browser: Any, server: ComfyServer, nodes: dict[str, NodeInfo],
                                     language: str) -> None:
    canvas = Canvas(browser, server, Comfy_Locale=language)
    try:
        for node in ("Wan22Sampler", "Wan22RemoteImageToVideo"):
            canvas.page.evaluate(OPEN_HELP, node)
            if node == "Wan22Sampler":  # the panel stays open
                canvas.page.locator("[data-testid=info-button]").click()
            name = NAMES[language].get(node, nodes[node])["display_name"]
            canvas.page.wait_for_function(HELP_IS_SHOWN, arg=name)
        labels = canvas.page.evaluate("() => window.app.graph.nodes[0].widgets.map(widget => widget.label)")
        for other in LETTERS:
            name = NAMES[other]["Wan22RemoteImageToVideo"]["inputs"]["max_cost_per_day"]["name"]
            assert (name in labels) == (language == other), labels
        # ComfyUI asks for Node/en.md before Node.md.
        assert not [error for error in canvas.errors if "/en.md" not in error]
    finally:
        canvas.settle(Comfy_Locale="en")
        canvas.close()
