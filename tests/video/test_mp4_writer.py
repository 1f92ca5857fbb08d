"""The MP4 writer: real files, read back with PyAV."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from devtools.paths import ROOT
from pipeline.files.atomic import advice_on, new_file
from pipeline.files.names import fill_in, name_fault
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import plain_host
from pipeline.models.vae import WanVAE, load_vae
from pipeline.request import RequestError
from pipeline.video.encoding import CODECS, PIX_FMTS, Encoding
from pipeline.video.mp4_settings import Mp4Settings
from pipeline.video.provenance import ai_generated, request_of
from pipeline.video.save import Mp4, decode_frames, decode_to_mp4, save_clip, size_of_images, size_of_latent
from pipeline.video.sound import read_sound
from pipeline.video.yuv import to_rgb, to_yuv


def colour_bars(count: int = 9, height: int = 48, width: int = 64) -> torch.Tensor:
    """Red, green, blue and grey, IMAGE (count, height, width, 3)."""
    frame = torch.zeros(height, width, 3)
    for bar, colour in enumerate([(200, 30, 30), (30, 180, 30), (40, 40, 210), (128, 128, 128)]):
        frame[:, bar * width // 4 : (bar + 1) * width // 4] = torch.tensor(colour) / 255
    return frame.expand(count, -1, -1, -1)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def numbered(folder: Path) -> Callable[[], Path]:
    """Names files as ComfyUI does: by the highest number that is there."""

    def new_path() -> Path:
        taken = [int(path.stem) for path in folder.glob("[0-9]*.mp4")] if folder.is_dir() else []
        return folder / f"{max(taken, default=0) + 1}.mp4"

    return new_path


def written(folder: Path, images: torch.Tensor, metadata: dict[str, str] | None = None,
            audio: dict[str, Any] | None = None, **encoding: Any) -> Path:
    mp4 = Mp4(numbered(folder), Encoding(**{"preset": "ultrafast", **encoding}), metadata or {}, audio)
    return save_clip(mp4, images, lambda done, total: None).path


def read(path: Path) -> np.ndarray:
    """Frames (F, H, W, 3) as a BT.709 player shows them."""
    with av.open(str(path)) as container:
        return np.stack([f.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG").to_ndarray()
                         for f in container.decode(video=0)])


# ---- colour -----------------------------------------------------------------------------------------------------


def bt709(image: np.ndarray, pix_fmt: str) -> list[np.ndarray]:
    """Y'CbCr of (H, W, 3) in double precision, written down from BT.709-6 item 3 once more, and its chroma filter."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    scale = 4 if "10" in pix_fmt else 1
    differences = (blue - y) / 1.8556, (red - y) / 1.5748
    planes = [scale * (16 + 219 * y), *(scale * (128 + 224 * difference) for difference in differences)]
    if "420" in pix_fmt:
        for index in (1, 2):
            left = np.pad(planes[index], ((0, 0), (1, 0)), mode="edge")
            row = (left[:, 0:-1:2] + 2 * left[:, 1::2] + left[:, 2::2]) / 4
            planes[index] = (row[0::2] + row[1::2]) / 2
    return planes


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_each_sample_is_the_nearest_code(pix_fmt: str) -> None:
    image, encoding = noise(34, 70, 3), Encoding(pix_fmt=pix_fmt)
    frame = to_yuv(to_rgb(image, 1, encoding), encoding)
    dtype = np.uint16 if "10" in pix_fmt else np.uint8
    for plane, expected in zip(frame.planes, bt709(image.numpy(), pix_fmt), strict=True):
        found = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 0.501


def test_values_outside_are_cut_off(tmp_path: Path) -> None:
    wild = noise(2, 32, 32, 3) * 2 - 0.5
    assert written(tmp_path / "a", wild).read_bytes() == written(tmp_path / "b", wild.clamp(0, 1)).read_bytes()


def test_a_half_precision_image(tmp_path: Path) -> None:
    assert read(written(tmp_path, colour_bars(2).half())).shape == (2, 48, 64, 3)


