"""Image from URL in the real ComfyUI: a picture by a link, a link that is refused, Stop while the server is silent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from devtools.environment import local_comfyui
from devtools.server import ComfyServer
from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Event, RejectedError, messages, sample_picture
from tests.support.comfy_launcher import put_on_loopback
from tests.support.hostile_server import File, HostileServer, status

PICTURE = sample_picture(64, 48)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """The internet, as the server below knows it."""
    with closing(HostileServer(tmp_path_factory.mktemp("web"))) as web:
        sink = io.BytesIO()
        Image.fromarray(PICTURE).save(sink, "PNG")
        web.routes["/picture.png"] = File(sink.getvalue())
        web.routes["/silent.png"] = File(sink.getvalue(), hang_at=100)
        web.routes["/gone.png"] = status(404)
        yield web


@pytest.fixture(scope="module")
def online(web: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyClient]:
    """A ComfyUI that finds these hosts on loopback."""
    comfyui = local_comfyui()
    base = tmp_path_factory.mktemp("online")
    server = ComfyServer(comfyui, base, base / "server.log")
    put_on_loopback(server, web.environment())
    with server, closing(ComfyClient(server)) as client:
        yield client


def graph(url: str) -> Workflow:
    return {"fetch": {"class_type": "Wan22ImageFromURL", "inputs": {"url": url}},
            "show": {"class_type": "PreviewImage", "inputs": {"images": ["fetch", 0]}}}


def test_a_picture_by_its_link(online: ComfyClient) -> None:
    run = online.finish(graph("https://a.example/picture.png"))
    assert np.array_equal(online.frames(run, "show"), PICTURE[None])


@pytest.mark.parametrize(("url", "sentence"), [
    ("", "url is empty. Give the https link of a JPEG, PNG or WebP picture."),
    ("http://a.example/picture.png", "http://a.example/picture.png: only https links are followed, not http."),
])
def test_what_is_no_link_is_refused_when_it_is_queued(online: ComfyClient, url: str, sentence: str) -> None:
    with pytest.raises(RejectedError) as caught:
        online.run(graph(url))
    assert messages(caught.value.errors["fetch"]) == {sentence}


@pytest.mark.parametrize(("url", "sentence"), [
    ("https://a.example/gone.png", "https://a.example/gone.png does not exist (status 404). Check the link; the file "
                                   "may have been moved or removed."),
    ("https://127.0.0.1/p.png", "https://127.0.0.1/p.png is refused: 127.0.0.1 is not on the public internet, but an "
                                "address of this machine or its network. Fetch the file yourself."),
])
def test_what_cannot_be_fetched_is_told_on_the_node(online: ComfyClient, url: str, sentence: str) -> None:
    run = online.run(graph(url))
    assert run.outcome == "execution_error"
    assert run.error["exception_message"].strip() == sentence
    assert [text.strip() for text in run.texts("fetch")] == [sentence]


def test_stop_while_the_server_is_silent(online: ComfyClient) -> None:
    def stop(event: Event) -> None:
        if event.kind == "executing" and event.data["node"] == "fetch":
            online.interrupt()

    assert online.run(graph("https://a.example/silent.png"), stop).outcome == "execution_interrupted"
