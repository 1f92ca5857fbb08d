"""Callbacks of providers: what is taken, what is refused, and that none does more than make the job be polled."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline.clip_request import ClipRequest
from pipeline.download.policy import Policy
from pipeline.remote import webhook
from pipeline.remote.desk import Desk
from pipeline.remote.hints import hinted
from pipeline.remote.job import Job, State
from pipeline.remote.keys import Keys
from pipeline.remote.ledger import Ledger
from pipeline.remote.patience import Patience
from pipeline.remote.providers import ADAPTERS
from pipeline.remote.replays import Replays
from pipeline.remote.run import Picture, Target, make_clip
from pipeline.remote.webhook import SCHEMES
from pipeline.remote.webhook_keys import COOLDOWN, FRESH, KeyRing, fetch_keys
from pipeline.remote.webhook_receiver import FORGED, LATER, OK, UNKNOWN, Receiver
from tests.remote import webhook_keys
from tests.remote.faults import answer, reset
from tests.remote.job import FOREVER, Script
from tests.remote.provider_server import ProviderServer
from tests.remote.webhook_keys import SigningKey

PUBLIC = "https://desk.example"
NEVER = 10_000.0
"""Stretches every wait to hours: what goes on with it was not waited for."""


@dataclass
class Office:
    """A receiver, its surroundings and the provider that it hears from."""

    provider: ProviderServer
    desk: Desk
    receiver: Receiver
    clock: list[float]
    """Seconds that the receiver's clock is ahead."""

    @property
    def name(self) -> str:
        return self.provider.provider

    def hear(self, job_id: str, callback: webhook_keys.Callback, **changed: object) -> int:
        """Deliver a callback, or a changed one (headers=, body=)."""
        callback = replace(callback, **changed)
        headers = {name.lower(): value for name, value in callback.headers.items()}
        return self.receiver.receive(self.name, job_id, webhook.Callback(headers, callback.body))

    def job(self, state: State = State.RUNNING) -> tuple[Job, object]:
        """A job of ours, and the provider's side of it."""
        model = next(iter(self.provider.models))
        theirs = self.provider.accept(model, {"prompt": "a", "num_frames": 81, "duration": 5}, webhook=PUBLIC)
        ours = self.desk.ledger.claim(Job("", self.name, model, "default", theirs.id))
        return self.desk.ledger.update(ours, remote_id=theirs.id, state=state, sent=True), theirs


@pytest.fixture
def office(provider: ProviderServer, tmp_path: Path) -> Office:
    adapter = ADAPTERS[provider.provider]
    keys = Keys(environ={adapter.variables[0]: provider.key})
    policy = Policy(loopback=provider.loopback(), loopback_ca=str(provider.ca))
    folder, clock = tmp_path / "wan22", [0.0]
    desk = Desk(Ledger(folder), keys, policy, Patience(pace=NEVER), tmp_path / "results", lambda text: None,
                lambda: None, lambda path: None, public_url=PUBLIC)
    ring = KeyRing(lambda name, profile: fetch_keys(name, profile, keys, policy), lambda: time.monotonic() + clock[0])
    return Office(provider, desk, Receiver(desk.ledger, Replays(folder), ring, lambda: time.time() + clock[0]), clock)


def with_new_key(office: Office) -> None:
    """The provider changes its key, as seen from now on."""
    if SCHEMES[office.name].secret:
        office.provider.webhook_secret = f"whsec_{webhook_keys.base64url(b'another secret of 32 bytes......')}="
    else:
        office.provider.webhook_keys.append(SigningKey("another-key"))


def forged(office: Office, theirs: object) -> webhook_keys.Callback:
    """A callback that is signed with a key which the provider does not have, under the id of one that it has."""
    if not SCHEMES[office.name].secret:
        return office.provider.callback(theirs, key=SigningKey(office.provider.webhook_keys[-1].kid))
    right = office.provider.webhook_secret
    with_new_key(office)
    try:
        return office.provider.callback(theirs)
    finally:
        office.provider.webhook_secret = right


