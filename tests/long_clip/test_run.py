"""A long clip made by the bundled model: equal to its parts, to itself after any stop, safe from faults."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.long_clip.clip import Finished
from pipeline.long_clip.frames import Colours
from pipeline.long_clip.make import LongClip, _encode_with
from pipeline.long_clip.run import read_end, read_latents
from pipeline.models.condition import encode_first_frame
from pipeline.models.extension import frames_condition, svi_condition
from pipeline.models.host import PlainResident
from pipeline.models.text_encoder import encode_prompts
from pipeline.models.vae import WanVAE
from pipeline.quality.lab import mean_lab
from pipeline.request import AUTO, Lora, RequestError
from pipeline.sampling.sampler import sample
from pipeline.segments import LAST_FRAME, SVI
from pipeline.video.cross_fade import cross_fade
from pipeline.video.encoding import Encoding
from pipeline.video.join_settings import OFF
from pipeline.video.mp4_writer import write_mp4
from tests.long_clip.conftest import FRAMES_EACH, HEIGHT, WIDTH, Maker, with_segment
from tests.support.lora_files import DRAIN

LOSSLESS = Encoding(crf=0)


class StopNowError(Exception):
    """As ComfyUI's interrupt."""


class StopAt:
    """A stop that is asked for at the n-th time that the work looks."""

    def __init__(self, number: float) -> None:
        self.number, self.asked = number, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > self.number:
            raise StopNowError


def pixels_of(path: Path) -> list[bytes]:
    """Return the Y'CbCr samples of every frame."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def latents_of(finished: Finished) -> list[torch.Tensor]:
    return [read_latents(files.latents) for files in finished.segments]


# ---- equal to its parts ------------------------------------------------------------------------------------------


def test_one_segment_is_a_clip_of_the_plain_sampler(loaded: tuple, clip: LongClip, make: Maker, tmp_path: Path) -> None:
    clip = replace(clip, segments=clip.segments[1:2])
    made = make(clip, encoding=LOSSLESS)
    model, encoder, vae = loaded
    first = encode_first_frame(vae, clip.image, WIDTH, HEIGHT, FRAMES_EACH)
    texts = encode_prompts(encoder, clip.segments[0].prompt, "")
    plain = sample(model, *texts, first, replace(clip.sampling, seed=2))
    assert torch.equal(latents_of(made)[0], plain)
    frames = write_mp4(lambda: tmp_path / "plain.mp4", [vae.decode(plain)[0]], LOSSLESS, {})
    assert pixels_of(made.written.path) == pixels_of(frames.path)
    assert made.written.clip == frames.clip


def test_later_segments_go_on_from_the_frames_before_and_fade(loaded: tuple, clip: LongClip, make: Maker,
                                                              tmp_path: Path) -> None:
    """Without colour matching, so that every frame is the decoder's own."""
    clip = replace(clip, segments=clip.segments[:2], colours=Colours(1.0, OFF))
    made = make(clip, encoding=LOSSLESS)
    model, encoder, vae = loaded
    before, after = (vae.decode(latents)[0] for latents in latents_of(made))
    known = frames_condition(vae, before[-5:], FRAMES_EACH)
    texts = encode_prompts(encoder, clip.segments[1].prompt, "")
    assert torch.equal(latents_of(made)[1], sample(model, *texts, known, replace(clip.sampling, seed=2)))
    joined = torch.cat([before[:-2], cross_fade(before[-2:], after[3:5]), after[5:]])
    expected = write_mp4(lambda: tmp_path / "joined.mp4", [joined], LOSSLESS, {})
    assert pixels_of(made.written.path) == pixels_of(expected.path)
    assert made.written.clip.frames == len(joined) == 9 + 4


def test_svi_goes_on_from_the_last_latent(loaded: tuple, clip: LongClip, make: Maker) -> None:
    clip = replace(clip, segments=clip.segments[:2], way=SVI)
    made = make(clip)
    model, encoder, vae = loaded
    first, second = latents_of(made)
    anchor = encode_first_frame(vae, clip.image, WIDTH, HEIGHT, FRAMES_EACH).latents[:, :, :1]
    texts = encode_prompts(encoder, clip.segments[1].prompt, "")
    for latents, last, seed in ((first, None, 1), (second, first[:, :, -1:], 2)):
        known = svi_condition(anchor, last, FRAMES_EACH)
        assert torch.equal(latents, sample(model, *texts, known, replace(clip.sampling, seed=seed)))
    assert any("no LoRA pair with SVI in its names" in line for line in made.report)


