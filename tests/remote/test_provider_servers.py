"""That the loopback providers refuse what they must: a lenient server would make every test with it worthless."""

from __future__ import annotations

import base64
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.speaking import (
    ATLASCLOUD,
    FAL,
    HOOK,
    LORA,
    PICTURE,
    REPLICATE,
    WAVESPEED,
    Asker,
    Speech,
    form,
    picture,
    poll,
    submit,
    upload,
    with_hook,
)


@pytest.mark.parametrize("header", [None, "", "Basic abc", "{other} {key}", "{scheme} wrong", "{scheme}  {key}",
                                    "{key}", "Token {key}"])
def test_only_its_own_scheme_and_key_count(ask: Asker, speech: Speech, provider: ProviderServer,
                                           header: str | None) -> None:
    other = {"Key": "Bearer", "Bearer": "Key"}[provider.scheme]
    headers = {} if header is None else {
        "Authorization": header.format(other=other, scheme=provider.scheme, key=provider.key)}
    for method, url, body in (("POST", speech.submit_url, speech.body), ("GET", speech.poll_url.format(id="x"), None)):
        reply = ask(method, url, body, headers, key=False)
        assert reply.status == 401, (method, reply.body)
    assert provider.accepted == 0


@pytest.mark.parametrize("inputs", [
    {"prompt": None}, {"image": None}, {"prompt": ""}, {"prompt": " \n"}, {"prompt": 5}, {"image": ""}, {"image": 5},
    {"lora_url": LORA}, {"lora_scale": 0.8}, {"callback_url": HOOK}, {"fps": 16}, {"seed": "7"}, {"seed": 1.5},
    {"resolution": "1440p"}, {"image": "http://pictures.example/first.png"}, {"image": "file:///etc/passwd"},
    {"image": "/tmp/first.png"}, {"guidance": 5.0}], ids=str)
def test_wrong_inputs_are_refused_and_cost_nothing(ask: Asker, speech: Speech, provider: ProviderServer,
                                                   inputs: dict[str, object]) -> None:
    inputs = {speech.image if name == "image" else name: value for name, value in inputs.items()}
    reply = ask("POST", speech.submit_url, speech.changed(**inputs))
    assert reply.status == speech.wrong, reply.body
    assert (provider.accepted, provider.spent, provider.balance) == (0, 0, 1000)


@pytest.mark.parametrize("name, value", [
    ("duration", 3), ("duration", "5"), ("duration", 5.0), ("duration", 10), ("num_frames", 33), ("steps", 20),
    ("num_inference_steps", 20), ("guidance_scale", 5), ("loras", LORA), ("loras", [LORA]),
    ("loras", [{"path": LORA}] * 4), ("high_noise_loras", [{"path": LORA}] * 4), ("loras", [{"url": LORA}]),
    ("loras", [{"path": LORA, "scale": 4.5}]), ("loras", [{"path": LORA, "scale": -0.1}]),
    ("loras", [{"path": LORA, "transformer": "both"}]), ("webhook", HOOK), ("input", {"prompt": "x"})])
@pytest.mark.parametrize("speech", [WAVESPEED, ATLASCLOUD], ids=["wavespeed", "atlascloud"])
def test_the_fields_of_wavespeed_and_atlascloud(ask: Asker, speech: Speech, provider: ProviderServer, name: str,
                                                value: object) -> None:
    reply = ask("POST", speech.submit_url, speech.changed(**{name: value}))
    assert (reply.status, reply.json["code"]) == (400, 400)
    assert provider.accepted == 0


@pytest.mark.parametrize("path", [
    "http://loras.example/style.safetensors", "https://loras.example/style.ckpt", "/models/style.safetensors",
    "owner/model", "https://loras.example/?file=style.safetensors", "file:///style.safetensors",
    "https:///style.safetensors"])
def test_a_lora_is_an_https_link_to_a_safetensors_file(ask: Asker, speech: Speech, provider: ProviderServer,
                                                       path: str) -> None:
    body = speech.changed(lora_weights_transformer=path) if speech is REPLICATE else speech.changed(
        loras=[{"path": path}])
    assert ask("POST", speech.submit_url, body).status == speech.wrong
    signed = f"{LORA}?token=abc"
    body = speech.changed(lora_weights_transformer=signed) if speech is REPLICATE else speech.changed(
        loras=[{"path": signed}])
    assert ask("POST", speech.submit_url, body).status in (200, 201)