def test_colours_come_back(tmp_path: Path) -> None:
    frames = read(written(tmp_path, colour_bars(), crf=10.0))
    expected = colour_bars()[0].mul(255).round().numpy()
    for bar in range(4):
        middle = (slice(8, 40), slice(bar * 16 + 6, bar * 16 + 10))
        assert np.abs(frames[0][middle] - expected[middle]).max() <= 3, f"bar {bar}"


# ---- the stream -------------------------------------------------------------------------------------------------

PROFILES = {"yuv420p": "High", "yuv444p": "High 4:4:4 Predictive", "yuv420p10le": "High 10",
            "yuv444p10le": "High 4:4:4 Predictive"}


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_stream_is_what_players_expect(tmp_path: Path, pix_fmt: str) -> None:
    path = written(tmp_path, colour_bars(), {"prompt": '{"1": "ü"}'}, pix_fmt=pix_fmt, preset="medium")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.profile, context.pix_fmt) == ("h264", PROFILES[pix_fmt], pix_fmt)
        assert stream.frames == 9
        assert (stream.average_rate, container.duration) == (16, 9 * 1_000_000 // 16)
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert container.metadata["prompt"] == '{"1": "ü"}'
        assert sum(1 for _ in container.decode(stream)) == 9
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index must come first, for the web"


@pytest.mark.parametrize(("fps", "rate"), [
    (16.0, 16), (23.98, Fraction(24000, 1001)), (23.976, Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)),
    (24.0, 24), (12.5, Fraction(25, 2)), (1.0, 1)])
def test_rates_are_exact(tmp_path: Path, fps: float, rate: Fraction) -> None:
    with av.open(str(written(tmp_path, colour_bars(4), fps=fps))) as container:
        assert container.streams.video[0].average_rate == rate


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_or_the_next_best(tmp_path: Path, codec: str) -> None:
    done = save_clip(Mp4(numbered(tmp_path), Encoding(codec=codec, preset="ultrafast")), colour_bars(3, 64, 64),
                     lambda done, total: None)
    with av.open(str(done.path)) as container:
        name = container.streams.video[0].codec_context.codec.canonical_name
        assert sum(1 for _ in container.decode(video=0)) == 3
    if not done.note:
        assert name == codec.removesuffix("_nvenc")
    else:
        assert codec.endswith("_nvenc"), "PyAV brings the others along"
        assert re.fullmatch(rf"{codec} does not work here \(.+\), so lib\w+ wrote the file instead\.", done.note)
        assert name == codec.removesuffix("_nvenc")


def test_an_encoder_that_refuses_is_replaced_and_told(tmp_path: Path) -> None:
    """x265 takes nothing as small as this."""
    done = save_clip(Mp4(numbered(tmp_path), Encoding(codec="hevc")), colour_bars(2, 4, 4), lambda done, total: None)
    assert done.note.startswith("libx265 does not work here (")
    assert done.note.endswith("libx264 wrote the file instead.")


@pytest.mark.parametrize(("size", "odd_size", "pix_fmt", "expected"), [
    ((47, 63), "pad", "yuv420p", (48, 64)), ((47, 63), "crop", "yuv420p", (46, 62)),
    ((48, 63), "pad", "yuv420p10le", (48, 64)), ((47, 63), "pad", "yuv444p", (47, 63)),
    ((1, 1), "pad", "yuv420p", (2, 2))])
def test_odd_sides(tmp_path: Path, size: tuple[int, int], odd_size: str, pix_fmt: str, expected: tuple) -> None:
    frames = read(written(tmp_path, colour_bars(3, *size), odd_size=odd_size, pix_fmt=pix_fmt))
    assert frames.shape == (3, *expected, 3)


@pytest.mark.parametrize("count", [1, 1000])
def test_any_number_of_frames(tmp_path: Path, count: int) -> None:
    with av.open(str(written(tmp_path, colour_bars(count, 16, 16)))) as container:
        assert sum(1 for _ in container.decode(video=0)) == count == container.streams.video[0].frames


