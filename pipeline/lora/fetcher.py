"""LoRA files by their links, with the host's progress bar, Stop and words on the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..download.fetch import fetch
from ..download.limit import cache_bytes
from ..download.meter import Meter
from ..download.tokens import Tokens
from .open import Fetch, Stop, shown_name


def lora_fetcher(folder: Path, own: Path, tokens: Tokens, new_bar: Callable[[], Callable[[int, int], None]],
                 say: Callable[[str], None], stop: Stop) -> Fetch:
    """The `fetch` of `open_lora`.

    folder: of the download cache. own: the pack's, with its settings. new_bar: makes a bar, which is told (done,
    total) of one file.
    """

    def get(source: str, sha256: str | None, inspect: Callable[..., Any]) -> Path:
        show, meter = new_bar(), Meter(shown_name(source))

        def on_progress(done: int, total: int | None) -> None:
            show(done, total or done + 1)
            text = meter.text(done, total)
            if text is not None:
                say(text)

        return fetch(source, folder=folder, sha256=sha256, inspect=inspect, on_progress=on_progress, stop=stop,
                     tokens=tokens, cache_bytes=cache_bytes(own))

    return get
