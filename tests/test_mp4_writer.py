"""The MP4 writer, read back with PyAV."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.request import RequestError
from pipeline.save import save_clip
from pipeline.video.mp4_writer import AI_GENERATED, write_mp4


def colour_frames(count: int = 9, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """Flat colour bars: red, green, blue, grey."""
    for _ in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        for bar, colour in enumerate([(200, 30, 30), (30, 180, 30), (40, 40, 210), (128, 128, 128)]):
            frame[:, bar * width // 4 : (bar + 1) * width // 4] = colour
        yield frame


def read(path: Path) -> tuple[np.ndarray, av.container.InputContainer]:
    """Frames (F, H, W, 3) as a BT.709 player shows them, and the closed container for its tags."""
    with av.open(str(path)) as container:
        frames = [f.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG").to_ndarray()
                  for f in container.decode(video=0)]
        return np.stack(frames), container


def test_colours_come_back(tmp_path: Path) -> None:
    write_mp4(tmp_path / "c.mp4", colour_frames(), 16, 10, {})
    frames, _ = read(tmp_path / "c.mp4")
    expected = next(colour_frames())
    for bar in range(4):
        middle = (slice(8, 40), slice(bar * 16 + 6, bar * 16 + 10))
        difference = np.abs(frames[0][middle].astype(int) - expected[middle].astype(int)).max()
        assert difference <= 6, f"bar {bar} is off by {difference}"


def test_stream_is_what_players_expect(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    write_mp4(path, colour_frames(), 16, 17, {"prompt": '{"1": "ü"}', **AI_GENERATED})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.frames) == ("h264", "yuv420p", 9)
        assert stream.average_rate == 16
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert container.metadata["prompt"] == '{"1": "ü"}'
        assert "AI-generated" in container.metadata["comment"]
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index must come first, for the web"


def test_odd_sides_are_filled(tmp_path: Path) -> None:
    write_mp4(tmp_path / "odd.mp4", colour_frames(3, 47, 63), 24, 17, {})
    frames, _ = read(tmp_path / "odd.mp4")
    assert frames.shape == (3, 48, 64, 3)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def frames() -> Iterator[np.ndarray]:
        yield from colour_frames(3)
        raise Stopped

    with pytest.raises(Stopped):
        write_mp4(tmp_path / "c.mp4", frames(), 16, 17, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no frames"):
        write_mp4(tmp_path / "c.mp4", iter(()), 16, 17, {})
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="no frames"):
        write_mp4(path, iter(()), 16, 17, {})
    assert path.read_bytes() == b"earlier"


def test_clip_of_tensors(tmp_path: Path) -> None:
    images = torch.rand(5, 32, 32, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    seen: list[tuple[int, int]] = []
    save_clip(tmp_path / "new" / "c.mp4", images, 16, 0, {}, False, lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
    with av.open(str(tmp_path / "new" / "c.mp4")) as container:
        assert "comment" not in container.metadata
    with pytest.raises(RequestError, match="frames of 3 colours"):
        save_clip(tmp_path / "c.mp4", torch.zeros(0, 8, 8, 3), 16, 17, {}, True, lambda done, total: None)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX's")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: the same write fails in the same place."""
    program = f"""
import resource, signal, sys, torch
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from pipeline.save import save_clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    frames = torch.rand(9, 128, 128, 3)
    save_clip(Path({str(tmp_path / "c.mp4")!r}), frames, 16, 5, {{}}, True, lambda done, total: None)
except ValueError as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert re.match(r"RequestError .*c\.mp4 could not be written: .*Free some space", run.stdout), run
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="could not be written"):
        save_clip(tmp_path / "file" / "c.mp4", torch.zeros(1, 8, 8, 3), 16, 17, {}, True, lambda done, total: None)
