"""Callbacks of ours: signed, kept until they are taken, and never sent where they must not go."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.graph.run import GraphRun, read_end
from pipeline.http import policy as http
from pipeline.http.policy import Timeouts
from pipeline.notify import notice as clip_notice
from pipeline.notify import notifier as notify
from pipeline.notify import run_watch
from pipeline.notify.event import failure_data, read_report, request_data
from pipeline.notify.notice import check_callback_url, query_warning
from pipeline.notify.notifier import WAITS, Notifier
from pipeline.notify.outbox import Message, Recipient, add
from pipeline.remote.database import opened, writing
from pipeline.remote.errors import RemoteError
from pipeline.remote.signatures import read_secret, signed_headers
from tests.support.faults import Fault, answer, drip, endless, redirect, reset
from tests.support.hook_server import HOST, HookServer
from tests.support.loopback import loopback_policy

HOOK = f"https://{HOST}/clips"
GRAPH = {
    "picture": {"class_type": "LoadImage", "inputs": {"image": "private.png"}},
    "lora": {"class_type": "Wan22Lora", "inputs": {"source": "https://civitai.com/api/1?token=secret", "scale": 0.8}},
    "clip": {"class_type": "Wan22RemoteImageToVideo",
             "inputs": {"image": ["picture", 0], "loras": ["lora", 0], "prompt": "a ball rolls", "seed": 7}},
    "notify": {"class_type": "Wan22Notify", "inputs": {"video": ["clip", 0], "callback_url": HOOK}},
    "other": {"class_type": "Wan22Sampler", "inputs": {"seed": 8}},
}
RUN = GraphRun("prompt-1", GRAPH, {}, ("notify",))
NODE = "notify"
TO = Recipient(HOOK, "default", signed=True)


@dataclass
class Sender:
    """A notifier whose clock is the test's."""

    folder: Path
    hook: HookServer
    ahead: float = 0.0
    notifier: Notifier = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        policy = loopback_policy(http, self.hook.loopback(), str(self.hook.ca),
                                 timeouts=Timeouts(connect=2.0, read=1.0))
        self.notifier = Notifier(self.folder, policy, clock=lambda: time.time() + self.ahead)
        self.notifier._started = True  # what is due is delivered when the test says so

    def row(self) -> tuple:
        with opened(self.folder) as base:
            return base.execute("SELECT state, tried, error, url, body FROM outbox ORDER BY created DESC").fetchone()


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[HookServer]:
    with closing(HookServer(tmp_path)) as hook:
        yield hook
        assert hook.violations == []


@pytest.fixture
def sender(hook: HookServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    monkeypatch.setenv("WAN22_CALLBACK_SECRET", hook.secret)
    return Sender(tmp_path / "wan22", hook)


def test_signature_is_that_of_the_specification() -> None:
    """The example of the libraries of Standard Webhooks."""
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}


def test_a_clip_that_is_done(sender: Sender, hook: HookServer) -> None:
    sender.notifier.begin(RUN, NODE, TO)
    sender.ahead = 12.5
    sender.notifier.send_done(RUN, NODE, TO, {"file": {"filename": "a.mp4"}, "price": {"usd": 0.2}})
    sender.notifier.deliver_due()
    (told,), (seen,) = hook.told, hook.asked("hook")
    assert told["id"] == seen.headers["webhook-id"] and told["type"] == "clip.done"
    assert told["timestamp"].endswith("Z")
    data = told["data"]
    assert data["prompt_id"] == "prompt-1" and data["price"] == {"usd": 0.2} and 12 < data["seconds"] < 100
    assert [node["node"] for node in data["request"]] == ["clip", "lora"]
    assert data["request"][0]["inputs"] == {"prompt": "a ball rolls", "seed": 7}
    assert "secret" not in json.dumps(told) and "civitai.com/api/1" in json.dumps(told)
    assert sender.row()[0] == "sent"


