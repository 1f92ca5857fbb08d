"""The program for hundreds of clips, as a program of its own beside real servers: kills, bad rows, full disks."""

from __future__ import annotations

import asyncio
import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devtools.environment import local_comfyui
from devtools.paths import DEMO_WORKFLOW, ROOT, SAMPLE_PICTURES
from devtools.server import ComfyServer, free_port
from tests.support.comfy_proxy import proxy
from tests.support.lora_files import DRAIN

COFFEE, CAT = SAMPLE_PICTURES / "wan22_coffee.png", SAMPLE_PICTURES / "wan22_cat.jpg"
SHORT = ("--set", "Wan22FirstFrame.num_frames=5", "--set", "Wan22Sampler.num_inference_steps=4")
DEMO_LORA = DRAIN["low"]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """Another server, with no file in common with the first."""
    base = tmp_path_factory.mktemp("second")
    server = ComfyServer(local_comfyui(), base, base / "server.log")
    server.options.append("--cpu")
    with server:
        yield server


class Batch:
    """A manifest and a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.manifest, self.out = folder / "shots.jsonl", folder / "out"

    def rows(self, *rows: dict) -> Batch:
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return self

    def start(self, *words: str, **options: object) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "workflows" / "run_batch.py"), str(self.manifest), *words]
        return subprocess.Popen([*command, "--out", str(self.out)] if "--out" not in words else command, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *words: str, **options: object) -> tuple[int, str]:
        """Run to the end; return exit status and all that was said."""
        running = self.start(*words, **options)
        said = "".join(running.communicate(timeout=600))
        assert "Traceback" not in said, said
        return running.returncode, said

    def events(self, kind: str) -> list[dict]:
        path = self.out / "journal.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == kind]

    def wait_for(self, kind: str, count: int) -> None:
        while len(self.events(kind)) < count:
            time.sleep(0.02)

    def clips(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.glob("*.mp4")}

    def table(self) -> list[dict]:
        return list(csv.DictReader((self.out / "results.csv").read_text("utf-8-sig").splitlines()))


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def shots(count: int) -> list[dict]:
    return [{"picture": str(COFFEE), "prompt": "everything turns blue", "seed": seed} for seed in range(count)]


def hear_ctrl_c() -> None:
    """As in a terminal: what a shell starts in the background, as these tests may be, inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_killed_servers_and_programs_lose_nothing(server: ComfyServer, second: ComfyServer, tmp_path: Path) -> None:
    """The program is killed, then stopped with Ctrl-C, then a server is killed: each clip is there once, the same."""
    alone, pair = Batch(tmp_path / "alone"), Batch(tmp_path / "pair")
    for batch in (alone, pair):
        batch.manifest.parent.mkdir()
        batch.rows(*shots(8))
    code, said = alone.run(*SHORT, "--server", server.url)
    assert code == 0 and f"8 clips, 0 set aside: {alone.out}/index.html\n" in said

    both = [*SHORT, "--server", server.url, "--server", second.url]
    for end, event in ((signal.SIGKILL, "done"), (signal.SIGINT, "queued")):
        before = len(pair.events(event))
        running = pair.start(*both, preexec_fn=hear_ctrl_c)
        pair.wait_for(event, before + 1)
        running.send_signal(end)
        said = "".join(running.communicate())
        assert running.returncode and "Traceback" not in said, said
    assert said.endswith("Stopped. The same command goes on from here.\n")
    running = pair.start(*both)
    pair.wait_for("queued", len(pair.events("queued")) + 2)
    second._process.kill()
    said = "".join(running.communicate())
    assert running.returncode == 0, said
    assert set(Counter(event["id"] for event in pair.events("done")).values()) == {1}
    assert len(alone.clips()) == 8 and pair.clips() == alone.clips()
    assert [row["state"] for row in pair.table()] == 8 * ["done"]
    second.__enter__()


