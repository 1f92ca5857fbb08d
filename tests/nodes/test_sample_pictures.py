"""The pictures of the shipped workflows come into ComfyUI's input folder, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.comfy_in_process import import_comfyui


def test_hidden_files_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_comfyui()
    import folder_paths

    from pipeline.host import startup

    pictures, folder = tmp_path / "pictures", tmp_path / "input"
    for path in (pictures, folder):
        path.mkdir()
    for name in (".DS_Store", "a.png", "own.png"):
        (pictures / name).write_text("ours", "utf-8")
    (folder / "own.png").write_text("a person's", "utf-8")
    monkeypatch.setattr(startup, "PICTURES", pictures)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    startup.copy_sample_pictures()
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == {
        "a.png": "ours", "own.png": "a person's"}
