"""Free RAM inside a container, whose limit the system's own figures do not have."""

from __future__ import annotations

from pathlib import Path

import psutil

from pipeline.checkpoint.ram import available_ram

GB = 10**9


def group(folder: Path, version: int, limit: str, used: int, returnable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    stat = f"anon 5\ninactive_file {returnable}\ntotal_inactive_file {returnable}\n"
    (folder / "memory.stat").write_text(stat)


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "root"
    own.write_text("0::/pods/one\n")
    group(root, 2, "max", 9 * GB, 0)
    group(root / "pods", 2, str(GB), GB // 2, GB // 4)
    group(root / "pods" / "one", 2, "max", GB // 3, 0)
    assert available_ram(own, root) == GB - GB // 2 + GB // 4


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """The path in /proc is the host's, and not mounted."""
    own, root = tmp_path / "cgroup", tmp_path / "root"
    own.write_text("0::/system.slice/docker-1234.scope\n")
    group(root, 2, str(GB), GB // 2, 0)
    assert available_ram(own, root) == GB - GB // 2


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "root"
    own.write_text("12:cpu,cpuacct:/a\n5:memory:/docker/1234\n0::/\n")
    group(root / "memory" / "docker" / "1234", 1, str(GB), 2 * GB, 0)
    assert available_ram(own, root) == 0


def test_no_groups_and_no_limit(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    for text in ("0::/\n", ""):
        (tmp_path / "cgroup").write_text(text)
        assert abs(available_ram(tmp_path / "cgroup", tmp_path / "root") - free) < 2 * GB
    assert abs(available_ram(tmp_path / "gone", tmp_path / "root") - free) < 2 * GB
