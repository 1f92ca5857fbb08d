"""No link leads into this machine or its network, however it is written and wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from pipeline.download.fetch import fetch
from pipeline.http import policy as http
from pipeline.http.address import is_public, parse_url
from pipeline.http.errors import DownloadError
from pipeline.http.policy import Timeouts
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import File, HostileServer, redirect
from tests.support.loopback import loopback_policy

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "nonsense", "",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.1.1",
          "223.255.255.1", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::808:808"]
DISGUISES = [
    "https://127.0.0.1/f", "https://2130706433/f", "https://0x7f000001/f", "https://0x7f.1/f", "https://0177.0.0.1/f",
    "https://127.1/f", "https://127.0.0.1./f", "https://[::1]/f", "https://[::ffff:127.0.0.1]/f",
    "https://[0:0:0:0:0:ffff:7f00:1]/f", "https://[64:ff9b::127.0.0.1]/f", "https://[2002:7f00:1::]/f",
    "https://[2001:0:7f00:1::]/f", "https://\uff11\uff12\uff17.0.0.1/f", "https://\u2460\u2461\u2466.0.0.1/f",
    "https://127\u30020\u30020\u30021/f",
    "https://169.254.169.254/latest", "https://0/f", "https://[fe80::1%25eth0]/f", "https://10.0.0.1:8443/f",
    "http://a.example/f", "file:///etc/passwd", "https://a.example:22/f", "https://user@a.example/f",
    "//127.0.0.1/f", "https:\\\\127.0.0.1\\f", "https://a.example\\@127.0.0.1/f", "https://a.example\t.b/f",
    "https://localhost/f", "https://localhost./f", "https://name.internal/f",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


def _to_itself(host: str, port: int) -> list[str]:
    return [host if host.replace(".", "").isdigit() or ":" in host else "127.0.0.1"]


@pytest.mark.parametrize("link", DISGUISES)
def test_a_disguise_is_refused_at_once(hostile: HostileServer, tmp_path: Path, link: str) -> None:
    link = f"https:{link}" if link.startswith("//") else link
    with pytest.raises(DownloadError):
        fetch(link, folder=tmp_path / "cache", policy=hostile.policy(resolve=_to_itself), tokens=Tokens({}))
    assert hostile.seen == []


@pytest.mark.parametrize("link", DISGUISES)
def test_a_disguise_is_refused_after_a_redirect(hostile: HostileServer, tmp_path: Path, link: str) -> None:
    hostile.routes["/f"] = redirect(link.encode().decode("latin-1"))
    hostile.routes["/start"] = redirect("https://b.example/f")
    with pytest.raises(DownloadError):
        fetch("https://a.example/start", folder=tmp_path / "cache", policy=hostile.policy(resolve=_to_itself),
              tokens=Tokens({}))
    assert [(seen.host, seen.target) for seen in hostile.seen] == [("a.example", "/start"), ("b.example", "/f")]


def test_one_private_answer_among_public_ones_is_enough(tmp_path: Path) -> None:
    policy = loopback_policy(http, {}, None, resolve=lambda host, port: ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(DownloadError, match="not on the public internet"):
        fetch("https://name.example/f", folder=tmp_path, policy=policy, tokens=Tokens({}))


def test_a_name_that_changes_its_mind_is_asked_once(hostile: HostileServer, tmp_path: Path) -> None:
    """DNS rebinding: public when it is checked, this machine when it is connected to."""
    hostile.routes["/f"] = File(b"secret of this machine")
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) > 1 else ["2e00::1"]  # public by its block, but nobody has it

    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(f"https://rebind.example:{hostile.port}/f", folder=tmp_path / "cache", tokens=Tokens({}),
              policy=hostile.policy(Timeouts(connect=0.2, attempts=1), resolve=resolve))
    assert asked == ["rebind.example"] and hostile.seen == []


def test_a_certificate_of_nobody_is_refused(hostile: HostileServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = HostileServer(other, trustme.CA())
    policy = hostile.policy(ca=str(stranger.ca))
    stranger.close()
    with pytest.raises(DownloadError, match="could not prove who it is"):
        fetch("https://a.example/f", folder=tmp_path, policy=policy, tokens=Tokens({}))
    assert hostile.seen == []


def test_a_certificate_for_another_name_is_refused(hostile: HostileServer, tmp_path: Path) -> None:
    policy = hostile.policy(hosts={"other.example": ("127.0.0.1", hostile.port)})
    with pytest.raises(DownloadError, match="could not prove who it is"):
        fetch("https://other.example/f", folder=tmp_path, policy=policy, tokens=Tokens({}))
    assert hostile.seen == []


def test_names_are_read_as_browsers_read_them() -> None:
    assert parse_url("https://BÜCHER.example./ä b?q=ö#x").text == "https://xn--bcher-kva.example/%C3%A4%20b?q=%C3%B6"
    assert parse_url("https://A.example:443/").origin == "https://a.example"
    assert parse_url("https://[2606:4700::1111]:8443/x").authority == "[2606:4700::1111]:8443"
    assert parse_url("../x", parse_url("https://a.example/y/z")).text == "https://a.example/x"
