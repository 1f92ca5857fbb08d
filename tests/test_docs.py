"""README.md, docs/ and the other pages written by hand: what they link to and name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devtools.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bench").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:bench|devtools|docs|locales|models|nodes|pipeline|subgraphs|tests|web|workflows)/[^`\s]*)`")
"""A file or folder of this repository, named by its path from the root."""
EXAMPLE = re.compile(r"[<*]|wan22_downloads|/my_|models/(?!demo)")
"""Marks a path that is the reader's own, of ComfyUI's folders, or a pattern."""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    for name in NAMED.findall(page.read_text("utf-8")):
        assert EXAMPLE.search(name) or (ROOT / name).exists(), name