def test_a_bad_row_is_set_aside_and_an_edited_manifest_goes_on(server: ComfyServer, batch: Batch) -> None:
    good, bad = shots(2), {"picture": str(CAT), "prompt": "red " * 600}
    code, said = batch.rows(good[0], bad).run(*SHORT, "--server", server.url)
    assert code == 1 and "line 2: Wan22EncodePrompt: The prompt is" in said and "1 clips, 1 set aside" in said
    assert [row["state"] for row in batch.table()] == ["done", "set aside"]
    assert len(batch.events("failed")) == 2 and len(batch.events("set aside")) == 1
    kept = batch.clips()

    code, said = batch.rows(good[1], {**bad, "prompt": "everything turns red"}).run(*SHORT, "--server", server.url)
    assert code == 0 and "1 clips that are there belong to rows that were changed or removed" in said
    assert len(batch.clips()) == 3 and kept.items() <= batch.clips().items()
    assert [row["prompt"] for row in batch.table()] == ["everything turns blue", "everything turns red"]


def test_a_lora_that_one_server_lacks(server: ComfyServer, second: ComfyServer, batch: Batch, tmp_path: Path) -> None:
    """Its clips go to the other; and clips of a LoRA follow one another."""
    for name in ("drain.safetensors", "drain_too.safetensors"):
        (server.base / "models" / "loras").mkdir(exist_ok=True)
        shutil.copy(DEMO_LORA, server.base / "models" / "loras" / name)
    shutil.copytree(server.base / "models" / "loras", second.base / "models" / "loras", dirs_exist_ok=True)
    (second.base / "models" / "loras" / "drain.safetensors").unlink()
    graph = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
    graph["8"] = {"class_type": "Wan22Lora", "inputs": {"source": "", "scale": 1, "expert": "auto"}}
    graph["5"]["inputs"]["loras"] = ["8", 0]
    (tmp_path / "with_lora.json").write_text(json.dumps(graph))
    rows = [{**shot, "lora": lora} for shot in shots(2) for lora in ("drain.safetensors", "drain_too.safetensors")]
    code, said = batch.rows(*rows).run(*SHORT, "--workflow", str(tmp_path / "with_lora.json"),
                                       "--server", second.url, "--server", server.url)
    assert code == 0, said
    makers = {row["lora"]: {row["server"]} | set() for row in batch.table()}
    assert makers["drain.safetensors"] == {server.url}
    assert all(event["server"] == second.url and "drain.safetensors" in event["error"]
               for event in batch.events("failed"))


def test_which_clip_a_server_takes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays with the LoRAs that it has loaded; a clip that failed goes to another, as long as there is one."""
    monkeypatch.syspath_prepend(str(ROOT / "workflows"))
    from batch.manifest import Item
    from batch.todo import Task, Todo

    def task(name: str, lora: str) -> Task:
        return Task(Item(name, "", {}, {}, {}, lora, None))

    async def play() -> list[str]:
        todo = Todo([task("a", "x"), task("b", "y"), task("c", "x"), task("d", "y"), task("e", "x")], ["one", "two"])
        taken = [await todo.take(worker) for worker in ("one", "two", "two", "two", "one")]
        taken[0].failed_at.add("one")
        await todo.give_back(taken[0])
        assert todo.choose("one") is None
        await todo.leave("two", for_good=True)
        return [found.item.id for found in (*taken, await todo.take("one"))]

    with ThreadPoolExecutor() as thread:  # this one may have the event loop of a browser that another test drives
        assert thread.submit(asyncio.run, play()).result() == ["a", "b", "d", "c", "e", "a"]


def limit_files(size: int) -> Callable[[], None]:
    """As a disk that is full: no file may grow beyond a size."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk(server: ComfyServer, batch: Batch) -> None:
    code, said = batch.rows(*shots(1)).run(*SHORT, "--server", server.url, preexec_fn=limit_files(4000))
    assert code == 1 and ".mp4: File too large. Nothing is lost: the same command goes on from here." in said
    assert batch.clips() == {} and not list(batch.out.glob(".*"))
    assert batch.run(*SHORT, "--server", server.url)[0] == 0
    assert len(batch.clips()) == 1


def test_results_at_a_path_of_fsspec(server: ComfyServer, batch: Batch, tmp_path: Path) -> None:
    words = [*SHORT, "--server", server.url, "--out", f"file://{tmp_path}/far", "--journal", str(tmp_path / "journal")]
    assert batch.rows(*shots(1)).run(*words)[0] == 0
    (clip,) = (tmp_path / "far").glob("*.mp4")
    assert json.loads((tmp_path / "journal").read_text().splitlines()[-1])["bytes"] == clip.stat().st_size
    assert batch.run(*words)[0] == 0
    assert len((tmp_path / "journal").read_text().splitlines()) == 2


