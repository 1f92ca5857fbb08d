"""The one gap in the guard: the server that the settings name, at its own origin, and nothing beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.http import policy as http
from pipeline.http.address import resolve
from pipeline.http.errors import DownloadError
from pipeline.http.own_server import own_addresses, parse_own_server, with_own_server
from pipeline.http.policy import Policy
from pipeline.http.secrets import Tokens
from pipeline.http.session import Session
from pipeline.remote.api import Request, get
from pipeline.remote.errors import ErrorKind, RemoteError
from pipeline.remote.exchange import exchange
from tests.http.test_address import DISGUISES
from tests.support.loopback import loopback_policy

METADATA = "http://169.254.169.254/latest/meta-data/"


class Server(ThreadingHTTPServer):
    """A plain http server on loopback: answers `ok`, or redirects to `location`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.location = ""
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.headers['Host']}{self.path}")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(302 if self.server.location else 200)
        self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


def policy_for(address: str, *found: str) -> Policy:
    """The policy of normal use with an own server; found: the addresses of its name, each look-up taking the next
    list."""
    looks = iter([list(one.split()) for one in found])
    return with_own_server(Policy(proxy=lambda url: None), parse_own_server(address),
                           lambda host, port: next(looks) if found else resolve(host, port))


def test_the_named_server_is_asked_by_plain_http_and_its_redirects_stay_there(server: Server) -> None:
    own = f"http://localhost:{server.port}"
    policy = policy_for(own, *["127.0.0.1"] * 3)
    assert exchange(get(f"{own}/a?b=1"), policy, 30.0).body == b"ok"
    assert exchange(Request("POST", f"{own}/c", body=b"x" * 10**6), policy, 30.0).status == 200
    server.location = "/there"
    session = Session(policy)
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        session.get(f"{own}/d", {})
    places = [place.partition("/")[2] for place in server.seen]
    assert places == ["a?b=1", "c", "d", *["there"] * 5]
    assert {place.partition("/")[0] for place in server.seen} == {f"localhost:{server.port}"}


@pytest.mark.parametrize("target", [
    METADATA, "http://127.0.0.1:{other}/x", "http://localhost:{other}/x", "https://localhost:{port}/x",
    "http://[::1]:{port}/x", "http://127.0.0.1:{port}/x", "http://me@localhost:{port}/x", "https://a.example/x",
    "//a.example/x", "file:///etc/passwd"])
def test_a_redirect_off_the_named_origin_is_not_followed(server: Server, target: str) -> None:
    server.location = target.format(port=server.port, other=server.port + 1)
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    policy = with_own_server(loopback_policy(http, {}, None, resolve=look_up),
                             parse_own_server(f"http://localhost:{server.port}"), look_up)
    with pytest.raises(DownloadError):
        Session(policy).get(f"http://localhost:{server.port}/start", {})
    assert len(server.seen) == 1 and asked == ["localhost"], "nothing else is even looked up"


@pytest.mark.parametrize("link", [
    "http://127.0.0.1:{other}/x", "http://user@127.0.0.1:{port}/x", "https://127.0.0.1:{port}/x",
    "http://localhost:{port}/x", "http://[::1]:{port}/x", "http://[::ffff:127.0.0.1]:{port}/x",
    "http://[::ffff:7f00:1]:{port}/x", "http://2130706433:{port}/x", "http://0x7f.1:{port}/x", "http://127.1:{port}/x",
    "http://127.0.0.1:{port}\\@a.example/x", METADATA, *DISGUISES])
def test_another_origin_is_refused_beside_the_named_one(server: Server, link: str) -> None:
    link = link.replace("{port}", str(server.port)).replace("{other}", str(server.port + 1))
    policy = policy_for(f"http://127.0.0.1:{server.port}")
    with pytest.raises((RemoteError, DownloadError)):
        exchange(get(f"https:{link}" if link.startswith("//") else link), policy, 30.0)
    assert server.seen == []


