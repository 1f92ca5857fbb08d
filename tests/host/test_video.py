"""ComfyUI's VIDEO as the pack reports it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.support.comfy_in_process import import_comfyui


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip of 64x48 pixels in the output folder."""
    import_comfyui()
    import folder_paths
    from comfy_api.latest import InputImpl, Types

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    frames = Types.VideoComponents(images=torch.rand(4, 48, 64, 3), audio=None, frame_rate=Fraction(16))
    InputImpl.VideoFromComponents(frames).save_to(str(tmp_path / "clip.mp4"))
    return tmp_path / "clip.mp4"


def test_a_whole_file_is_named_and_a_part_of_it_is_not(clip: Path) -> None:
    from comfy_api.latest import InputImpl

    from pipeline.host.video import video_facts, video_from

    class Cropped(InputImpl.VideoFromFile):
        """A part of the picture, as ComfyUI 0.35 reads one with `crop`: smaller, of the same source."""

        def get_dimensions(self) -> tuple[int, int]:
            return 32, 24

    facts = video_facts(video_from(clip))
    assert (facts["width"], facts["height"], facts["frames"]) == (64, 48, 4)
    assert facts["file"]["filename"] == "clip.mp4" and facts["file"]["bytes"] == clip.stat().st_size
    cropped = video_facts(Cropped(str(clip)))
    assert (cropped["width"], cropped["height"], cropped["file"]) == (32, 24, None)
    assert video_facts(InputImpl.VideoFromFile(str(clip), start_time=0.1))["file"] is None