PICTURE = {"picture": str(COFFEE)}


@pytest.mark.parametrize(("rows", "said"), [
    ([{"picture": "gone.png"}], "gone.png: No such file or directory"),
    ([{**PICTURE, "promt": "a"}], "column 'promt' is none of picture, prompt, negative_prompt, seed, lora"),
    ([{**PICTURE, "lora": "a.safetensors"}], "column 'lora' has no place in the workflow"),
    ([{**PICTURE, "seed": "many"}], "seed is 'many'; it must be a whole number"),
    ([PICTURE, {**PICTURE, "seed": 0}], "line 2: asks for the same clip as line 1: give one of them another seed"),
    ([{**PICTURE, "Wan22Sampler.sede": 7}], "Wan22Sampler has no input 'sede'. It has model, positive,"),
    ([], "asks for no clip"),
])
def test_slips_in_a_manifest_are_told_before_anything_is_made(server: ComfyServer, batch: Batch, rows: list[dict],
                                                               said: str) -> None:
    code, text = batch.rows(*rows).run("--server", server.url)
    assert code == 1 and said in text
    assert batch.events("queued") == []


@pytest.mark.parametrize(("text", "said"), [
    ("picture,prompt\ncat.png,red, blue\n", "line 2 has more cells than the header has columns"),
    ("picture;seed\n\"cat.png\";x\n", "line 2: picture"),
    ("prompt\n\x84".encode("latin-1"), "is not UTF-8 text"),
    ("seed,seed\n1,2\n", "line 1 has 'seed' twice"),
    ("seed,prompt\n1,\"x\n2,y\n", "line 2: unexpected end of data. Look for a quote"),
])
def test_what_a_spreadsheet_writes(batch: Batch, text: str | bytes, said: str) -> None:
    batch.manifest = batch.manifest.with_suffix(".csv")
    batch.manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, told = batch.run("--server", f"127.0.0.1:{free_port()}")
    assert code == 1 and said in told


def test_servers_that_cannot_do_it(server: ComfyServer, batch: Batch, tmp_path: Path) -> None:
    """None there, without a node of the workflow, or with inputs of another version."""
    batch.rows(PICTURE)
    code, said = batch.run("--server", f"127.0.0.1:{free_port()}")
    assert code == 1 and "Is ComfyUI running there?" in said and said.endswith("No server answers.\n")
    graph = json.loads(DEMO_WORKFLOW.read_text("utf-8")) | {"9": {"class_type": "Wan22Later", "inputs": {}}}
    (tmp_path / "later.json").write_text(json.dumps(graph))
    code, said = batch.run("--workflow", str(tmp_path / "later.json"), "--server", server.url)
    assert code == 1 and f"{server.url} does not have Wan22Later. Install" in said
    with proxy(server, change=lambda path, body: body.replace(b'"boundary"', b'"border"')) as older:
        code, said = batch.run("--server", server.url, "--server", older)
    assert code == 1 and "has another version of Wan22Sampler than http://" in said and batch.events("queued") == []


@pytest.mark.parametrize("text", ["{}", "{}\n", "notes", '{"event": "done"}\n'])
def test_what_is_no_journal_is_left_alone(server: ComfyServer, batch: Batch, tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.txt").write_text(text)
    code, said = batch.rows(PICTURE).run("--server", server.url, "--journal", str(tmp_path / "notes.txt"))
    assert code == 1 and "notes.txt is not the journal of a batch" in said
    assert (tmp_path / "notes.txt").read_text() == text


def test_a_folder_that_another_run_is_using(server: ComfyServer, batch: Batch) -> None:
    running = batch.rows(*shots(4)).start(*SHORT, "--server", server.url)  # longer than the other takes to start
    batch.wait_for("queued", 1)
    code, said = batch.run(*SHORT, "--server", server.url)
    assert code == 1 and "is in use by another run of this program" in said
    assert running.wait() == 0
