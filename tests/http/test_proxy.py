"""A proxy of the user's environment: it is used and named, looks up what we cannot, and sees no secret but its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.http import policy as http
from pipeline.http.address import parse_url
from pipeline.http.environment import environment_proxy, shown_proxy
from pipeline.http.errors import DownloadError, UnknownHostError
from pipeline.http.policy import Policy
from pipeline.http.secrets import Tokens
from pipeline.remote.api import post
from pipeline.remote.errors import ErrorKind, NoAnswerError, NotSentError, RemoteError
from pipeline.remote.exchange import exchange
from tests.support.hostile_server import QUICK, File, HostileServer, redirect
from tests.support.loopback import loopback_policy
from tests.support.loopback_server import AUTHORITY, Request
from tests.support.proxy_server import ProxyServer

TOKEN = "hf_SecretOfHuggingFace"
LOGIN = "user:p%40ss"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
BIG = {"prompt": "x" * 2_000_000}


def unknown(host: str, port: int) -> list[str]:
    raise UnknownHostError(f"There is no server named {host}.")


@pytest.fixture(autouse=True)
def environment(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but the one of the test, and the loopback servers' authority as a company's."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hostile.ca))


@pytest.fixture
def start(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ProxyServer]]:
    """Start a proxy that reaches the hostile server under all of its names; it becomes HTTPS_PROXY."""
    with ExitStack() as stack:
        def start(**options: object) -> ProxyServer:
            places = {f"{host}:443": place for host, place in hostile.loopback().items()}
            proxy = stack.enter_context(closing(ProxyServer(places, **options)))
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("p@ss", "p%40ss"))
            return proxy

        yield start


def behind(resolve: Callable[[str, int], list[str]] = unknown) -> Policy:
    """The policy of a user behind a proxy, where `resolve` is the only look-up there is."""
    return loopback_policy(http, {}, None, resolve=resolve, timeouts=QUICK, proxy=environment_proxy)


@pytest.mark.parametrize("authority", [None, AUTHORITY], ids=["http", "https"])
def test_a_download_goes_through_the_proxy_and_shows_it_no_token(
        hostile: HostileServer, start: Callable[..., ProxyServer], tmp_path: Path, authority: object) -> None:
    """The names are such that only the proxy can look them up."""
    proxy = start(login="user:p@ss", authority=authority)
    hostile.routes["/o/r/resolve/main/f.safetensors"] = redirect("https://cdn.example/blob?X-Signature=presigned")
    hostile.routes["cdn.example/blob"] = File(bytes(300_000))
    path = fetch("o/r/f.safetensors", folder=tmp_path, policy=behind(), tokens=Tokens({"HF_TOKEN": TOKEN}))
    assert path.read_bytes() == bytes(300_000)
    assert hostile.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert {head.split()[1] for head in proxy.heads} == {"huggingface.co:443", "cdn.example:443"}
    assert all(line.split(":")[0].lower() in ("host", "proxy-authorization", "user-agent")
               for head in proxy.heads for line in head.splitlines()[1:] if line)
    for secret in (TOKEN, "presigned", "f.safetensors"):
        assert secret not in "".join(proxy.heads) and secret.encode() not in proxy.carried
    assert all("proxy-authorization" not in seen.headers for seen in hostile.seen)


@pytest.mark.parametrize(("link", "resolve"), [
    ("https://10.0.0.1/f", unknown), ("https://[::1]/f", unknown), ("https://2130706433/f", unknown),
    ("https://a.example/f", lambda host, port: ["192.168.0.7"]),
    ("https://a.example/f", lambda host, port: ["8.8.8.8", "127.0.0.1"]),
])
def test_addresses_of_this_network_stay_refused(start: Callable[..., ProxyServer], tmp_path: Path, link: str,
                                                resolve: Callable[[str, int], list[str]]) -> None:
    proxy = start()
    with pytest.raises(DownloadError, match=r"not on the public internet|stands for an address"):
        fetch(link, folder=tmp_path, policy=behind(resolve), tokens=Tokens({}))
    assert proxy.heads == []


@pytest.mark.parametrize("host", ["localhost", "files.localhost", "nas.local", "metadata.example.internal", "nas.lan",
                                  "router.home.arpa", "intranet"])
def test_names_of_local_networks_are_not_the_proxys_to_look_up(start: Callable[..., ProxyServer], tmp_path: Path,
                                                                host: str) -> None:
    proxy = start()
    with pytest.raises(DownloadError, match=host):
        fetch(f"https://{host}/f", folder=tmp_path, policy=behind(), tokens=Tokens({}))
    assert proxy.heads == []


def test_hosts_of_no_proxy_are_reached_directly(hostile: HostileServer, start: Callable[..., ProxyServer],
                                                tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = start()
    hostile.routes["/f"] = File(b"weights")
    monkeypatch.setenv("NO_PROXY", "b.example, .a.example")
    policy = hostile.policy(proxy=environment_proxy)
    assert fetch("https://a.example/f", folder=tmp_path, policy=policy, tokens=Tokens({})).read_bytes() == b"weights"
    assert proxy.heads == []
    assert policy.through_proxy("https://a.example/f") == ""
    assert policy.through_proxy("https://cdn.example/f") == f" through the proxy {proxy.address}"


def test_a_look_up_that_hangs_is_waited_for_once(hostile: HostileServer, start: Callable[..., ProxyServer],
                                                 tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a firewall a name server may never answer; each request of a job would wait for it."""
    start()
    monkeypatch.setattr("pipeline.http.connection.LOOK_UP", 0.05)
    monkeypatch.setattr("pipeline.http.connection._unanswered", {})
    asked, ended = [], threading.Event()

    def hang(host: str, port: int) -> list[str]:
        asked.append(host)
        ended.wait(60)
        return []

    hostile.routes["/f"] = File(b"weights")
    for name in ("one", "two"):
        fetch("https://a.example/f", folder=tmp_path / name, policy=behind(hang), tokens=Tokens({}))
    ended.set()
    assert asked == ["a.example"]