def test_messages_that_nobody_can_send_hold_up_no_other(sender: Sender, hook: HookServer,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LONGEST_SLEEP", 0.1)
    with writing(sender.folder) as base:
        for number in range(notify.WORKERS):
            add(base, Message(str(number), TO, b"{}"), 0.0)
        base.execute("UPDATE outbox SET url = X'00'")  # a damaged file
    sender.notifier._started = False
    sender.notifier.send_done(RUN, NODE, TO, {})
    patience = time.monotonic() + 60
    while not hook.told and time.monotonic() < patience:
        time.sleep(0.05)
    assert len(hook.told) == 1


def test_a_run_that_failed(sender: Sender, hook: HookServer) -> None:
    watch = sender.notifier.begin(RUN, NODE, TO)
    sender.notifier.send_failed(watch, {"message": "no balance at https://a.example/x?sig=secret", "cancelled": False})
    sender.notifier.send_failed(watch, {"message": "again", "cancelled": False})
    sender.notifier.deliver_due()
    (told,) = hook.told
    assert told["type"] == "clip.failed" and "secret" not in json.dumps(told)
    assert told["data"]["error"]["message"] == "no balance at https://a.example/x"
    assert told["data"]["request"][0]["inputs"]["prompt"] == "a ball rolls"


def test_a_run_that_fails_after_its_clip_was_told(sender: Sender, hook: HookServer) -> None:
    watch = sender.notifier.begin(RUN, NODE, TO)
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.send_failed(watch, {"message": "another node failed", "cancelled": False})
    sender.notifier.deliver_due()
    assert [told["type"] for told in hook.told] == ["clip.done"]


FAULTS = {"500": answer(500), "404": answer(404), "reset": reset(), "reset after": reset(after=True),
          "redirect": redirect("https://127.0.0.1/"), "slow": drip(1), "endless": endless()}


@pytest.mark.parametrize("name", FAULTS)
def test_a_receiver_in_trouble_is_told_later(name: str, sender: Sender, hook: HookServer,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.notify.notifier.TIMEOUT", 1.0)
    fault: Fault = FAULTS[name]
    hook.fail("hook", fault, times=2)
    sender.notifier.send_done(RUN, NODE, TO, {})
    for wait in (0.0, *WAITS[:2]):
        sender.ahead += wait * 1.2
        sender.notifier.deliver_due()
        sender.notifier.deliver_due()  # nothing is due before its time
    assert len(hook.asked("hook")) == 3
    assert len({seen.headers["webhook-id"] for seen in hook.asked("hook")}) == 1
    assert sender.row()[:2] == ("sent", 3)


def test_retry_after_is_heard(sender: Sender, hook: HookServer) -> None:
    hook.fail("hook", answer(503, headers={"Retry-After": "100"}))
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    sender.ahead = 99
    sender.notifier.deliver_due()
    assert len(hook.asked("hook")) == 1
    sender.ahead = 101
    sender.notifier.deliver_due()
    assert len(hook.told) == 1


def test_a_dead_receiver_is_given_up_after_a_day(sender: Sender, hook: HookServer,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    hook.fail("hook", answer(500), times=100)
    to = Recipient(f"{HOOK}?token=geheim", "default", signed=True)
    sender.notifier.send_done(RUN, NODE, to, {})
    for wait in (0.0, *WAITS, 10 * WAITS[-1]):
        sender.ahead += wait * 1.2
        sender.notifier.deliver_due()
    assert len(hook.asked("hook")) == len(WAITS) + 1
    assert sender.row() == ("given up", len(WAITS) + 1, "status 500", HOOK, "")
    assert "given up after 11 tries" in caplog.text and "geheim" not in caplog.text
    assert 23 * 3600 < sum(WAITS) < 25 * 3600


def test_a_receiver_that_is_gone_is_left_alone(sender: Sender, hook: HookServer) -> None:
    hook.fail("hook", answer(410))
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    assert sender.row()[0] == "given up"


def test_a_restart_loses_nothing(sender: Sender, hook: HookServer) -> None:
    hook.fail("hook", answer(500))
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    sender.restart()
    sender.ahead = 10
    sender.notifier.deliver_due()
    assert len(hook.told) == 1


def test_a_message_whose_sender_died_is_sent_by_another(sender: Sender, hook: HookServer) -> None:
    sender.notifier.send_done(RUN, NODE, TO, {})
    assert sender.notifier.outbox.claim() is not None
    sender.restart()
    sender.notifier.deliver_due()
    assert not hook.told  # the first may be at it
    sender.ahead = 121
    sender.notifier.deliver_due()
    assert len(hook.told) == 1


def test_runs_of_a_comfyui_that_died_are_told(sender: Sender, hook: HookServer) -> None:
    sender.notifier.begin(RUN, NODE, TO)
    done = GraphRun("prompt-2", GRAPH, {}, ("notify",))
    sender.notifier.begin(done, NODE, TO)
    sender.notifier.send_done(done, NODE, TO, {})
    first = sender.notifier
    sender.restart()
    sender.notifier.send_orphans()  # the first still lives
    first.watched_runs._alive.release()
    sender.notifier.send_orphans()
    sender.notifier.send_orphans()
    sender.notifier.deliver_due()
    assert sorted((told["type"], told["data"]["prompt_id"]) for told in hook.told) == [
        ("clip.done", "prompt-2"), ("clip.failed", "prompt-1")]


def test_a_dead_receiver_does_not_hold_up_others(sender: Sender, hook: HookServer) -> None:
    sender.notifier.send_done(RUN, NODE, Recipient("https://nobody.invalid/", "default", signed=True), {})
    sender.notifier.deliver_due()
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    assert len(hook.told) == 1


def test_profiles_take_turns(sender: Sender) -> None:
    """Sixty messages to a receiver that does not answer are not all tried before another profile's one."""
    dead = Recipient("https://nobody.invalid/", "busy", signed=True)
    with writing(sender.folder) as base:
        for number in range(60):
            add(base, Message(f"busy {number}", dead, b"{}"), number / 2)
        add(base, Message("calm", replace(dead, profile="calm"), b"{}"), 40.0)
    assert "calm" in [sender.notifier.outbox.claim().id for _ in range(2)]


@pytest.mark.parametrize("url", ["https://localtest.example:8443/", "https://rebind.example/"])
def test_an_address_of_this_machine_is_never_connected_to(url: str, hook: HookServer, tmp_path: Path) -> None:
    """The name looks public; what it resolves to is not."""
    policy = loopback_policy(http, {}, None, resolve=lambda host, port: ["93.184.216.34", "127.0.0.1"])
    sender = Sender(tmp_path / "wan22", hook)
    sender.notifier.policy = policy
    sender.notifier.send_done(RUN, NODE, Recipient(url, "default", signed=False), {})
    sender.notifier.deliver_due()
    state, tried, error, *_ = sender.row()
    assert (state, tried) == ("waiting", 1) and "not on the public internet" in error


@pytest.mark.parametrize("url", ["", "http://a.example/", "https://localhost/", "https://127.0.0.1/", "https://[::1]/",
                                 "https://169.254.169.254/", "https://10.0.0.8/", "https://box.local/", "https://box/",
                                 "https://user:geheim@a.example/", "https://a.example:22/", "file:///etc/passwd", "a"])
def test_links_that_are_refused_before_the_run(url: str) -> None:
    with pytest.raises(RemoteError) as caught:
        check_callback_url(url)
    assert "geheim" not in str(caught.value)


def test_a_query_is_warned_of() -> None:
    assert "token" in query_warning(check_callback_url(f"{HOOK}?token=1"))
    assert query_warning(check_callback_url(HOOK)) == ""


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_dG9vIHNob3J0", "whsec_!!!!",
                                    f"whsec_{base64.b64encode(b'x' * 65).decode()}"])
def test_without_a_secret_nothing_is_run(secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_CALLBACK_SECRET", secret)
    with pytest.raises(RemoteError) as caught:
        clip_notice.check_callback(tmp_path, HOOK, True, "default")
    assert "WAN22_CALLBACK_SECRET" in str(caught.value)
    assert len(secret) < 8 or secret not in str(caught.value)
    clip_notice.check_callback(tmp_path, HOOK, False, "default")


def test_unsigned_when_that_is_chosen(sender: Sender, hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAN22_CALLBACK_SECRET")
    sender.notifier.send_done(RUN, NODE, Recipient(HOOK, "default", signed=False), {})
    sender.notifier.deliver_due()
    assert len(hook.told) == 1 and "webhook-signature" not in hook.asked("hook")[0].headers


def test_a_secret_that_went_away_is_waited_for(sender: Sender, hook: HookServer,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAN22_CALLBACK_SECRET")
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    assert not hook.seen
    monkeypatch.setenv("WAN22_CALLBACK_SECRET", hook.secret)
    sender.ahead = 10
    sender.notifier.deliver_due()
    assert len(hook.told) == 1


def test_nothing_leaves_when_that_is_settled(sender: Sender, hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sender.notifier.send_done(RUN, NODE, TO, {})
    monkeypatch.setenv("WAN22_LOCAL_ONLY", "1")
    with pytest.raises(RemoteError, match="Nothing may leave"):
        clip_notice.check_callback(sender.folder, HOOK, False, "default")
    sender.notifier.deliver_due()
    assert not hook.seen and sender.row()[0] == "waiting"


def test_the_secret_is_nowhere_on_disk(sender: Sender, hook: HookServer) -> None:
    sender.notifier.send_done(RUN, NODE, TO, {})
    sender.notifier.deliver_due()
    whole = b"".join(file.read_bytes() for file in sender.folder.rglob("*") if file.is_file())
    assert hook.secret.removeprefix("whsec_").encode() not in whole


def test_request_of_a_graph_that_goes_in_circles() -> None:
    graph = {"a": {"class_type": "Wan22A", "inputs": {"x": ["b", 0], "n": 1}},
             "b": {"class_type": "Wan22B", "inputs": {"x": ["a", 0]}}}
    assert [node["node"] for node in request_data(graph, "a")] == ["a", "b"]
    assert request_data({}, "a") == []


def test_whether_an_output_is_taken() -> None:
    graph = {"clip": {"inputs": {}}, "look": {"inputs": {"images": ["clip", 1], "size": 3}}}
    assert [GraphRun("p", graph, {}).takes("clip", output) for output in (0, 1)] == [False, True]
    assert GraphRun("p", graph, {}).takes("made later", 0)


@pytest.mark.parametrize("messages, message, cancelled", [
    ([["execution_start", {}], ["execution_error", {"exception_message": "No.", "node_id": "7"}]], "No.", False),
    ([["execution_interrupted", {"node_id": "7"}]], "stopped", True), (None, "without a clip", False)])
def test_why_a_run_failed(messages: list | None, message: str, cancelled: bool) -> None:
    found = failure_data(read_end({"status": {"messages": messages}} if messages else {}))
    assert message in found["message"] and found["cancelled"] == cancelled
    assert found["node"] == ("7" if messages else None)


@pytest.mark.parametrize("report, told", [
    ('{"price": {"usd": 0.2, "source": "x"}}', ({"price": {"usd": 0.2, "source": "x"}}, {"usd": 0.2, "source": "x"})),
    ('{"price": {"usd": null}}', ({"price": {"usd": None}}, None)), ("all well", ("all well", None)),
    ("", (None, None)), ("[1]", ([1], None)), ("https://a.example/?x=1", ("https://a.example/", None))])
def test_reports(report: str, told: tuple) -> None:
    assert read_report(report) == told


def test_watch_table_is_empty_when_runs_have_ended(sender: Sender) -> None:
    watch = sender.notifier.begin(RUN, NODE, TO)
    sender.notifier.send_failed(watch, {"message": "no", "cancelled": False})
    assert run_watch.WatchedRuns(sender.folder).find("prompt-1", "notify") is None
