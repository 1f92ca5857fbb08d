"""Downloads over https on loopback beside curl in the same run, and the time of a cache hit.

usage: download.py [--size 1000] [--rounds 5] [--line 125] [--throttled 200] [--rate 8] [--folder DIR]

Four tables. 1: `--size` MB as fast as it goes: curl to a file, curl and then sha256sum (which is what a verified
download costs without a hash on the way), ours (to the disk, hashed, fsynced and renamed). 2: the second run: pinned
by its hash, and asking the server. 3: `--size` MB over a line of `--line` MB a second (125: a gigabit). 4:
`--throttled` MB from a server that gives each connection `--rate` MB a second. Rounds go in turns, each from a disk
with nothing left to write; the ratios are of medians. Server and client share the machine, and in table 1 its
processors: curl's work and the server's fill two cores, so that the hash comes on top. Peak memory is of our process.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trustme

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.download.fetch import fetch  # noqa: E402
from pipeline.http import policy as http  # noqa: E402
from pipeline.http.secrets import Tokens  # noqa: E402
from tests.support.loopback import loopback_policy  # noqa: E402

HOST = "files.example"
MB = 10**6
LINK = f"https://{HOST}/lora.safetensors"


def serve(certificate: str, size: int, rate: float, ready: str) -> None:
    """The server's process: one file of random bytes, whole or in parts, with large writes."""
    block = os.urandom(2**20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    temporary = Path(ready).with_suffix(".tmp")
    temporary.write_text(str(listener.getsockname()[1]))
    temporary.rename(ready)

    def send(tls: ssl.SSLSocket, start: int, end: int) -> None:
        piece = 2**16 if rate else 2**20
        view, began, position = memoryview(block), time.monotonic(), start
        while position < end:
            inside = position % len(block)
            count = min(piece, len(block) - inside, end - position)
            tls.sendall(view[inside:inside + count])
            position += count
            if rate:
                time.sleep(max(0.0, (position - start) / rate - (time.monotonic() - began)))

    def talk(plain: socket.socket) -> None:
        try:
            with context.wrap_socket(plain, server_side=True) as tls:
                pending = b""
                while True:
                    while b"\r\n\r\n" not in pending:
                        if not (more := tls.recv(65536)):
                            return
                        pending += more
                    head, _, pending = pending.partition(b"\r\n\r\n")
                    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
                    headers = {name.lower(): value for name, value in headers.items()}
                    start, end, status = 0, size, "200 OK"
                    if headers.get("if-none-match") == '"one"':
                        tls.sendall(b'HTTP/1.1 304 Not Modified\r\nETag: "one"\r\n\r\n')
                        continue
                    extra = ""
                    if "range" in headers:
                        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
                        start, end, status = int(first), min(int(last) + 1, size), "206 Partial Content"
                        extra = f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
                    tls.sendall(f'HTTP/1.1 {status}\r\nContent-Length: {end - start}\r\nETag: "one"\r\n{extra}\r\n'
                                .encode())
                    send(tls, start, end)
        except (OSError, ValueError):
            pass  # the client has what it wants

    while True:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=talk, args=(plain,), daemon=True).start()


class Server:
    """That server in a process of its own; a context manager."""

    def __init__(self, folder: Path, size: int, rate: float = 0.0) -> None:
        authority = trustme.CA()
        self.ca = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.ca)
        certificate = folder / "server.pem"
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(certificate)
        ready = folder / "port"
        ready.unlink(missing_ok=True)
        self._process = subprocess.Popen([sys.executable, __file__, "--serve", str(certificate), str(size), str(rate),
                                          str(ready)])
        while not ready.exists():
            time.sleep(0.02)
        self.port = int(ready.read_text())
        self.policy = loopback_policy(http, {HOST: ("127.0.0.1", self.port)}, str(self.ca))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def curl(self, path: Path) -> None:
        subprocess.run(["curl", "-sS", "--fail", "--cacert", self.ca, "--resolve", f"{HOST}:{self.port}:127.0.0.1",
                        "-o", path, f"https://{HOST}:{self.port}/lora.safetensors"], check=True)

    def fetch(self, folder: Path, offline: bool = False, **options: object) -> Path:
        return fetch(LINK, folder=folder, policy=replace(self.policy, offline=offline), tokens=Tokens({}), **options)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cost(work: Callable[[], object], whose: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor, of this process or of its children, from a disk with nothing to do."""
    os.sync()
    before = resource.getrusage(whose)
    seconds = timed(work)
    after = resource.getrusage(whose)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(server: Server, folder: Path, megabytes: int, rounds: int, *, hashed: bool) -> None:
    """Print MB a second of curl and ours, in turns."""
    took: dict[str, list[float]] = {"curl": [], "ours": []}
    spent: dict[str, list[float]] = {"curl": [], "ours": []}
    if hashed:
        took["curl, sha256sum"] = []
    target, cache = folder / "curl.bin", folder / "cache"
    for _ in range(rounds):
        seconds, cpu = cost(lambda: server.curl(target), resource.RUSAGE_CHILDREN)
        took["curl"].append(seconds)
        spent["curl"].append(cpu)
        if hashed:
            took["curl, sha256sum"].append(seconds + timed(lambda: subprocess.run(
                ["sha256sum", target], check=True, stdout=subprocess.DEVNULL)))
        target.unlink()
        seconds, cpu = cost(lambda: server.fetch(cache), resource.RUSAGE_SELF)
        took["ours"].append(seconds)
        spent["ours"].append(cpu)
        assert max(file.stat().st_size for file in cache.rglob("*") if file.is_file()) == megabytes * MB
        shutil.rmtree(cache)
    print("| client | MB/s, median | of curl | CPU s a GB | rounds, s |\n|---|---|---|---|---|")
    for name, seconds in took.items():
        ratio = statistics.median(took["curl"]) / statistics.median(seconds)
        print(f"| {name} | {megabytes / statistics.median(seconds):.0f} | {ratio:.2f} | "
              f"{1000 * statistics.median(spent[name]) / megabytes if name in spent else float('nan'):.2f} | "
              f"{' '.join(f'{s:.2f}' for s in seconds)} |")


def hits(server: Server, folder: Path, megabytes: int) -> None:
    """Print milliseconds of second runs."""
    path = server.fetch(folder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == digest
    print("| second run | ms, median | ms, worst |\n|---|---|---|")
    for name, options in (("pinned by SHA-256", {"sha256": digest}), ("offline", {"offline": True}),
                          ("asking the server", {})):
        took = [1000 * timed(lambda options=options: server.fetch(folder, **options)) for _ in range(20)]
        print(f"| {name} ({megabytes} MB) | {statistics.median(took):.1f} | {max(took):.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--line", type=float, default=125.0)
    parser.add_argument("--throttled", type=int, default=200)
    parser.add_argument("--rate", type=float, default=8.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with Server(folder, options.size * MB) as server:
            compare(server, folder, options.size, options.rounds, hashed=True)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"\npeak memory {peak:.0f} MiB\n")
            hits(server, folder / "hits", options.size)
        for size, rate in ((options.size, options.line), (options.throttled, options.rate)):
            print(f"\n{size} MB, {rate:g} MB a second and connection\n")
            place = folder / f"{rate:g}"
            place.mkdir()
            with Server(place, size * MB, rate * MB) as server:
                compare(server, place, size, min(options.rounds, 3), hashed=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    else:
        main()
