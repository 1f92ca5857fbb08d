"""Find or fetch a LoRA's file, check it by its header, and choose the expert that it is for."""

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
from ..download.source import is_remote, parse_source
from ..http.errors import DownloadError, redact
from ..http.policy import policy_from_environment
from ..http.secrets import Tokens
from ..request import AUTO, Lora, RequestError
from .expert import choose_expert
from .match import LoraFile
from .probe import LoraFacts, probe_lora

Read = Callable[[int, int], bytes]
Find = Callable[[str], Path | None]
"""Name in the loras folder -> file; None when there is none."""
Fetch = Callable[[str, str | None, Callable[[Read, int | None, str], None]], Path]
"""(link, SHA-256 or None, inspect) -> the file, downloaded unless it is cached.

inspect(read, size, name) is called before the download with a function that reads parts of the file, its size in bytes
or None, and its name with folders.
"""
Stop = Callable[[], None]
Check = Callable[[LoraFacts], None]
"""Raises ValueError for a LoRA that the model cannot use."""


def link_name(source: str) -> str:
    """Return a LoRA's name for messages: the file's name without the rest of its link, which may hold a secret."""
    return PurePosixPath(urlsplit(source).path).name or redact(source)


def no_such_file(source: str) -> RequestError:
    """Return the error for a source that is neither a file in the loras folder nor a link."""
    return RequestError(f"There is no {source!r} in the loras folder, and it is not a link. Give a file's name as "
                        "ComfyUI's Load LoRA lists it, an https link, a Hugging Face owner/repo/file.safetensors or "
                        "a Civitai link.")


def open_lora(lora: Lora, find: Find, fetch: Fetch, stop: Stop, check: Check) -> LoraFile:
    """Find or fetch a LoRA's file and choose its expert.

    A file in the loras folder goes before a link with the same text. The body of a link is fetched only after its
    header shows a LoRA for Wan that passes `check`. Raises RequestError, CheckpointError or DownloadError.
    """
    path = find(lora.source)
    if path is not None:
        header = read_header(path)
        facts = probe_lora(header, local=True)
        check(facts)
        _check_hash(lora, path, stop)
        return _with_expert(lora, path, facts, header, lora.source)
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
    return _with_expert(lora, path, facts, header, name)


def _with_expert(lora: Lora, path: Path, facts: LoraFacts, header: FileHeader, name: str) -> LoraFile:
    """Return the file with its expert chosen, if that is AUTO. `name` is the file's, with folders."""
    if lora.expert != AUTO:
        return LoraFile(lora, path, facts)
    expert, why = choose_expert(facts, name, header.metadata)
    return LoraFile(replace(lora, expert=expert), path, facts, why)


def _check_hash(lora: Lora, path: Path, stop: Stop) -> None:
    """Raise DownloadError unless the file has the LoRA's SHA-256, if it has one."""
    if lora.sha256 is None:
        return
    found = hash_file(path, stop)
    if found != lora.sha256.lower():
        raise DownloadError(f"{path.name} has the SHA-256 {found}, not {lora.sha256} as asked. It is another file, or "
                            "a damaged one. Correct the hash, or choose the file that it is of.")


def lora_fetcher(folder: Path, own: Path, tokens: Tokens, new_bar: Callable[[], Callable[[int, int], None]],
                 show_text: Callable[[str], None], stop: Stop) -> Fetch:
    """Return the `fetch` of `open_lora`.

    folder: the download cache. own: the pack's folder with its settings. new_bar: returns a progress bar for one file,
    called with (done, total) bytes. show_text: shows a line on the node. stop: raises to end the download.
    """

    def get(source: str, sha256: str | None, inspect: Callable[..., Any]) -> Path:
        show, policy = new_bar(), policy_from_environment()
        meter = Meter(link_name(source), lambda: policy.through_proxy(parse_source(source).link))

        def on_progress(done: int, total: int | None) -> None:
            show(done, total or done + 1)
            text = meter.text(done, total)
            if text is not None:
                show_text(text)

        return fetch(source, folder=folder, policy=policy, sha256=sha256, inspect=inspect, on_progress=on_progress,
                     stop=stop, tokens=tokens, cache_bytes=cache_bytes(own))

    return get
