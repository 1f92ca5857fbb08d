"""The second run, runs side by side, runs that were killed, and a cache that is full or was tampered with."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devtools.paths import ROOT
from pipeline.download.cache import DAY, Cache, Index
from pipeline.download.fetch import fetch
from pipeline.http import environment
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from pipeline.http.threads import never
from tests.support.hostile_server import QUICK, File, HostileServer, redirect, status

LINK = "https://a.example/lora.safetensors"
OTHER = "https://b.example/same.safetensors"
DATA = random.Random(0).randbytes(2_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pipeline.download.fetch import fetch
from pipeline.http import policy as http
from tests.support.loopback import loopback_policy_of
print(fetch(sys.argv[2], folder=Path(sys.argv[3]), policy=loopback_policy_of(http, sys.argv[4])))
"""
"""A process that fetches."""


@pytest.fixture
def served(hostile: HostileServer) -> File:
    served = hostile.routes["/lora.safetensors"] = hostile.routes["/same.safetensors"] = File(DATA)
    return served


def get(hostile: HostileServer, folder: Path, link: str = LINK, offline: bool = False, **options: object) -> Path:
    return fetch(link, folder=folder / "cache", policy=hostile.policy(offline=offline), tokens=Tokens({}), **options)


def process(hostile: HostileServer, folder: Path, link: str = LINK) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(ROOT), link, str(folder / "cache"),
                             hostile.environment()], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_second_run_only_asks(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    path = get(hostile, tmp_path)
    sent, seen = served.sent, len(hostile.seen)
    assert get(hostile, tmp_path) == path
    assert (served.sent, len(hostile.seen)) == (sent, seen + 1)
    assert hostile.seen[-1].headers["if-none-match"] == '"one"'


def test_a_change_is_fetched(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    old = get(hostile, tmp_path)
    served.data, served.etag = DATA[::-1], '"two"'
    assert get(hostile, tmp_path).read_bytes() == DATA[::-1]
    assert old.read_bytes() == DATA  # whoever has the old one keeps it


def test_a_pin_or_offline_asks_nobody(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    path = get(hostile, tmp_path)
    hostile.close()
    seen = len(hostile.seen)
    environment._context.cache_clear()
    assert get(hostile, tmp_path, sha256=DIGEST) == path
    assert get(hostile, tmp_path, sha256=f"sha256:{DIGEST.upper()}") == path
    assert get(hostile, tmp_path, "https://never.example/asked", sha256=DIGEST) == path
    assert get(hostile, tmp_path, offline=True) == path
    assert len(hostile.seen) == seen
    assert environment._context.cache_info().misses == 0, "certificate authorities take longer to load than a hit may"


def test_offline_without_the_file(hostile: HostileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="was not fetched yet, and WAN22_OFFLINE is set"):
        get(hostile, tmp_path, offline=True)
    assert hostile.seen == []


def test_a_pin_that_the_known_file_contradicts(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    get(hostile, tmp_path)
    for offline in (True, False):
        with pytest.raises(DownloadError, match=f"has the SHA-256 {DIGEST}, not 0+ as asked"):
            get(hostile, tmp_path, sha256="0" * 64, offline=offline)


def test_a_server_in_trouble_leaves_what_is_known(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    path = get(hostile, tmp_path)
    hostile.routes["/lora.safetensors"] = status(503)
    assert get(hostile, tmp_path) == path
    hostile.close()
    assert get(hostile, tmp_path) == path


def test_a_file_that_is_gone_from_the_server_is_said_to_be(hostile: HostileServer, served: File, tmp_path: Path,
                                                           ) -> None:
    get(hostile, tmp_path)
    hostile.routes["/lora.safetensors"] = status(404)
    with pytest.raises(DownloadError, match="does not exist"):
        get(hostile, tmp_path)


def test_the_same_bytes_are_kept_once(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    assert get(hostile, tmp_path) == get(hostile, tmp_path, OTHER)
    assert served.bodies == 2


def test_bytes_that_the_hub_announces_are_not_fetched_again(hostile: HostileServer, served: File, tmp_path: Path,
                                                            ) -> None:
    path = get(hostile, tmp_path)
    hostile.routes["/o/r/resolve/main/f.safetensors"] = redirect(OTHER, headers={"X-Linked-Etag": f'"{DIGEST}"'})
    assert get(hostile, tmp_path, "o/r/f.safetensors") == path
    assert served.bodies == 1


def test_inspection_sees_a_file_of_the_cache_too(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    get(hostile, tmp_path)
    sizes: list[int | None] = []

    def inspect(read: Callable[[int, int], bytes], size: int | None, name: str) -> None:
        sizes.append(size)
        assert read(1000, 10) == DATA[1000:1010]
        raise ValueError("no LoRA")

    for options in ({"offline": True}, {"sha256": DIGEST}, {}):
        with pytest.raises(ValueError, match="no LoRA"):
            get(hostile, tmp_path, inspect=inspect, **options)
    assert sizes == [len(DATA)] * 3


@pytest.mark.parametrize("tamper", [
    lambda path: path.write_bytes(DATA[:-1]),
    lambda path: path.write_bytes(DATA[:-1] + b"x"),
    lambda path: path.unlink(),
    lambda path: os.truncate(path, 1000),
])
def test_a_file_that_was_tampered_with_is_fetched_again(hostile: HostileServer, served: File, tmp_path: Path,
                                                        tamper: Callable[[Path], None]) -> None:
    tamper(get(hostile, tmp_path))
    assert get(hostile, tmp_path).read_bytes() == DATA


def test_a_file_is_not_hashed_again_while_it_is_as_it_was(hostile: HostileServer, served: File, tmp_path: Path,
                                                          ) -> None:
    """Size and time of change decide: shown by bytes that change while these do not."""
    path = get(hostile, tmp_path)
    before = path.stat()
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert get(hostile, tmp_path, sha256=DIGEST).read_bytes() == DATA[::-1]
    os.utime(path)
    assert get(hostile, tmp_path, sha256=DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("damage", [
    lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"garbage" * 999),
    lambda path: os.truncate(path, 5000),
])
def test_a_lost_index_costs_a_hash_and_no_download(hostile: HostileServer, served: File, tmp_path: Path,
                                                   damage: Callable[[Path], None]) -> None:
    path = get(hostile, tmp_path)
    damage(tmp_path / "cache" / "index.sqlite3")
    seen = len(hostile.seen)
    assert get(hostile, tmp_path, sha256=DIGEST) == path
    assert len(hostile.seen) == seen


def _aged(folder: Path, sizes_and_days: dict[str, tuple[int, float]]) -> dict[str, Path]:
    """Files of so many bytes, last used so many days ago."""
    cache, paths = Cache(folder), {}
    for name, (size, days) in sizes_and_days.items():
        data = random.Random(name).randbytes(size)
        digest = hashlib.sha256(data).hexdigest()
        paths[name] = cache.path(digest)
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(data)
        assert cache.find(digest, never) == paths[name]
        with sqlite3.connect(folder / "index.sqlite3") as db:
            db.execute("UPDATE files SET used = ? WHERE sha256 = ?", (time.time() - days * DAY, digest))
    return paths


def test_what_was_unused_longest_makes_room(tmp_path: Path) -> None:
    paths = _aged(tmp_path, {"a": (1000, 9), "b": (1000, 30), "c": (1000, 3), "new": (5000, 0.5)})
    Cache(tmp_path).clean(7500)
    assert [name for name, path in paths.items() if not path.exists()] == ["b"]
    Cache(tmp_path).clean(100)
    assert [name for name, path in paths.items() if path.exists()] == ["new"]


def test_a_use_renews_a_file(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    paths = _aged(tmp_path / "cache", {"a": (1000, 9), "b": (1000, 30)})
    get(hostile, tmp_path, "https://never.example/asked", sha256=paths["b"].name)
    path = get(hostile, tmp_path, cache_bytes=1)
    assert [p.exists() for p in (*paths.values(), path)] == [False, True, True]


def test_downloads_given_up_long_ago_go(hostile: HostileServer, tmp_path: Path) -> None:
    old, new = (tmp_path / "partial" / f"{name}.part" for name in ("old", "new"))
    old.parent.mkdir()
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 8 * DAY,) * 2)
    Cache(tmp_path).clean(1)
    assert (old.exists(), new.exists()) == (False, True)


def _ended(folder: Path, sizes_and_days: dict[str, tuple[int, float]]) -> dict[str, Path]:
    """Downloads that ended early at so many bytes, so many days ago, under the names of their links."""
    paths = {}
    for link, (size, days) in sizes_and_days.items():
        partial = Cache(folder).partial(link)
        partial.begin('"1"', 10 * size, parts=True)
        partial.write(0, bytes(size))
        partial.keep()
        os.utime(partial.path, (time.time() - days * DAY,) * 2)
        paths[link] = partial.path
    return paths


def test_downloads_that_ended_early_count_and_go_by_how_idle_they_are(tmp_path: Path) -> None:
    size = 2**16
    files = _aged(tmp_path, {"old": (size, 30), "used": (size, 0.5)})
    ended = _ended(tmp_path, {"days ago": (size, 3), "just now": (size, 0.01), "under way": (size, 3)})

    def there() -> set[str]:
        return {name for name, path in {**files, **ended}.items() if path.exists()}

    cache = Cache(tmp_path)
    with cache.lock("under way", never):
        cache.clean(5 * size)
        assert there() == {*files, *ended}
        cache.clean(4 * size)
        assert there() == {"old", "used", "just now", "under way"}
        cache.clean(3 * size)
        assert there() == {"used", "just now", "under way"}
        idle = cache.usage().idle
        cache.clean(0)
        assert there() == {"used", "under way"} and idle == size and cache.usage().idle == 0
    cache.clean(0)
    assert there() == {"used"} and not list(tmp_path.glob("partial/*.json"))


def test_downloads_that_all_end_early_stay_within_the_limit(hostile: HostileServer, tmp_path: Path) -> None:
    """The one that ended last is kept beyond it, and the next one goes on from there."""
    served = hostile.routes["/f"] = File(DATA, cut_after=1_000_000)
    once = hostile.policy(replace(QUICK, attempts=1, step=10**9))
    for number in range(4):
        with pytest.raises(DownloadError, match="of 2 MB are kept"):
            fetch(f"https://a.example/f?{number}", folder=tmp_path, policy=once, tokens=Tokens({}), cache_bytes=0)
    assert len(list(tmp_path.glob("partial/*.part"))) == 1
    served.cut_after, sent = None, served.sent
    fetch("https://a.example/f?3", folder=tmp_path, policy=once, tokens=Tokens({}), cache_bytes=0)
    assert served.sent - sent < 1_200_000


def test_two_threads_download_once(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.rate = 8_000_000
    found: list[Path] = []
    alone = hostile.policy(replace(QUICK, streams=1))  # a stream that others take over from may get more than it keeps

    def get_alone() -> None:
        found.append(fetch(LINK, folder=tmp_path / "cache", policy=alone, tokens=Tokens({})))

    threads = [threading.Thread(target=get_alone) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1 and found[0].read_bytes() == DATA
    assert served.sent == len(DATA)


def test_one_who_waits_for_another_can_be_stopped(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    served.hang_at = 1_000_000
    ended = threading.Event()

    def stop_first() -> None:
        if ended.is_set():
            raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            get(hostile, tmp_path, stop=stop_first)

    def stop_second() -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=first)
    thread.start()
    wait_until(lambda: served.sent >= 1_000_000)
    seen = len(hostile.seen)
    with pytest.raises(KeyboardInterrupt):
        get(hostile, tmp_path, stop=stop_second)
    assert len(hostile.seen) == seen
    ended.set()
    thread.join()


def test_eight_processes_download_once(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    processes = [process(hostile, tmp_path) for _ in range(8)]
    outcomes = [(p.communicate(timeout=300), p.returncode) for p in processes]
    assert [code for _, code in outcomes] == [0] * 8, outcomes
    assert {out.strip() for (out, _), _ in outcomes} == {str(tmp_path / "cache" / "sha256" / DIGEST[:2] / DIGEST)}
    assert served.sent == len(DATA)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_download_goes_on(hostile: HostileServer, tmp_path: Path) -> None:
    """Killed while the server is silent, some notes into the file; nothing of it can be taken for a file."""
    served = hostile.routes["/lora.safetensors"] = File(random.Random(1).randbytes(6_000_000), hang_at=4_000_000)
    killed = process(hostile, tmp_path)
    note = tmp_path / "cache" / "partial"
    wait_until(lambda: served.sent >= 4_000_000 and any(note.glob("*.json")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (tmp_path / "cache" / "sha256").exists()
    served.hang_at, sent = None, served.sent
    assert get(hostile, tmp_path).read_bytes() == served.data
    assert served.sent - sent < len(served.data) - 1_000_000  # went on, with a good part of what was there


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_killed_at_any_moment_the_next_run_is_right(hostile: HostileServer, tmp_path: Path) -> None:
    served = hostile.routes["/lora.safetensors"] = File(random.Random(2).randbytes(3_000_000), rate=6_000_000)
    for portion in (1, 500_000, 1_500_000, 2_999_999):
        sent = served.sent
        killed = process(hostile, tmp_path)
        wait_until(lambda killed=killed, enough=sent + portion: served.sent >= enough or killed.poll() is not None)
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
        for path in (tmp_path / "cache").glob("sha256/*/*"):
            assert path.read_bytes() == served.data
    assert get(hostile, tmp_path).read_bytes() == served.data


def test_the_index_survives_a_locked_moment(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite3")
    assert index.entry(LINK) is None
    blocker = sqlite3.connect(tmp_path / "index.sqlite3", check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.2, blocker.rollback).start()
    assert index.entry(LINK) is None
