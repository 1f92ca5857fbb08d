"""Stop: wherever a run is, it ends within one step, reads "cancelled", leaves no file, and the next one works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Event, Run, added, changed, clip_workflow, sample_picture


class StopWhen:
    """Stops the run that it listens to at the first message of a kind about a node; counts the steps after that.

    For progress, the first message with at least `value`. Counting starts at the server's next status: when the stop
    was answered, messages of earlier steps may still be on their way.
    """

    def __init__(self, stop: Callable[[], None], kind: str, node: str, value: int = 0) -> None:
        self._stop, self._kind, self._node, self._value = stop, kind, node, value
        self.stopped = self._counting = False
        self.steps_after = 0

    def __call__(self, event: Event) -> None:
        data = event.data
        if self._counting:
            self.steps_after += event.kind == "progress"
        elif self.stopped:
            self._counting = event.kind == "status"
        elif event.kind == self._kind and data["node"] == self._node and data.get("value", 0) >= self._value:
            self._stop()
            self.stopped = True


def files_in(comfy: ComfyClient) -> set[Path]:
    """Every file in the output folder, hidden and unfinished ones too."""
    return {path for path in (comfy.server.base / "output").rglob("*") if path.is_file()}


def stopped_run(comfy: ComfyClient, graph: Workflow, way: str, kind: str, node: str, value: int = 0,
                ) -> tuple[Run, StopWhen]:
    """Run a graph, stop it at a message, and check what holds wherever it was stopped."""
    before = files_in(comfy)
    prompt_id = comfy.submit(graph)

    def stop_it() -> None:
        comfy.interrupt() if way == "interrupt" else comfy.cancel(prompt_id)
        comfy.post("/queue", {"clear": True}, parse=False)  # nothing waits: this only makes the server send its status

    stop = StopWhen(stop_it, kind, node, value)
    run = comfy.follow(prompt_id, stop)
    assert stop.stopped, f"{node} gave no {kind} message"
    assert run.outcome == "execution_interrupted", run.events[-1]
    assert comfy.job(prompt_id)["status"] == "cancelled"
    assert files_in(comfy) == before
    return run, stop


@pytest.fixture
def long_clip(picture: str) -> Workflow:
    """A clip whose steps take far longer than a request to stop."""
    return clip_workflow(picture, 128, 128, num_frames=33, steps=50)


@pytest.mark.parametrize("way", ["cancel", "interrupt"])
def test_stop_while_sampling(comfy: ComfyClient, long_clip: Workflow, clip: Workflow, way: str):
    seed = {"cancel": 101, "interrupt": 102}[way]
    run, stop = stopped_run(comfy, changed(long_clip, "sampler", seed=seed), way, "progress", "sampler", 2)
    assert stop.steps_after <= 1
    assert run.progress("sampler")[-1][0] < 50
    assert run.executed[-1] == "sampler"
    after = comfy.finish(changed(clip, "sampler", seed=seed))
    assert after.executed[-3:] == ["sampler", "decode", "save"]
    assert len(comfy.files(after, "save")) == 1


def test_stop_while_the_low_noise_expert_samples(comfy: ComfyClient, long_clip: Workflow):
    # From the second step on.
    graph = changed(long_clip, "sampler", boundary=1.0, seed=103)
    run, stop = stopped_run(comfy, graph, "cancel", "progress", "sampler", 2)
    assert run.texts("sampler")[0].startswith("steps 1-1 high-noise, 2-50 low-noise\n")
    assert stop.steps_after <= 1 and run.executed[-1] == "sampler"


def test_stop_while_decoding(comfy: ComfyClient, clip: Workflow):
    # Core's empty latents instead of a clip, so that there is no sampler to wait for.
    graph = added({node: clip[node] for node in ("load", "decode", "save")}, "latents", "EmptyHunyuanLatentVideo",
                  width=128, height=128, length=17, batch_size=1)
    graph = changed(graph, "decode", latent=["latents", 0])
    run, stop = stopped_run(comfy, graph, "cancel", "progress", "decode")
    assert stop.steps_after <= 1 and run.executed[-1] == "decode"
    assert run.progress("decode")[-1][0] < 17


def test_stop_while_writing(comfy: ComfyClient, clip: Workflow):
    frames, enough = 4000, 300  # the encoder looks ahead: nothing is on the disk before some dozen frames
    graph = added({"save": clip["save"], "picture": clip["picture"]}, "batch", "RepeatImageBatch",
                  image=["picture", 0], amount=frames)
    graph = changed(graph, "picture", image=comfy.upload("frame", sample_picture(96, 96, seed=1)))
    graph = changed(graph, "save", images=["batch", 0], filename_prefix="stopped/clip")
    run, stop = stopped_run(comfy, graph, "cancel", "progress", "save", enough)
    assert stop.steps_after <= 1
    assert enough <= run.progress("save")[-1][0] < frames
    again = comfy.finish(changed(graph, "batch", amount=5))
    assert len(comfy.files(again, "save")) == 1


def test_a_run_that_waits_is_taken_out_of_the_queue(comfy: ComfyClient, long_clip: Workflow, clip: Workflow):
    first = comfy.submit(changed(long_clip, "sampler", seed=104))
    waiting = comfy.submit(changed(clip, "sampler", seed=105))
    comfy.cancel(waiting)
    run = comfy.follow(first, StopWhen(lambda: comfy.cancel(first), "progress", "sampler"))
    assert run.outcome == "execution_interrupted"
    after = comfy.finish(changed(clip, "sampler", seed=105))
    assert "sampler" in after.executed, "the run that was taken out has run nevertheless"
