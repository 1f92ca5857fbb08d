"""LoRA files by their links, with the host's progress bar, Stop and words on the node.

A LoRA as it was asked for -> its file, checked by its header, and the expert it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..checkpoint.header import FileHeader
from ..checkpoint.safetensors_file import read_header, read_remote_header
from ..download.cache_settings import cache_bytes
from ..download.fetch import fetch
from ..download.meter import Meter
from ..download.partial import hash_file
from ..download.source import is_remote
from ..http.errors import DownloadError, redact
from ..http.secrets import Tokens
from ..request import AUTO, Lora, RequestError
from .expert import choose_expert
from .match import LoraFile
from .probe import LoraFacts, probe_lora

Read = Callable[[int, int], bytes]
Find = Callable[[str], Path | None]
"""Name in the loras folder -> the file, None when there is none."""
Fetch = Callable[[str, str | None, Callable[[Read, int | None, str], None]], Path]
"""(link, SHA-256 or None, inspection of the beginning) -> the file, fetched if need be.

The inspection is given a read of the file, its size and its name with the folders before it.
"""
Stop = Callable[[], None]
Check = Callable[[LoraFacts], None]
"""Raises ValueError when the model at hand has no use for such a LoRA."""


def link_name(source: str) -> str:
    """What a LoRA is called on the node: the file's name, without the rest of its link and what may be secret."""
    return PurePosixPath(urlsplit(source).path).name or redact(source)


def no_such_file(source: str) -> RequestError:
    """The error of a source that is neither a file of the loras folder nor a link."""
    return RequestError(f"There is no {source!r} in the loras folder, and it is no link. Give a file's name as "
                        "ComfyUI's Load LoRA lists it, an https link, a Hugging Face owner/repo/file.safetensors or "
                        "a Civitai link.")


def open_lora(lora: Lora, find: Find, fetch: Fetch, stop: Stop, check: Check) -> LoraFile:
    """Find or fetch a LoRA's file and settle its expert.

    A file of the loras folder goes before a link that reads the same. Of a link nothing but the header is fetched
    before that has said that it is a LoRA for Wan and `check` has let it pass. Raises RequestError, CheckpointError or
    DownloadError.
    """
    path = find(lora.source)
    if path is not None:
        header = read_header(path)
        facts = probe_lora(header, local=True)
        check(facts)
        _check_hash(lora, path, stop)
        return _settled(lora, path, facts, header, lora.source)
    if not is_remote(lora.source):
        raise no_such_file(lora.source)
    seen: list[tuple[FileHeader, LoraFacts, str]] = []

    def inspect(read: Read, size: int | None, name: str) -> None:
        header = read_remote_header(PurePosixPath(name).name or link_name(lora.source), read, size)
        facts = probe_lora(header)
        check(facts)
        seen[:] = [(header, facts, name)]

    path = fetch(lora.source, lora.sha256, inspect)
    header, facts, name = seen[0]
    return _settled(lora, path, facts, header, name)


def _settled(lora: Lora, path: Path, facts: LoraFacts, header: FileHeader, name: str) -> LoraFile:
    """`name` has the folders before it."""
    if lora.expert != AUTO:
        return LoraFile(lora, path, facts)
    expert, why = choose_expert(facts, name, header.metadata)
    return LoraFile(replace(lora, expert=expert), path, facts, why)


def _check_hash(lora: Lora, path: Path, stop: Stop) -> None:
    if lora.sha256 is None:
        return
    found = hash_file(path, stop)
    if found != lora.sha256.lower():
        raise DownloadError(f"{path.name} has the SHA-256 {found}, not {lora.sha256} as asked. It is another file, or "
                            "a damaged one.")


def lora_fetcher(folder: Path, own: Path, tokens: Tokens, new_bar: Callable[[], Callable[[int, int], None]],
                 say: Callable[[str], None], stop: Stop) -> Fetch:
    """The `fetch` of `open_lora`.

    folder: of the download cache. own: the pack's, with its settings. new_bar: makes a bar, which is told (done,
    total) of one file.
    """

    def get(source: str, sha256: str | None, inspect: Callable[..., Any]) -> Path:
        show, meter = new_bar(), Meter(link_name(source))

        def on_progress(done: int, total: int | None) -> None:
            show(done, total or done + 1)
            text = meter.text(done, total)
            if text is not None:
                say(text)

        return fetch(source, folder=folder, sha256=sha256, inspect=inspect, on_progress=on_progress, stop=stop,
                     tokens=tokens, cache_bytes=cache_bytes(own))

    return get
