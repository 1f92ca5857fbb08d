"""A plain client of the loopback providers, and how each of them is spoken to in its own words.

For the tests of the servers themselves: it shares no code with the pack's client.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.providers.atlascloud import AtlasCloudServer
from tests.support.providers.fal import FalServer
from tests.support.providers.fal_models import ENDPOINT
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.replicate import ReplicateServer
from tests.support.providers.wavespeed import WaveSpeedServer

LORA = "https://loras.example/style.safetensors"
PICTURE = "https://pictures.example/first.png"
HOOK = "https://hooks.example/done"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asker:
    """A plain client, one connection a request, that trusts the servers' authority alone."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=str(server.ca))

    def connect(self, host: str) -> http.client.HTTPConnection:
        places = self.server.loopback()
        plain = socket.create_connection(places.get(host) or next(iter(places.values())), timeout=30)
        connection = http.client.HTTPConnection(host)
        name = host if host in places else next(iter(places))
        connection.sock = self.context.wrap_socket(plain, server_hostname=name)
        return connection

    def __call__(self, method: str, url: str, body: object = None, headers: dict[str, str] | None = None, *,
                 key: bool = True) -> Reply:
        parts = urlsplit(url)
        headers = dict(headers or {})
        if key and isinstance(self.server, ProviderServer):
            headers = {"Authorization": f"{self.server.scheme} {self.server.key}"} | headers
        if body is not None and not isinstance(body, bytes):
            headers, body = {"Content-Type": "application/json"} | headers, json.dumps(body).encode()
        with closing(self.connect(parts.hostname)) as connection:
            connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


@dataclass
class Speech:
    """How to speak to a provider, as far as the tests of all of them need it."""

    provider: type[ProviderServer]
    submit_url: str
    poll_url: str
    body: dict[str, Any]
    """A job that is accepted."""
    inputs: tuple[str, ...] = ()
    """Where in the body the inputs are."""
    image: str = "image"
    wrong: int = 400
    """Status of wrong inputs."""
    id: tuple[str, ...] = ("data", "id")
    status: tuple[str, ...] = ("data", "status")
    words: tuple[str, str, str] = ("created", "processing", "completed")

    def changed(self, **inputs: object) -> dict[str, Any]:
        """The body with other inputs; None takes one away."""
        body = json.loads(json.dumps(self.body))
        place = body
        for name in self.inputs:
            place = place[name]
        for name, value in inputs.items():
            place.pop(name, None)
            if value is not None:
                place[name] = value
        return body


def at(content: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        content = content[name]
    return content


WAVESPEED = Speech(
    WaveSpeedServer, "https://api.wavespeed.ai/api/v3/wavespeed-ai/wan-2.2/i2v-720p-lora",
    "https://api.wavespeed.ai/api/v3/predictions/{id}/result",
    {"image": PICTURE, "prompt": "a boat", "duration": 5, "loras": [{"path": LORA, "scale": 0.8}], "seed": 7})
ATLASCLOUD = Speech(
    AtlasCloudServer, "https://api.atlascloud.ai/api/v1/model/generateVideo",
    "https://api.atlascloud.ai/api/v1/model/prediction/{id}",
    {"model": "alibaba/wan-2.2-spicy/image-to-video-lora", "image": PICTURE, "prompt": "a boat", "duration": 5,
     "resolution": "480p", "loras": [{"path": LORA, "scale": 0.8}], "seed": 7})
FAL = Speech(
    FalServer, f"https://queue.fal.run/{ENDPOINT}/lora", "https://queue.fal.run/fal-ai/wan/requests/{id}/status",
    {"image_url": PICTURE, "prompt": "a boat", "num_frames": 81, "interpolator_model": "none",
     "loras": [{"path": LORA, "scale": 0.8, "transformer": "both"}]},
    image="image_url", wrong=422, id=("request_id",), status=("status",),
    words=("IN_QUEUE", "IN_PROGRESS", "COMPLETED"))
REPLICATE = Speech(
    ReplicateServer, "https://api.replicate.com/v1/models/wan-video/wan-2.2-i2v-fast/predictions",
    "https://api.replicate.com/v1/predictions/{id}",
    {"input": {"image": PICTURE, "prompt": "a boat", "num_frames": 81, "lora_weights_transformer": LORA}},
    inputs=("input",), wrong=422, id=("id",), status=("status",), words=("starting", "processing", "succeeded"))
ALL = {"wavespeed": WAVESPEED, "atlascloud": ATLASCLOUD, "fal": FAL, "replicate": REPLICATE}


def submit(ask: Asker, speech: Speech) -> str:
    reply = ask("POST", speech.submit_url, speech.body)
    assert reply.status in (200, 201), reply.body
    return at(reply.json, speech.id)


def poll(ask: Asker, speech: Speech, job_id: str) -> Reply:
    return ask("GET", speech.poll_url.format(id=job_id))


def clip_link(ask: Asker, speech: Speech, job_id: str) -> str:
    """The link to the clip of a job whose next poll finds it done."""
    reply = poll(ask, speech, job_id).json
    if speech is FAL:
        return ask("GET", reply["response_url"]).json["video"]["url"]
    return reply["output"] if speech is REPLICATE else reply["data"]["outputs"][0]


def picture(width: int = 32, height: int = 32, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return file.getvalue()


def form(field: str, data: bytes, name: str = "first.png") -> tuple[bytes, dict[str, str]]:
    body = (f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n").encode() + data + b"\r\n--xyz--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xyz"}


def upload(ask: Asker, speech: Speech, data: bytes) -> str:
    if speech is WAVESPEED:
        ticket = ask("POST", "https://api.wavespeed.ai/api/v3/media/uploads", {
            "filename": "first.png", "size": len(data), "content_type": "image/png"}).json["data"]
        sent = ask("PUT", ticket["upload"]["url"], data, ticket["upload"]["headers"], key=False)
        assert sent.status == 200
        return ticket["download_url"]
    if speech is ATLASCLOUD:
        reply = ask("POST", "https://api.atlascloud.ai/api/v1/model/uploadMedia", *form("file", data))
        return reply.json["data"]["download_url"]
    if speech is FAL:
        token = ask("POST", "https://rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3", {}).json
        reply = ask("POST", f"{token['base_url']}/files/upload", data, {
            "Authorization": f"{token['token_type']} {token['token']}", "Content-Type": "image/png",
            "X-Fal-File-Name": "first.png"})
        return reply.json["access_url"]
    return ask("POST", "https://api.replicate.com/v1/files", *form("content", data)).json["urls"]["get"]


def with_hook(speech: Speech, hook: str) -> tuple[str, dict[str, Any]]:
    if speech in (WAVESPEED, FAL):
        name = "webhook" if speech is WAVESPEED else "fal_webhook"
        return f"{speech.submit_url}?{urlencode({name: hook})}", speech.body
    return speech.submit_url, {**speech.body, "webhook" if speech is REPLICATE else "webhook_url": hook}