def test_colours_are_matched_to_the_frame_before_the_joint(loaded: tuple, clip: LongClip, make: Maker) -> None:
    vae = loaded[2]
    clip = replace(clip, segments=clip.segments[:2], cross_fade=0)
    made = make(clip)
    decoded = vae.decode(latents_of(made)[1])[0]
    before, after = (read_end(files.end).tail for files in made.segments[:2])
    reference, *matched = mean_lab(torch.stack([before[-1], after[0], after[1]]))
    own = mean_lab(decoded[4:6])
    for name, shown, unmatched in zip(("the last known frame", "the first new one"), matched, own, strict=True):
        apart = (unmatched - reference).norm()
        assert apart > 0.2 and (shown - reference).norm() < apart / 4, name
    new_shot = make(with_segment(clip, 2, new_shot=True))
    assert torch.equal(read_end(new_shot.segments[1].end).tail, decoded[-len(after) :])


# ---- stopped and gone on with ------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits(clip: LongClip, whole: tuple[Maker, Finished],
                                                                make: Maker) -> None:
    """Stopped in every segment, in sampling, decoding and writing alike, each time a little later."""
    unbroken, expected = whole
    kept = []
    for number in range(3, 200, 5):
        try:
            finished = make(clip, StopAt(number))
            break
        except StopNowError:
            found = {name: content for name, content in make.files().items() if name != "so_far.mp4"}
            assert found.items() <= unbroken.files().items()
            kept.append(len(found))
    assert len(set(kept)) >= 4, kept
    assert make.files() == unbroken.files()
    assert digest(finished.written.path) == digest(expected.written.path)
    assert "Segment 1 (9 frames): taken from the disk." in finished.report


def test_what_is_there_is_not_made_again(clip: LongClip, whole: tuple[Maker, Finished], copied: Maker) -> None:
    again = copied(clip, StopAt(12))  # far fewer than one segment asks
    assert digest(again.written.path) == digest(whole[1].written.path)
    assert sum("taken from the disk" in line for line in again.report) == 3


def test_a_change_makes_anew_what_follows_and_leaves_the_rest(clip: LongClip, whole: tuple[Maker, Finished],
                                                              copied: Maker) -> None:
    def latents(made: Finished) -> list[str]:
        return [files.latents.name for files in made.segments]

    before = copied.files()
    changed = copied(with_segment(clip, 2, prompt="the camera pans right"))
    assert before.items() <= copied.files().items(), "nothing of another run is overwritten"
    assert latents(changed)[0] == latents(whole[1])[0]
    assert not set(latents(changed)[1:]) & set(latents(whole[1]))
    assert "6 of its files are of other settings" in changed.report[-1]
    other_file = copied(clip, encoding=Encoding(crf=30))
    assert latents(other_file) == latents(whole[1])
    assert sum("decoded again" in line for line in other_file.report) == 3
    assert latents(copied(replace(clip, segments=clip.segments[:2], way=LAST_FRAME)))[0] == latents(whole[1])[0]


@pytest.mark.parametrize(("suffix", "damage"), [(".latent", "deleted"), (".latent", "changed"),
                                                (".end.safetensors", "cut"), (".mp4", "deleted"), (".mp4", "changed")])