@pytest.mark.parametrize(("alpha", "level"), [("on black", 0), ("on white", 255)])
def test_alpha(tmp_path: Path, alpha: str, level: int) -> None:
    clear = torch.cat([colour_bars(2), torch.zeros(2, 48, 64, 1)], -1)
    assert np.abs(read(written(tmp_path, clear, alpha=alpha)).astype(int) - level).max() <= 1
    with pytest.raises(RequestError, match="alpha channel, which MP4 cannot hold"):
        written(tmp_path, clear)


# ---- sound ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "seconds", "channels"), [
    (44100, 0.2, 2), (48000, 3.0, 1), (22050, 1.0, 6), (37800, 2.0, 2), (48000, 1.0, 8)])
def test_sound_is_as_long_as_the_clip(tmp_path: Path, rate: int, seconds: float, channels: int) -> None:
    tone = torch.sin(torch.arange(int(rate * seconds)) * 440 * 2 * torch.pi / rate) / 2
    audio = {"waveform": tone.expand(1, channels, -1), "sample_rate": rate}
    with av.open(str(written(tmp_path, colour_bars(16), audio=audio))) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.codec_context.channels) == ("aac", channels)
        assert float(stream.duration * stream.time_base) == pytest.approx(1, abs=0.002)
        packed = av.AudioResampler(format="flt")  # PyAV reads no frame of eight planes
        pieces = [r.to_ndarray() for f in container.decode(stream) for r in packed.resample(f)]
        sound = np.concatenate(pieces, 1).reshape(-1, channels).T
    heard, silent = sound[0, sound.shape[1] // 20 : sound.shape[1] // 8], sound[0, sound.shape[1] // 2 : -4096]
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.1)
    if seconds < 0.5:
        assert np.abs(silent).max() < 0.02, "silence follows"


def test_sound_that_no_file_takes(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="The audio has 3 channels"):
        written(tmp_path, colour_bars(2), audio={"waveform": noise(1, 3, 100), "sample_rate": 44100})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("audio", "said"), [
    ({}, "not an AUDIO of ComfyUI"), ({"waveform": noise(1, 2, 9)}, "sample_rate"), ("sound.wav", "not an AUDIO"),
    ({"waveform": None, "sample_rate": 44100}, "not an AUDIO"),
    ({"waveform": noise(1, 2, 9), "sample_rate": "x"}, "not an AUDIO"),
    ({"waveform": noise(1, 2, 9), "sample_rate": 0}, "sample_rate is 0; choose 1 to 768000"),
    ({"waveform": noise(1, 2, 9), "sample_rate": float("inf")}, "not an AUDIO"),
    ({"waveform": torch.ones(1, 2, 9, dtype=torch.bool), "sample_rate": 44100}, "waveform holds bool"),
    ({"waveform": noise(1, 1, 2, 9), "sample_rate": 44100}, r"shape \(1, 1, 2, 9\)"),
], ids=str)
def test_what_is_no_audio(tmp_path: Path, audio: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        written(tmp_path, colour_bars(2), audio=audio)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shape", "channels", "said"), [
    ((1, 2, 4000), 2, ""), ((2, 4000), 2, ""), ((4000,), 1, ""), ((3, 2, 4000), 2, "has 3 clips; .* of the first"),
    ((1, 2, 0), None, "The audio is empty"), ((0, 2, 4000), None, "The audio is empty"),
])
def test_audio_of_every_shape_that_nodes_hand_out(tmp_path: Path, shape: tuple[int, ...], channels: int | None,
                                                  said: str) -> None:
    audio = {"waveform": noise(*shape).double(), "sample_rate": torch.tensor(16000)}
    made = save_clip(Mp4(numbered(tmp_path), audio=audio), colour_bars(4), lambda done, total: None)
    assert re.search(said, made.note) and bool(made.note) == bool(said)
    with av.open(str(made.path)) as container:
        assert [s.codec_context.channels for s in container.streams.audio] == ([channels] if channels else [])