@pytest.mark.parametrize("later", ["169.254.169.254", "8.8.8.8", "127.0.0.1", "::1", "::ffff:192.168.1.20",
                                   "::ffff:127.0.0.1", "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "fe80::1%eth0",
                                   "192.168.1.20 169.254.169.254", "224.0.0.1", "nonsense"])
def test_a_name_that_leads_elsewhere_later_is_not_connected_to(later: str) -> None:
    """DNS rebinding: the box when the settings were saved, and another machine when a clip is made."""
    own = parse_own_server("http://gpubox.lan:8188")
    assert own_addresses(own, lambda host, port: ["192.168.1.20", "fd12::5"])[0] == ("192.168.1.20", 8188)
    with pytest.raises(RemoteError) as refused:
        exchange(get("http://gpubox.lan:8188/x"), policy_for("http://gpubox.lan:8188", later), 30.0)
    assert refused.value.kind == ErrorKind.REFUSED_HERE and "http://gpubox.lan:8188 is refused" in str(refused.value)


def test_a_name_is_looked_up_once_a_session(server: Server) -> None:
    """And what was checked is what is connected to."""
    policy = policy_for(f"http://localhost:{server.port}", "127.0.0.1", "169.254.169.254")
    session = Session(policy)
    for _ in range(2):
        session.get(f"http://localhost:{server.port}/x", {}).close()
    with pytest.raises(DownloadError, match=r"leads to 169\.254\.169\.254"):
        Session(policy).get(f"http://localhost:{server.port}/x", {})
    assert len(server.seen) == 2


@pytest.mark.parametrize(("address", "text"), [
    ("http://192.168.1.20:8188/", "http://192.168.1.20:8188"), ("http://GPUbox.lan", "http://gpubox.lan"),
    ("https://gpu.example/comfy/", "https://gpu.example/comfy"), ("http://[fd12::5]:8188", "http://[fd12::5]:8188"),
    (" http://100.99.1.2:8188 ", "http://100.99.1.2:8188")])
def test_an_address_is_kept_in_one_form(address: str, text: str) -> None:
    assert parse_own_server(address).text == text


@pytest.mark.parametrize(("address", "said"), [
    ("192.168.1.20:8188", "Write it as in http://"), ("ftp://192.168.1.20", "only https"),
    ("http://8.8.8.8:8188", "Use https"), (METADATA, "no server of your network"),
    ("http://[fd00:ec2::254]/", "no server of your network"), ("http://key@192.168.1.20:8188", "a user name"),
    ("http://192.168.1.20:8188/?token=a", "has a ?"), ("http://192.168.1.20:22", "port 22"),
    ("http://[::ffff:192.168.1.20]:8188", "no server of your network"), ("http://0x7f.1:8188", "stands for an address"),
    ("http://0.0.0.0:8188", "no server of your network"), ("http:///x", "names no server")])
def test_an_address_that_may_not_be_named(address: str, said: str) -> None:
    with pytest.raises(DownloadError, match=said):
        parse_own_server(address)


def test_elsewhere_the_guard_is_as_it_was(server: Server, tmp_path: Path) -> None:
    """Whatever the settings name for the one provider: a link of a LoRA or a picture is not let in there."""
    for link in (f"http://127.0.0.1:{server.port}/x", f"https://127.0.0.1:{server.port}/x"):
        with pytest.raises(DownloadError):
            fetch(link, folder=tmp_path, policy=Policy(proxy=lambda url: None), tokens=Tokens({}))
        with pytest.raises(RemoteError):
            exchange(get(link), Policy(proxy=lambda url: None), 30.0)
    assert server.seen == []


def test_no_proxy_stands_before_a_server_of_the_own_network() -> None:
    def through(address: str) -> str | None:
        policy = with_own_server(Policy(proxy=lambda url: "http://proxy.example:3128"), parse_own_server(address))
        return policy.proxy(policy.parse(f"{address}/x"))

    assert through("http://gpu.corp.example:8188") is None and through("https://gpubox.lan") is None
    assert through("https://gpu.example") == "http://proxy.example:3128"
