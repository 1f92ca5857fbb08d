"""That the loopback hosts of results tell a key that arrives, and fail as they are told to."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.providers.cdn_server import CdnServer
from tests.support.providers.speaking import Asker


@pytest.fixture
def cdn(tmp_path: Path) -> Iterator[CdnServer]:
    with closing(CdnServer(tmp_path)) as cdn:
        yield cdn


def test_a_key_at_the_cdn_is_a_violation(cdn: CdnServer) -> None:
    cdn.keys.add("my-key")
    ask, link = Asker(cdn), cdn.publish("v3b.fal.media", "one")
    assert ask("GET", link).status == 200
    assert cdn.violations == []
    for headers in ({"Authorization": "Bearer x"}, {"Cookie": "a=b"}, {"X-Key": "my-key"}):
        ask("GET", link, headers=headers)
    ask("GET", f"{link}&key=my-key")
    ask("POST", link, b"my-key")
    assert len(cdn.violations) == 5


def test_links_expire_until_there_is_a_fresh_one(cdn: CdnServer) -> None:
    ask = Asker(cdn)
    first, second, third = (cdn.publish("replicate.delivery", "one", expired=1) for _ in range(3))
    assert [ask("GET", link).status for link in (first, second, third)] == [403, 200, 200]
    assert second == third
    assert ask("GET", first.partition("?")[0]).status == 403
    assert ask("GET", "https://replicate.delivery/two.mp4").status == 404
    assert cdn.delivered == {"one": 2}


def test_parts_of_a_clip(cdn: CdnServer) -> None:
    ask, link = Asker(cdn), cdn.publish("replicate.delivery", "one")
    whole = ask("GET", link)
    part = ask("GET", link, headers={"Range": "bytes=100-199", "If-Range": whole.headers["etag"]})
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.body)}"
    assert ask("GET", link, headers={"Range": "bytes=100-", "If-Range": '"other"'}).status == 200
    assert ask("GET", link, headers={"Range": f"bytes={len(whole.body)}-"}).status == 416


def test_faults_of_a_download(cdn: CdnServer) -> None:
    ask, link = Asker(cdn), cdn.publish("v3b.fal.media", "one")
    whole = ask("GET", link).body
    cdn.fail("download", faults.shortened())
    assert ask("GET", link).body == whole[:len(whole) // 2]
    cdn.fail("download", faults.cut())
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask("GET", link)
    cdn.fail("download", faults.answer(200, "<html>sorry</html>", {"Content-Type": "video/mp4"}))
    assert ask("GET", link).body == b"<html>sorry</html>"
    cdn.fail("download", faults.redirect("http://169.254.169.254/latest"))
    assert ask("GET", link).headers["location"] == "http://169.254.169.254/latest"
    cdn.fail("download", faults.chain(2, "file:///etc/passwd"), times=3)
    path = link
    for _ in range(3):
        reply = ask("GET", path)
        assert reply.status == 302
        path = f"https://v3b.fal.media{reply.headers['location']}"
    assert reply.headers["location"] == "file:///etc/passwd"
    cdn.fail("download", faults.chain(1), times=2)
    assert ask("GET", f"https://v3b.fal.media{ask('GET', link).headers['location']}").body == whole
