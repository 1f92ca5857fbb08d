"""Making the items of a batch with several workers at once: what is queued where, what an error means, what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from run_headless import ClipError, Workflow
from tqdm import tqdm

from .journal import Event, Journal
from .manifest import Item, graph_of, picture_name
from .results import Results, table
from .todo import TRIES, Task, Todo
from .workers import Absence, Facts, LostError, Made

AT_ONCE = 2
"""Clips that a worker has: one that is being made, and the next one in its queue."""
SHEET_SECONDS = 30.0
SHEET = Path(__file__).with_name("contact_sheet.html")
FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"


class Worker(Protocol):
    """Makes clips: ServerWorker, or an actor of Ray."""

    name: str
    patience: float

    async def check(self, workflow: Workflow, places: Sequence[str]) -> Facts: ...

    async def knows(self, job: str) -> bool: ...

    async def make(self, graph: Workflow, pictures: Mapping[str, bytes], job: str, *, known: bool = False) -> Made: ...


class Batch:
    """One run of the program over its items. `retries`: new seeds for a clip that Check Clip does not pass."""

    def __init__(self, items: Sequence[Item], workflow: Workflow, journal: Journal, results: Results, *,
                 title: str, retries: int) -> None:
        self.items, self.workflow, self.journal, self.results = items, workflow, journal, results
        self.title, self.retries = title, retries
        self.places = sorted({name for item in items for name in item.columns if "." in name})
        self.facts: dict[str, Facts] = {}
        self.made: Counter[str] = Counter()
        """Worker -> clips that it made in this run."""
        self.absences: defaultdict[str, Absence] = defaultdict(Absence)
        self.asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Worker -> held by the one of its lanes that asks it whether it is back."""
        self.failures = 0
        """Items that were set aside in this run."""
        self.told: set[str] = set()
        self.begun = self.renewed = time.monotonic()

    async def run(self, workers: Sequence[Worker]) -> None:
        """Make what is not there. Raises ClipError when no worker can do it, OSError when a result cannot be kept."""
        self.forget_lost_files()
        tasks = [Task(item, attempt=len(self.journal.rejected.get(item.id, ()))) for item in self.items
                 if item.id not in self.journal.done]
        self.todo = Todo(tasks, [worker.name for worker in workers])
        lost = await self.welcome(workers)
        for task in tasks:
            task.job = await self.earlier_job(task.item, [worker for worker in workers if worker not in lost])
        self.bar = tqdm(total=len(self.items), initial=len(self.items) - len(tasks), desc=self.title,
                        bar_format=FORMAT, dynamic_ncols=True)
        lanes = [asyncio.create_task(self.lane(worker)) for worker in workers for _ in range(AT_ONCE)]
        try:
            pending = set(lanes)
            while pending and self.todo.open:
                ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for lane in ended:
                    lane.result()
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            self.bar.close()
        if self.todo.open:
            raise ClipError(f"No server is left: {self.todo.open} clips are still to be made.")

    def forget_lost_files(self) -> None:
        """Take as not done what was done and is no longer there, as it was. Raises OSError."""
        there = self.results.sizes()
        self.journal.done = {item: event for item, event in self.journal.done.items() if is_there(event, there)}

    async def welcome(self, workers: Sequence[Worker]) -> list[Worker]:
        """Check all workers, return those without an answer. Raises ClipError when one does not fit, or all are."""
        lost = []
        answers = await asyncio.gather(*(self.check(worker) for worker in workers), return_exceptions=True)
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, LostError):
                lost.append(worker)
                await self.todo.leave(worker.name, for_good=False)
                self.tell(f"{answer.reason}. Is ComfyUI running there?")
            elif answer:
                raise answer
        if len(lost) == len(workers):
            raise ClipError("No server answers.")
        return lost

    async def check(self, worker: Worker) -> None:
        """Check a worker by itself and against the others. Raises ClipError, LostError."""
        facts = await worker.check(self.workflow, self.places)
        for name, others in self.facts.items():
            if name == worker.name:
                continue
            different = [key for key in facts.inputs if facts.inputs[key] != others.inputs[key]]
            if different:
                raise ClipError(f"{worker.name} has another version of {', '.join(different)} than {name}. Install the "
                                "same one on both, or leave one out.")
            if facts.versions != others.versions:
                self.tell(f"{worker.name} has {facts.versions}, {name} {others.versions}: the same clip may differ in "
                          "single pixels.")
        self.facts[worker.name] = facts
        await self.todo.come_back(worker.name)

    async def earlier_job(self, item: Item, workers: Sequence[Worker]) -> tuple[str, str] | None:
        """Return worker and job of a clip that was on its way when an earlier run was killed."""
        event = self.journal.last.get(item.id, {})
        for worker in workers:
            if event.get("event") == "queued" and event["server"] == worker.name and await worker.knows(event["job"]):
                return worker.name, event["job"]
        return None

    async def lane(self, worker: Worker) -> None:
        """Make clips on a worker, one after the other, until none is left or the worker is."""
        try:
            while await self.is_back(worker) and (task := await self.todo.take(worker.name)):
                try:
                    await self.attempt(worker, task)
                except LostError as error:
                    await self.lose(worker, task, error)
        except ClipError as error:  # it came back as another
            self.tell(str(error))
        finally:
            await self.todo.leave(worker.name, for_good=True)

    async def is_back(self, worker: Worker) -> bool:
        """Wait until a worker answers; return False when it is given up. One of its lanes asks for all of them."""
        async with self.asking[worker.name]:
            if worker.name in self.todo.away & self.todo.workers:
                if not await self.absences[worker.name].end(worker, self.check):
                    await self.todo.leave(worker.name, for_good=True)
                self.show()
            return worker.name in self.todo.workers

    async def attempt(self, worker: Worker, task: Task) -> None:
        """Make a task's clip once. Raises LostError, OSError; an error of the clip itself is noted."""
        item = task.item
        graph = graph_of(self.workflow, item.changes, task.attempt)
        job = task.job[1] if task.job else str(uuid.uuid4())
        try:
            pictures = {name: read_picture(path, name) for name, path in item.pictures.items()}
            if not task.job:
                self.journal.add("queued", item.id, server=worker.name, job=job, attempt=task.attempt)
            made = await worker.make(graph, pictures, job, known=bool(task.job))
        except ClipError as error:
            if task.job:  # it was on its way when an earlier run ended, which may have cancelled it a moment ago
                return await self.todo.give_back(task)
            return await self.failed(worker, task, str(error))
        await self.keep(worker, task, made)

    async def keep(self, worker: Worker, task: Task, made: Made) -> None:
        """Save a clip, note it, and have a new seed tried where Check Clip did not pass it.

        When no seed passes, the clip with the best score of those that are still there is the result, and the table
        says that it did not pass.
        """
        rejected = made.passed is False
        name = task.item.name + (f"-seed+{task.attempt}" if task.attempt else "") + ".mp4"
        await asyncio.to_thread(self.results.save, name, made.data)
        facts = {"file": name, "bytes": len(made.data), "sha256": hashlib.sha256(made.data).hexdigest(),
                 "seed": None if task.item.seed is None else task.item.seed + task.attempt,
                 "seconds": made.seconds, "server": worker.name, "score": made.score, "pass": made.passed}
        self.made[worker.name] += 1
        self.absences.pop(worker.name, None)
        if rejected and task.attempt < self.retries and task.item.seed is not None:
            self.journal.add("rejected", task.item.id, **facts)
            task.attempt, task.job = task.attempt + 1, None
            await self.todo.give_back(task)
            return
        if rejected:
            there = await asyncio.to_thread(self.results.sizes)
            kept = [event for event in self.journal.rejected.get(task.item.id, ()) if is_there(event, there)]
            best = max([*kept, facts], key=lambda event: event["score"])
            facts = {key: best[key] for key in facts}
        self.journal.add("done", task.item.id, **facts, attempts=task.attempt + 1)
        self.bar.update()
        await self.todo.finish()
        self.show()

    async def failed(self, worker: Worker, task: Task, error: str) -> None:
        """Note an error of a clip; after TRIES of them set the clip aside."""
        task.errors.append(error)
        task.failed_at.add(worker.name)
        event = "set aside" if len(task.errors) == TRIES else "failed"
        self.journal.add(event, task.item.id, server=worker.name, error=error)
        if event == "failed":
            return await self.todo.give_back(task)
        self.failures += 1
        self.tell(f"{task.item.where}: {error}")
        self.bar.update()
        await self.todo.finish()
        self.show()

    async def lose(self, worker: Worker, task: Task, error: LostError) -> None:
        """Have a worker that does not answer take nothing until it does, and its clip be made by whoever can."""
        if worker.name not in self.todo.away:
            tqdm.write(f"{error.reason}. Its clips go to the others; it is asked again from time to time.")
        await self.todo.leave(worker.name, for_good=False)
        if error.running:
            await self.failed(worker, task, f"{error.reason} while it made this clip")
        else:
            await self.todo.give_back(task)
        self.show()

    def tell(self, sentence: str) -> None:
        """Tell something once, above the bar."""
        if sentence not in self.told:
            self.told.add(sentence)
            tqdm.write(sentence)

    def show(self) -> None:
        """Renew what stands behind the bar, and now and then the contact sheet."""
        hours = (time.monotonic() - self.begun) / 3600
        away = self.todo.away
        parts = [f"{self.made.total() / hours:.0f} clips an hour" if self.made else "", f"{self.failures} failed",
                 *(f"{name.partition('://')[2] or name}: " + ("away" if name in away else str(self.made[name]))
                   for name in self.facts)]
        self.bar.set_postfix_str(", ".join(filter(None, parts)), refresh=True)
        if time.monotonic() - self.renewed > SHEET_SECONDS:
            self.write_sheet()

    def rows(self) -> list[dict[str, Any]]:
        """Return what there is to tell of each item, in the manifest's order."""
        rows = []
        for item in self.items:
            last = self.journal.last.get(item.id, {})
            if item.id in self.journal.done:
                state, told = "done", self.journal.done[item.id]
            elif last.get("event") == "set aside":
                state, told = "set aside", {"seed": item.seed, "error": last["error"]}
            else:
                state, told = "not made", {"seed": item.seed}
            told = {name: value for name, value in told.items() if name not in ("event", "id", "time")}
            rows.append({"id": item.id, **item.columns, **told, "state": state})
        return rows

    def write_sheet(self) -> None:
        """Write the contact sheet and the table beside the clips. Raises OSError."""
        rows = self.rows()
        data = json.dumps({"title": self.title, "clips": rows}, ensure_ascii=False).replace("<", "\\u003c")
        self.results.save("index.html", SHEET.read_text("utf-8").replace("/*DATA*/", data).encode())
        self.results.save("results.csv", table(rows))
        self.renewed = time.monotonic()


def is_there(event: Event, there: Mapping[str, int]) -> bool:
    """Return whether the file of an event is among files with their sizes, and whole."""
    return there.get(event["file"]) == event["bytes"]


def read_picture(path: Path, name: str) -> bytes:
    """Return a picture's bytes. Raises ClipError when they are no longer those that the item was named by."""
    if picture_name(path) != name:
        raise ClipError(f"picture {path} was changed after this run began. Run the same command again.")
    return path.read_bytes()