def test_a_file_that_is_damaged_or_gone_is_made_anew(clip: LongClip, copied: Maker, whole: tuple[Maker, Finished],
                                                     suffix: str, damage: str) -> None:
    whole_files = copied.files()
    (file,) = copied.folder.path.glob(f"002_*{suffix}")
    content = bytearray(file.read_bytes())
    if damage == "deleted":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[-9] ^= 1
        file.write_bytes(content)
    again = copied(clip)
    assert copied.files() == whole_files
    assert digest(again.written.path) == digest(whole[1].written.path)
    told = [line for line in again.report if "is damaged" in line]
    assert told == ([] if damage == "deleted" else [
        f"Segment 2: {file.name} is damaged: its content is not what its name says. It was made anew."])


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to let files grow beyond that many bytes, as a full disk does."""
    import resource

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_costs_nothing_that_is_finished(clip: LongClip, make: Maker, whole: tuple[Maker, Finished]) -> None:
    unbroken, expected = whole
    with no_file_larger_than(50_000), pytest.raises(RequestError) as caught:  # latents fit, the last frames do not
        make(clip)
    assert str(caught.value).startswith(f"Segment 1 could not be written to {make.folder.path}: File too large. Free "
                                        "some space, and run the same again: what is finished is kept")
    kept = make.files()
    assert sorted(Path(name).suffix for name in kept) == [".latent", ".mp4"]
    finished = make(clip)
    assert kept.items() <= make.files().items() and make.files() == unbroken.files()
    assert digest(finished.written.path) == digest(expected.written.path)
    assert "Segment 1 (9 frames): decoded again." in finished.report


def test_what_cannot_be_written_is_found_before_anything_is_made(clip: LongClip, make: Maker) -> None:
    asked = StopAt(float("inf"))
    make.folder.path.write_text("a file")
    with pytest.raises(RequestError, match="There is a file where a folder has to be: move it away"):
        make(clip, asked)
    make.folder.path.unlink()
    with pytest.raises(RequestError, match="has 3 channels"):
        make(clip, asked, audio={"waveform": torch.rand(1, 3, 48000), "sample_rate": 48000})
    assert asked.asked == 0 and not list(make.base.rglob("*.*"))


def test_the_clip_so_far_is_needed_by_nothing(clip: LongClip, make: Maker, whole: tuple[Maker, Finished]) -> None:
    """A player on Windows may hold it."""
    so_far = make.folder.path / "so_far.mp4"
    (so_far / "held").mkdir(parents=True)
    made = make(clip)
    assert digest(made.written.path) == digest(whole[1].written.path)
    assert sum(line.startswith("so_far.mp4 could not be written behind segment") for line in made.report) == 2


def test_another_encoder_is_told_of_and_never_mixed_in(clip: LongClip, make: Maker) -> None:
    hevc = Encoding(codec="hevc", preset="ultrafast")  # x265 takes nothing as narrow as this clip
    made = make(replace(clip, segments=clip.segments[:1]), encoding=hevc)
    assert made.written.clip.codec == "h264" and "so libx264 wrote the file instead." in made.report[0]
    with pytest.raises(RequestError, match="Run the same again: nothing is sampled twice"):
        _encode_with(hevc, "", lambda: None)(iter([torch.zeros(1, HEIGHT, WIDTH, 3)]), make.base / "piece.mp4")


class Device(PlainResident):
    """A CPU with so many bytes free."""

    free = 2**33

    def available_bytes(self) -> int:
        return self.free


def test_less_memory_later_changes_no_bit(loaded: tuple, clip: LongClip, make: Maker, tmp_path: Path) -> None:
    model, encoder, vae = loaded
    device = Device(vae.resident.module, vae.resident.device)
    wide = replace(clip, segments=clip.segments[:2], width=304, height=32)
    make.loaded = (model, encoder, WanVAE(device, vae.dtype))
    device.free = 20 * 2**20  # two tiles
    made = make(wide)
    other, fresh = (Maker(make.loaded, tmp_path / name) for name in ("other", "fresh"))
    for maker in (other, fresh):
        maker.base.mkdir()
    stop = StopAt(20)
    with pytest.raises(StopNowError):
        other(wide, stop)
    device.free = 2**33
    assert "Segment 1 (9 frames): taken from the disk." in (resumed := other(wide)).report
    assert digest(made.written.path) == digest(resumed.written.path)
    assert digest(fresh(wide).written.path) != digest(made.written.path), "tiles make no difference"
    device.free = 2**24
    assert not any("less memory free" in line for line in resumed.report)
    assert any("less memory free" in line for line in fresh(replace(wide, cross_fade=0)).report)


# ---- the whole ---------------------------------------------------------------------------------------------------


def test_the_file_has_its_metadata_its_sound_and_every_frame(clip: LongClip, copied: Maker) -> None:
    sound = {"waveform": torch.rand(1, 2, 48000 * 5), "sample_rate": 48000}
    made = copied(clip, metadata={"comment": "AI-generated"}, audio=sound)
    with av.open(str(made.written.path)) as container:
        assert container.metadata["comment"] == "AI-generated"
        video, audio = container.streams.video[0], container.streams.audio[0]
        packets = [packet for packet in container.demux(video) if packet.pts is not None]
        assert sorted(packet.pts * packet.time_base * 16 for packet in packets) == list(range(17))
        assert all(a.dts < b.dts for a, b in itertools.pairwise(packets))
        assert float(audio.duration * audio.time_base) == pytest.approx(17 / 16, abs=0.03)
        content = made.written.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "a browser could not play it while it loads"
    assert not (copied.folder.path / "so_far.mp4").exists()


@pytest.mark.parametrize(("codec", "count", "frames"), [("hevc", 1, 9), ("av1", 2, 13)])
def test_pieces_of_other_codecs_fit_together(clip: LongClip, make: Maker, codec: str, count: int, frames: int) -> None:
    wide = replace(clip, segments=clip.segments[:count], width=64)  # x265 takes no narrower ones
    made = make(wide, encoding=Encoding(codec=codec, preset="ultrafast"))
    assert len(pixels_of(made.written.path)) == frames
    facts = made.written.clip
    with av.open(str(made.written.path)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == facts.codec
        if facts.codec == "hevc":
            assert container.streams.video[0].codec_context.codec_tag == "hvc1", "Apple's players know no other"


def test_a_loop_ends_where_it_began(loaded: tuple, clip: LongClip, make: Maker, whole: tuple[Maker, Finished],
                                    ) -> None:
    looped = make(replace(clip, loop=True), encoding=LOSSLESS)
    assert looped.written.clip.frames == 16
    last = loaded[2].decode(latents_of(looped)[-1])[0]
    first = loaded[2].decode(latents_of(looped)[0])[0, 0]
    plain = loaded[2].decode(latents_of(whole[1])[-1])[0]
    assert (last[-1] - first).abs().mean() < (plain[-1] - first).abs().mean()


def test_each_segment_has_its_own_loras_and_all_are_checked_first(clip: LongClip, make: Maker,
                                                                  whole: tuple[Maker, Finished]) -> None:
    pair = tuple(Lora(DRAIN[expert].name, 1.0, expert)
                 for expert in ("high", "low"))
    plain = latents_of(whole[1])
    made = make(with_segment(replace(clip, segments=clip.segments[:2]), 2, loras=pair))
    found = latents_of(made)
    assert torch.equal(found[0], plain[0]) and not torch.equal(found[1], plain[1])
    assert sum("drain_colours" in line and "keys" in line for line in made.report) == 2
    asked = StopAt(float("inf"))
    with pytest.raises(RequestError, match=r"There is no 'gone\.safetensors' in the loras folder"):
        make(with_segment(with_segment(clip, 1, seed=99), 3, loras=(Lora("gone.safetensors"),)), asked)
    assert asked.asked == 0, "it was found out before anything was sampled"


@pytest.mark.parametrize(("changes", "said"), [
    ({"cross_fade": 7}, "cross_fade is 7"),
    ({"way": "backwards"}, "way is 'backwards'"),
    ({"loop": True, "last_image": torch.zeros(1, 64, 64, 3)}, "There is a last_image, and loop is on"),
    ({"image": torch.zeros(2, 64, 64, 3)}, "The image is a batch of 2 pictures"),
    ({"width": 50}, "width is 50 pixels; Wan 2.2 needs a multiple of 16"),
    ({"colours": Colours(1.5)}, "colour_strength is 1.5; choose 0 to 1."),
    ({"colours": Colours(1.0, "never")}, "match_colours is 'never'; choose one of"),
    ({"way": AUTO, "known_frames": 7}, "known_frames is 7; choose one of 5, 9, 13."),
])
def test_what_is_refused_before_anything_is_made(clip: LongClip, make: Maker, changes: dict, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        make(replace(clip, **changes))
    assert str(caught.value).startswith(said)
    assert not make.folder.path.exists()


def test_ways_are_chosen_by_what_is_there(clip: LongClip, make: Maker) -> None:
    auto = make(replace(clip, segments=clip.segments[:2], way=AUTO))
    assert any("going on by frames" in line for line in auto.report)
    last = make(replace(clip, segments=clip.segments[:2], way=LAST_FRAME))
    assert any("going on by last frame: 17 frames" in line for line in last.report)
    assert np.isfinite(next(iter(last.seams.values())).ratio)
