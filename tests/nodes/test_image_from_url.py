"""Image from URL in the real ComfyUI: a picture by a link, a link that is refused, Stop while the server is silent."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Event, RejectedError, messages, sample_picture
from tests.support.hostile_server import File, HostileServer, status

PICTURE = sample_picture(64, 48)


@pytest.fixture(scope="module", autouse=True)
def pictures(internet: HostileServer) -> None:
    sink = io.BytesIO()
    Image.fromarray(PICTURE).save(sink, "PNG")
    internet.routes |= {"/picture.png": File(sink.getvalue()), "/silent.png": File(sink.getvalue(), hang_at=100),
                        "/gone.png": status(404)}


def graph(url: str) -> Workflow:
    return {"fetch": {"class_type": "Wan22ImageFromURL", "inputs": {"url": url}},
            "show": {"class_type": "PreviewImage", "inputs": {"images": ["fetch", 0]}}}


def test_a_picture_by_its_link(comfy: ComfyClient) -> None:
    run = comfy.finish(graph("https://a.example/picture.png"))
    assert np.array_equal(comfy.frames(run, "show"), PICTURE[None])


@pytest.mark.parametrize(("url", "sentence"), [
    ("", "url is empty. Give the https link of a JPEG, PNG or WebP picture."),
    ("http://a.example/picture.png", "http://a.example/picture.png: only https links are followed, not http."),
])
def test_what_is_no_link_is_refused_when_it_is_queued(comfy: ComfyClient, url: str, sentence: str) -> None:
    with pytest.raises(RejectedError) as caught:
        comfy.run(graph(url))
    assert messages(caught.value.errors["fetch"]) == {sentence}


@pytest.mark.parametrize(("url", "sentence"), [
    ("https://a.example/gone.png", "https://a.example/gone.png does not exist (status 404). Check the link; the file "
                                   "may have been moved or removed."),
    ("https://127.0.0.1/p.png", "https://127.0.0.1/p.png is refused: 127.0.0.1 is not on the public internet, but an "
                                "address of this machine or its network. Fetch the file yourself."),
])
def test_what_cannot_be_fetched_is_told_on_the_node(comfy: ComfyClient, url: str, sentence: str) -> None:
    run = comfy.run(graph(url))
    assert run.outcome == "execution_error"
    assert run.error["exception_message"].strip() == sentence
    assert [text.strip() for text in run.texts("fetch")] == [sentence]


def test_stop_while_the_server_is_silent(comfy: ComfyClient) -> None:
    def stop(event: Event) -> None:
        if event.kind == "executing" and event.data["node"] == "fetch":
            comfy.interrupt()

    assert comfy.run(graph("https://a.example/silent.png"), stop).outcome == "execution_interrupted"
