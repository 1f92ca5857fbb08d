"""Bytes that are cut, changed, late, endless, wrong or slow: what arrives is whole and right, or nothing does."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.download.ranged import Rate
from pipeline.download.ranges import Ranges, Work
from pipeline.http.errors import DownloadError
from pipeline.http.policy import Timeouts
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import QUICK, File, HostileServer, Request, status

SIZE = 3_000_000
LINK = "https://a.example/lora.safetensors"
ONCE = replace(QUICK, attempts=1)
"""Gives up at the first trouble that brings nothing."""


class StoppedError(BaseException):
    """As ComfyUI's interrupt is: not an Exception that a careless except catches."""


def data_of(size: int = SIZE, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def get(hostile: HostileServer, folder: Path, timeouts: Timeouts = QUICK, **options: object) -> Path:
    return fetch(LINK, folder=folder / "cache", policy=hostile.policy(timeouts), tokens=Tokens({}), **options)


def cached_files(folder: Path) -> list[Path]:
    """What somebody might use as a file."""
    return [path for path in (folder / "cache" / "sha256").rglob("*") if path.is_file()]


def kept(folder: Path) -> list[Path]:
    """What is kept of downloads that ended early."""
    return [path for path in (folder / "cache" / "partial").iterdir() if path.suffix != ".lock"]


def refused(hostile: HostileServer, folder: Path, sentence: str, timeouts: Timeouts = QUICK, **options: object) -> str:
    """Fetch what cannot be had; nothing may be left that looks like a file."""
    with pytest.raises(DownloadError, match=sentence) as caught:
        get(hostile, folder, timeouts, **options)
    assert cached_files(folder) == []
    return str(caught.value)


@pytest.fixture
def served(hostile: HostileServer) -> File:
    served = File(data_of())
    hostile.routes["/lora.safetensors"] = served
    return served


def test_a_file_arrives_whole_under_its_hash(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = get(hostile, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == served.data
    assert path.name == hashlib.sha256(served.data).hexdigest()
    assert seen[-1] == (SIZE, SIZE) and seen == sorted(seen)
    assert served.sent == SIZE  # not a byte twice
    assert list((tmp_path / "cache" / "partial").glob("*.part")) == []


@pytest.mark.parametrize("tenth", range(1, 10))
def test_cut_at_every_tenth_and_resumed_in_the_same_run(hostile: HostileServer, served: File, tmp_path: Path,
                                                        tenth: int) -> None:
    served.cut_after = SIZE * tenth // 10
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert served.sent <= SIZE + 2**16 * (served.bodies + 1)  # the opening comes again with each try


@pytest.mark.parametrize("tenth", range(1, 10))
def test_cut_at_every_tenth_and_resumed_by_the_next_run(hostile: HostileServer, served: File, tmp_path: Path,
                                                        tenth: int) -> None:
    served.cut_after = SIZE * tenth // 10
    once_only = replace(ONCE, step=10**9)
    sentence = refused(hostile, tmp_path, "broke off", once_only)
    assert "of 3 MB are kept: run again to go on from there." in sentence
    served.cut_after = None
    sent = served.sent
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert served.sent - sent <= SIZE - SIZE * tenth // 10 + 2**16
    assert hostile.seen[-1].headers["if-range"] == '"one"'


@pytest.mark.parametrize("etag", [None, '"one"'])
def test_a_server_that_does_not_know_if_range(hostile: HostileServer, served: File, tmp_path: Path, etag: str | None,
                                              ) -> None:
    served.etag, served.last_modified, served.if_range = etag, "Sun, 01 Nov 2026 10:00:00 GMT", False
    served.cut_after = SIZE // 2
    assert get(hostile, tmp_path, replace(QUICK, attempts=5)).read_bytes() == served.data


@pytest.mark.parametrize("bare", [True, False])
def test_by_the_date_when_there_is_no_etag(hostile: HostileServer, served: File, tmp_path: Path, bare: bool) -> None:
    served.bare_parts = bare
    served.etag, served.last_modified = None, "Sun, 01 Nov 2026 10:00:00 GMT"
    served.cut_after = SIZE // 2
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert hostile.seen[-1].headers["if-range"] == served.last_modified
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert hostile.seen[-1].headers["if-modified-since"] == served.last_modified


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_strong_validator_halves_are_never_joined(hostile: HostileServer, served: File, tmp_path: Path,
                                                            etag: str | None) -> None:
    served.etag, served.cut_after = etag, SIZE // 2
    assert "Nothing was kept" in refused(hostile, tmp_path, "broke off", replace(ONCE, step=10**9))
    assert kept(tmp_path) == []
    served.data, served.cut_after = data_of(seed=1), None
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert "range" not in hostile.seen[-1].headers  # not even the beginning and the rest


def test_etag_changed_between_two_runs(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.cut_after = SIZE // 2
    refused(hostile, tmp_path, "broke off", replace(ONCE, step=10**9))
    served.data, served.etag, served.cut_after = data_of(seed=1), '"two"', None
    assert get(hostile, tmp_path).read_bytes() == served.data


@pytest.mark.parametrize("ranges", [True, False])
def test_etag_changed_midway(hostile: HostileServer, served: File, tmp_path: Path, ranges: bool) -> None:
    """The old version is cut off, the new one stands when the download goes on."""
    served.cut_after = SIZE // 2
    new = File(data_of(seed=1), etag='"two"', ranges=ranges)

    def route(request: Request) -> None:
        (new if served.bodies else served)(request)

    hostile.routes["/lora.safetensors"] = route
    assert get(hostile, tmp_path).read_bytes() == new.data


def test_a_range_of_another_version_is_not_taken(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    """A server that ignores If-Range and sends a part of the new version."""
    new = File(data_of(seed=1), etag='"two"')

    def route(request: Request) -> None:
        del request.headers["If-Range"]
        (new if len(hostile.seen) > 1 else served)(request)

    hostile.routes["/lora.safetensors"] = route
    assert get(hostile, tmp_path).read_bytes() == new.data


def test_range_refused_comes_in_one_stream(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.ranges = False
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert len(hostile.seen) == 1


def test_range_refused_and_cut_starts_anew(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.ranges, served.cut_after = False, SIZE // 2
    assert "Nothing was kept" in refused(hostile, tmp_path, "broke off", replace(ONCE, step=10**9))
    assert kept(tmp_path) == []
    served.cut_after = None
    assert get(hostile, tmp_path).read_bytes() == served.data


@pytest.mark.parametrize(("announced", "sentence"), [(SIZE + 1000, "broke off"), (0, "is empty")])
def test_wrong_length(hostile: HostileServer, tmp_path: Path, announced: int, sentence: str) -> None:
    def route(request: Request) -> None:
        request.head(200, {"Content-Length": str(announced)})
        request.wfile.write(data_of()[:announced])
        request.cut()

    hostile.routes["/lora.safetensors"] = route
    refused(hostile, tmp_path, sentence, ONCE)


def test_a_part_other_than_the_one_asked_for(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/lora.safetensors"] = status(206, {"Content-Range": "bytes 5-99/100"}, b"x" * 95)
    refused(hostile, tmp_path, "another part of the file")
    hostile.routes["/lora.safetensors"] = status(206, {}, b"x" * 95)
    refused(hostile, tmp_path, "without saying which part")


def chunked(pieces: Callable[[int], bytes | None]) -> Callable[[Request], None]:
    def route(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"})
        number = 0
        while (piece := pieces(number)) is not None:
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            number += 1
        request.wfile.write(b"0\r\n\r\n")

    return route


def test_a_body_of_unknown_length(hostile: HostileServer, tmp_path: Path) -> None:
    data = data_of()
    hostile.routes["/lora.safetensors"] = chunked(lambda n: data[n * 70_000:(n + 1) * 70_000] or None)
    assert get(hostile, tmp_path).read_bytes() == data


def test_a_short_body_of_unknown_length(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/lora.safetensors"] = chunked(lambda n: b"short" if n == 0 else None)
    assert get(hostile, tmp_path).read_bytes() == b"short"


def test_an_endless_body_ends_at_the_limit(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/lora.safetensors"] = chunked(lambda n: bytes(65_536))
    refused(hostile, tmp_path, "over the limit of 1 MB", max_bytes=1_000_000)
    assert kept(tmp_path) == []


def test_a_cut_body_of_unknown_length_is_no_file(hostile: HostileServer, tmp_path: Path) -> None:
    def route(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"})
        request.wfile.write(b"186a0\r\n" + bytes(100_000) + b"\r\n")
        request.cut()

    hostile.routes["/lora.safetensors"] = route
    assert "Nothing was kept" in refused(hostile, tmp_path, "broke off", ONCE)
    assert kept(tmp_path) == []


def test_stop_keeps_nothing_that_no_run_can_go_on_from(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.ranges, served.hang_at = False, SIZE // 2

    def stop() -> None:
        if any(path.stat().st_size for path in (tmp_path / "cache").glob("partial/*.part")):
            raise StoppedError

    with pytest.raises(StoppedError):
        get(hostile, tmp_path, stop=stop)
    assert kept(tmp_path) == []


def test_a_body_that_ends_with_the_connection_is_refused(hostile: HostileServer, tmp_path: Path) -> None:
    def route(request: Request) -> None:
        request.head(200, {"Connection": "close"})
        request.wfile.write(b"what came before the cut")
        request.cut()

    hostile.routes["/lora.safetensors"] = route
    refused(hostile, tmp_path, "does not say how long the file is")


def test_too_large_is_refused_before_the_body(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    refused(hostile, tmp_path, "3 MB long, over the limit of 1 MB. Nothing was fetched", max_bytes=1_000_000)
    assert served.bodies == 0


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate"])
def test_a_packed_body_is_refused(hostile: HostileServer, served: File, tmp_path: Path, coding: str) -> None:
    served.headers["Content-Encoding"] = coding
    refused(hostile, tmp_path, f"sends the file packed \\({coding}\\)")
    assert hostile.seen[0].headers["accept-encoding"] == "identity"


def test_a_slow_drip_is_given_up(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.data, served.rate = data_of(200_000), 20_000
    drip = replace(ONCE, window=0.5, floor=100_000, worth=10**9, step=10**9)
    assert "are kept" in refused(hostile, tmp_path, "sends less than 100000 bytes a second", drip)


@pytest.mark.parametrize("at", [0, 70_000])
def test_a_server_that_hangs_is_given_up(hostile: HostileServer, served: File, tmp_path: Path, at: int) -> None:
    served.hang_at = at
    refused(hostile, tmp_path, "stopped sending", replace(ONCE, read=0.3, step=10**9))


@pytest.mark.parametrize("at", [0, 70_000])
def test_stop_is_obeyed_while_a_server_hangs(hostile: HostileServer, served: File, tmp_path: Path, at: int) -> None:
    served.hang_at = at
    asked = threading.Event()

    def stop() -> None:
        if served.sent >= at and hostile.seen:
            asked.set()
            raise StoppedError

    with pytest.raises(StoppedError):
        get(hostile, tmp_path, replace(QUICK, read=600.0, window=600.0), stop=stop)
    assert asked.is_set() and cached_files(tmp_path) == []


def test_stop_while_names_are_looked_up(hostile: HostileServer, tmp_path: Path) -> None:
    ended = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        ended.wait(600)
        return []

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        fetch("https://slow.example/f", folder=tmp_path, policy=hostile.policy(resolve=resolve), stop=stop,
              tokens=Tokens({}))
    ended.set()


def test_after_stop_the_next_run_goes_on(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.hang_at = SIZE // 2

    def stop() -> None:
        if served.sent >= SIZE // 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        get(hostile, tmp_path, stop=stop)
    served.hang_at, sent = None, served.sent
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert served.sent - sent < SIZE * 3 // 4


def test_several_connections_when_each_is_slow(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.data, served.rate = data_of(6_000_000), 2_000_000
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert served.at_once >= 4
    assert served.sent < len(served.data) * 1.5


def test_several_connections_that_are_cut_all_the_time(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.data, served.rate, served.cut_after = data_of(6_000_000), 2_000_000, 700_000
    assert get(hostile, tmp_path, replace(QUICK, attempts=20)).read_bytes() == served.data
    assert served.at_once >= 2


def test_connections_beyond_the_first_may_be_refused(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.data, served.rate = data_of(3_000_000), 2_000_000

    def route(request: Request) -> None:
        if served._running:
            request.answer(429, {"Retry-After": "1"})
        else:
            served(request)

    hostile.routes["/lora.safetensors"] = route
    assert get(hostile, tmp_path, replace(QUICK, attempts=20)).read_bytes() == served.data
    assert served.at_once == 1


def test_a_link_that_expires_midway_is_asked_for_anew(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    """The Hub and Civitai lead to a link that is good for a while only."""
    good_for = 2

    def blob(request: Request) -> None:
        latest = f"sig={len(hostile.asked('/lora.safetensors'))}" in request.path
        used = sum(seen.target == request.path for seen in hostile.asked("/blob"))
        (served if latest and used <= good_for else status(403))(request)

    def front(request: Request) -> None:
        request.answer(302, {"Location": f"https://cdn.example/blob?sig={len(hostile.asked('/lora.safetensors'))}"})

    hostile.routes["/lora.safetensors"], hostile.routes["/blob"] = front, blob
    served.cut_after = SIZE // 4
    assert get(hostile, tmp_path).read_bytes() == served.data
    served.data, served.etag, served.rate, served.cut_after = data_of(seed=1), '"two"', 2_000_000, None
    assert get(hostile, tmp_path, replace(QUICK, attempts=20)).read_bytes() == served.data
    assert any("sig=3" in seen.target for seen in hostile.asked("/blob"))  # several connections used a link up

def test_one_connection_when_it_is_fast(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    get(hostile, tmp_path, replace(QUICK, worth=600.0))
    assert served.bodies == 1


def test_inspection_comes_before_the_body(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    def inspect(read: Callable[[int, int], bytes], size: int | None, name: str) -> None:
        assert size == SIZE
        assert read(0, 8) == served.data[:8]
        assert read(60_000, 100_000) == served.data[60_000:160_000]
        assert read(SIZE - 4, 100) == served.data[-4:]
        raise ValueError("no LoRA")

    with pytest.raises(ValueError, match="no LoRA"):
        get(hostile, tmp_path, inspect=inspect)
    assert cached_files(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_what_inspection_refuses_is_not_fetched(hostile: HostileServer, served: File, tmp_path: Path, ranges: bool,
                                                ) -> None:
    served.data, served.ranges = data_of(30_000_000), ranges

    def inspect(read: Callable[[int, int], bytes], size: int | None, name: str) -> None:
        read(0, 100_000)
        raise ValueError("no LoRA")

    with pytest.raises(ValueError, match="no LoRA"):
        get(hostile, tmp_path, inspect=inspect)
    asked = [seen.headers["range"] for seen in hostile.seen]
    assert asked == (["bytes=0-65535", "bytes=65536-99999"] if ranges else ["bytes=0-65535"])
    assert served.sent == 100_000 if ranges else served.sent < 20_000_000  # what the line holds at most


def test_what_inspection_read_is_not_fetched_again(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    looked: list[bytes] = []
    path = get(hostile, tmp_path, inspect=lambda read, size, name: looked.append(read(0, 500_000)))
    assert path.read_bytes() == served.data
    assert looked == [served.data[:500_000]] * 2  # before the body, and of the file
    assert served.sent == SIZE


def test_a_wrong_pinned_hash_leaves_nothing(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    refused(hostile, tmp_path, "has the SHA-256 [0-9a-f]{64}, not 0{64} as asked", sha256="0" * 64)
    assert list((tmp_path / "cache" / "partial").glob("*.part")) == []
    digest = hashlib.sha256(served.data).hexdigest()
    assert get(hostile, tmp_path, sha256=digest.upper()).read_bytes() == served.data


def test_a_pin_that_is_no_hash(hostile: HostileServer, tmp_path: Path) -> None:
    refused(hostile, tmp_path, "'abc' is no SHA-256", sha256="abc")
    assert hostile.seen == []


def test_ranges() -> None:
    ranges = Ranges([(5, 7), (0, 2)])
    assert (ranges.prefix, ranges.total, ranges.gaps(10)) == (2, 4, [(2, 5), (7, 10)])
    ranges.add(2, 5)
    assert (list(ranges), ranges.gaps(7)) == ([(0, 7)], [])
    random_ranges, truth = Ranges(), set()
    source = random.Random(3)
    for _ in range(300):
        start = source.randrange(100)
        end = start + source.randrange(8)
        random_ranges.add(start, end)
        truth |= set(range(start, end))
        assert {i for a, b in random_ranges for i in range(a, b)} == truth
        assert all(before[1] < after[0] for before, after in zip(random_ranges, list(random_ranges)[1:], strict=False))


def test_work_is_handed_out_once() -> None:
    work = Work([(0, 10), (20, 25)], 4)
    assert work.claim() == (0, 4) and work.extend(4) == 8 and work.rest(8) == 10
    assert work.claim() == (8, 10) and work.extend(10) == 10
    assert work.claim() == (20, 24) and work.claim() == (24, 25) and work.claim() is None
    work.give_back(5, 8)
    assert work.claim() == (5, 8)


def test_rate_adds_connections_as_long_as_they_help() -> None:
    timeouts = Timeouts(measure=1.0, worth=4.0, streams=8)
    slow = Rate(timeouts, 0.0)
    assert slow.streams(0.5, 5, 1, 1000) == 1  # too early to tell
    assert slow.streams(1.0, 10, 1, 990) == 4
    assert slow.streams(2.0, 50, 4, 950) == 8
    assert slow.streams(3.0, 130, 8, 870) == 8
    full = Rate(timeouts, 0.0)
    assert full.streams(1.0, 10, 1, 990) == 4
    assert full.streams(2.0, 20, 4, 980) == 4  # the line gives no more
    assert full.streams(9.0, 30, 4, 970) == 4
    fast = Rate(timeouts, 0.0)
    assert fast.streams(1.0, 500, 1, 500) == 1


def test_rate_sees_a_stall() -> None:
    rate = Rate(Timeouts(window=30.0, floor=1000), 0.0)
    assert not rate.stalled(29.0, 0)
    assert rate.stalled(30.0, 29_000)
    assert not rate.stalled(31.0, 60_000)
    assert not rate.stalled(50.0, 60_000)
    assert rate.stalled(61.5, 60_000)
