"""Names and sizes of output files: ComfyUI's tokens in a name, the query that shows a file, bytes as text.

ComfyUI's canvas replaces %date:...% and %node.widget% for its own save nodes only (frontend, Comfy.SaveImageExtraOutput
and applyTextReplacements, whose rules are followed here), so that the pack does it, for graphs without a canvas too.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_TOKEN = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"d+|h+|m+|M+|s+|y+|.", re.DOTALL)
MAX_BYTES = 200
"""Longest name of a folder or a file, in bytes of UTF-8: disks take 255, and a number and a suffix follow."""
_UNFIT = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f\ud800-\udfff]')
_UNFIT_IN_DATE = re.compile(r'[?<>\\:*|"\x00-\x1f\x7f]')
"""A slash in a date makes a folder, as in core's own save nodes."""
_UNFIT_ON_WINDOWS = re.compile(r'[?<>:*|"\x00-\x1f]')


def name_fault(prefix: str, called: str = "filename_prefix") -> str:
    """Return a sentence when no file with that prefix can be inside the output folder, else an empty string.

    called: the input that holds the prefix.
    """
    if "\0" in prefix or not _is_text(prefix):
        return f"{called} is {prefix!r}, which no disk takes as a name. Type it anew."
    path, windows = PurePosixPath(prefix.replace("\\", "/")), PureWindowsPath(prefix)
    if not prefix.strip() or not path.name or path.is_absolute() or windows.drive or ".." in path.parts:
        return (f"{called} is {prefix!r}; give a name inside ComfyUI's output folder, with or without folders, "
                "such as wan22/clip.")
    longest = max(len(part.encode()) for part in path.parts) if path.parts else 0
    if longest > MAX_BYTES:
        return (f"{called} makes a name that is {longest} bytes long; {MAX_BYTES} are the most. Shorten it, or "
                "take a %Node.widget% with a shorter value, such as the seed.")
    return ""


def _is_text(name: str) -> bool:
    """Return False for a name with half of a surrogate pair, which JSON can bring and UTF-8 cannot hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def fill_in(prefix: str, prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None,
            now: datetime) -> str:
    """Replace %date:yyyy-MM-dd% and %Node name.widget%; an unknown token stays as it is.

    A node is found by its "Node name for S&R" on the canvas, by its title, or by its type. ComfyUI itself replaces
    %year%, %width% and the like later. On Windows, characters that no name may have become "_": with a colon, the clip
    would go into a hidden stream of another file.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1].startswith("date:"):
            return _date(match[1].removeprefix("date:"), now)
        name, _, widget = match[1].partition(".")
        node = (prompt or {}).get(_node_called(name, prompt or {}, extra_pnginfo or {}))
        value = None if node is None else _get(_get(node, "inputs"), widget)
        if value is None or isinstance(value, list):
            return match[0]
        whole = isinstance(value, float) and value.is_integer()  # the canvas writes 5.0 as 5
        return _UNFIT.sub("_", str(int(value) if whole else value))

    filled = _TOKEN.sub(replaced, prefix)
    return _UNFIT_ON_WINDOWS.sub("_", filled) if os.name == "nt" else filled


def _node_called(name: str, prompt: dict[str, Any], extra_pnginfo: dict[str, Any]) -> str | None:
    """Return the id of the node of a name; None for none. What other programs put into a graph may be of any kind."""
    drawn = _get(_get(extra_pnginfo, "workflow"), "nodes")
    named = [str(_get(node, "id")) for node in (drawn if isinstance(drawn, list) else ())
             if _get(_get(node, "properties"), "Node name for S&R") == name]
    titled = [id_ for id_, node in prompt.items() if _get(_get(node, "_meta"), "title") == name]
    typed = [id_ for id_, node in prompt.items() if _get(node, "class_type") == name]
    return next(iter([id_ for id_ in named if id_ in prompt] + titled + typed), None)


def _get(value: Any, key: str) -> Any:
    """Return an object's member; None where there is none, and of what is no object."""
    return value.get(key) if isinstance(value, dict) else None


def _date(pattern: str, now: datetime) -> str:
    fields = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(match: re.Match[str]) -> str:
        text, letter = match[0], match[0][0]
        if letter == "y":
            return str(now.year)[-len(text):] if len(text) < 4 else str(now.year)
        return f"{fields[letter]:0{min(len(text), 2)}}" if letter in fields else text

    return _UNFIT_IN_DATE.sub("_", _DATE_PART.sub(part, pattern or "yyyyMMddhhmmss"))


def shown_in(output: Path, path: Path) -> dict[str, str] | None:
    """Return the query of /view for a file in the output folder; None for a file elsewhere, which /view refuses.

    Links are resolved when the names alone do not show that the file is inside.
    """
    folder = path.parent
    if not folder.is_relative_to(output):
        output, folder = output.resolve(), folder.resolve()
    if not folder.is_relative_to(output):
        return None
    subfolder = folder.relative_to(output).as_posix()
    return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}


def size_text(count: int) -> str:
    """Return a number of bytes as text: 812 bytes, 3.4 MB, 1.21 GB (decimal, as on download pages)."""
    if count < 1000:
        return f"{count} bytes"
    for unit, factor in (("kB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if count < 999.5 * factor or unit == "GB":
            return f"{count / factor:.3g} {unit}"
    raise AssertionError


def read_sha256(text: str) -> str | None:
    """Return a SHA-256 in hexadecimal, as it is typed or sent, in lower case; None for anything else."""
    return text.lower() if re.fullmatch(r"[0-9a-fA-F]{64}", text) else None