@pytest.mark.parametrize(("variables", "proxy"), [
    ({}, None), ({"HTTP_PROXY": "http://h:1"}, None), ({"HTTPS_PROXY": "http://h:1"}, "http://h:1"),
    ({"https_proxy": "h:1", "HTTPS_PROXY": "http://other:2"}, "http://h:1"), ({"ALL_PROXY": "h:1"}, "http://h:1"),
    ({"ALL_PROXY": "http://h:1", "HTTPS_PROXY": "https://i:2"}, "https://i:2"),
    ({"HTTPS_PROXY": "http://h:1", "NO_PROXY": "*"}, None),
    ({"HTTPS_PROXY": "http://h:1", "no_proxy": "example"}, None),
])
def test_what_the_environment_says(variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch,
                                   ) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(parse_url("https://a.example/f")) == proxy


@pytest.mark.parametrize("value", ["http://name:secret@h:port", "ftp://name:secret@h:1", "http://", "http://:8080"])
def test_a_proxy_that_is_none_is_named_without_its_password(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(DownloadError, match=r"cannot be used\. Set HTTPS_PROXY") as caught:
        environment_proxy(parse_url("https://a.example/f"))
    assert "secret" not in str(caught.value)
    assert shown_proxy("http://name:se@cret@h:1/") == "h:1"


def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
    with pytest.raises(DownloadError, match="PySocks"):
        environment_proxy(parse_url("https://a.example/f"))


def test_the_last_byte_of_a_paid_request_is_known_behind_a_proxy(hostile: HostileServer,
                                                                 start: Callable[..., ProxyServer]) -> None:
    start()
    noted = []

    def route(request: Request) -> None:
        assert noted == [0]  # nothing had come whole before it was noted
        if len(hostile.seen) == 1:
            request.answer(200, body=b'{"id": 1}')
        else:
            request.reset()

    hostile.routes["/submit"] = route
    submit = post("https://a.example/submit", BIG)

    def note() -> None:
        noted.append(len(hostile.seen))

    assert exchange(submit, behind(), 30.0, before_last_byte=note).json() == {"id": 1}
    assert hostile.seen[0].body == BIG and hostile.seen[0].headers["content-length"] == str(len(submit.body))
    with pytest.raises(NoAnswerError):
        exchange(submit, behind(), 30.0, before_last_byte=lambda: None)
    assert len(hostile.seen) == 2 and hostile.violations == []


def test_a_proxy_that_breaks_off_midway_has_not_sent_it(hostile: HostileServer,
                                                        start: Callable[..., ProxyServer]) -> None:
    start(cut_after=300_000)
    noted = []
    with pytest.raises(NotSentError, match="before the request was sent"):
        exchange(post("https://a.example/submit", {"prompt": "x" * 50_000_000}), behind(), 30.0,
                 before_last_byte=lambda: noted.append(1))
    assert noted == [] and [seen for seen in hostile.seen if seen.body is not None] == []


@pytest.mark.parametrize(("options", "kind", "sentence"), [
    ({"refusal": "407 Proxy Authentication Required"}, ErrorKind.REFUSED_HERE, "asks for a name and a password"),
    ({"refusal": "403 Forbidden"}, ErrorKind.REFUSED_HERE, "allows no connection to a.example"),
    ({"refusal": "503 Busy"}, ErrorKind.TRANSIENT, "does not reach a.example"),
    ({"cut_after": 0}, ErrorKind.TRANSIENT, "cannot be reached, or breaks off"),
])
def test_a_proxy_that_does_not_do_it_costs_nothing(
        hostile: HostileServer, start: Callable[..., ProxyServer], tmp_path: Path, options: dict[str, object],
        kind: ErrorKind, sentence: str) -> None:
    proxy = start(login="user:p@ss", **options)
    noted = []
    with pytest.raises(RemoteError, match=sentence) as caught:
        exchange(post("https://a.example/submit", BIG), behind(), 30.0, before_last_byte=lambda: noted.append(1))
    assert caught.value.kind == kind and proxy.address in str(caught.value) and "p@ss" not in str(caught.value)
    assert str(caught.value).endswith("Nothing was sent.") and noted == [] and hostile.seen == []
    with pytest.raises(DownloadError, match=sentence):
        fetch("https://a.example/f", folder=tmp_path, policy=behind(), tokens=Tokens({}))


def test_a_proxy_that_is_down(start: Callable[..., ProxyServer]) -> None:
    proxy = start(login="user:p@ss")
    proxy.close()
    with pytest.raises(NotSentError, match=f"The proxy {proxy.address} cannot be reached") as caught:
        exchange(post("https://a.example/submit", BIG), behind(), 30.0)
    assert "Check HTTPS_PROXY" in str(caught.value) and "p@ss" not in str(caught.value)
