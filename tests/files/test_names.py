"""Where the canvas finds a file of the output folder, however the folder was reached."""

from __future__ import annotations

from pathlib import Path

from pipeline.files.names import shown_in


def test_files_inside_and_outside(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert shown_in(output, output / "a.mp4") == {"filename": "a.mp4", "subfolder": "", "type": "output"}
    assert shown_in(output, output / "wan22" / "b" / "a.mp4") == {
        "filename": "a.mp4", "subfolder": "wan22/b", "type": "output"}
    assert shown_in(output, tmp_path / "a.mp4") is None


def test_a_folder_behind_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "disk", tmp_path / "output"
    (real / "wan22").mkdir(parents=True)
    link.symlink_to(real, target_is_directory=True)
    wanted = {"filename": "a.mp4", "subfolder": "wan22", "type": "output"}
    assert shown_in(link, real / "wan22" / "a.mp4") == shown_in(real, link / "wan22" / "a.mp4") == wanted
