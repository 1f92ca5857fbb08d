"""The report: Markdown for an issue, without a path or a name of the machine that it was made on."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.gpu.plan import COMFYUI, ENGINES, OURS, Found, Part, Row

QUOTED = re.compile(r"""(["'])(?:[A-Za-z]:)?[\\/][^"'\n]*[\\/]([^"'\\/\n]+)\1""")
FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:*?\"'<>|()]+)+[\\/](?=[^\\/\s])")
"""Absolute paths up to the last name: in quotes, where folders may hold spaces, and in the open."""
SECRET = re.compile(r"\b(hf_|r8_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]+")
LONGEST_ERROR, LONGEST_LINE = 160, 200
COLUMNS = ("", "ours s", "ComfyUI s", "ours / ComfyUI", "first: ours s", "first: ComfyUI s", "ours GiB", "ComfyUI GiB",
           "ours TFLOP/s", "ComfyUI TFLOP/s")
SLOWER = 1.05
"""Times of ComfyUI's from which on a row is named at the top."""
EXPLANATION = """\
Random weights in the layout of `fp8_scaled`, random text and pictures. *A pass* is a step at guidance 1; at more, a
step has two. *s* is the median after the first, which also loads the weights; for *Change of expert*, what the step
with the new expert takes longer than those around it. *GiB* is the peak of PyTorch's tensors and, in brackets, of all
that is taken from the device, by other programs too. *The bundled model*: the distance of each result from that of
plain PyTorch on the CPU in float32, over the length of that."""


@dataclass
class Report:
    """The findings so far, and their text."""

    facts: dict[str, str] = field(default_factory=dict)
    """Of the machine, by name."""
    parts: list[Part] = field(default_factory=list)
    found: dict[tuple[str, str, str], Found] = field(default_factory=dict)
    """By the names of part, row and engine."""
    notes: list[str] = field(default_factory=list)
    """Sentences on the whole, such as why it is not complete."""

    def text(self, secrets: Sequence[str]) -> str:
        """Return the report; `secrets` are further texts that it must not hold."""
        lines = ["## GPU report", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(value)} |" for name, value in self.facts.items()]
        lines += ["", *self._summary(), "", EXPLANATION]
        for part in self.parts:
            lines += ["", f"### {part.title}", "", *self._tables(part)]
        return scrub("\n".join(lines) + "\n", secrets)

    def news(self, part: Part, row: Row, engine: str) -> str:
        """Return a line on one row of one engine."""
        one = self.found[part.name, row.name, engine]
        told = [f"{name} {value:.3g}" for name, value in one.values.items()] or list(map(" ".join, one.facts.items()))
        return f"{part.name}: {row.name}, {engine}: {one.error or ', '.join(told)}"[:LONGEST_LINE]

    def _of(self, part: Part, row: Row) -> dict[str, Found]:
        return {engine: self.found[key] for engine in ENGINES if (key := (part.name, row.name, engine)) in self.found}

    def _summary(self) -> list[str]:
        """Return what to look at first."""
        rows = [(f"{row.name} ({part.name})", self._of(part, row)) for part in self.parts for row in part.rows]
        lines = []
        for engine in ENGINES:
            failed = [name for name, found in rows if engine in found and found[engine].error]
            if failed:
                lines.append(f"- Failed, {engine}: {'; '.join(failed)}.")
        slow = [f"{name} {ratio:.2f}" for name, found in rows if (ratio := ratio_of(found)) and ratio > SLOWER]
        if slow:
            lines.append(f"- Slower than ComfyUI by more than {100 * (SLOWER - 1):.0f} %: {'; '.join(slow)}.")
        missing = [name for name, found in rows if len(found) < len(ENGINES)]
        if missing:
            lines.append(f"- Not measured: {'; '.join(missing)}.")
        lines += [f"- {note}" for note in self.notes]
        return lines or ["Every row was measured; none was slower than ComfyUI by more than 5 %."]

    def _tables(self, part: Part) -> list[str]:
        """Return the part's figures, then what rows say in words, then what was logged."""
        figures, words, logs = [list(COLUMNS)], [], []
        for row in part.rows:
            found = self._of(part, row)
            if any(one.values or one.error for one in found.values()):
                figures.append(_figures(row.name, found))
            if any(one.facts for one in found.values()):
                words += ["", *_facts(row.name, found)]
            for engine, one in found.items():
                logs += [f"{row.name}, {engine}: {line}" for line in one.log]
        lines = _table(figures) if len(figures) > 1 else []
        lines += words
        if logs:
            lines += ["", "<details><summary>Log</summary>", "", "```", *logs, "```", "", "</details>"]
        return lines or ["Not reached."]


def ratio_of(found: Mapping[str, Found]) -> float | None:
    """Return our seconds over ComfyUI's; None where one is missing, or a difference came out below 0."""
    seconds = [found[engine].values.get("seconds", 0.0) for engine in ENGINES if engine in found]
    return seconds[0] / seconds[1] if len(seconds) == 2 and min(seconds) > 0 else None


def _figures(name: str, found: Mapping[str, Found]) -> list[str]:
    """Return a row of the table; an error stands in place of the engine's seconds."""

    def seconds(engine: str) -> str:
        one = found.get(engine)
        return "not reached" if one is None else one.error[:LONGEST_ERROR] or figure(engine, "seconds")

    def figure(engine: str, key: str) -> str:
        value = found[engine].values.get(key) if engine in found else None
        return "" if value is None else f"{value:.3g}"

    def memory(engine: str) -> str:
        tensors, device = figure(engine, "torch"), figure(engine, "device")
        return f"{tensors} ({device})" if tensors else ""

    ratio = ratio_of(found)
    return [name, seconds(OURS), seconds(COMFYUI), "" if ratio is None else f"{ratio:.2f}",
            *(figure(engine, "first") for engine in ENGINES), *map(memory, ENGINES),
            *(figure(engine, "tflops") for engine in ENGINES)]


def _facts(name: str, found: Mapping[str, Found]) -> list[str]:
    """Return a table of the words, one engine beside the other."""
    names = dict.fromkeys(key for one in found.values() for key in one.facts)
    return _table([[name, *found], *([key, *(one.facts.get(key, "") for one in found.values())] for key in names)])


def _table(rows: list[list[str]]) -> list[str]:
    """Return a Markdown table, the first row its head; columns with nothing below the head are left out."""
    kept = [number for number, cells in enumerate(zip(*rows, strict=True)) if any(cells[1:])]
    lines = ["| " + " | ".join(_cell(row[number]) for number in kept) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(kept), *lines[1:]]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """Take out folders, the names of user and machine, tokens, and other secrets; files keep their names."""
    text = FOLDERS.sub("", QUOTED.sub(r"\1\2\1", text))
    for word in sorted({str(Path.home()), *secrets}, key=len, reverse=True):
        if len(word) > 1:  # the home of some users is /
            text = text.replace(word, "...")
    text = SECRET.sub("<token>", text)
    for word in filter(None, (_user(), socket.gethostname())):
        text = re.sub(rf"\b{re.escape(word)}\b", "...", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
