"""A client of the API, and its owner's side."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import requests

from devtools.paths import ROOT
from pipeline.serve.operations import BASE
from tests.support.comfy_outside import Outside

PICTURE = ROOT / "workflows" / "input" / "wan22_coffee.png"
SHORT = {"num_frames": 5, "num_inference_steps": 1}
"""A clip of a second's work."""


@dataclass
class Api:
    """A client with a key, or without."""

    url: str
    key: str = ""

    def ask(self, method: str, path: str, base: str = BASE, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return requests.request(method, self.url + base + path, headers=headers | more.pop("headers", {}),
                                timeout=60, **more)

    def submit(self, **fields: Any) -> requests.Response:
        return self.ask("POST", "/image-to-video", json={"image": self.picture, "prompt": "it turns blue", **SHORT,
                                                         **fields})

    def wait(self, name: str) -> dict[str, Any]:
        """Return a prediction once it has ended; the test's own time limit ends the wait."""
        while (found := self.ask("GET", f"/predictions/{name}").json())["status"] in ("queued", "running"):
            time.sleep(0.1)
        return found

    @property
    def picture(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"


def owner(outside: Outside, method: str, path: str = "", **more: Any) -> requests.Response:
    return requests.request(method, f"{outside.server.url}/wan22/serving{path}", timeout=60, **more)


def new_key(outside: Outside, name: str) -> dict[str, str]:
    answer = owner(outside, "POST", "/keys", json={"name": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


def error_of(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error of an answer, which must be in the one shape."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert set(found) == {"error"} and {"code", "message"} <= set(found["error"]) <= {"code", "message", "field",
                                                                                      "fields"}
    assert found["error"]["code"] == code and found["error"]["message"]
    return found["error"]
