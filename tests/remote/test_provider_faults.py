"""That the loopback providers fail as they are told to, and keep to limits."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import faults
from tests.support.providers.cdn_server import CdnServer
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.speaking import ALL, FAL, Asker, Speech, at, clip_link, poll, submit


def test_faults_come_so_often_and_then_no_more(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    job_id = submit(ask, speech)
    provider.fail("poll", faults.answer(503, "<html>busy</html>", {"Retry-After": "1"}), times=2, skip=1)
    replies = [poll(ask, speech, job_id) for _ in range(4)]
    assert [reply.status == 503 for reply in replies] == [False, True, True, False]
    assert replies[1].body == b"<html>busy</html>"
    assert provider.jobs[job_id].polls == 2  # those that were answered honestly


def test_a_reset_before_and_after_the_job_exists(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    for after in (False, True):
        provider.fail("submit", faults.reset(after=after))
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            submit(ask, speech)
        assert provider.accepted == after
    assert [seen.status for seen in provider.asked("submit")] == [None, None]
    submit(ask, speech)
    assert provider.accepted == 2


def test_answers_that_are_spoilt_have_taken_effect(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.fail("submit", faults.cut())
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        submit(ask, speech)
    provider.fail("submit", faults.malformed())
    with pytest.raises(ValueError):
        submit(ask, speech)
    provider.fail("submit", faults.wrong_type(["x"]))
    assert ask("POST", speech.submit_url, speech.body).json == ["x"]
    provider.fail("submit", faults.drip(20_000))
    submit(ask, speech)
    provider.fail("submit", faults.delay(0.01))
    submit(ask, speech)
    assert provider.accepted == 5


def test_a_held_answer_and_an_endless_one(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    release, ids = threading.Event(), []
    provider.fail("submit", faults.hold(release))
    thread = threading.Thread(target=lambda: ids.append(submit(ask, speech)))
    thread.start()
    while not provider.accepted:
        time.sleep(0.005)
    assert not ids
    release.set()
    thread.join()
    provider.fail("poll", faults.endless())
    with closing(ask.connect(urlsplit(speech.poll_url).hostname)) as connection:
        connection.request("GET", urlsplit(speech.poll_url.format(id=ids[0])).path, headers={
            "Authorization": f"{provider.scheme} {provider.key}"})
        reply = connection.getresponse()
        assert len(reply.read(200_000)) == 200_000
        assert reply.getheader("Content-Length") is None


def test_connections_are_kept(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    with closing(ask.connect(urlsplit(speech.poll_url).hostname)) as connection:
        for _ in range(3):
            connection.request("GET", urlsplit(speech.poll_url.format(id="none")).path, headers={
                "Authorization": f"{provider.scheme} {provider.key}"})
            assert connection.getresponse().read()
            assert connection.sock is not None


def test_warm_up_unknown_word_and_stuck(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.script = Script(missing=2, queued=0, running=FOREVER, word="pondering")
    job_id = submit(ask, speech)
    assert [poll(ask, speech, job_id).status for _ in range(3)][:2] == [404, 404]
    assert {at(poll(ask, speech, job_id).json, speech.status) for _ in range(20)} == {"pondering"}


def test_planned_scripts_come_first(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.script = Script(queued=5)
    provider.plan(Script(queued=0), Script(queued=1))
    first, second, third = (submit(ask, speech) for _ in range(3))
    assert [provider.jobs[job].script.queued for job in (first, second, third)] == [0, 1, 5]


def test_concurrency_and_rate(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.max_unfinished, provider.retry_after = 2, "7"
    submit(ask, speech)
    submit(ask, speech)
    if speech is FAL:  # waits in the queue, however often it is polled, until another has ended
        provider.max_unfinished, provider.script = 1, Script(queued=0, running=0)
        third = submit(ask, speech)
        told = [poll(ask, speech, third).json for _ in range(5)]
        assert {(t["status"], t["queue_position"]) for t in told} == {("IN_QUEUE", 2)}
        for job in list(provider.jobs.values())[:2]:
            provider.finish(job)
        assert poll(ask, speech, third).json["status"] == "COMPLETED"
    else:
        reply = ask("POST", speech.submit_url, speech.body)
        assert (reply.status, reply.headers["retry-after"], provider.accepted) == (429, "7", 2)
    provider.max_unfinished, provider.rate, provider.retry_after = None, (provider.accepted, 3600), None
    reply = ask("POST", speech.submit_url, speech.body)
    assert reply.status == 429
    assert "retry-after" not in reply.headers


def test_an_end_that_is_not_the_providers_is_an_error_of_the_test(provider: ProviderServer) -> None:
    with pytest.raises(ValueError, match="cannot end"):
        provider.plan(Script(end="melted"))
    with pytest.raises(ValueError, match="no point"):
        provider.fail("sumbit", faults.reset())


def test_servers_share_a_cdn_and_leave_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with closing(CdnServer(tmp_path)) as cdn:
        servers = [speech.provider(tmp_path, cdn) for speech in ALL.values()]
        for provider, speech in zip(servers, ALL.values(), strict=True):
            provider.script = Script(queued=0, running=0)
            ask = Asker(provider)
            link = clip_link(ask, speech, submit(ask, speech))
            with closing(ask.connect(urlsplit(speech.poll_url).hostname)):  # left open when the server closes
                assert Asker(cdn)("GET", link).status == 200
                provider.close()
    assert threading.active_count() == before
