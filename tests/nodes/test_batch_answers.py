"""Whose fault an answer is, the clip's or the server's, and which clip is the result when Check Clip passes none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from devtools.paths import DEMO_WORKFLOW, ROOT, SAMPLE_PICTURES
from devtools.server import free_port
from tests.support.comfy_stand_in import ComfyStandIn

GRAPH = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
PICTURE = SAMPLE_PICTURES / "wan22_coffee.png"


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own folder is where it is imported from."""
    monkeypatch.syspath_prepend(str(ROOT / "workflows"))


def play(scene: Coroutine[Any, Any, Any]) -> Any:
    """Run in a thread: this one may have the event loop of a browser that another test drives."""
    with ThreadPoolExecutor() as thread:
        return thread.submit(asyncio.run, scene).result()


def page(status: int) -> web.Response:
    return web.Response(status=status, text="<html>nginx</html>", content_type="text/html")


def refusal(status: int) -> web.Response:
    return web.json_response({"message": "not now"}, status=status)


UPLOAD, PROMPT, JOBS, VIEW = "/upload/image", "/prompt", "/api/jobs/", "/view"
EVERYWHERE = "/"


@pytest.mark.parametrize(("whose", "path", "statuses"), [
    ("server", UPLOAD, (200, 429, 502, 503, 504, 520, 530)),
    ("server", PROMPT, (200, 429, 502, 503, 504, 520, 530)),
    ("server", JOBS, (200, 502)),
    ("server", VIEW, (200, 502)),
    ("server", EVERYWHERE, (401, 403, 404, 500)),
    ("clip", UPLOAD, (400, 403, 413, 500)),
    ("clip", PROMPT, (400, 403, 404, 413, 500)),
    ("clip", VIEW, (404,)),
])
def test_whose_fault_an_answer_is(whose: str, path: str, statuses: Sequence[int]) -> None:
    """What stands before ComfyUI says nothing about a clip; what ComfyUI says, or a proxy of this clip alone, does."""
    from batch.workers import LostError, ServerWorker
    from run_headless import ClipError

    async def make(kind: Callable[[int], web.Response], status: int) -> tuple[Exception, set[str]]:
        async with ComfyStandIn(lambda asked: kind(status) if asked.startswith(path) else None).open() as url:
            worker = ServerWorker(url)
            try:
                await worker.make(GRAPH, {PICTURE.name: PICTURE.read_bytes()}, "job")
            except (ClipError, LostError) as error:
                return error, worker.lost
            finally:
                await worker.close()

    for status in statuses:
        for kind in (page, refusal) if status != 200 else (page,):
            error, lost = play(make(kind, status))
            assert isinstance(error, LostError if whose == "server" else ClipError), error
            assert lost == ({"job"} if whose == "server" else set()) and str(status) in str(error)


class Folder:
    """Rows with seeds in a row, and where their clips go."""

    def __init__(self, folder: Path, count: int) -> None:
        self.out, self.manifest = folder / "out", folder / "shots.jsonl"
        rows = [{"picture": str(PICTURE), "seed": seed} for seed in range(count)]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def run(self, url: str, patience: float = 600.0) -> tuple[list[dict], str]:
        """Make the clips as the program does; return the rows of the table and why it stopped."""
        from batch.journal import Journal
        from batch.manifest import read_items
        from batch.results import results_at
        from batch.run import Batch
        from batch.workers import ServerWorker
        from run_headless import ClipError

        journal, worker, said = Journal(self.out / "journal.jsonl"), ServerWorker(url), ""
        worker.patience = patience
        batch = Batch(read_items(self.manifest, GRAPH, {}, 1), GRAPH, journal, results_at(str(self.out)), title="shots",
                      retries=2)
        try:
            await batch.run([worker])
        except ClipError as error:
            said = str(error)
        finally:
            await worker.close()
            journal.close()
        return batch.rows(), said

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in (self.out / "journal.jsonl").read_text().splitlines()]


def test_a_server_that_dies_behind_a_proxy_fails_no_clip(tmp_path: Path) -> None:
    """The proxy answers 502 in its place. Until it is back it gets no clip but those that were on their way."""
    while_down: list[str] = []
    folder = Folder(tmp_path, 8)

    def instead(path: str) -> web.Response | None:
        down = comfy.made and while_down.count("/system_stats") < 2
        if path == PROMPT and not comfy.made:
            return None
        while_down.extend([path] if down else [])
        return page(502) if down else None

    comfy = ComfyStandIn(instead)

    async def scene() -> tuple[list[dict], str]:
        async with comfy.open() as url:
            return await folder.run(url)

    rows, said = play(scene())
    assert said == "" and [row["state"] for row in rows] == 8 * ["done"]
    assert not {"failed", "set aside"} & set(folder.events())
    assert sum(path in (UPLOAD, PROMPT) for path in while_down) <= 1  # of the lane that did not see the first loss


def test_a_proxy_that_lets_questions_through_and_no_clip(tmp_path: Path) -> None:
    """The server is given up as if it did not answer, and no clip is blamed."""
    folder = Folder(tmp_path, 3)

    async def scene() -> tuple[list[dict], str]:
        async with ComfyStandIn(lambda path: page(503) if path == PROMPT else None).open() as url:
            return await folder.run(url, patience=1.0)

    rows, said = play(scene())
    assert said == "No server is left: 3 clips are still to be made."
    assert [row["state"] for row in rows] == 3 * ["not made"] and set(folder.events()) == {"queued"}


def test_a_worker_that_is_away_takes_nothing() -> None:
    """Neither does a lane of it that is waiting for a clip; when the worker has left for good, that lane ends."""
    from batch.manifest import Item
    from batch.todo import Task, Todo

    async def scene() -> list[Task | None]:
        task = Task(Item("a", "", {}, {}, {}, "", None))
        todo = Todo([task], ["one"])
        taken = [await todo.take("one")]
        other = asyncio.create_task(todo.take("one"))
        await asyncio.sleep(0)
        await todo.leave("one", for_good=False)
        await todo.give_back(task)
        await asyncio.sleep(0.01)
        assert not other.done()
        await todo.come_back("one")
        taken.append(await other)
        last = asyncio.create_task(todo.take("one"))
        await asyncio.sleep(0)
        await todo.leave("one", for_good=True)
        return [*taken, await last]

    first, second, last = play(scene())
    assert first is second is not None and last is None


def test_the_best_of_rejected_clips_is_one_that_is_there(tmp_path: Path) -> None:
    """Its file was deleted: one more clip is made, the best that is there becomes the result, and that is all."""
    folder, comfy = Folder(tmp_path, 1), ComfyStandIn(check=True)

    async def scene() -> list[str]:
        async with comfy.open() as url:
            results = [(await folder.run(url))[0][0]]
            assert results[0]["seed"] == 0 and comfy.made == [0, 1, 2]
            (folder.out / results[0]["file"]).unlink()
            rows, said = await folder.run(f"http://127.0.0.1:{free_port()}")
            assert said == "No server answers." and rows[0]["state"] == "not made" and "file" not in rows[0]
            for _ in range(2):
                rows, _ = await folder.run(url)
                results.append(rows[0])
        return results

    _, *later = play(scene())
    assert later[0] == later[1] and later[0]["state"] == "done" and later[0]["pass"] is False
    assert later[0]["seed"] == 1 and (folder.out / later[0]["file"]).stat().st_size == later[0]["bytes"]
    assert comfy.made == [0, 1, 2, 2] and folder.events().count("done") == 2