def test_callback_makes_a_waiting_run_poll_at_once(office: Office) -> None:
    office.provider.script = Script(running=FOREVER)
    picture = io.BytesIO()
    Image.new("RGB", (96, 64), (90, 120, 150)).save(picture, "PNG")
    adapter = ADAPTERS[office.name]
    done: list[object] = []
    run = threading.Thread(daemon=True, target=lambda: done.append(asyncio.run(make_clip(
        [Target(adapter, adapter.models[0], "default")], ClipRequest("a", num_frames=81, resolution="480p"),
        Picture(picture.getvalue(), "image/png"), office.desk))))
    run.start()  # noqa
    ours = until(lambda: office.desk.ledger.jobs((State.QUEUED,)))[0]
    theirs = office.provider.jobs[ours.remote_id]
    assert theirs.webhook == f"{PUBLIC}/wan22/webhook/{office.name}/{ours.id}"
    assert not office.provider.asked("poll")
    theirs.script = Script(queued=0, running=0)
    office.provider.finish(theirs)
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    run.join()
    assert done[0].job.state == State.DONE and done[0].path.is_file()
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    assert office.provider.accepted == 1
    assert len(office.provider.asked("poll")) == 1
    assert not office.provider.violations and not office.provider.cdn.violations


def test_duplicate_has_one_effect(office: Office) -> None:
    ours, theirs = office.job()
    callback = office.provider.callback(theirs)
    assert [office.hear(ours.id, callback) for _ in range(2)] == [OK, OK]
    assert hinted(ours.id)
    assert office.hear(ours.id, callback) == OK
    again = office.provider.callback(theirs, at=int(time.time()) + 20)  # the provider's own repetition, signed anew
    assert office.hear(ours.id, again) == OK
    assert not hinted(ours.id)


def test_duplicate_is_known_after_a_restart(office: Office) -> None:
    ours, theirs = office.job()
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    hinted(ours.id)
    office.receiver = replace(office.receiver, replays=Replays(office.desk.ledger.folder))
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    assert not hinted(ours.id)


def test_callback_cannot_be_taken_to_another_job(office: Office) -> None:
    (ours, theirs), (other, _) = office.job(), office.job()
    callback = office.provider.callback(theirs)
    assert office.hear(ours.id, callback) == OK
    assert office.hear(other.id, callback) == OK
    assert not hinted(other.id)


def test_forged_is_refused(office: Office) -> None:
    ours, theirs = office.job()
    assert office.hear(ours.id, forged(office, theirs)) == FORGED
    assert not hinted(ours.id)
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK  # and did not use up the right one
    assert hinted(ours.id)


@pytest.mark.parametrize("seconds, status", [(-302, FORGED), (-290, OK), (290, OK), (302, FORGED)])
def test_only_callbacks_of_now_are_taken(office: Office, seconds: int, status: int) -> None:
    ours, theirs = office.job()
    assert office.hear(ours.id, office.provider.callback(theirs, at=int(time.time()) + seconds)) == status
    assert hinted(ours.id) == (status == OK)


def test_altered_body_is_refused(office: Office) -> None:
    ours, theirs = office.job()
    callback = office.provider.callback(theirs)
    for body in (callback.body + b" ", callback.body.replace(b":", b" :", 1), b""):
        assert office.hear(ours.id, callback, body=body) == FORGED
    assert not hinted(ours.id)


def test_every_header_that_is_missing_or_changed_is_refused(office: Office) -> None:
    ours, theirs = office.job()
    callback = office.provider.callback(theirs)
    unsigned = {"Content-Type", "X-AtlasCloud-Webhook-Id", "X-AtlasCloud-Webhook-Event",
                "X-AtlasCloud-Webhook-Signature"}
    for name in set(callback.headers) - unsigned:
        rest = {key: value for key, value in callback.headers.items() if key != name}
        for value in ({}, {name: ""}, {name: "1"}, {name: "zz"}, {name: "v1,="}, {name: "\udcff"}, {name: "é"}):
            assert office.hear(ours.id, callback, headers={**rest, **value}) == FORGED, (name, value)
    assert not hinted(ours.id)


def test_changed_keys_are_fetched_again_but_not_for_every_forgery(office: Office) -> None:
    ours, theirs = office.job()
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    with_new_key(office)
    _, second = office.job()
    assert [office.hear(ours.id, office.provider.callback(second)) for _ in range(3)] == [FORGED] * 3
    assert len(office.provider.asked("secret")) == 1  # fetched a moment ago: not again
    office.clock[0] = COOLDOWN + 1
    now = int(time.time() + office.clock[0])
    assert office.hear(ours.id, office.provider.callback(second, at=now)) == OK
    assert len(office.provider.asked("secret")) == 2
    for _ in range(5):
        assert office.hear(ours.id, office.provider.callback(second, at=now), body=b"{}") == FORGED
    assert len(office.provider.asked("secret")) == 2


