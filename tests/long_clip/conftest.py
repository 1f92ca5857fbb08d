"""The bundled model on plain torch, and a long clip of it that takes a second."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.long_clip.clip import Finished, make_clip
from pipeline.long_clip.folder import SegmentFolder
from pipeline.long_clip.make import LongClip, Prepared, Watch, prepare
from pipeline.lora.bundled import bundled_lora
from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.request import Sampling
from pipeline.segments import FRAMES, Segment
from pipeline.video.encoding import Encoding
from pipeline.video.save import Mp4
from tests.support.pictures import enlarged

WIDTH, HEIGHT, FRAMES_EACH = 48, 32, 9


@pytest.fixture(scope="session")
def loaded() -> tuple:
    """Return the model, its text encoder and its VAE."""
    return bundled.load(plain_host())


@pytest.fixture(scope="session")
def picture() -> torch.Tensor:
    """Soft coloured blobs, IMAGE (1, 40, 60, 3)."""
    return enlarged(torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(3)), 40, 60)


@pytest.fixture(scope="session")
def clip(picture: torch.Tensor) -> LongClip:
    """Three segments, 17 frames, of one step of each expert."""
    segments = tuple(Segment("the camera pans left", seed, FRAMES_EACH) for seed in (1, 2, 3))
    return LongClip(picture, segments, WIDTH, HEIGHT, Sampling(0, num_inference_steps=2), way=FRAMES, cross_fade=2)


class Maker:
    """Makes long clips into a folder, each file beside the others."""

    def __init__(self, loaded: tuple, base: Path) -> None:
        self.loaded, self.base = loaded, base
        self.folder = SegmentFolder(base / "segments")

    def prepared(self, clip: LongClip, stop: Callable[[], None], encoding: Encoding) -> Prepared:
        return prepare(clip, *self.loaded, encoding, bundled_lora, _no_fetch, Watch(stop))

    def __call__(self, clip: LongClip, stop: Callable[[], None] = lambda: None, encoding: Encoding | None = None,
                 **mp4: Any) -> Finished:
        encoding = encoding or Encoding()
        number = len(list(self.base.glob("*.mp4")))
        target = Mp4(lambda: self.base / f"clip_{number}.mp4", encoding, **mp4)
        return make_clip(self.prepared(clip, stop, encoding), self.folder, target, stop)

    def files(self) -> dict[str, bytes]:
        """Return the content of every file of the segments, and of the clip so far."""
        return {file.name: file.read_bytes() for file in sorted(self.folder.path.glob("[0-9s]*"))}


def _no_fetch(*_: object) -> Path:
    raise AssertionError("no LoRA is to be fetched")


@pytest.fixture
def make(loaded: tuple, tmp_path: Path) -> Maker:
    """Return a maker with an empty folder."""
    return Maker(loaded, tmp_path)


@pytest.fixture(scope="session")
def whole(loaded: tuple, clip: LongClip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Maker, Finished]:
    """The clip as it is made when nothing goes wrong."""
    maker = Maker(loaded, tmp_path_factory.mktemp("whole"))
    return maker, maker(clip)


@pytest.fixture
def copied(make: Maker, whole: tuple[Maker, Finished]) -> Maker:
    """Return a maker with a copy of the clip's folder."""
    shutil.copytree(whole[0].folder.path, make.folder.path)
    return make


def with_segment(clip: LongClip, place: int, **changes: Any) -> LongClip:
    """Return the clip with one segment, by its place from 1, changed."""
    segments = [replace(segment, **changes) if number == place else segment
                for number, segment in enumerate(clip.segments, 1)]
    return replace(clip, segments=tuple(segments))