@pytest.mark.parametrize("inputs", [
    {"duration": 5}, {"num_frames": 16}, {"num_frames": 162}, {"frames": 81}, {"steps": 20}, {"image": PICTURE},
    {"loras": [{"path": LORA, "transformer": "low_noise"}]}, {"loras": [{"path": LORA, "weight_name": "x"}]},
    {"high_noise_loras": []}, {"num_interpolated_frames": 5}, {"interpolator_model": None, "fps": 16}], ids=str)
@pytest.mark.parametrize("speech", [FAL], ids=["fal"])
def test_the_fields_of_fal(ask: Asker, speech: Speech, provider: ProviderServer, inputs: dict[str, object]) -> None:
    reply = ask("POST", speech.submit_url, speech.changed(**inputs))
    assert reply.status == 422
    assert {"loc", "msg", "type", "input"} <= set(reply.json["detail"][0])


@pytest.mark.parametrize("inputs", [
    {"num_frames": 33}, {"num_frames": 122}, {"negative_prompt": "x"}, {"loras": []}, {"num_inference_steps": 30},
    {"sample_steps": 30}, {"lora_weights": LORA}, {"guidance_scale": 5}], ids=str)
@pytest.mark.parametrize("speech", [REPLICATE], ids=["replicate"])
def test_the_fields_of_replicate(ask: Asker, speech: Speech, provider: ProviderServer,
                                 inputs: dict[str, object]) -> None:
    reply = ask("POST", speech.submit_url, speech.changed(**inputs))
    assert (reply.status, reply.json["status"]) == (422, 422)
    assert reply.json["invalid_fields"]


