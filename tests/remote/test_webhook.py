"""Callbacks of providers: what is taken, what is refused, and that none does more than make the job be polled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.remote import signatures as webhook
from pipeline.remote.context import take_wakeup
from pipeline.remote.job import Job, JobState
from pipeline.remote.ledger import Ledger
from pipeline.remote.providers import PROVIDERS
from pipeline.remote.webhooks.keys import COOLDOWN, MAX_AGE, SigningKeyCache, fetch_keys
from pipeline.remote.webhooks.receiver import FORGED, LATER, OK, UNKNOWN, SeenWebhooks, WebhookReceiver
from tests.support.faults import answer, reset
from tests.support.providers import job as at_provider
from tests.support.providers import webhook_keys
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.webhook_keys import SigningKey
from tests.support.runner import PATIENT, SERVERS, Runner

PUBLIC = "https://desk.example"
NEVER = 10_000.0
"""Stretches every wait to hours: what goes on with it was not waited for."""


@dataclass
class Inbox:
    """A receiver, and the provider that it hears from."""

    provider: ProviderServer
    runner: Runner
    receiver: WebhookReceiver
    clock: list[float]
    """Seconds that the receiver's clock is ahead."""

    @property
    def name(self) -> str:
        return self.provider.provider

    @property
    def ledger(self) -> Ledger:
        return self.runner.context.ledger

    def hear(self, job_id: str, callback: webhook_keys.Callback, **changed: object) -> int:
        """Deliver a callback, or a changed one (headers=, body=)."""
        callback = replace(callback, **changed)
        headers = {name.lower(): value for name, value in callback.headers.items()}
        return self.receiver.receive(self.name, job_id, webhook.WebhookRequest(headers, callback.body))

    def job(self, state: JobState = JobState.RUNNING) -> tuple[Job, at_provider.Job]:
        """A job of ours, and the provider's side of it."""
        model = next(iter(self.provider.models))
        bought = self.provider.accept(model, {"prompt": "a", "num_frames": 81, "duration": 5}, webhook=PUBLIC)
        ours = self.ledger.get_or_create(Job("", self.name, model, "default", bought.id))
        return self.ledger.update(ours, remote_id=bought.id, state=state, sent=True), bought


@pytest.fixture(params=[name for name in SERVERS if PROVIDERS[name].webhook is not None])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderServer]:
    with closing(SERVERS[request.param](tmp_path)) as provider:
        yield provider


@pytest.fixture
def inbox(provider: ProviderServer, tmp_path: Path) -> Inbox:
    runner, clock = Runner(tmp_path, provider), [0.0]
    runner.set(public_url=PUBLIC)
    runner.change(timeouts=replace(PATIENT, pace=NEVER))
    context = runner.context
    signing_keys = SigningKeyCache(lambda name, profile: fetch_keys(name, profile, context.keys, context.policy),
                                   lambda: time.monotonic() + clock[0])
    receiver = WebhookReceiver(context.ledger, SeenWebhooks(context.ledger.folder), signing_keys,
                               lambda: time.time() + clock[0])
    return Inbox(provider, runner, receiver, clock)


def with_new_key(inbox: Inbox) -> None:
    """The provider changes its key, as seen from now on."""
    if PROVIDERS[inbox.name].webhook.secret:
        inbox.provider.webhook_secret = f"whsec_{webhook_keys.base64url(b'another secret of 32 bytes......')}="
    else:
        inbox.provider.webhook_keys.append(SigningKey("another-key"))


def forged(inbox: Inbox, theirs: object) -> webhook_keys.Callback:
    """A callback that is signed with a key which the provider does not have, under the id of one that it has."""
    if not PROVIDERS[inbox.name].webhook.secret:
        return inbox.provider.callback(theirs, key=SigningKey(inbox.provider.webhook_keys[-1].kid))
    right = inbox.provider.webhook_secret
    with_new_key(inbox)
    try:
        return inbox.provider.callback(theirs)
    finally:
        inbox.provider.webhook_secret = right


