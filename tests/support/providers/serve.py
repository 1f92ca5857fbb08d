"""The servers as a process of their own, for scripts that start and kill clients.

    python -m tests.support.providers.serve --provider fal --provider wavespeed --port-file F [--state-file S]

The port file is written when all of them listen; its JSON is a value for WAN22_TEST_LOOPBACK (hosts and CA) with
the keys beside it: {"ca": path, "hosts": {host: "127.0.0.1:port"}, "keys": {provider: key}}. Each server answers GET
/__test__/state, on any of its hosts, with its counts. On SIGTERM and SIGINT the state of all goes to the state file
({provider: state}) and the process ends with 0. The files are never seen half written.

Faults are POINT=NAME[:NUMBER], for every request there: --fault submit=delay:0.2 --fault download=drip:20000.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from pathlib import Path

from tests.support.faults import BY_NAME
from tests.support.loopback_server import LoopbackServer, environment
from tests.support.providers.atlascloud import AtlasCloudServer
from tests.support.providers.cdn_server import CdnServer
from tests.support.providers.fal import FalServer
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.replicate import ReplicateServer
from tests.support.providers.wavespeed import WaveSpeedServer

PROVIDERS: dict[str, type[ProviderServer]] = {
    "wavespeed": WaveSpeedServer, "atlascloud": AtlasCloudServer, "fal": FalServer, "replicate": ReplicateServer}


def _write(path: Path, content: object) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=1), "utf-8")
    os.replace(new, path)


def _put(fault: str, servers: list[LoopbackServer]) -> None:
    point, _, what = fault.partition("=")
    name, _, number = what.partition(":")
    able = [server for server in servers if point in server.points]
    if not able or name not in BY_NAME:
        raise SystemExit(f"--fault {fault}: no such point, or not one of {', '.join(BY_NAME)}.")
    for server in able:
        server.fail(point, BY_NAME[name](*([float(number)] if number else [])), times=FOREVER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", action="append", choices=PROVIDERS, required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--state-file", type=Path)
    parser.add_argument("--queued", type=int, default=1, help="polls that find a job waiting")
    parser.add_argument("--running", type=int, default=1, help="polls that find it running")
    parser.add_argument("--max-unfinished", type=int, help="jobs at a time; more get 429 (fal: wait)")
    parser.add_argument("--fault", action="append", default=[], metavar="POINT=NAME[:NUMBER]")
    asked = parser.parse_args()

    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    folder = asked.port_file.resolve().parent
    cdn = CdnServer(folder)
    servers = {name: PROVIDERS[name](folder, cdn) for name in asked.provider}
    for server in servers.values():
        server.script, server.max_unfinished = Script(asked.queued, asked.running), asked.max_unfinished
    for fault in asked.fault:
        _put(fault, [*servers.values(), cdn])
    keys = {name: server.key for name, server in servers.items()}
    _write(asked.port_file, {**json.loads(environment(cdn, *servers.values())), "keys": keys})
    end.wait()
    if asked.state_file:
        _write(asked.state_file, {name: server.state() for name, server in servers.items()})
    for server in (*servers.values(), cdn):
        server.close()


if __name__ == "__main__":
    main()