def test_plain_models_take_no_loras(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    url, body = speech.submit_url, speech.body
    if speech is WAVESPEED:
        url = url.replace("i2v-720p-lora", "i2v-720p")
    elif speech is ATLASCLOUD:
        body = {**body, "model": "alibaba/wan-2.2-spicy/image-to-video"}
    elif speech is FAL:
        url = url.removesuffix("/lora")
    else:
        url = url.replace("i2v-fast", "i2v-a14b")
    assert ask("POST", url, body).status == speech.wrong
    without = speech.changed(loras=None, lora_weights_transformer=None)
    if speech is ATLASCLOUD:
        without["model"] = body["model"]
    assert ask("POST", url, without).status in (200, 201)


def test_an_unknown_model_and_an_unknown_job(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    url = speech.submit_url.replace("2.2", "9.9")
    body = {**speech.body, "model": "alibaba/wan-9.9"} if speech is ATLASCLOUD else speech.body
    assert ask("POST", url, body).status == 404
    assert poll(ask, speech, "0" * 32).status == 404


def test_a_wrong_path(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    """AtlasCloud takes it for a wrong key; fal knows no sub-path of an endpoint in status, result and cancel."""
    parts = urlsplit(speech.submit_url)
    assert ask("GET", f"https://{parts.netloc}/nothing/here").status == (401 if speech is ATLASCLOUD else 404)
    if speech is ATLASCLOUD:
        assert ask("POST", speech.submit_url.replace("/api/v1/", "/api/v3/"), speech.body).status == 401
    if speech is FAL:
        assert ask("GET", f"{speech.submit_url}/requests/{submit(ask, speech)}/status").status == 405


def test_another_host_is_a_violation(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    assert ask("GET", "https://other.example/").status == 421
    assert len(provider.violations) == 1


@pytest.mark.parametrize("raw, kind", [(b'{"prompt": ', "application/json"), (b"[]", "application/json"),
                                       (b"prompt=x", "application/x-www-form-urlencoded"), (b"{}", "text/plain")])
def test_the_body_is_a_json_object(ask: Asker, speech: Speech, provider: ProviderServer, raw: bytes,
                                   kind: str) -> None:
    assert ask("POST", speech.submit_url, raw, {"Content-Type": kind}).status == 400
    assert provider.accepted == 0


def test_a_body_without_a_length_is_refused(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    with closing(ask.connect(urlsplit(speech.submit_url).hostname)) as connection:
        connection.putrequest("POST", urlsplit(speech.submit_url).path)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.putheader("Authorization", f"{provider.scheme} {provider.key}")
        connection.endheaders()  # the refusal comes before any chunk would
        assert connection.getresponse().status == 413


def test_uploads_and_pictures(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    def job(value: str) -> int:
        return ask("POST", speech.submit_url, speech.changed(**{speech.image: value})).status

    small = upload(ask, speech, picture())
    assert job(small) in (200, 201)
    assert provider.uploads[small].data == picture()
    assert job(f"{small}x") == speech.wrong  # never uploaded
    assert job(upload(ask, speech, picture(2001, 10))) == speech.wrong
    assert job(upload(ask, speech, b"GIF89a" + bytes(100))) == speech.wrong
    provider.picture_bytes = len(picture()) - 1
    assert job(small) == speech.wrong
    provider.picture_bytes = 10**7
    inline = base64.b64encode(picture()).decode()
    assert (job(f"data:image/png;base64,{inline}") in (200, 201)) == (speech is not WAVESPEED)
    assert (job(inline) in (200, 201)) == (speech is ATLASCLOUD)
    assert job("data:image/png;base64,bm90IGEgcGljdHVyZQ==") == speech.wrong
    assert job("data:text/html;base64,bm90IGEgcGljdHVyZQ==") == speech.wrong
    assert provider.violations == []


def test_wrong_uploads(ask: Asker, speech: Speech, provider: ProviderServer) -> None:
    if speech is WAVESPEED:
        asked = {"filename": "first.png", "size": 4, "content_type": "image/png"}
        url = "https://api.wavespeed.ai/api/v3/media/uploads"
        assert ask("POST", url, {**asked, "filename": "../first.png"}).status == 400
        ticket = ask("POST", url, asked).json["data"]["upload"]
        assert ask("PUT", ticket["url"], b"12345", ticket["headers"], key=False).status == 403
        assert ask("PUT", ticket["url"], b"1234", {"Content-Type": "image/jpeg"}, key=False).status == 403
        assert provider.violations == []
        assert ask("PUT", ticket["url"], b"1234", ticket["headers"]).status == 400
        assert len(provider.violations) == 1  # the key went to the store
        assert ask("PUT", ticket["url"], b"1234", ticket["headers"], key=False).status == 200
        assert ask("PUT", ticket["url"], b"1234", ticket["headers"], key=False).status == 403
    elif speech is FAL:
        assert ask("POST", "https://rest.fal.ai/storage/auth/token", {}).status == 400
        reply = ask("POST", "https://v3.fal.media/files/upload", b"1234", {"Content-Type": "image/png"})
        assert reply.status == 401  # the key is no token
    else:
        url, field = {"atlascloud": ("https://api.atlascloud.ai/api/v1/model/uploadMedia", "image"),
                      "replicate": ("https://api.replicate.com/v1/files", "file")}[provider.provider]
        assert ask("POST", url, *form(field, b"1234")).status == speech.wrong
        assert ask("POST", url, b"1234", {"Content-Type": "image/png"}).status == speech.wrong
    assert len(provider.uploads) == (speech is WAVESPEED)


@pytest.mark.parametrize("hook", ["http://hooks.example/done", "https://127.0.0.1/done", "https://localhost/done",
                                  "https://user@hooks.example/done", "https://hooks.example:8443/", "hooks.example"])
def test_webhooks_are_public_and_https(ask: Asker, speech: Speech, provider: ProviderServer, hook: str) -> None:
    assert ask("POST", *with_hook(speech, hook)).status in (400, 422)
    assert ask("POST", *with_hook(speech, HOOK)).status in (200, 201)
    assert [job.webhook for job in provider.jobs.values()] == [HOOK]


@pytest.mark.parametrize("headers", [{"X-AtlasCloud-Object-Expiration-Hours": "0"},
                                     {"X-AtlasCloud-Request-Retention-Hours": "337"},
                                     {"X-AtlasCloud-Request-Retention-Hours": "soon"}])
@pytest.mark.parametrize("speech", [ATLASCLOUD], ids=["atlascloud"])
def test_the_retention_of_atlascloud(ask: Asker, speech: Speech, headers: dict[str, str]) -> None:
    reply = ask("POST", speech.submit_url, speech.body, headers)
    assert (reply.status, reply.json["data"]) == (400, None)
    assert reply.headers["x-request-id"] == reply.json["request_id"]
