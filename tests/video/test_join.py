"""Clips joined, on real files: which frames, which colours, which sound, and a sentence for what cannot be joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.request import RequestError
from pipeline.video.conform import conformed
from pipeline.video.encoding import Encoding
from pipeline.video.grid_to_mp4 import grid_to_mp4
from pipeline.video.join_settings import CONFORM, REFUSE, JoinSettings, read_new_shots
from pipeline.video.join_to_mp4 import join_to_mp4
from pipeline.video.probe import probe_video
from pipeline.video.save import Mp4, save_clip
from pipeline.video.source import ClipSource, file_source, frames_source

HEIGHT, WIDTH, RATE = 48, 80, Fraction(16)
Make = Callable[..., ClipSource]


def film(start: int, count: int, scene: int = 0, speed: int = 2, width: int = WIDTH) -> torch.Tensor:
    """Frames `start` to `start + count` of a camera that goes to the right over a landscape."""
    coarse = torch.rand(1, 3, 8, 48, generator=torch.Generator().manual_seed(scene))
    wide = F.interpolate(coarse, (HEIGHT, 480), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    return torch.stack([wide[:, speed * n : speed * n + width] for n in range(start, start + count)])


def tone(seconds: float, pitch: float, rate: int = 48000, channels: int = 2) -> dict[str, Any]:
    wave = torch.sin(torch.arange(round(seconds * rate)) * (2 * np.pi * pitch / rate)) / 2
    return {"waveform": wave.expand(1, channels, -1).contiguous(), "sample_rate": rate}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make(frames, audio=None, fps=16.0): a file of these frames."""

    def make(images: torch.Tensor, audio: dict[str, Any] | None = None, fps: float = 16.0) -> ClipSource:
        path = tmp_path / f"{len(list(tmp_path.glob('*.mp4')))}.mp4"
        save_clip(Mp4(lambda: path, Encoding(fps, crf=8.0), {}, audio), images, lambda done, total: None)
        return file_source(path, path.name)

    return make


def joined(tmp_path: Path, clips: list[ClipSource], settings: JoinSettings | None = None, mismatch: str = CONFORM,
           **mp4: Any) -> tuple[Path, torch.Tensor, dict[str, Any]]:
    """Join clips; return the file, its frames, and the report."""
    path, said = tmp_path / "out" / "joined.mp4", []
    encoding = mp4.pop("encoding", Encoding(float(clips[0].rate), crf=8.0))
    written, report = join_to_mp4(Mp4(lambda: path, encoding, **mp4), clips, settings or JoinSettings(), mismatch,
                                  lambda done, total: None, lambda: None, said.append)
    frames = torch.stack(list(file_source(path, "joined").frames()))
    assert len(frames) == written.clip.frames == probe_video(path).frames == json.loads(report)["frames"]
    return path, frames, json.loads(report)


