"""A receiver of our own callbacks: checks each signature by itself, and keeps what it was told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from pathlib import Path
from typing import Any

from tests.support.api_server import Answer, ApiServer, Route
from tests.support.loopback_server import Request

HOST = "hooks.example"


class HookServer(ApiServer):
    """https://hooks.example/...; point for faults: "hook"."""

    points = ("hook",)

    def __init__(self, folder: Path) -> None:
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        self.told: list[dict[str, Any]] = []
        """Bodies that were taken."""
        self.routes = [Route("POST", HOST, r"/.*", "hook", self._hook, open=True)]
        super().__init__(folder, (HOST,))

    def unknown(self, request: Request) -> Answer:
        return Answer(405, b"")

    def _hook(self, request: Request) -> Answer:
        headers, raw = request.seen.headers, request.seen.raw
        if "webhook-signature" in headers:
            key = base64.b64decode(self.secret.removeprefix("whsec_"))
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
            right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            if headers["webhook-signature"] != f"v1,{right}":
                self.violations.append("A signature is wrong.")
                return Answer(401, b"")
        if abs(time.time() - int(headers["webhook-timestamp"])) > 10**5 or "authorization" in headers:
            self.violations.append("A callback has no time, or a key.")
        self.told.append(json.loads(raw))
        return Answer(200, b"taken, with thanks")