class AutoencoderKLCogVideoX(torch.nn.Module):
    """Called as ComfyUI's, whose latents have the shape of Wan's."""


@pytest.mark.parametrize(("vae", "said"), [
    (None, "There is no VAE"),
    (SimpleNamespace(first_stage_model=AutoencoderKLCogVideoX()), "vae is the VAE of another model"),
], ids=["none", "another"])
def test_no_vae_of_wan(tmp_path: Path, vae: Any, said: str) -> None:
    latent = {"samples": torch.zeros(1, 16, 1, 4, 4)}
    for decode in (lambda: decode_frames(vae, latent, lambda done, total: None),
                   lambda: decode_to_mp4(Mp4(numbered(tmp_path)), vae, latent, lambda done, total: None),
                   lambda: encode_first_frame(vae, torch.zeros(1, 64, 64, 3), 64, 64, 5)):
        with pytest.raises(RequestError, match=said):
            decode()


@pytest.mark.parametrize("odd", [None, "clip", {}, {"samples": None}, torch.zeros(3)], ids=str)
def test_what_is_no_clip_has_no_size(odd: object) -> None:
    """Nodes ask for the size, for %width% in the name, before the clip itself is checked."""
    assert size_of_images(odd) == size_of_latent(odd) == (0, 0)
    assert size_of_images(torch.zeros(2, 48, 80, 3)) == (80, 48)
    assert size_of_latent({"samples": torch.zeros(1, 16, 2, 6, 10)}) == (80, 48)


@pytest.mark.parametrize(("dtype", "scale", "zero"), [
    (torch.int16, 2**15, 0), (torch.int32, 2**31, 0), (torch.int8, 2**7, 0), (torch.uint8, 2**7, 2**7),
], ids=str)
def test_sound_in_whole_numbers_is_as_loud_as_in_floats(dtype: torch.dtype, scale: int, zero: int) -> None:
    """Some loaders hand PCM on as it is; cut off at 1 it would be noise at full volume."""
    floats = torch.tensor([[[0.5, -0.25, 0.0, -1.0]]], dtype=torch.float64)
    whole = (floats * scale + zero).to(dtype)
    for waveform in (whole, whole.numpy()):
        sound, note = read_sound({"waveform": waveform, "sample_rate": 48000})
        assert sound.samples.tolist() == floats[0].tolist() and note == ""


def test_metadata_that_cannot_be_made_costs_no_clip(tmp_path: Path) -> None:
    """Whatever other nodes put into a graph: the rest is written, the mark of AI first of all, and the user told."""
    graph = {"1": {"class_type": "A", "inputs": {"x": object(), "unet_name": "model\0\udcff.gguf"}},
             "2": {"class_type": "Wan22SaveMP4", "inputs": {"y": ["1", 0]}}}
    circle: list[Any] = []
    circle.append(circle)

    def made(kept: str, prompt: dict[str, Any]) -> tuple[dict[str, str], str]:
        settings = Mp4Settings("clip", Encoding(), kept, True, None)
        metadata, note = settings.metadata(lambda: {"prompt": json.dumps(circle)}, prompt, "2")
        path = save_clip(Mp4(numbered(tmp_path), metadata=metadata), colour_bars(2), lambda done, total: None).path
        with av.open(str(path)) as container:
            return dict(container.metadata), note

    for kept, prompt in (("request only", graph), ("full workflow", graph), ("none", {"2": {"inputs": 5}})):
        found, note = made(kept, prompt)
        assert "AI-generated" in found["comment"] and found["digital_source_type"]
        assert "The file is whole, but tells less of its making" in note
    found, note = made("none", graph)
    assert "model?.gguf" in found["comment"] and note == ""


# ---- decoding into the file -------------------------------------------------------------------------------------


