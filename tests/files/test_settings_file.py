"""Settings of the environment, of a file and by default; and the cache's limit, which is one."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from pipeline.download.cache import DAY, Cache
from pipeline.download.cache_settings import cache_bytes, clean_up, shown_cache
from pipeline.http.errors import DownloadError
from pipeline.remote.errors import RemoteError
from pipeline.remote.ledger import Limits
from pipeline.remote.settings import Settings, read_settings, settings_file
from pipeline.remote.settings_page import save_settings, shown_settings


def test_the_environment_goes_before_the_file_and_that_before_the_default(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {}) == Settings()
    save_settings(tmp_path, b'{"max_cost": 0.5, "public_url": " https://a.example/x/ ", "concurrent": {"fal": 20}, '
                  b'"accepted_estimates": ["a/model", "a/model"]}', {})
    assert read_settings(tmp_path, {"WAN22_MAX_COST": "", "WAN22_PUBLIC_URL": ""}) == Settings(
        public_url="https://a.example/x", budget=Limits(clip=0.5), concurrent={"fal": 20},
        accepted_estimates=("a/model",))
    environ = {"WAN22_MAX_COST": "0.25", "WAN22_MAX_COST_PER_DAY": "3", "WAN22_LOCAL_ONLY": "1"}
    assert read_settings(tmp_path, environ) == Settings(True, "https://a.example/x", Limits(0.25, 3.0), {"fal": 20},
                                                        accepted_estimates=("a/model",))
    shown = shown_settings(tmp_path, environ)["settings"]
    assert shown["max_cost"] == {"value": 0.25, "default": 0.0, "source": "environment", "variable": "WAN22_MAX_COST"}
    assert [shown[name]["source"] for name in ("public_url", "concurrent")] == ["file", "file"]
    with pytest.raises(ValueError, match="WAN22_MAX_COST, which overrides"):
        save_settings(tmp_path, b'{"max_cost": 5}', environ)
    assert read_settings(tmp_path, {}).budget == Limits(clip=0.5)


def test_what_else_the_file_holds_stays(tmp_path: Path) -> None:
    path = settings_file(tmp_path).path
    path.write_text(json.dumps({"later": [None, 1], "max_cost": 1, "local_only": True}))
    save_settings(tmp_path, b'{"max_cost": null, "max_cost_per_day": 2}', {})
    assert json.loads(path.read_text()) == {"later": [None, 1], "local_only": True, "max_cost_per_day": 2.0}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("body", "said"), [
    ("nothing", "JSON such as"), ("[1]", "JSON such as"), ("{}", "JSON such as"), ("[" * 9000, "JSON such as"),
    ('{"max_coast": 1}', "'max_coast' is not a setting"),
    ('{"max_cost": "0,5"}', 'max_cost is "0,5"; it takes a number'),
    ('{"max_cost": NaN}', "takes a number"), ('{"max_cost": Infinity}', "takes a number"),
    ('{"max_cost": -1}', "from 0 to 100000"), ('{"max_cost": true}', "takes a number"),
    ('{"max_cost": 1e999}', "takes a number"), ('{"local_only": "no"}', "takes true or false"),
    ('{"public_url": "http://a.example"}', "not https"), ('{"public_url": "https://127.0.0.1"}', "no provider"),
    ('{"public_url": "https://me:secret@a.example"}', "password"), ('{"public_url": "https://a.example?x"}', "has a ?"),
    ('{"public_url": 5}', "takes text"), ('{"concurrent": {"fal": 0}}', "from 1 to 1000"),
    ('{"concurrent": {"fal": 1.5}}', "whole number"), ('{"concurrent": {"fal": true}}', "whole number"),
    ('{"local_only": true, "max_cost": -1}', "max_cost is -1"),
    ('{"accepted_estimates": "a/model"}', "takes a list of ids"),
    ('{"accepted_estimates": [""]}', "takes a list of ids"),
])
def test_what_is_not_valid_is_said_and_changes_nothing(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")) as refused:
        save_settings(tmp_path, body.encode(), {})
    assert "secret" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", ["", "[]", "{", '{"max_cost": "none"}', '{"max_cost_per_day": NaN}',
                                  '{"local_only": 0}'])
def test_a_file_that_cannot_be_used_stops_every_purchase_and_is_not_replaced(tmp_path: Path, held: str) -> None:
    path = settings_file(tmp_path).path
    path.write_text(held)
    with pytest.raises(RemoteError, match=r"remote\.json.* Nothing was sent"):
        read_settings(tmp_path, {})
    with pytest.raises(ValueError, match=r"remote\.json"):
        shown_settings(tmp_path, {})
    if not held.endswith("}"):
        with pytest.raises(ValueError, match="Correct the file"):
            save_settings(tmp_path, b'{"max_cost": 1}', {})
        assert path.read_text() == held


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_as_editors_on_windows_save_it(tmp_path: Path, encoding: str) -> None:
    settings_file(tmp_path).path.write_text('{"public_url": "https://\u00e9.example"}', encoding)
    assert read_settings(tmp_path, {}).public_url.endswith(".example")


@pytest.mark.parametrize("text", ["abc", "nan", "-1", "inf"])
def test_a_variable_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(RemoteError, match="variable WAN22_MAX_COST_PER_DAY cannot be used"):
        read_settings(tmp_path, {"WAN22_MAX_COST_PER_DAY": text})


def test_the_caches_limit(tmp_path: Path) -> None:
    assert cache_bytes(tmp_path, {}) == 50 * 10**9
    (tmp_path / "downloads.json").write_text('{"cache_gb": 2}')
    assert cache_bytes(tmp_path, {}) == 2 * 10**9
    assert cache_bytes(tmp_path, {"WAN22_CACHE_GB": "0.5"}) == 5 * 10**8
    with pytest.raises(DownloadError, match="WAN22_CACHE_GB cannot be used: cache_gb is"):
        cache_bytes(tmp_path, {"WAN22_CACHE_GB": "much"})


def test_what_the_cache_takes_is_told_and_cleaned_up_with_or_without_its_index(tmp_path: Path) -> None:
    downloads = tmp_path / "models" / "wan22_downloads"
    assert shown_cache(downloads, tmp_path, {})["files"] == 0 and not downloads.exists()
    clean_up(downloads)
    for name, days in (("old", 3), ("new", 0.5)):
        path = Cache(downloads).path(hashlib.sha256(name.encode()).hexdigest())
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(10_000))
        os.utime(path, (time.time() - days * DAY,) * 2)
    given_up = downloads / "partial" / "x.part"
    given_up.parent.mkdir()
    with given_up.open("wb") as file:
        file.truncate(10**12)  # a hole, which takes no room
        file.write(bytes(4096))
    os.utime(given_up, (time.time() - 8 * DAY,) * 2)
    shown = shown_cache(downloads, tmp_path, {})
    assert (shown["files"], shown["whole"]) == (2, 20_000)
    assert 4096 <= shown["partial"] < 10**6 and shown["idle"] == 10_000 + shown["partial"]
    clean_up(downloads)
    shown = shown_cache(downloads, tmp_path, {})
    assert [shown[name] for name in ("files", "whole", "partial", "idle")] == [1, 10_000, 0, 0]
