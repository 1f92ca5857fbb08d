"""A server in front of a ComfyUI: below a path of its own, or with answers changed as of another version."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from devtools.server import ComfyServer


@contextmanager
def proxy(server: ComfyServer, prefix: str = "", change: Callable[[str, bytes], bytes] = lambda path, body: body,
          ) -> Iterator[str]:
    """Yield the address below which the server answers. change: of a path and the body of its answer, into another."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                return self.send_error(404)
            path = self.path.removeprefix(prefix)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            kept = {name: self.headers[name] for name in ("Content-Type",) if self.headers[name]}
            request = urllib.request.Request(server.url + path, body, kept, method=self.command)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                    status, kind, data = answer.status, answer.headers["Content-Type"], answer.read()
            except urllib.error.HTTPError as error:
                status, kind, data = error.code, error.headers["Content-Type"], error.read()
            data = change(path, data)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}{prefix}"
        listening.shutdown()