def test_decoded_into_the_file_is_decoded_and_saved(tmp_path: Path) -> None:
    vae = WanVAE(*load_vae(bundled.DEMO_VAE, plain_host()))
    latent = {"samples": torch.randn(2, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))}
    seen: list[tuple[int, int]] = []
    made = decode_to_mp4(Mp4(numbered(tmp_path / "a")), vae, latent, lambda *counts: seen.append(counts))
    images = decode_frames(vae, latent, lambda done, total: None)
    saved = save_clip(Mp4(numbered(tmp_path / "b")), images, lambda done, total: None)
    assert made.path.read_bytes() == saved.path.read_bytes()
    assert seen == [(n, 18) for n in range(1, 19)]


def test_few_frames_are_held(tmp_path: Path) -> None:
    """Frames are asked for only as fast as they are encoded."""
    from pipeline.video.mp4_writer import write_mp4

    asked = encoded_when_stopped = 0

    class Stopped(BaseException):
        pass

    def pieces() -> Iterator[torch.Tensor]:
        nonlocal asked
        for _ in range(500):
            asked += 1
            yield colour_bars(1)

    def stop() -> None:
        if asked >= 100:
            raise Stopped

    def on_frame(count: int) -> None:
        nonlocal encoded_when_stopped
        encoded_when_stopped = count

    with pytest.raises(Stopped):
        write_mp4(numbered(tmp_path), pieces(), Encoding(), {}, on_frame=on_frame, stop=stop)
    assert encoded_when_stopped == asked - 1 == 99
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name == "MP4 encoder"]


