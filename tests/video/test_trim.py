"""Probing and trimming, on real files: exactly the frames that were asked for, or a sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.request import RequestError
from pipeline.video.encoding import Encoding
from pipeline.video.probe import VideoFacts, probe_video
from pipeline.video.save import Mp4, save_clip
from pipeline.video.trim import trim


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames with B frames among them, each brighter than the one before, and a tone."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    images = (torch.arange(40) / 50 + 0.1).reshape(-1, 1, 1, 1).expand(-1, 32, 48, 3)
    audio = {"waveform": torch.sin(torch.arange(110250) / 20)[None, None] / 2, "sample_rate": 44100}
    save_clip(Mp4(lambda: path, Encoding(crf=5.0), {"prompt": "{}"}, audio), images, lambda done, total: None)
    return path


def levels(path: Path) -> np.ndarray:
    """Mean luma of each frame."""
    with av.open(str(path)) as container:
        return np.array([frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)])


def test_what_a_file_holds(clip: Path) -> None:
    assert probe_video(clip) == VideoFacts("h264", "yuv420p", 48, 32, Fraction(16), 40, True)


def test_frames_that_an_edit_list_hides(clip: Path, tmp_path: Path) -> None:
    """A file that was cut with `-ss … -c copy`: the frames before the cut stay in it, and no player shows them."""
    cut = tmp_path / "cut.mp4"
    with av.open(str(clip)) as whole, av.open(str(cut), "w") as output:
        streams = {stream: output.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                earlier = int(Fraction(5, 16) / packet.time_base)
                packet.pts, packet.dts, packet.stream = (packet.pts - earlier, packet.dts - earlier,
                                                         streams[packet.stream])
                output.mux(packet)
    assert len(levels(cut)) == 35
    assert probe_video(cut).frames == 35 and probe_video(cut).has_sound
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * 0.9)])
    with pytest.raises(RequestError, match="damaged"):
        probe_video(cut)


@pytest.mark.parametrize(("start", "frames"), [(0, 40), (0, 33), (0, 1), (0, 34), (0, 35), (5, 20), (39, 1)])
def test_exactly_these_frames(clip: Path, tmp_path: Path, start: int, frames: int) -> None:
    path, anew = trim(clip, lambda: tmp_path / "new.mp4", start, frames)
    facts = probe_video(path)
    assert (facts.frames, facts.rate, facts.has_sound) == (frames, 16, True)
    whole = levels(clip)[start : start + frames]
    assert np.abs(levels(path) - whole).max() <= (1.5 if anew else 0)
    if start:
        assert anew, "there is one key frame, the first"
    with av.open(str(path)) as container:
        context, sound = container.streams.video[0].codec_context, container.streams.audio[0]
        assert (context.color_primaries, context.colorspace, context.color_range) == (1, 1, 1)
        assert float(sound.duration * sound.time_base) == pytest.approx(frames / 16, abs=0.08)
        assert container.metadata["prompt"] == "{}"


def test_the_whole_is_not_encoded_anew(clip: Path, tmp_path: Path) -> None:
    assert trim(clip, lambda: tmp_path / "whole.mp4", 0, 40)[1] is False
    assert trim(clip, lambda: tmp_path / "first.mp4", 0, 1)[1] is False


@pytest.mark.parametrize(("codec", "tag"), [("hevc", "hvc1"), ("av1", "av01")])
def test_other_codecs_are_not_encoded_anew(tmp_path: Path, codec: str, tag: str) -> None:
    clip = tmp_path / "clip.mp4"
    images = (torch.arange(10) / 20).reshape(-1, 1, 1, 1).expand(-1, 64, 96, 3)
    save_clip(Mp4(lambda: clip, Encoding(codec=codec, preset="ultrafast"), {}), images, lambda done, total: None)
    path, anew = trim(clip, lambda: tmp_path / "new.mp4", 0, 10)
    assert not anew and np.array_equal(levels(path), levels(clip))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == tag


@pytest.mark.parametrize(("start", "frames"), [(0, 41), (10, 31), (-1, 5), (0, 0)])
def test_frames_that_are_not_there(clip: Path, tmp_path: Path, start: int, frames: int) -> None:
    with pytest.raises(RequestError, match="has 40 frames"):
        trim(clip, lambda: tmp_path / "new.mp4", start, frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_a_file_that_was_cut_off(clip: Path, tmp_path: Path, kept: float) -> None:
    content = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(RequestError, match=r"cut\.mp4 is .*damaged"):
        probe_video(tmp_path / "cut.mp4")


def test_a_page_instead_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("<html><body>404</body></html>", "utf-8")
    with pytest.raises(RequestError, match=r"page\.mp4 is not a video, or it is damaged"):
        probe_video(tmp_path / "page.mp4")
    with pytest.raises(RequestError, match=r"page\.mp4 is not a video, or it is damaged"):
        trim(tmp_path / "page.mp4", lambda: tmp_path / "new.mp4", 0, 1)