def test_keys_are_used_for_a_day(office: Office) -> None:
    ours, theirs = office.job()
    for seconds, fetches in ((0, 1), (FRESH - 60, 1), (FRESH + 60, 2)):
        office.clock[0] = seconds
        callback = office.provider.callback(theirs, at=int(time.time() + seconds))
        assert office.hear(ours.id, callback) == OK
        assert len(office.provider.asked("secret")) == fetches


@pytest.mark.parametrize("fault", [answer(500, "<html>"), answer(200, "<html>"), answer(200, {"keys": 1}), reset(),
                                   answer(302, headers={"Location": "https://127.0.0.1/keys"})])
def test_without_keys_the_provider_is_asked_to_come_back(office: Office, fault: Callable[..., None]) -> None:
    ours, theirs = office.job()
    office.provider.fail("secret", fault)
    assert [office.hear(ours.id, office.provider.callback(theirs)) for _ in range(3)] == [LATER] * 3
    assert len(office.provider.asked("secret")) == 1
    office.clock[0] = COOLDOWN + 1
    assert office.hear(ours.id, office.provider.callback(theirs, at=int(time.time() + COOLDOWN))) == OK
    assert hinted(ours.id)


def test_what_a_callback_says_is_not_believed(office: Office) -> None:
    """One that was sent for the end, though polling says that the job runs; and one that comes after the end."""
    ours, theirs = office.job()
    office.provider.finish(theirs)
    early = office.provider.callback(theirs)
    theirs.polls, theirs.script = 0, Script(running=FOREVER)
    assert office.hear(ours.id, early) == OK
    assert office.desk.ledger.get(ours.id).state == State.RUNNING
    assert hinted(ours.id)


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELED, State.LOST])
def test_job_that_has_ended_stays_so(office: Office, state: State) -> None:
    ours, theirs = office.job(state)
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    assert office.desk.ledger.get(ours.id).state == state
    assert not hinted(ours.id)


def test_address_of_no_job_is_unknown(office: Office) -> None:
    ours, theirs = office.job()
    callback = office.provider.callback(theirs)
    assert office.hear("0" * 32, callback) == UNKNOWN
    for other in {*SCHEMES, "nobody", "../keys"} - {office.name}:
        headers = {name.lower(): value for name, value in callback.headers.items()}
        assert office.receiver.receive(other, ours.id, webhook.Callback(headers, callback.body)) == UNKNOWN
    assert not office.provider.asked("secret")


def test_no_secret_reaches_the_disk(office: Office) -> None:
    ours, theirs = office.job()
    assert office.hear(ours.id, office.provider.callback(theirs)) == OK
    whole = b"".join(file.read_bytes() for file in office.desk.ledger.folder.rglob("*") if file.is_file())
    secrets = [office.provider.key, getattr(office.provider, "webhook_secret", office.provider.key)]
    assert whole and not any(secret.removeprefix("whsec_").encode() in whole for secret in secrets)
    assert not any(secret in repr(office.receiver.ring.__dict__) for secret in secrets)


def test_api_key_goes_with_secrets_alone(office: Office) -> None:
    ours, theirs = office.job()
    office.hear(ours.id, office.provider.callback(theirs))
    (asked,) = office.provider.asked("secret")
    assert ("authorization" in asked.headers) == SCHEMES[office.name].secret


def test_keys_of_other_kinds_are_left_out() -> None:
    key = SigningKey("one")
    found = webhook.read_jwks({"keys": [key.jwk(), {"kty": "RSA", "kid": "two", "n": "AQAB"}, "three", None,
                                        {"kty": "OKP", "crv": "X25519", "x": "AAAA"}]})
    assert list(found) == ["one"] and len(found["one"]) == 32
    assert [webhook.read_jwks(other) for other in (None, [], {"keys": None}, {})] == [{}] * 4


def until(found: Callable[[], list[Job]]) -> list[Job]:
    while not (now := found()):
        time.sleep(0.02)
    return now


def test_a_signature_is_over_the_bytes_and_not_over_the_json(office: Office) -> None:
    ours, theirs = office.job()
    callback = office.provider.callback(theirs)
    same = json.dumps(json.loads(callback.body), indent=1).encode()
    assert office.hear(ours.id, callback, body=same) == FORGED