def samples(path: Path) -> np.ndarray:
    """The left channel."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def loudness(wave: np.ndarray, pitch: float, rate: int = 48000) -> float:
    return float(abs(np.mean(wave * np.exp(-2j * np.pi * pitch / rate * np.arange(len(wave))))) * 2)


@pytest.mark.parametrize("overlap", [0, 1, 5, 12])
def test_frames_that_repeat_are_found_and_dropped(tmp_path: Path, make: Make, overlap: int) -> None:
    clips = [make(film(0, 20)), make(film(20 - overlap, 20)), make(film(40 - 2 * overlap, 15))]
    _, frames, report = joined(tmp_path, clips)
    assert [joint["overlap"] for joint in report["joints"]] == [overlap, overlap]
    assert [joint["faded"] for joint in report["joints"]] == [min(4, overlap)] * 2
    wanted = film(0, 55 - 2 * overlap)
    assert frames.shape == wanted.shape and float((frames - wanted).abs().mean()) < 0.012
    for joint in report["joints"]:
        assert joint["seam"]["warnings"] == [] and joint["seam"]["ratio"] < 1.3
        assert joint["seam"]["velocity"] == pytest.approx([-2, 0], abs=0.1)


def test_an_overlap_of_a_given_number_is_cross_faded(tmp_path: Path, make: Make) -> None:
    """The later clip shows other frames there: two pixels lower, and darker."""
    lower = film(14, 20).roll(2, 1) * 0.8
    _, frames, report = joined(tmp_path, [make(film(0, 20)), make(lower)], JoinSettings(6, 3, "off"))
    (joint,) = report["joints"]
    assert (joint["overlap"], joint["faded"], joint["frame"], len(frames)) == (6, 3, 17, 34)
    blended = torch.lerp(film(17, 3), lower[3:6], torch.tensor([0.25, 0.5, 0.75])[:, None, None, None])
    assert float((frames[17:20] - blended).abs().mean()) < 0.012
    assert joint["seam"]["colour_step"] > 1


def test_colours_are_matched_where_the_shot_goes_on_alone(tmp_path: Path, make: Make) -> None:
    dim = film(15, 20) * torch.tensor([0.8, 0.9, 0.85])
    clips = [make(film(0, 20)), make(dim), make(film(0, 20, scene=7))]
    _, frames, report = joined(tmp_path, clips)
    goes_on, other = report["joints"]
    assert (goes_on["overlap"], goes_on["new_shot"]) == (5, False) and goes_on["seam"]["colour_step"] < 1
    assert (other["overlap"], other["new_shot"], other["seam"]) == (0, True, None)
    assert float((frames[20:35] - film(20, 15)).abs().mean()) < 0.4 * float((dim[5:] - film(20, 15)).abs().mean())
    assert float((frames[35:] - film(0, 20, scene=7)).abs().mean()) < 0.012
    told = joined(tmp_path / "told", clips, JoinSettings(5, new_shots=frozenset({2})))[2]["joints"]
    assert [joint["new_shot"] for joint in told] == [True, False] and told[1]["seam"]["warnings"]


def test_sound_goes_with_its_frames(tmp_path: Path, make: Make) -> None:
    """Clips of a second and a quarter at 440 Hz, silent, and at 880 Hz in another rate; four frames are shared."""
    clips = [make(film(0, 20), tone(1.25, 440)), make(film(16, 20)), make(film(32, 20), tone(9, 880, 22050, 1))]
    path, frames, _ = joined(tmp_path, clips)
    assert len(frames) == 52
    wave, second = samples(path), 48000
    assert len(wave) == pytest.approx(52 / 16 * second, abs=3000)
    parts = {"first": wave[:int(1.24 * second)], "silent": wave[int(1.27 * second):int(2.22 * second)],
             "last": wave[int(2.27 * second):int(3.2 * second)]}
    heard = {name: (round(loudness(part, 440), 1), round(loudness(part, 880), 1)) for name, part in parts.items()}
    assert heard == {"first": (0.5, 0.0), "silent": (0.0, 0.0), "last": (0.0, 0.5)}
    own, _, _ = joined(tmp_path / "own", clips, audio=tone(9, 600))
    assert loudness(samples(own)[:second], 600) == pytest.approx(0.5, abs=0.05)
    assert not joined(tmp_path / "none", [clips[1], make(film(36, 9))])[0].read_bytes().count(b"soun")


def test_other_sizes_and_rates_are_conformed_or_refused(tmp_path: Path, make: Make) -> None:
    large = F.interpolate(film(20, 36, width=100).movedim(-1, 1), scale_factor=2, mode="bicubic")
    clips = [make(film(0, 20)), make(large.clamp(0, 1).movedim(1, -1), fps=24.0)]
    _, frames, report = joined(tmp_path, clips, JoinSettings(0, new_shots=frozenset()))
    assert frames.shape == (44, HEIGHT, WIDTH, 3)  # 36 frames at 24 a second are 24 at 16
    assert report["conformed"] == {"1.mp4": "200x96 instead of 80x48 and 24 frames a second instead of 16"}
    shown = film(20, 12, width=100)[:, :, 10:-10]
    nearest = [int((shown - frame).abs().mean((1, 2, 3)).argmin()) for frame in frames[20:26]]
    assert nearest == [0, 2, 3, 5, 6, 8]  # in the middle of each sixteenth of a second
    faster = joined(tmp_path / "24", clips, encoding=Encoding(24.0, crf=8.0))[1]
    assert len(faster) == 30 + 36
    with pytest.raises(RequestError, match=r"1.mp4 has 200x96 instead of 80x48 and 24 frames a second instead of 16"):
        joined(tmp_path / "refused", clips, mismatch=REFUSE)


def test_what_cannot_be_joined_is_said_and_leaves_no_file(tmp_path: Path, make: Make) -> None:
    good, short = make(film(0, 20)), make(film(17, 3))
    damaged = tmp_path / "damaged.mp4"
    content = Path(tmp_path / "0.mp4").read_bytes()
    damaged.write_bytes(content[: int(len(content) * 0.8)])
    sound_only = tmp_path / "sound.mp4"
    with av.open(str(sound_only), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "flt", "mono")
        silence.sample_rate = 48000
        container.mux([*stream.encode(silence), *stream.encode(None)])
    with pytest.raises(RequestError, match=r"2\) holds no video"):
        file_source(sound_only, "clip_2 (2)")
    (tmp_path / "text.mp4").write_bytes(b"no video at all")
    with pytest.raises(RequestError, match="text is not a video, or it is damaged"):
        file_source(tmp_path / "text.mp4", "text")
    cut = file_source(damaged, "damaged.mp4")
    for clips, settings, sentence in (
            ([good, short], JoinSettings(), "1.mp4 has 3 frames, and its first 3 repeat the clip before"),
            ([good, cut], JoinSettings(), r"damaged.mp4 is damaged"),
            ([good, short], JoinSettings(overlap=34), "overlap is 34; choose 0 to 33"),
            ([good, short], JoinSettings(faded=5), "cross_fade is 5"),
            ([good, short], JoinSettings(colours="all"), "match_colours is 'all'"),
            ([good, short], JoinSettings(strength=2.0), "strength is 2; choose 0 to 1"),
            ([good, short], JoinSettings(new_shots=frozenset({3})), "new_shots names clip 3; of 2 clips, 2 to 2")):
        with pytest.raises(RequestError, match=sentence):
            joined(tmp_path, clips, settings)
        assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))
    assert read_new_shots(" 2, 5 ") == {2, 5} and read_new_shots("found") is None and read_new_shots("none") == set()
    for text in ("2; 3", "", "two", "-1", "²"):
        with pytest.raises(RequestError, match="new_shots is"):
            read_new_shots(text)


@pytest.mark.parametrize(("rate", "other"), [(24.0, 23.976), (23.976, 24.0), (30.0, 29.97), (29.97, 30.0)])
def test_rates_of_film_and_television_are_two(tmp_path: Path, make: Make, rate: float, other: float) -> None:
    one, two, alike = make(film(0, 9), fps=rate), make(film(9, 9), fps=other), make(film(18, 9), fps=rate)
    with pytest.raises(RequestError, match=f"1.mp4 has {other:g} frames a second instead of {rate:g}"):
        joined(tmp_path / "refused", [one, two], mismatch=REFUSE)
    _, frames, report = joined(tmp_path, [one, two, alike], JoinSettings(0, new_shots=frozenset()))
    assert list(report["conformed"]) == ["1.mp4"] and len(frames) == 27


@pytest.mark.parametrize(("own", "rate", "count"), [
    (Fraction(24000, 1001), Fraction(24), 2004), (Fraction(24), Fraction(24000, 1001), 2000)])
def test_rates_that_differ_by_a_thousandth_keep_their_time(own: Fraction, rate: Fraction, count: int) -> None:
    """2002 frames, of which one in a thousand is repeated or left out."""
    clip = replace(frames_source(torch.zeros(1, 2, 2, 3), own, "clip"),
                   frames=lambda: (torch.full((2, 2, 3), float(number)) for number in range(2002)))
    shown = [int(frame[0, 0, 0]) for frame in conformed(clip, 2, 2, rate)]
    assert len(shown) == count
    assert max(abs(number - index * own / rate) for index, number in enumerate(shown)) <= 1


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda images: torch.cat([images, images[..., :1]], -1), "b has an alpha channel, which MP4 cannot hold"),
    (lambda images: images * 255, "b holds values up to"),
    (lambda images: (images * 255).byte(), r"b holds whole numbers \(uint8\)"),
    (lambda images: images.where(images < images[3].max(), torch.nan), r"b holds values that are not numbers \(NaN"),
])
def test_frames_in_memory_are_checked_with_the_clips_name(tmp_path: Path, spoil: Callable, said: str) -> None:
    clips = [frames_source(film(0, 9), RATE, "a"), frames_source(spoil(film(9, 9)), RATE, "b")]
    with pytest.raises(RequestError, match=said):
        joined(tmp_path, clips, JoinSettings(0, new_shots=frozenset()))
    with pytest.raises(RequestError, match=said):
        grid_to_mp4(Mp4(lambda: tmp_path / "grid.mp4"), clips, ["", ""], 2, (WIDTH, HEIGHT), lambda done, total: None,
                    lambda: None)
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(("alpha", "ground"), [("on black", 0.0), ("on white", 1.0)])
def test_an_alpha_channel_is_put_on_a_background(tmp_path: Path, alpha: str, ground: float) -> None:
    opacity = torch.linspace(0, 1, WIDTH).expand(9, HEIGHT, WIDTH)[..., None]
    clips = [frames_source(torch.cat([film(0, 9), opacity], -1), RATE, "a"), frames_source(film(9, 9), RATE, "b")]
    encoding = Encoding(crf=8.0, alpha=alpha)
    _, frames, _ = joined(tmp_path, clips, JoinSettings(0, colours="off", new_shots=frozenset()), encoding=encoding)
    wanted = torch.cat([film(0, 9) * opacity + ground * (1 - opacity), film(9, 9)])
    assert float((frames - wanted).abs().mean()) < 0.012


def test_no_more_frames_can_repeat_than_the_clip_before_has(tmp_path: Path, make: Make) -> None:
    """Of clips in memory it is known before a frame is read; of files it is found where the second one begins."""
    read: list[str] = []

    def told(clip: ClipSource) -> ClipSource:
        return replace(clip, frames=lambda: read.append(clip.name) or clip.frames())

    held = [told(frames_source(film(start, count), RATE, name))
            for name, start, count in (("a", 0, 40), ("b", 40, 5), ("c", 10, 40))]
    files = [make(film(0, 40)), make(film(40, 5)), make(film(10, 40))]
    for clips in (held[1:], held, files[1:], files):
        named = clips[-1].name
        with pytest.raises(RequestError, match=f"overlap is 33, and the clip before {named} has 5 frames: no more can"):
            joined(tmp_path / "out", clips, JoinSettings(33, new_shots=frozenset({2} if len(clips) == 3 else ())))
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert read == []
    shots = [make(film(0, 5)), make(film(0, 40, scene=7))]
    for new_shots in (frozenset({2}), None):
        assert len(joined(tmp_path / f"{new_shots}", shots, JoinSettings(33, new_shots=new_shots))[1]) == 45
    assert len(joined(tmp_path / "all", [make(film(0, 5)), make(film(0, 6))], JoinSettings(5))[1]) == 6


def test_clips_in_memory_and_parts_of_files(tmp_path: Path, make: Make) -> None:
    whole = make(film(0, 40), tone(2.5, 440))
    part = file_source(tmp_path / "0.mp4", "part", start=0.5, duration=1.0)
    assert float((torch.stack(list(part.frames())) - film(8, 16)).abs().mean()) < 0.012
    held = frames_source(film(24, 10), RATE, "held", tone(0.625, 440))
    path, frames, report = joined(tmp_path, [part, held], JoinSettings(0))
    assert float((frames - film(8, 26)).abs().mean()) < 0.012 and report["clips"] == ["part", "held"]
    assert loudness(samples(path)[:48000], 440) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(torch.stack(list(whole.frames())),
                       torch.stack(list(file_source((tmp_path / "0.mp4").read_bytes(), "bytes").frames())))


def test_few_frames_are_in_memory(tmp_path: Path) -> None:
    """Clips of 120 frames that note which of them are still referred to."""
    import weakref

    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def frames() -> Any:
        nonlocal most
        for frame in film(0, 120, speed=1):
            frame = frame.clone()
            alive.add(frame)
            most = max(most, len(alive))
            yield frame

    clip = replace(frames_source(film(0, 120, speed=1), RATE, "clip"), frames=frames)
    joined(tmp_path, [clip, clip], JoinSettings(0, new_shots=frozenset()))
    assert most < 60
