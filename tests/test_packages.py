"""Faults of Python packages, told in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.paths import ROOT
from pipeline.packages import package_fault

INSTALL = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> INSTALL:
    """Put a version of a package before the installed one, with a module of that content."""

    def put(name: str, version: str, content: str = "") -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return put


def said(run: Callable[[], object]) -> str | None:
    """Run something that fails; return what the user is told instead, None for the error as it is."""
    with pytest.raises(Exception) as caught:
        run()
    fault = package_fault(caught.value)
    return None if fault is None else str(fault)


def command(requirement: str) -> str:
    return f'Run this command, then start ComfyUI again: {sys.executable} -m pip install "{requirement}"'


def import_types() -> None:
    from gguf import GGMLQuantizationType  # noqa: F401


def test_a_package_too_old_to_have_what_is_imported(install: INSTALL) -> None:
    install("gguf", "0.5.0")
    assert said(import_types) == f"The Python package gguf 0.5.0 is too old: >=0.19 is needed. {command('gguf>=0.19')}"


def test_a_package_that_does_not_fit_the_others(install: INSTALL) -> None:
    """As diffusers 0.42 beside huggingface_hub 0.36, whose lazy modules wrap the error."""
    install("gguf", "9.9", "import json\n"
                           "try:\n    from json import resolve_revision\n"
                           "except ImportError as error:\n    raise RuntimeError('Failed to import') from error\n")
    told = said(import_types)
    assert told is not None and told.startswith("The Python package gguf 9.9 can't be used here (cannot import name "
                                                "'resolve_revision' from 'json'")
    assert told.endswith(command("gguf>=0.19"))


def test_a_package_too_old_to_have_an_attribute(install: INSTALL) -> None:
    """As PyAV 16, whose frames know no primaries: its import succeeds."""
    install("av", "16.1.0")
    assert said(lambda: object().color_primaries) == (
        f"The Python package av 16.1.0 is too old: >=17 is needed. {command('av>=17')}")


def test_other_errors_stay_what_they_are(install: INSTALL) -> None:
    def import_nothing() -> None:
        import no_such_module  # noqa: F401

    assert said(import_nothing) is None
    assert said(lambda: object().color_primaries) is None
    install("av", "16.1.0")
    assert said(lambda: [][1]) is None


def test_the_lower_bound_comes_first() -> None:
    """ComfyUI-Manager reads the first bound alone, when it decides on Windows whether a newer version may stay."""
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        assert "<" not in line.partition("#")[0].partition(">=")[0], line