# ---- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_frames_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    images = colour_bars(9).clone()
    images[6, 3, 5, 1] = value
    with pytest.raises(RequestError, match="Frame 7 holds values that are not numbers"):
        written(tmp_path, images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("images", "said"), [
    (colour_bars(9) * 255, r"Frame 1 holds values up to [12]\d\d; .* Divide them by 255"),
    (colour_bars(9) * 2 - 1, "Frame 1 holds values down to -0.76.* halve them and add 0.5"),
    ((colour_bars(9) * 255).byte(), r"The images hold whole numbers \(uint8\)"),
    (torch.cat([torch.zeros_like(colour_bars(1)), colour_bars(8) * 255]), r"Frame 2 holds values up to [12]\d\d; "),
], ids=["0..255", "-1..1", "bytes", "0..255 from black"])
def test_frames_of_another_scale(tmp_path: Path, images: torch.Tensor, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        written(tmp_path, images)
    assert list(tmp_path.iterdir()) == []


def test_one_frame_that_overshoots_costs_no_clip(tmp_path: Path) -> None:
    frames = colour_bars(4).clone()
    frames[2, 5, 5] = 3.5
    assert len(read(written(tmp_path, frames))) == 4


@pytest.mark.parametrize("extra", [{"workflow": "text"}, {"workflow": {"nodes": [5, None, {"properties": 3}]}}, {}])
def test_a_token_in_a_graph_of_any_kind(extra: dict[str, Any]) -> None:
    """Clients of the API send what they like beside a graph."""
    graph = {"1": {"inputs": {"seed": 5}}, "2": {"class_type": "Text", "_meta": "x"}, "3": 7}
    assert fill_in("%Text.seed%-%Nobody.seed%", graph, extra, datetime(2026, 3, 5)) == "%Text.seed%-%Nobody.seed%"


def test_what_other_nodes_hand_out_instead(tmp_path: Path) -> None:
    """A muted or bypassed node may hand out nothing at all."""
    mp4 = Mp4(numbered(tmp_path))
    for images in (None, [], "frames"):
        with pytest.raises(RequestError, match="There are no images"):
            save_clip(mp4, images, lambda done, total: None)
    for latent in (None, {}, {"samples": None}, torch.zeros(1)):
        with pytest.raises(RequestError, match="There is no latent"):
            decode_to_mp4(mp4, None, latent, lambda done, total: None)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_while_the_encoder_still_holds_frames(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    done = 0

    def on_frame(count: int, total: int) -> None:
        nonlocal done
        done = count

    def stop() -> None:
        if done == 9:
            raise Stopped

    with pytest.raises(Stopped):
        save_clip(Mp4(numbered(tmp_path)), colour_bars(9), on_frame, stop)
    assert list(tmp_path.iterdir()) == []


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="frames of 3 colours"):
        written(tmp_path, torch.zeros(0, 8, 8, 3))


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"fps": float("nan")}, "fps is nan"), ({"crf": 52.0}, "crf is 52"), ({"codec": "vp9"}, "codec is 'vp9'"),
    ({"codec": "av1", "pix_fmt": "yuv444p"}, "av1 cannot hold yuv444p; choose yuv420p or yuv420p10le"),
    ({"preset": "placebo"}, "preset is 'placebo'")])
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=re.escape(sentence)):
        written(tmp_path / "new", colour_bars(1), **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_another_writer_takes_meanwhile(tmp_path: Path) -> None:
    """Many at once, all told the same free number; each gets a file of its own."""
    start, made, errors = threading.Barrier(6), [], []

    def save(level: float) -> None:
        try:
            start.wait()
            made.append((level, written(tmp_path, torch.full((3, 16, 16, 3), level))))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(n / 10,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len({path for _, path in made}) == 6
    assert len(list(tmp_path.iterdir())) == 6, "no half files"
    for level, path in made:
        assert np.abs(read(path) - level * 255.0).max() <= 2


def test_an_earlier_file_survives(tmp_path: Path) -> None:
    earlier = tmp_path / "1.mp4"
    earlier.write_bytes(b"earlier")
    names = iter([earlier, tmp_path / "2.mp4"])
    mp4 = Mp4(lambda: next(names, tmp_path / "3.mp4"))
    assert save_clip(mp4, colour_bars(1), lambda done, total: None).path != earlier
    with pytest.raises(RequestError, match="There is a file of that name"):
        save_clip(Mp4(lambda: earlier), colour_bars(1), lambda done, total: None)
    assert earlier.read_bytes() == b"earlier"


REPEATED = """
import sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
from pipeline.video.save import Mp4, save_clip
images = torch.rand(18, 3, 8, 12, generator=torch.Generator().manual_seed(1))
images = torch.nn.functional.interpolate(images, scale_factor=8, mode="bilinear").movedim(1, -1)
save_clip(Mp4(lambda: Path({path!r})), images, lambda done, total: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc fills fresh memory on demand")
def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the memory held before (mallopt(3), M_PERTURB)."""
    paths = [tmp_path / f"{filling}.mp4" for filling in (1, 77, 255)]
    for path in paths:
        program = REPEATED.format(root=str(ROOT), path=str(path))
        subprocess.run([sys.executable, "-c", program], check=True, timeout=300,
                       env={**os.environ, "MALLOC_PERTURB_": path.stem})
    assert len({path.read_bytes() for path in paths}) == 1


LIMITED = """
import resource, signal, sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
from pipeline.video.save import Mp4, save_clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save_clip(Mp4(lambda: Path({path!r})), torch.rand(9, 128, 128, 3), lambda done, total: None)
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX's")
@pytest.mark.parametrize("limit", [10, 20_000])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """A limit on file size stands in for the disk: the same write fails in the same place."""
    program = LIMITED.format(root=str(ROOT), limit=limit, path=str(tmp_path / "c.mp4"))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert re.match(r"RequestError .*c\.mp4 could not be written: .*Free some space", run.stdout), run
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="could not be written"):
        written(tmp_path / "file", colour_bars(1))


# ---- names and metadata -----------------------------------------------------------------------------------------

GRAPH = {
    "1": {"class_type": "Wan22Load", "inputs": {"high_noise_expert": "high.gguf", "low_noise_expert": "low.gguf"}},
    "2": {"class_type": "Wan22Sampler", "inputs": {"model": ["1", 0], "seed": 7}, "_meta": {"title": "My sampler"}},
    "3": {"class_type": "Wan22SaveMP4", "inputs": {"images": ["2", 0], "crf": 17.0}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "other.safetensors"}},
}


def test_tokens_in_a_name() -> None:
    now, canvas = datetime(2026, 3, 5, 9, 7, 1), {"workflow": {"nodes": [
        {"id": 2, "properties": {"Node name for S&R": "renamed"}}]}}
    names = {
        "clips/%date:yyyy-MM-dd%/a": "clips/2026-03-05/a", "%date:yy.M.d hhmmss%": "26.3.5 090701",
        "%Wan22Sampler.seed%": "7", "%My sampler.seed%": "7", "%renamed.seed%": "7",
        "%Wan22Load.high_noise_expert%": "high.gguf",
        "%Wan22SaveMP4.crf%": "17",
        "%nobody.seed%": "%nobody.seed%", "%Wan22Sampler.model%": "%Wan22Sampler.model%", "%width%": "%width%",
    }
    assert {name: fill_in(name, GRAPH, canvas, now) for name in names} == names
    graph = {"1": {"class_type": "Text", "inputs": {"text": "../../etc/x"}}}
    assert fill_in("%Text.text%", graph, None, now) == ".._.._etc_x"


@pytest.mark.parametrize("prefix", ["../clip", "a/../../clip", "/tmp/clip", "..\\clip", "C:\\clip", "", "a/.."])
def test_prefixes_that_lead_out(prefix: str) -> None:
    assert "inside ComfyUI's output folder" in name_fault(prefix)
    assert name_fault("wan22/a..b") == ""


def test_a_name_that_no_disk_takes() -> None:
    """A prompt as a part of the name would otherwise be refused once all frames are encoded."""
    graph = {"1": {"class_type": "Text", "inputs": {"text": "grows " * 50}}}
    prefix = fill_in("wan22/%Text.text%", graph, None, datetime(2026, 3, 5))
    assert "300 bytes long; 200 are the most" in name_fault(prefix)
    assert name_fault("\u96ea" * 67) and not name_fault("\u96ea" * 66)
    assert not name_fault("/".join(["a" * 100] * 5))
    for odd in ("a\0b", "a\ud800"):
        assert "no disk takes" in name_fault(odd)
        assert fill_in("%Text.text%", {"1": {"class_type": "Text", "inputs": {"text": odd}}}, None,
                       datetime(2026, 3, 5)) in ("a_b", "a_")


def test_names_as_windows_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 3, 5)
    assert fill_in("wan22/clip:1?", None, None, now) == "wan22/clip:1?"
    monkeypatch.setattr(os, "name", "nt")
    assert fill_in('wan22\\a/cl<i>p:1? %hour%:%minute%"|*', None, None, now) == (
        "wan22\\a/cl_i_p_1_ %hour%_%minute%___")


def test_what_to_do_about_a_file_that_cannot_be_written() -> None:
    advice = {code: advice_on(OSError(code, "")) for code in (errno.ENOSPC, errno.ENAMETOOLONG, errno.EACCES)}
    assert list(advice.values()) == ["Free some space", "Give a shorter or plainer name",
                                     "Give ComfyUI the right to write there"]


def test_a_name_that_the_disk_refuses_is_told_before_the_work(tmp_path: Path) -> None:
    begun = []
    with pytest.raises(OSError, match="too long"), new_file(lambda: tmp_path / f"{'a' * 300}.mp4"):
        begun.append(True)
    assert not begun and not list(tmp_path.iterdir())


def test_what_a_file_says_of_its_making() -> None:
    note = ai_generated(GRAPH, "3")
    assert note["comment"] == "AI-generated video (Wan 2.2 image-to-video: high.gguf, low.gguf; ComfyUI-Wan22)"
    assert note["digital_source_type"].endswith("/trainedAlgorithmicMedia")
    assert ai_generated(None, None)["comment"] == "AI-generated video (Wan 2.2 image-to-video; ComfyUI-Wan22)"
    request = json.loads(request_of(GRAPH, "3")["request"])
    assert request[1:] == [{"node": "Wan22Sampler", "seed": 7}, {"node": "Wan22SaveMP4", "crf": 17.0}]
    assert request_of(None, "3") == {}
