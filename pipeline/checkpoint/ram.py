"""Tell how much RAM is free, by the system and by the container that the process runs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""A group's limit and use in bytes, and the part of its use that the kernel gives back (memory.stat)."""


def available_ram(own: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> int:
    """Return the bytes of RAM that may still be used: the least of what the system and each group above leave.

    A container's limit is one of control groups (Linux: admin-guide/cgroup-v2, cgroup-v1/memory), of which psutil knows
    nothing. own: the process's groups. root: where the groups are mounted.
    """
    return min([psutil.virtual_memory().available, *_left_by_groups(own, root)])


def _left_by_groups(own: Path, root: Path) -> Iterator[int]:
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            mounted, names = (root, V2) if not controllers else (root / "memory", V1)
            # In a container the group's own path may be that of the host, which is not mounted here: the root is.
            path = Path(group.lstrip("/"))
            for folder in dict.fromkeys(mounted / part for part in (path, *path.parents)):
                left = _left(folder, *names)
                if left is not None:
                    yield left


def _left(folder: Path, limit: str, usage: str, returnable: str) -> int | None:
    """Return the bytes that a group leaves; None for a group without a limit, or one that is not mounted."""
    try:
        most = (folder / limit).read_text("utf-8").strip()
        used = int((folder / usage).read_text("utf-8"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdigit():  # "max"
        return None
    return max(0, int(most) - used + int(stat.get(returnable, 0)))
