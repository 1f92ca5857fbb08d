"""dev.py and what stands behind it: finding and fetching ComfyUI, listening to it, and what a person gets to read."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

import dev
from devtools.environment import find_comfyui
from devtools.fetch import unpack_folder, verify_sha256
from devtools.files import write_new
from devtools.paths import ROOT, find_checkout
from devtools.server import free_port
from devtools.terminal import DevError, ProgressBar, tail
from devtools.websocket import WebSocket
from devtools.workflow import explain_failure, explain_rejection, show_progress

# ---- the websocket client, against real servers -----------------------------------------------------------------


@contextmanager
def aiohttp_server(talk: Callable, **options) -> Iterator[int]:
    """A websocket server that runs `talk(ws)` for each client, on a thread of its own; gives its port."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=0, **options)
        await ws.prepare(request)
        await talk(ws)
        await ws.close()
        return ws

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_get("/ws", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def received(port: int) -> list[str]:
    with closing(WebSocket(port, "/ws?clientId=x")) as client:
        return list(client.texts())


def test_texts_of_every_length_arrive_and_binary_messages_are_skipped():
    texts = ["", "é" * 62, "b" * 125, "c" * 126, "d" * 65535, "e" * 65536, "f" * 300_000]

    async def talk(ws):
        for text in texts:
            await ws.send_bytes(b"\x00\x00\x00\x01" + bytes(100_000))
            await ws.send_str(text)

    with aiohttp_server(talk) as port:
        assert received(port) == texts


def test_pings_are_answered():
    # aiohttp drops a client that leaves a heartbeat unanswered for half its interval.
    async def talk(ws):
        reader = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(2)
        await ws.send_str("still here")
        reader.cancel()

    with aiohttp_server(talk, heartbeat=0.8) as port:
        assert received(port) == ["still here"]


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    assert len(payload) < 126
    return bytes([(0x80 if final else 0) | opcode, len(payload)]) + payload


@contextmanager
def raw_server(answer: bytes, pieces: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Sends `answer` to a client's request and then `pieces`, and collects what the client sends back."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(4096)
            connection.sendall(answer)
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while data := connection.recv(4096):
                heard.append(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        thread.join(10)
        listener.close()


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_fragments_are_joined_around_control_frames():
    pieces = [
        frame(1, b'{"a": ', final=False),
        frame(9, b"are you there"),
        frame(0, "\u00e9".encode()[:1], final=False),  # a character that is cut in two
        frame(0, "\u00e9".encode()[1:] + b"}"),
        frame(2, b"bin", final=False),
        frame(0, b"ary"),
        frame(10, b""),
        frame(1, b"next"),
        frame(8, struct.pack("!H", 1000)),
    ]
    with raw_server(SWITCHING, pieces) as (port, heard):
        assert received(port) == ['{"a": é}', "next"]
    pong = b"".join(heard)
    assert pong[0] == 0x8A and pong[1] == 0x80 | len(b"are you there")
    assert bytes(byte ^ pong[2 + i % 4] for i, byte in enumerate(pong[6:])) == b"are you there"


def test_frames_that_come_byte_by_byte():
    with raw_server(SWITCHING, [bytes([byte]) for byte in frame(1, b"slow") + frame(8, b"")]) as (port, _):
        assert received(port) == ["slow"]


def test_a_server_that_dies_is_an_error_and_not_an_end():
    pieces = [frame(1, b"one"), frame(1, b"two")[:3]]
    with raw_server(SWITCHING, pieces) as (port, _), closing(WebSocket(port, "/ws")) as client:
        texts = client.texts()
        assert next(texts) == "one"
        with pytest.raises(ConnectionError):
            next(texts)


def test_a_server_that_offers_no_websocket_is_an_error():
    with raw_server(b"HTTP/1.1 404 Not Found\r\n\r\n", []) as (port, _), pytest.raises(ConnectionError, match="/ws"):
        WebSocket(port, "/ws")


# ---- following a run --------------------------------------------------------------------------------------------

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {}},
    "2": {"class_type": "Wan22Sampler", "inputs": {}, "_meta": {"title": "Sampler"}},
}


def events(*pairs: tuple[str, dict]) -> Iterator[str]:
    return iter([json.dumps({"type": kind, "data": {"prompt_id": "p", **data}}) for kind, data in pairs])


def state(value: int, maximum: int, name: str = "running") -> dict:
    return {"value": value, "max": maximum, "state": name}


def test_progress_off_a_terminal_is_a_line_for_every_tenth(capsys):
    steps = [("progress_state", {"nodes": {"1": state(1, 1, "finished"), "2": state(i, 100)}}) for i in range(101)]
    elsewhere = ("execution_success", {"prompt_id": "another run"})
    show_progress(events(*steps[:50], elsewhere, *steps[50:], ("execution_success", {})), "p", WORKFLOW, ProgressBar())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == " 50 %  Sampler 0/100"
    assert [line.split(" %")[0].strip() for line in lines] == ["50", "60", "70", "80", "90", "100"]


def test_an_error_event_becomes_the_nodes_own_message():
    error = {"node_id": "2", "exception_type": "ValueError", "exception_message": "Too big.\n\nUse 480p.\nMore.\n"}
    with pytest.raises(DevError) as raised:
        show_progress(events(("execution_error", error)), "p", WORKFLOW, ProgressBar())
    assert str(raised.value) == "Sampler: Too big.\nUse 480p."


def test_an_error_without_a_message_names_its_type():
    data = {"node_id": "1", "exception_type": "KeyError", "exception_message": ""}
    assert explain_failure(data, WORKFLOW) == "LoadImage: KeyError"


def test_a_cancelled_run_says_so():
    with pytest.raises(DevError, match="cancelled"):
        show_progress(events(("execution_interrupted", {})), "p", WORKFLOW, ProgressBar())


def test_events_that_stop_early_are_an_error():
    with pytest.raises(ConnectionError):
        show_progress(events(("execution_start", {})), "p", WORKFLOW, ProgressBar())


def test_a_rejection_is_a_line_for_each_fault():
    small = {"type": "value_smaller_than_min", "message": "Value 3 smaller than min of 10", "details": "steps"}
    custom = {"type": "custom_validation_failed", "message": "Custom validation failed for node"}
    ours = [custom | {"details": f"{name} - num_frames is 34: give 4n+1."} for name in ("num_frames", "width")]
    answer = {"error": {"message": "Failed validation"}, "node_errors": {"2": {"errors": [small, *ours]}}}
    assert explain_rejection(answer, WORKFLOW).splitlines() == [
        "Sampler: Value 3 smaller than min of 10 (steps)",
        "Sampler: num_frames is 34: give 4n+1.",
    ]


def test_a_rejection_of_the_whole_workflow():
    answer = {"error": {"type": "x", "message": "Node 'Nope' not found.", "details": "Node ID '#2'"}, "node_errors": {}}
    assert explain_rejection(answer, WORKFLOW).endswith("Node 'Nope' not found. Node ID '#2'")


# ---- finding ComfyUI --------------------------------------------------------------------------------------------


def comfyui_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    return folder


def test_the_environment_names_comfyui(tmp_path):
    around = comfyui_at(tmp_path / "around")
    named = comfyui_at(tmp_path / "named")
    environ = {"COMFYUI_PATH": str(named)}
    assert find_comfyui(around / "custom_nodes" / "pack", environ) == named


def test_a_wrong_comfyui_path_is_an_error(tmp_path):
    with pytest.raises(DevError, match=r"COMFYUI_PATH .*main\.py"):
        find_comfyui(tmp_path, {"COMFYUI_PATH": str(tmp_path)})


def test_the_comfyui_around_the_checkout(tmp_path):
    around = comfyui_at(tmp_path / "ComfyUI")
    assert find_comfyui(around / "custom_nodes" / "pack", {"COMFYUI_PATH": ""}) == around
    assert find_comfyui(around / "elsewhere" / "pack", {}) is None


def test_a_custom_nodes_folder_without_comfyui_is_none(tmp_path):
    assert find_comfyui(tmp_path / "custom_nodes" / "pack", {}) is None


def test_a_checkout_keeps_the_name_by_which_its_script_was_called(tmp_path):
    link = tmp_path / "pack"
    try:
        link.symlink_to(ROOT, target_is_directory=True)
    except OSError as error:  # Windows lets only some make links
        pytest.skip(str(error))
    assert find_checkout(str(link / "dev.py")) == link
    assert find_checkout(str(link / "tests" / "test_dev.py")) == ROOT


# ---- fetching ComfyUI -------------------------------------------------------------------------------------------


def archive_of(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """A tar.gz of files (bytes) and symbolic links (text: where to)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
    return path


def test_an_archive_that_was_changed_is_refused(tmp_path):
    file = tmp_path / "thing-1.0.tar.gz"
    file.write_bytes(b"as chosen")
    chosen = hashlib.sha256(b"as chosen").hexdigest()
    verify_sha256(file, chosen)
    file.write_bytes(b"as chosen?")
    with pytest.raises(DevError, match=r"thing-1\.0\.tar\.gz was changed"):
        verify_sha256(file, chosen)


def test_only_the_wanted_folder_is_unpacked(tmp_path):
    archive = archive_of(
        tmp_path / "a.tar.gz",
        ("a/setup.py", b"no"),
        ("a/vendor/ComfyUI/main.py", b"main"),
        ("a/vendor/ComfyUI/comfy/ops.py", b"ops"),
        ("a/vendor/ComfyUI-extras/x.py", b"no"),
        ("../outside.py", b"no"),
    )
    target = unpack_folder(archive, "a/vendor/ComfyUI", tmp_path / "out")
    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert files == {"main.py": b"main", "comfy/ops.py": b"ops"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "out"]


@pytest.mark.parametrize(
    "member",
    [
        ("a/C/../../../evil.py", b"x"),
        ("a/C//evil.py", b"x"),
        ("a/C/..\\evil.py", b"x"),
        ("a/C/C:/evil.py", b"x"),
        ("a/C/link", "/etc/passwd"),
    ],
    ids=["parent", "absolute", "backslash", "drive", "link"],
)
def test_an_archive_with_an_unsafe_member_is_refused(tmp_path, member):
    archive = archive_of(tmp_path / "a.tar.gz", ("a/C/main.py", b"main"), member)
    with pytest.raises(DevError, match=r"unsafe name|neither file nor folder"):
        unpack_folder(archive, "a/C", tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar.gz", "main.py"]


def test_an_archive_without_comfyui_is_refused(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", ("a/C/readme", b"x"))
    with pytest.raises(DevError, match=r"no a/C/main\.py"):
        unpack_folder(archive, "a/C", tmp_path / "out")


# ---- files and the command line ---------------------------------------------------------------------------------


def test_an_earlier_result_is_never_overwritten(tmp_path):
    written = [write_new(tmp_path, "cat", ".mp4", bytes([number])) for number in range(3)]
    assert [path.name for path in written] == ["cat.mp4", "cat-2.mp4", "cat-3.mp4"]
    assert [path.read_bytes() for path in written] == [b"\0", b"\1", b"\2"]


def test_the_end_of_a_log_without_its_colours(tmp_path):
    log = tmp_path / "server.log"
    log.write_text("".join(f"\x1b[32m[INFO]\x1b[0m line {number}\n\n" for number in range(50)))
    assert tail(log, 2).splitlines() == ["  | [INFO] line 48", "  | [INFO] line 49", f"The whole log: {log}"]


def test_a_port_in_use_is_noticed():
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError):
        free_port(listener.getsockname()[1])


def run_dev(*arguments: str) -> subprocess.CompletedProcess:
    """dev.py as a person runs it; these calls end before any set-up, so a short limit holds."""
    command = [sys.executable, str(ROOT / "dev.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_missing_picture_is_told_first(tmp_path):
    run = run_dev("demo", "--image", str(tmp_path / "none.png"))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"The picture {tmp_path / 'none.png'} cannot be read: No such file or directory.\n"


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg></svg>"], ids=["empty", "text", "svg"])
def test_a_file_that_is_no_picture_is_told_first(tmp_path, content):
    file = tmp_path / "file.png"
    file.write_bytes(content)
    run = run_dev("demo", "--image", str(file))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"{file} is not a picture") and run.stderr.count("\n") == 1


def test_an_output_folder_that_is_a_file_is_told_first(tmp_path):
    picture, out = tmp_path / "picture.png", tmp_path / "out"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    out.touch()
    run = run_dev("demo", "--image", str(picture), "--out", str(out))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Nothing can be written to {out}") and run.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told_first():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = run_dev("serve", "--port", str(port))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Port {port} is taken") and run.stderr.count("\n") == 1


def test_a_set_up_that_the_disk_refuses_is_told_in_a_line(tmp_path):
    shutil.copy(ROOT / "dev.py", tmp_path)
    shutil.copytree(ROOT / "devtools", tmp_path / "devtools")
    (tmp_path / ".comfyui").touch()
    environ = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    run = subprocess.run([sys.executable, str(tmp_path / "dev.py"), "test"], capture_output=True, text=True, timeout=30,
                         env=environ)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"{tmp_path / '.comfyui'}: File exists.") and run.stderr.count("\n") == 1


def test_pytest_gets_the_arguments_of_test_and_bench_gpu_those_of_gpu_and_no_other_command_takes_any():
    assert dev.parse(["test", "-x", "-k", "name", "tests/devtools"])[1] == ["-x", "-k", "name", "tests/devtools"]
    assert dev.parse(["gpu", "--small", "--only", "480p"])[1] == ["--small", "--only", "480p"]
    assert run_dev("demo", "--imgae", "x").returncode == 2


def test_our_requirements_are_the_same_in_both_files_and_never_torch():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line.split("#")[0].strip() for line in lines if line and not line.startswith("#")]
    assert all("#" in line for line in lines), "every requirement says why it is there"
    project = (ROOT / "pyproject.toml").read_text()
    listed = project.partition("dependencies = [")[2].partition("]")[0]
    assert wanted == [line.strip(' ",') for line in listed.splitlines() if line.strip()]
    assert not any(name.startswith("torch") for name in wanted)


@pytest.mark.parametrize("version, words", [
    ("9.9.9", "ComfyUI 9.9.9 comes from https://github.com/comfyanonymous/ComfyUI alone"),
    ("v0.33", "COMFYUI_VERSION is 'v0.33'. Give a release such as 0.30.0.")])
def test_another_comfyui_comes_from_its_repository_alone(version: str, words: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "devtools", tmp_path / "devtools")
    (tmp_path / ".comfyui").mkdir()
    code = ("from devtools.environment import local_comfyui; from devtools.fetch import fetch_comfyui; "
            "print(local_comfyui()); fetch_comfyui(local_comfyui())")
    environ = {"COMFYUI_VERSION": version, "PATH": ""}  # no git
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert run.stdout.startswith(str(tmp_path / ".comfyui" / f"ComfyUI-{version}"))
    assert words in run.stderr and run.returncode
    assert not list((tmp_path / ".comfyui").iterdir())