def test_callback_makes_a_waiting_run_poll_at_once(inbox: Inbox) -> None:
    inbox.provider.script = Script(running=FOREVER)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(inbox.runner.make)
        while not (found := inbox.ledger.jobs((JobState.QUEUED,))) and not run.done():
            time.sleep(0.02)
        (ours,) = found or run.result()
        theirs = inbox.provider.jobs[ours.remote_id]
        assert theirs.webhook == f"{PUBLIC}/wan22/webhook/{inbox.name}/{ours.id}"
        assert not inbox.provider.asked("poll")
        theirs.script = Script(queued=0, running=0)
        inbox.provider.finish(theirs)
        assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
        delivery = run.result()
    assert delivery.job.state == JobState.DONE and delivery.path.is_file()
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    assert inbox.provider.accepted == len(inbox.provider.asked("poll")) == 1
    inbox.runner.check()


def test_duplicate_has_one_effect(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    callback = inbox.provider.callback(theirs)
    assert [inbox.hear(ours.id, callback) for _ in range(2)] == [OK, OK]
    assert take_wakeup(ours.id)
    assert inbox.hear(ours.id, callback) == OK
    again = inbox.provider.callback(theirs, at=int(time.time()) + 20)  # the provider's own repetition, signed anew
    assert inbox.hear(ours.id, again) == OK
    assert not take_wakeup(ours.id)


def test_duplicate_is_known_after_a_restart(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    take_wakeup(ours.id)
    inbox.receiver = replace(inbox.receiver, seen=SeenWebhooks(inbox.ledger.folder))
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    assert not take_wakeup(ours.id)


def test_callback_cannot_be_taken_to_another_job(inbox: Inbox) -> None:
    (ours, theirs), (other, _) = inbox.job(), inbox.job()
    callback = inbox.provider.callback(theirs)
    assert inbox.hear(ours.id, callback) == OK
    assert inbox.hear(other.id, callback) == OK
    assert not take_wakeup(other.id)


def test_forged_is_refused(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    assert inbox.hear(ours.id, forged(inbox, theirs)) == FORGED
    assert not take_wakeup(ours.id)
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK  # and did not use up the right one
    assert take_wakeup(ours.id)


@pytest.mark.parametrize("seconds, status", [(-302, FORGED), (-290, OK), (290, OK), (302, FORGED)])
def test_only_callbacks_of_now_are_taken(inbox: Inbox, seconds: int, status: int) -> None:
    ours, theirs = inbox.job()
    assert inbox.hear(ours.id, inbox.provider.callback(theirs, at=int(time.time()) + seconds)) == status
    assert take_wakeup(ours.id) == (status == OK)


def test_altered_body_is_refused(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    callback = inbox.provider.callback(theirs)
    for body in (callback.body + b" ", callback.body.replace(b":", b" :", 1), b""):
        assert inbox.hear(ours.id, callback, body=body) == FORGED
    assert not take_wakeup(ours.id)


def test_every_header_that_is_missing_or_changed_is_refused(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    callback = inbox.provider.callback(theirs)
    unsigned = {"Content-Type", "X-AtlasCloud-Webhook-Id", "X-AtlasCloud-Webhook-Event",
                "X-AtlasCloud-Webhook-Signature"}
    for name in set(callback.headers) - unsigned:
        rest = {key: value for key, value in callback.headers.items() if key != name}
        for value in ({}, {name: ""}, {name: "1"}, {name: "zz"}, {name: "v1,="}, {name: "\udcff"}, {name: "é"}):
            assert inbox.hear(ours.id, callback, headers={**rest, **value}) == FORGED, (name, value)
    assert not take_wakeup(ours.id)


def test_changed_keys_are_fetched_again_but_not_for_every_forgery(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    with_new_key(inbox)
    _, second = inbox.job()
    assert [inbox.hear(ours.id, inbox.provider.callback(second)) for _ in range(3)] == [FORGED] * 3
    assert len(inbox.provider.asked("secret")) == 1  # fetched a moment ago: not again
    inbox.clock[0] = COOLDOWN + 1
    now = int(time.time() + inbox.clock[0])
    assert inbox.hear(ours.id, inbox.provider.callback(second, at=now)) == OK
    assert len(inbox.provider.asked("secret")) == 2
    for _ in range(5):
        assert inbox.hear(ours.id, inbox.provider.callback(second, at=now), body=b"{}") == FORGED
    assert len(inbox.provider.asked("secret")) == 2


def test_keys_are_used_for_a_day(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    for seconds, fetches in ((0, 1), (MAX_AGE - 60, 1), (MAX_AGE + 60, 2)):
        inbox.clock[0] = seconds
        callback = inbox.provider.callback(theirs, at=int(time.time() + seconds))
        assert inbox.hear(ours.id, callback) == OK
        assert len(inbox.provider.asked("secret")) == fetches


@pytest.mark.parametrize("fault", [answer(500, "<html>"), answer(200, "<html>"), answer(200, {"keys": 1}), reset(),
                                   answer(302, headers={"Location": "https://127.0.0.1/keys"})])
def test_without_keys_the_provider_is_asked_to_come_back(inbox: Inbox, fault: Callable[..., None]) -> None:
    ours, theirs = inbox.job()
    inbox.provider.fail("secret", fault)
    assert [inbox.hear(ours.id, inbox.provider.callback(theirs)) for _ in range(3)] == [LATER] * 3
    assert len(inbox.provider.asked("secret")) == 1
    inbox.clock[0] = COOLDOWN + 1
    assert inbox.hear(ours.id, inbox.provider.callback(theirs, at=int(time.time() + COOLDOWN))) == OK
    assert take_wakeup(ours.id)


def test_what_a_callback_says_is_not_believed(inbox: Inbox) -> None:
    """One that was sent for the end, though polling says that the job runs; and one that comes after the end."""
    ours, theirs = inbox.job()
    inbox.provider.finish(theirs)
    early = inbox.provider.callback(theirs)
    theirs.polls, theirs.script = 0, Script(running=FOREVER)
    assert inbox.hear(ours.id, early) == OK
    assert inbox.ledger.get(ours.id).state == JobState.RUNNING
    assert take_wakeup(ours.id)


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELED, JobState.LOST])
def test_job_that_has_ended_stays_so(inbox: Inbox, state: JobState) -> None:
    ours, theirs = inbox.job(state)
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    assert inbox.ledger.get(ours.id).state == state
    assert not take_wakeup(ours.id)


def test_address_of_no_job_is_unknown(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    callback = inbox.provider.callback(theirs)
    assert inbox.hear("0" * 32, callback) == UNKNOWN
    for other in {*PROVIDERS, "nobody", "../keys"} - {inbox.name}:
        headers = {name.lower(): value for name, value in callback.headers.items()}
        assert inbox.receiver.receive(other, ours.id, webhook.WebhookRequest(headers, callback.body)) == UNKNOWN
    assert not inbox.provider.asked("secret")


def test_no_secret_reaches_the_disk(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    assert inbox.hear(ours.id, inbox.provider.callback(theirs)) == OK
    whole = b"".join(file.read_bytes() for file in inbox.runner.folder.rglob("*") if file.is_file())
    secrets = [inbox.provider.key, getattr(inbox.provider, "webhook_secret", inbox.provider.key)]
    assert whole and not any(secret.removeprefix("whsec_").encode() in whole for secret in secrets)
    assert not any(secret in repr(inbox.receiver.signing_keys.__dict__) for secret in secrets)


def test_api_key_goes_with_secrets_alone(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    inbox.hear(ours.id, inbox.provider.callback(theirs))
    (asked,) = inbox.provider.asked("secret")
    assert ("authorization" in asked.headers) == PROVIDERS[inbox.name].webhook.secret


def test_keys_of_other_kinds_are_left_out() -> None:
    key = SigningKey("one")
    found = webhook.read_jwks({"keys": [key.jwk(), {"kty": "RSA", "kid": "two", "n": "AQAB"}, "three", None,
                                        {"kty": "OKP", "crv": "X25519", "x": "AAAA"}]})
    assert list(found) == ["one"] and len(found["one"]) == 32
    assert [webhook.read_jwks(other) for other in (None, [], {"keys": None}, {})] == [{}] * 4


def test_a_signature_is_over_the_bytes_and_not_over_the_json(inbox: Inbox) -> None:
    ours, theirs = inbox.job()
    callback = inbox.provider.callback(theirs)
    same = json.dumps(json.loads(callback.body), indent=1).encode()
    assert inbox.hear(ours.id, callback, body=same) == FORGED
