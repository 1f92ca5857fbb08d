"""The clips that are still to be made: which one a worker takes next, and when a clip is given up.

A worker takes two at a time, so that the next one is in its queue when a clip ends. It stays with the LoRAs it has
loaded as long as there are clips for them, and then goes on to the largest set that no other worker is at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from .manifest import Item

TRIES = 3
"""How often a clip may fail before it is set aside, wherever it is tried."""


@dataclass(eq=False)
class Task:
    """An item on its way. `attempt` counts the seeds that Check Clip rejected."""

    item: Item
    attempt: int = 0
    errors: list[str] = field(default_factory=list)
    failed_at: set[str] = field(default_factory=set)
    job: tuple[str, str] | None = None
    """Worker and job of an earlier run of this program that made this clip when it ended."""


class Todo:
    """Tasks that wait or are being made. Every method is for the one thread of the event loop."""

    def __init__(self, tasks: Collection[Task], workers: Collection[str]) -> None:
        self.waiting: dict[str, list[Task]] = {}
        """What is loaded -> tasks, the next one last."""
        self.open = len(tasks)
        """Tasks that are not finished."""
        self.workers = set(workers)
        """Workers that take part, or may again when they answer."""
        self.away: set[str] = set()
        """Those of them that do not answer, and take nothing until they do."""
        self.loaded: dict[str, str] = {}
        """Worker -> what it loaded last."""
        self.changed = asyncio.Condition()
        for task in reversed(tasks):
            self.waiting.setdefault(task.item.loaded, []).append(task)

    async def take(self, worker: str) -> Task | None:
        """Wait for a task for this worker; return None when all are finished, or the worker has left for good."""
        async with self.changed:
            while self.open and worker in self.workers:
                if task := self.choose(worker):
                    self.waiting[task.item.loaded].remove(task)
                    self.loaded[worker] = task.item.loaded
                    return task
                await self.changed.wait()
        return None

    def choose(self, worker: str) -> Task | None:
        """Return the task that this worker should do next, if any of those that wait."""
        if worker in self.away:
            return None
        found = [task for tasks in self.waiting.values() for task in tasks if task.job and task.job[0] == worker]
        if found:
            return found[-1]
        elsewhere = Counter(name for other, name in self.loaded.items() if other != worker)
        sets = sorted(self.waiting, key=lambda name: (name != self.loaded.get(worker), elsewhere[name],
                                                      -len(self.waiting[name])))
        return next((task for name in sets for task in reversed(self.waiting[name]) if self.suits(task, worker)), None)

    def suits(self, task: Task, worker: str) -> bool:
        """Return whether the worker may do the task: not one of an earlier job of another, nor one that failed here
        while there is a worker where it did not."""
        if task.job:
            return task.job[0] == worker
        return worker not in task.failed_at or self.workers <= task.failed_at

    async def give_back(self, task: Task) -> None:
        """Have a task done by whoever is next, after the others of its set: what fails again does not hold them up."""
        async with self.changed:
            task.job = None
            self.waiting.setdefault(task.item.loaded, []).insert(0, task)
            self.changed.notify_all()

    async def finish(self) -> None:
        """Count a task as finished: made, or set aside."""
        async with self.changed:
            self.open -= 1
            self.changed.notify_all()

    async def leave(self, worker: str, *, for_good: bool) -> None:
        """Have the others do what waits for this worker, which does not answer."""
        async with self.changed:
            for task in (task for tasks in self.waiting.values() for task in tasks):
                if task.job and task.job[0] == worker:
                    task.job = None
            if for_good:
                self.workers.discard(worker)
            else:
                self.away.add(worker)
            self.changed.notify_all()

    async def come_back(self, worker: str) -> None:
        """Have a worker that answers again take tasks."""
        async with self.changed:
            self.away.discard(worker)
            self.changed.notify_all()
