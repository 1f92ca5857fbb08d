"""That the jobs of the loopback providers go, cost, end and are told as at the real ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from contextlib import closing
from pathlib import Path

import av
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.providers.fal import FalServer
from tests.support.providers.fal_models import ENDPOINT
from tests.support.providers.job import Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.replicate import ReplicateServer
from tests.support.providers.speaking import (
    ALL,
    ATLASCLOUD,
    FAL,
    HOOK,
    REPLICATE,
    WAVESPEED,
    Asker,
    Reply,
    Speech,
    at,
    clip_link,
    poll,
    submit,
    with_hook,
)
from tests.support.providers.wavespeed import WaveSpeedServer


def test_a_job_waits_runs_and_ends_by_its_polls(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.script = Script(queued=2, running=1)
    job_id = submit(ask, speech)
    words = [at(poll(ask, speech, job_id).json, speech.status) for _ in range(5)]
    waits, runs, done = speech.words
    assert words == [waits, waits, runs, done, done]
    assert (provider.accepted, provider.unfinished(), provider.most_unfinished) == (1, 0, 1)
    assert provider.violations == provider.cdn.violations == []


@pytest.mark.parametrize("frames", [80, None])
def test_the_clip_is_a_real_one_of_as_many_frames(ask: Asker, speech: Speech, provider: ProviderServer,
                                                  frames: int | None) -> None:
    provider.script = Script(queued=0, running=0, frames=frames)
    reply = ask("GET", clip_link(ask, speech, submit(ask, speech)), key=False)
    assert (reply.status, reply.headers["content-type"]) == (200, "video/mp4")
    with av.open(io.BytesIO(reply.body)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 96, 64, 16)
        assert sum(1 for _ in container.decode(stream)) == (frames or 81)
    assert provider.cdn.violations == []


def test_a_missing_balance_in_each_shape(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.balance = 0.01
    reply = ask("POST", speech.submit_url, speech.body)
    status, text = {"wavespeed": (400, "Insufficient credits"), "atlascloud": (402, "Insufficient balance"),
                    "fal": (403, "Exhausted balance"), "replicate": (402, "insufficient credit")}[provider.provider]
    assert reply.status == status
    assert text in reply.body.decode()
    assert provider.accepted == 0


def test_a_job_is_paid_once(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    submit(ask, speech)
    assert provider.spent > 0
    assert provider.balance == pytest.approx(1000 - provider.spent)


def test_a_refused_prompt_in_each_shape(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    provider.script = Script(queued=0, running=0)
    reply = ask("POST", speech.submit_url, speech.changed(prompt="a boat, refuse-this"))
    told = poll(ask, speech, at(reply.json, speech.id)).json
    if speech is WAVESPEED:
        assert (told["code"], told["data"]["status"], told["data"]["code"]) == (200, "failed", 1200)
        assert told["data"]["has_nsfw_contents"] == [True]
        assert "sensitive" in told["data"]["error"]
    elif speech is ATLASCLOUD:
        assert (told["code"], told["data"]["status"], told["data"]["error_code"]) == (200, "failed", 1039)
    elif speech is FAL:
        assert (told["status"], told["error_type"]) == ("COMPLETED", "content_policy_violation")
        result = ask("GET", told["response_url"])
        assert (result.status, result.json["detail"][0]["type"]) == (422, "content_policy_violation")
        assert result.headers["x-fal-retryable"] == "false"
    else:
        assert told["status"] == "failed"
        assert "sensitive" in told["error"]


def every_end() -> list[tuple[str, str]]:
    return [(name, end) for name, speech in ALL.items() for end in speech.provider.ends]


@pytest.mark.parametrize("speech, end", [pytest.param(ALL[name], end, id=f"{name}-{end}") for name, end in every_end()])
def test_every_end_can_be_had(ask: Asker, speech: Speech, provider: ProviderServer, end: str) -> None:
    provider.plan(Script(queued=0, running=0, end=end, error="It went wrong." if end == "failed" else None))
    reply = poll(ask, speech, submit(ask, speech))
    assert reply.status == (500 if end.endswith("_500") else 200)
    assert at(reply.json, speech.status) not in speech.words[:2]
    if end == "failed":
        assert b"It went wrong." in reply.body
    if speech is FAL:
        result = ask("GET", reply.json["response_url"])
        expected = {"done": 200, "empty": 200, "failed": 500, "refused": 422, "timeout": 504, "downstream": 400,
                    "infrastructure": 503, "cancelled": 499}
        assert result.status == expected[end]
        if end == "infrastructure":
            assert result.headers["x-fal-error-type"] == result.json["error_type"] == "runner_disconnected"
    assert provider.violations == []


def test_cancel(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    if speech in (WAVESPEED, ATLASCLOUD):
        job_id = submit(ask, speech)
        assert ask("POST", f"{speech.poll_url.format(id=job_id)}/cancel", {}).status in (401, 404)
        return
    method = "PUT" if speech is FAL else "POST"

    def cancel(job_id: str) -> Reply:
        return ask(method, speech.poll_url.format(id=job_id).removesuffix("/status") + "/cancel")

    waiting, running, deaf = submit(ask, speech), submit(ask, speech), submit(ask, speech)
    for _ in range(2):
        poll(ask, speech, running)
    provider.jobs[deaf].script = Script(deaf=True, queued=0)
    for job_id in (waiting, running):
        reply = cancel(job_id)
        told = poll(ask, speech, job_id).json
        if speech is FAL:
            assert (reply.status, reply.json["status"]) == (202, "CANCELLATION_REQUESTED")
            assert (told["status"], ask("GET", told["response_url"]).status) == ("COMPLETED", 499)
            assert (cancel(job_id).status, cancel(job_id).json["status"]) == (400, "ALREADY_COMPLETED")
        else:
            assert (reply.status, reply.json["status"], told["status"]) == (200, "canceled", "canceled")
    cancel(deaf)
    assert at(poll(ask, speech, deaf).json, speech.status) == speech.words[1]
    assert cancel("none").status == 404


@pytest.mark.parametrize("end", ["done", "failed"])
def test_callbacks_verify_as_the_providers_say(ask: Asker, speech: Speech, provider: ProviderServer, end: str) -> None:
    provider.script = Script(end=end)
    ask("POST", *with_hook(speech, HOOK))
    job = next(iter(provider.jobs.values()))
    provider.finish(job)
    call = provider.callback(job, at=1_800_000_000)
    headers = {name.lower(): value for name, value in call.headers.items()}
    content = json.loads(call.body)
    assert call.url == HOOK
    if speech in (WAVESPEED, REPLICATE):
        signed = b".".join([headers["webhook-id"].encode(), b"1800000000", call.body])
        if speech is WAVESPEED:
            secret = ask("GET", "https://api.wavespeed.ai/api/v3/webhook/secret").json["data"]["secret"]
            signature = hmac.new(secret.removeprefix("whsec_").encode(), signed, hashlib.sha256).hexdigest()
            assert headers["webhook-signature"] == f"v3,{signature}"
        else:
            secret = ask("GET", "https://api.replicate.com/v1/webhooks/default/secret").json["key"]
            digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
            assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        assert content["status"] in ("failed", "completed", "succeeded")
        return
    if speech is FAL:
        keys = ask("GET", "https://rest.fal.ai/.well-known/jwks.json", key=False).json["keys"]
        names = ("request-id", "user-id", "timestamp")
        signed = "\n".join([*(headers[f"x-fal-webhook-{name}"] for name in names),
                            hashlib.sha256(call.body).hexdigest()]).encode()
        signature = bytes.fromhex(headers["x-fal-webhook-signature"])
        assert content["status"] == ("OK" if end == "done" else "ERROR")
    else:
        keys = ask("GET", "https://api.atlascloud.ai/api/v1/webhooks/jwks.json", key=False).json["keys"]
        assert headers["x-atlascloud-webhook-key-id"] == keys[0]["kid"]
        signed = b"1800000000." + call.body
        signature = base64.urlsafe_b64decode(headers["x-atlascloud-webhook-signature-ed25519"] + "==")
        assert (content["status"], content["payload"]["status"]) == ("OK", "completed" if end == "done" else "failed")
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(keys[0]["x"] + "=="))
    public.verify(signature, signed)
    with pytest.raises(InvalidSignature):
        public.verify(signature, signed + b" ")


def test_prices_balances_models_and_schemas(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    if speech is WAVESPEED:
        base = "https://api.wavespeed.ai/api/v3"
        model = "wavespeed-ai/wan-2.2/i2v-720p-lora"
        priced = ask("POST", f"{base}/model/price", {"model_id": model, "inputs": speech.body}).json["data"]
        assert (priced["price"], priced["currency"]) == (0.35, "USD")
        assert ask("POST", f"{base}/model/price", {"model": model}).status == 400
        assert ask("GET", f"{base}/balance").json["data"] == {"balance": 1000.0}
        listed = {m["model_id"]: m for m in ask("GET", f"{base}/models").json["data"]}
        schema = listed[model]["api_schema"]["api_schemas"][0]["request_schema"]
        submit(ask, speech)
        assert provider.spent == priced["price"]
    elif speech is ATLASCLOUD:
        listed = {m["model"]: m for m in ask("GET", "https://api.atlascloud.ai/api/v1/models", key=False).json["data"]}
        content = ask("GET", listed[speech.body["model"]]["schema"], key=False).json
        schema = content["components"]["schemas"]["Input"]
        balance = "https://api.atlascloud.ai/public/v1/balance"
        assert ask("GET", balance).json["available"] == {"value": "1000.000000", "currency": "usd"}
        refused = ask("GET", balance, key=False)
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
    elif speech is FAL:
        url = "https://api.fal.ai/v1/models/pricing"
        assert ask("GET", f"{url}?endpoint_id={ENDPOINT}/lora").json["prices"][0]["unit_price"] == 0.10
        assert ask("GET", f"{url}?endpoint_id=fal-ai/none").status == 404
        content = ask("GET", f"https://fal.ai/api/openapi/queue/openapi.json?endpoint_id={ENDPOINT}/lora", key=False)
        schema = content.json["components"]["schemas"]["Input"]
    else:
        content = ask("GET", "https://api.replicate.com/v1/models/wan-video/wan-2.2-i2v-fast").json
        schema = content["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"]
        assert ask("GET", "https://api.replicate.com/v1/account").json["username"] == "tester"
    names = set(speech.body["input"] if speech is REPLICATE else speech.body)
    assert names <= set(schema["properties"])
    assert {"prompt", speech.image} <= set(schema["required"])


def test_fal_finds_wrong_inputs_only_at_the_end(tmp_path: Path) -> None:
    with closing(FalServer(tmp_path)) as provider:
        ask, provider.script = Asker(provider), Script(queued=0, running=0)
        job = ask("POST", FAL.submit_url, FAL.changed(duration=5)).json
        told = ask("GET", job["status_url"]).json
        assert (told["status"], told["error_type"]) == ("COMPLETED", "validation_error")
        result = ask("GET", job["response_url"])
        assert (result.status, result.json["detail"][0]["loc"]) == (422, ["body", "duration"])
        assert provider.spent == 0


def test_fal_interpolates_unless_told_not_to(tmp_path: Path) -> None:
    with closing(FalServer(tmp_path)) as provider:
        ask, provider.script = Asker(provider), Script(queued=0, running=0)
        link = clip_link(ask, FAL, at(ask("POST", FAL.submit_url, FAL.changed(interpolator_model=None)).json, FAL.id))
        with av.open(io.BytesIO(ask("GET", link, key=False).body)) as container:
            stream = container.streams.video[0]
            assert (stream.frames, stream.average_rate) == (161, 32)


def test_a_result_is_not_there_before_the_end(tmp_path: Path) -> None:
    with closing(FalServer(tmp_path)) as provider:
        ask = Asker(provider)
        job = ask("POST", FAL.submit_url, FAL.body).json
        assert ask("GET", job["response_url"]).status == 400
        assert ask("GET", job["status_url"]).status == 202


def test_wavespeed_forgets_what_is_deleted_and_replicate_what_is_old(tmp_path: Path) -> None:
    with closing(WaveSpeedServer(tmp_path)) as provider:
        ask = Asker(provider)
        job_id = submit(ask, WAVESPEED)
        url = "https://api.wavespeed.ai/api/v3/predictions/delete"
        assert ask("POST", url, {"ids": job_id}).status == 400
        assert ask("POST", url, {"ids": [job_id]}).status == 200
        assert poll(ask, WAVESPEED, job_id).status == 404
    with closing(ReplicateServer(tmp_path)) as provider:
        ask, provider.script = Asker(provider), Script(queued=0, running=0)
        job_id = submit(ask, REPLICATE)
        assert clip_link(ask, REPLICATE, job_id).startswith("https://replicate.delivery/")
        provider.purge(provider.jobs[job_id])
        told = poll(ask, REPLICATE, job_id).json
        assert (told["status"], told["output"], told["data_removed"]) == ("succeeded", None, True)
