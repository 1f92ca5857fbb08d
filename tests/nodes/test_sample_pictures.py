"""The pictures of the shipped workflows come into ComfyUI's input folder, and nothing else does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from devtools.paths import ROOT
from tests.support.comfy_in_process import import_comfyui


def test_hidden_files_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_comfyui()
    import folder_paths

    # Not as nodes.sample_pictures: ComfyUI has a module `nodes` too.
    spec = importlib.util.spec_from_file_location("sample_pictures", ROOT / "nodes" / "sample_pictures.py")
    sample_pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample_pictures)
    pictures, folder = tmp_path / "pictures", tmp_path / "input"
    for path in (pictures, folder):
        path.mkdir()
    for name in (".DS_Store", "a.png", "own.png"):
        (pictures / name).write_text("ours", "utf-8")
    (folder / "own.png").write_text("a person's", "utf-8")
    monkeypatch.setattr(sample_pictures, "PICTURES", pictures)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    sample_pictures.offer()
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == {
        "a.png": "ours", "own.png": "a person's"}
