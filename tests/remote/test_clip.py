"""A provider's clip as the nodes hand it on: cut where that was asked for, and said when the disk refuses the cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.http.policy import JobTimeouts, Policy
from pipeline.remote.clip import _hand_over
from pipeline.remote.context import RemoteContext
from pipeline.remote.job import Job, JobState
from pipeline.remote.keys import KeyStore
from pipeline.remote.ledger import Ledger
from pipeline.remote.plan import TRIM
from pipeline.remote.providers import PROVIDERS
from pipeline.remote.run import FinishedClip
from pipeline.request import RequestError
from pipeline.video.probe import probe_video
from pipeline.video.save import Mp4, save_clip


@pytest.fixture
def delivery(tmp_path: Path) -> FinishedClip:
    """Nine frames, of a job that asked for five."""
    results = tmp_path / "results"
    results.mkdir()
    path = results / "clip.mp4"
    save_clip(Mp4(lambda: path), torch.rand(9, 32, 32, 3), lambda done, total: None)
    name, provider = next(iter(PROVIDERS.items()))
    return FinishedClip(Job("0123456789", name, provider.models[0].id, "default", "0", JobState.DONE), path, ())


@pytest.fixture
def context(tmp_path: Path) -> RemoteContext:
    return RemoteContext(Ledger(tmp_path), KeyStore(tmp_path / "keys.json"), Policy(offline=True), JobTimeouts(),
                         tmp_path / "results", show_text=lambda text: None, stop=lambda: None, check_clip=probe_video)


def test_a_longer_clip_is_cut_and_the_whole_one_kept(delivery: FinishedClip, context: RemoteContext) -> None:
    for _ in range(2):
        path, _ = _hand_over(delivery, 5, TRIM, context)
        assert path.name == "clip_5frames.mp4"
        assert (probe_video(path).frames, probe_video(delivery.path).frames) == (5, 9)


def test_a_disk_that_does_not_take_the_cut_clip(delivery: FinishedClip, context: RemoteContext) -> None:
    """The clip is paid for: what is said names where it is, and that running again buys nothing."""
    delivery.path.with_name("clip_5frames.mp4").mkdir()
    with pytest.raises(RequestError, match=r"could not be written: .*The whole clip is in .*nothing is bought"):
        _hand_over(delivery, 5, TRIM, context)
    assert probe_video(delivery.path).frames == 9
