"""Files that another program holds, as Windows has it: an injected error stands for it, the rest is real."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.download.cache import Cache
from pipeline.download.fetch import fetch
from pipeline.download.partial import Partial
from pipeline.download.ranged import _Keeper
from pipeline.files.atomic import WAITS, new_file, read_json_object, retry_while_held, write_json_object
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import File, HostileServer

Hold = Callable[..., list[str]]


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Has a function of `os` fail so often, as for a file that is open elsewhere; the paths that it failed for."""
    monkeypatch.setattr(retry_while_held, "__defaults__", ((0.001,) * len(WAITS), time.sleep))

    def hold(name: str, times: int, winerror: int = 32, suffix: str = "") -> list[str]:
        original, failed = getattr(os, name), []

        def function(path: str | Path, *rest: object, **options: object) -> object:
            if len(failed) == times or not str(path).endswith(suffix):
                return original(path, *rest, **options)
            failed.append(str(path))
            error = PermissionError(13, "Permission denied", str(path))
            error.winerror = winerror
            raise error

        monkeypatch.setattr(os, name, function)
        return failed

    return hold


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_file_held_for_a_moment_is_replaced(hold: Hold, tmp_path: Path, winerror: int) -> None:
    failed = hold("replace", 2, winerror)
    write_json_object(tmp_path / "a.json", {"a": 1})
    assert len(failed) == 2 and read_json_object(tmp_path / "a.json") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_held_for_long_is_an_error() -> None:
    error, waited = PermissionError(13, "Permission denied"), []
    error.winerror = 32

    def operation() -> None:
        raise error

    with pytest.raises(PermissionError):
        retry_while_held(operation, (1.0, 2.0), waited.append)
    assert waited == [1.0, 2.0]


def test_what_no_hold_explains_is_not_tried_again() -> None:
    tried = []

    def operation() -> None:
        tried.append(1)
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        retry_while_held(operation)
    assert len(tried) == 1


def test_a_new_file_gets_its_name_once_it_is_free(hold: Hold, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = hold("rename", 2)
    with new_file(lambda: tmp_path / "clip.mp4") as file:
        file.unfinished.write_bytes(b"clip")
        monkeypatch.setattr(os, "name", "nt")
    monkeypatch.undo()
    assert len(failed) == 2 and [path.read_bytes() for path in tmp_path.iterdir()] == [b"clip"]


def test_what_ended_the_work_is_said_though_its_file_is_held(hold: Hold, tmp_path: Path) -> None:
    failed = hold("unlink", 99)
    with pytest.raises(ValueError, match="the frames"), new_file(lambda: tmp_path / "clip.mp4") as file:
        file.unfinished.write_bytes(b"clip")
        raise ValueError("the frames")
    assert failed


def test_a_fetched_file_comes_into_the_cache_once_it_is_free(hold: Hold, hostile: HostileServer,
                                                             tmp_path: Path) -> None:
    hostile.routes["/lora.safetensors"] = File(b"lora" * 9999)
    failed = hold("replace", 2)
    path = fetch("https://a.example/lora.safetensors", folder=tmp_path / "cache", policy=hostile.policy(),
                 tokens=Tokens({}))
    assert len(failed) == 2 and path.read_bytes() == b"lora" * 9999


def test_stop_is_obeyed_while_a_fetched_file_is_held(hold: Hold, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    partial = cache.partial("https://a.example/lora.safetensors")
    partial.begin('"1"', 4, parts=True)
    partial.write(0, b"lora")
    failed = hold("replace", 99)

    def stop() -> None:
        if failed:
            raise InterruptedError("Stop")

    with pytest.raises(InterruptedError):
        cache.take(partial, "0" * 64, stop)
    assert partial.path.read_bytes() == b"lora"


def test_a_note_that_is_held_does_not_end_a_download(hold: Hold, tmp_path: Path) -> None:
    partial = Partial(tmp_path, "name")
    partial.begin('"1"', 4, parts=True)
    partial.write(0, b"lo")
    keeper = _Keeper(partial)
    failed = hold("replace", 7)
    keeper.last_time(60.0)
    keeper.now_and_then(0.0)
    assert len(failed) == 7 and partial.noted == 0
    keeper.last_time(60.0)
    assert Partial(tmp_path, "name").done == 2


def test_bytes_that_a_stream_left_behind_still_holds_are_emptied(hold: Hold, tmp_path: Path) -> None:
    partial = Partial(tmp_path, "name")
    partial.begin('"1"', 4, parts=True)
    partial.write(0, b"old")
    partial.keep()
    failed = hold("unlink", 99, suffix=".part")
    partial.begin('"2"', 4, parts=True)
    assert len(failed) == 1 and partial.path.read_bytes() == b""
    partial.write(0, b"new")
    partial.discard()
    assert len(failed) == 2 and partial.path.read_bytes() == b"" and Partial(tmp_path, "name").done == 0


def test_a_name_that_is_tried_is_not_taken(hold: Hold, tmp_path: Path) -> None:
    """A scanner holds the file of the trial for long: it stays, and the clip still gets its name."""
    failed, path = hold("unlink", 7, suffix="~.mp4"), tmp_path / "clip_33frames.mp4"
    with new_file(lambda: path) as file:
        assert not path.exists(), "nobody sees it before it is whole"
        file.unfinished.write_bytes(b"clip")
    assert len(failed) == 7 and path.read_bytes() == b"clip"
