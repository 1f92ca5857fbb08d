"""The lists of inputs and outputs on the help pages, written from the nodes' own schemas.

    .venv/bin/python docs/help_pages.py

A page's words are written by hand; its sections Inputs and Outputs are replaced. Chinese and Japanese names and
descriptions are those of locales/zh/nodeDefs.json and locales/ja/nodeDefs.json. Needs what `python3 dev.py test`
prepares.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from devtools.environment import find_comfyui  # noqa: E402
from devtools.fetch import COMFYUI_VERSION  # noqa: E402
from devtools.paths import CACHE  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402

PAGES = ROOT / "web" / "docs"
WORDS: dict[str, dict[str, str]] = json.loads((ROOT / "docs" / "help_words.json").read_text("utf-8"))
NAMES: dict[str, dict[str, Any]] = {
    language: {} if language == "en" else json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    for language in WORDS}
"""Language -> the nodes' translations, as ComfyUI reads them; in English the schemas speak for themselves."""
CATEGORY = "Wan 2.2"
LISTS_OF_FILES = ("Wan22Load", "Wan22LoadLatent")
"""Nodes whose lists show a user's own files."""
NodeInfo = dict[str, Any]
"""A node, as GET /object_info tells of it."""


def nodes_of_the_pack(server: ComfyServer) -> dict[str, NodeInfo]:
    """Node id -> what the server tells of it."""
    known = json.loads(server.request("/object_info"))
    return {name: info for name, info in known.items() if info["category"] == CATEGORY}


def page(node: str, language: str) -> Path:
    """Return the file in which ComfyUI looks for a node's help."""
    return PAGES / f"{node}.md" if language == "en" else PAGES / node / f"{language}.md"


def inputs_of(info: NodeInfo) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Name, type, options and whether it is optional, of every input; what a choice brings along follows it.

    That is named as in an API prompt ("resolution.width"), and "choices" of its options holds choice -> options. A list
    of sockets that grows has the type of each, and how many there may be as its range.
    """
    for group in ("required", "optional"):
        for name, (kind, options) in info["input"].get(group, {}).items():
            if kind == "COMFY_AUTOGROW_V3":
                template = options["template"]
                of_each, _ = next(iter(next(filter(None, template["input"].values())).values()))
                yield name, of_each, {**options, "min": template["min"], "max": len(template["names"])}, False
                continue
            if kind != "COMFY_DYNAMICCOMBO_V3":
                yield name, kind, options, group == "optional"
                continue
            yield name, "COMBO", {**options, "options": [choice["key"] for choice in options["options"]]}, False
            brought: dict[str, tuple[str, dict[str, Any]]] = {}
            for choice in options["options"]:
                for part, (part_kind, part_options) in choice["inputs"].get("required", {}).items():
                    _, first = brought.setdefault(part, (part_kind, {**part_options, "choices": {}}))
                    first["choices"][choice["key"]] = part_options
            for part, (part_kind, part_options) in brought.items():
                yield f"{name}.{part}", part_kind, part_options, False


def _value(value: Any, say: dict[str, str]) -> str:
    if isinstance(value, bool):
        return say["on" if value else "off"]
    return f"{value:g}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)


def _facts(node: str, kind: str, options: dict[str, Any], optional: bool, say: dict[str, str]) -> Iterator[str]:
    """Type, range, default, and where it is shown."""
    choices = options.get("choices", {})
    yield kind
    if len(choices) == 1:
        yield say["with"].format(choice=next(iter(choices)))
    if "min" in options:
        yield say["range"].format(least=_value(options["min"], say), most=_value(options["max"], say))
    if kind == "COMBO" and node in LISTS_OF_FILES:
        yield say["files"]
    elif kind == "COMBO" and len(choices) < 2:
        yield say["choices"].format(values=" ".join(_value(choice, say) for choice in options["options"]))
    if options.get("default") not in (None, ""):
        yield say["default"].format(value=_value(options["default"], say))
    if optional:
        yield say["optional"]
    if options.get("advanced"):
        yield say["advanced"]


def input_lines(node: str, info: NodeInfo, language: str) -> Iterator[str]:
    """The items of a node's inputs, as Markdown."""
    say, names = WORDS[language], NAMES[language].get(node, {}).get("inputs", {})
    for name, kind, options, optional in inputs_of(info):
        known = names.get(name.replace(".", "_"), {})
        facts = say["comma"].join(_facts(node, kind, options, optional, say))
        yield say["item"].format(name=name, label=known.get("name"), facts=facts,
                                 what=known.get("tooltip", options["tooltip"]))
        choices = options.get("choices", {})
        if len(choices) > 1:
            for choice, its in choices.items():
                values = say["comma"].join(_value(value, say) for value in its.get("options", [its.get("default")]))
                yield say["of_choice"].format(choice=choice, values=values)


def output_lines(node: str, info: NodeInfo, language: str) -> Iterator[str]:
    """The items of a node's outputs, as Markdown."""
    say, names = WORDS[language], NAMES[language].get(node, {}).get("outputs", {})
    for place, (name, kind) in enumerate(zip(info["output_name"], info["output"], strict=True)):
        known = names.get(str(place), {})
        yield say["item"].format(name=name, label=known.get("name"), facts=kind,
                                 what=known.get("tooltip", info["output_tooltips"][place]))
    if not info["output"]:
        yield say["no_outputs"]


def with_lists(text: str, node: str, info: NodeInfo, language: str) -> str:
    """The page with its two lists as they have to be. Raises ValueError when it has no such sections."""
    for title, lines in (("inputs", input_lines), ("outputs", output_lines)):
        heading = WORDS[language][title]
        section = f"## {heading}\n\n" + "\n".join(lines(node, info, language)) + "\n"
        text, found = re.subn(rf"^## {heading}\n.*?(?=^## |\Z)", lambda _, new=section: f"{new}\n", text,
                              flags=re.M | re.S)
        if found != 1:
            raise ValueError(f"{page(node, language).name} has {found} sections ## {heading}.")
    return text.rstrip() + "\n"


def main() -> None:
    comfyui = find_comfyui(ROOT, os.environ) or CACHE / f"ComfyUI-{COMFYUI_VERSION}"
    with tempfile.TemporaryDirectory() as base, ComfyServer(comfyui, Path(base), Path(base, "log")) as server:
        nodes = nodes_of_the_pack(server)
    for node, info in nodes.items():
        for language in WORDS:
            path = page(node, language)
            path.write_text(with_lists(path.read_text("utf-8"), node, info, language), "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
