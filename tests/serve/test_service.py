"""Predictions through every way to their end: submitted, run, cancelled, deleted, and over kills at any moment."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from PIL import Image

from pipeline.graph.run import RunEnd
from pipeline.notify.notifier import Notifier, callback_secret
from pipeline.notify.outbox import Outbox
from pipeline.remote.keys import KeyStore
from pipeline.remote.signatures import read_secret
from pipeline.serve import api, settings_page
from pipeline.serve.errors import ApiError
from pipeline.serve.order import MOST_FAULTS, read_form
from pipeline.serve.status import CANCELLED, COMPLETED, FAILED, OPEN, QUEUED, RUNNING
from pipeline.serve.uploads import Upload
from tests.support.run_queue import Machine, failed

KEY, BASE = "shop", "http://127.0.0.1:8188"


def picture(width: int = 64, height: int = 48, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return file.getvalue()


def body(machine: Machine, **fields: object) -> bytes:
    """A request with an uploaded picture."""
    image = machine.service.uploads.add_picture(KEY, picture()).name
    return json.dumps({"image": image, "prompt": "it turns blue", **fields}).encode()


def submitted(machine: Machine, idempotency: str | None = None, **fields: object) -> str:
    return api.submit(machine.service, KEY, body(machine, **fields), idempotency, BASE).id


def status(machine: Machine, name: str) -> str:
    return api.get(machine.service, KEY, name).status


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def code(error: pytest.ExceptionInfo[ApiError]) -> str:
    return error.value.code


def test_a_clip_from_request_to_file(machine: Machine) -> None:
    first, second = (submitted(machine, num_frames=5, seed=place) for place in range(2))
    places = [api.shown(machine.service, api.get(machine.service, KEY, name))["queue_position"]
              for name in (first, second)]
    assert places == [0, 1]
    assert machine.runs.begin() == first
    machine.runs.steps = (3, 10)
    machine.service.look()
    found = api.shown(machine.service, api.get(machine.service, KEY, first))
    assert found["status"] == RUNNING and found["progress"] == {"step": 3, "steps": 10, "seconds_left": None}
    with pytest.raises(ApiError) as error:
        api.result(machine.service, KEY, first)
    assert code(error) == "not_completed"
    machine.runs.finish()
    machine.service.look()
    assert status(machine, first) == COMPLETED and status(machine, second) == QUEUED
    assert api.result(machine.service, KEY, first).read_bytes() == b"clip"
    (link,) = api.shown(machine.service, api.get(machine.service, KEY, first))["outputs"]
    assert link.startswith(f"{BASE}/wan22/api/v1/files/{first}/clip.mp4?expires=")


def test_the_last_picture_and_the_steps_of_a_lora_are_in_the_graph(machine: Machine) -> None:
    """Also after a restart; and a picture that a request leaves out is not in it."""
    uploads = machine.service.uploads
    last, lora = uploads.add_picture(KEY, picture(48, 64)), f"upload:{'a' * 64}"
    machine.folders.loras.mkdir()
    (machine.folders.loras / f"{'a' * 64}.safetensors").write_bytes(b"x")
    uploads.record(KEY, Upload("a" * 64, "lora", 1, f"{'a' * 64}.safetensors"))
    steps = {"start_percent": 0.25, "end_percent": 0.75, "fade_in": 0.5, "fade_out": 0.5}
    name = submitted(machine, last_image=last.name, loras=[{"url": lora, "min_match": 0.3, **steps}])
    plain = submitted(machine)
    machine.restart()
    (_, _, graph), (_, _, other) = machine.runs.waiting
    by_type = {node["class_type"]: node["inputs"] for node in graph.values()}
    node, output = by_type["Wan22FirstFrame"]["last_image"]
    assert graph[node]["inputs"] == {"image": f"wan22/api/{last.file}"} and output == 0
    assert by_type["Wan22FirstFrame"]["image"][0] != node
    assert {"min_match": 0.3, **steps}.items() <= by_type["Wan22Lora"].items()
    asked = api.shown(machine.service, api.get(machine.service, KEY, name))["request"]
    assert asked["last_image"] == last.name and {"min_match": 0.3, **steps}.items() <= asked["loras"][0].items()
    assert "last_image" not in str(other)
    assert api.shown(machine.service, api.get(machine.service, KEY, plain))["request"]["last_image"] is None


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_names_no_file(field: str, machine: Machine) -> None:
    with pytest.raises(ApiError, match="a file on this machine") as error:
        submitted(machine, **{field: "it turns blue, embedding:../mine"})
    assert error.value.fields.keys() == {field}


def test_a_picture_that_is_missing_is_named(machine: Machine) -> None:
    with pytest.raises(ApiError) as error:
        submitted(machine, last_image=f"upload:{'0' * 64}", loras=[{"url": f"upload:{'1' * 64}", "start_percent": 1.0}])
    assert error.value.fields.keys() == {"last_image", "loras.0.url", "loras.0"}


def test_the_same_idempotency_key_makes_one_clip(machine: Machine) -> None:
    first = submitted(machine, "order-1", seed=1)
    assert submitted(machine, "order-1", seed=1) == first and len(machine.runs.waiting) == 1
    with pytest.raises(ApiError) as error:
        submitted(machine, "order-1", seed=2)
    assert code(error) == "idempotency_conflict"
    machine.restart()
    assert submitted(machine, "order-1", seed=1) == first and len(machine.runs.waiting) == 1


def test_a_key_has_so_many_at_one_time(machine: Machine) -> None:
    (machine.folders.own / "api.json").write_text('{"queue": 2}')
    names = [submitted(machine), submitted(machine)]
    with pytest.raises(ApiError) as error:
        submitted(machine)
    assert code(error) == "queue_full" and error.value.headers["Retry-After"]
    api.cancel(machine.service, KEY, names[0])
    submitted(machine)


def test_what_comfyui_refuses_is_refused_at_once(machine: Machine) -> None:
    machine.runs.refusal = f"The LoRA's file is not here: {machine.folders.loras.parent}/loras/mine.safetensors."
    with pytest.raises(ApiError) as error:
        submitted(machine)
    assert code(error) == "invalid_request" and "mine" in error.value.message
    assert str(machine.base) not in error.value.message
    assert api.listed(machine.service, KEY, {}) == {"predictions": [], "next": None}


@pytest.mark.parametrize(("end", "told"), [
    (failed("custom_nodes.pack.pipeline.request.RequestError", "The prompt is 600 tokens long."), "600 tokens"),
    (failed("builtins.RuntimeError", "/home/me/secret.py went wrong"), "(RuntimeError)"),
    (failed("a.CheckpointError", "https://x.example/l.safetensors?token=geheim has no LoRA"), "l.safetensors has no"),
    (RunEnd(), "without a clip")])
def test_why_a_clip_failed_is_told_without_secrets(machine: Machine, end: RunEnd, told: str) -> None:
    name = submitted(machine)
    machine.runs.begin()
    machine.runs.finish(end)
    machine.service.look()
    found = api.shown(machine.service, api.get(machine.service, KEY, name))
    assert found["status"] == FAILED and told in found["error"]["message"] and found["error"]["code"] == "failed"
    assert "geheim" not in str(found) and "/home" not in str(found)


def test_folders_of_the_machine_are_not_told(machine: Machine) -> None:
    name = submitted(machine)
    machine.runs.begin()
    machine.runs.finish(failed("a.RequestError", f"The file {machine.folders.outputs}/x.mp4 cannot be made."))
    machine.service.look()
    assert api.get(machine.service, KEY, name).error == "The file output/x.mp4 cannot be made."


def test_the_end_and_its_callback_are_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notifier, "wake_workers", lambda notifier: None)  # else it is sent at once
    made = machine.service.keys.make(KEY)
    name = submitted(machine, callback_url="https://shop.example/done")
    machine.runs.begin()
    machine.runs.finish()
    machine.service.look()
    machine.restart()
    machine.service.look()
    outbox = Outbox(machine.folders.own, lambda: machine.clock[0])
    message = outbox.claim()
    assert outbox.claim() is None and message.to.url == "https://shop.example/done" and message.to.signed
    assert callback_secret(KeyStore(machine.folders.own / "keys.json"), message.to.profile) == read_secret(
        made.callback_secret)
    event = json.loads(message.body)
    assert event["type"] == "clip.done" and event["data"]["id"] == name and event["data"]["outputs"]


def test_a_run_that_somebody_takes_off_the_queue_is_cancelled(machine: Machine) -> None:
    name = submitted(machine)
    machine.runs.waiting.clear()
    machine.service.look()
    found = api.shown(machine.service, api.get(machine.service, KEY, name))
    assert found["status"] == CANCELLED and found["error"]["code"] == "removed"


def test_a_body_of_a_million_parts_costs_nothing() -> None:
    """Unrefused, its faults took 1.5 GB and made an answer of 80 MB."""
    for many in (b"{" + b",".join(b'"%d":0' % place for place in range(200_000)) + b"}",
                 b'{"image": [' + b"{}," * 200_000 + b"{}]}"):
        with pytest.raises(ApiError, match="more parts than") as error:
            read_form(many)
        assert code(error) == "bad_request"
    with pytest.raises(ApiError) as error:
        read_form(json.dumps({str(place): 0 for place in range(1000)}).encode())
    assert len(error.value.fields) == MOST_FAULTS
    longest = "," * 10_000
    assert read_form(json.dumps({"image": "https://a.example/" + "," * 4000, "prompt": longest, "negative_prompt":
                                 longest, "loras": [{"url": "https://a.example/" + "," * 4000}] * 8}).encode())


def test_other_keys_see_nothing(machine: Machine) -> None:
    name = submitted(machine)
    upload = api.get(machine.service, KEY, name).order.image
    for ask in (api.get, api.cancel, api.delete, api.result):
        with pytest.raises(ApiError) as error:
            ask(machine.service, "other", name)
        assert code(error) == "not_found"
    with pytest.raises(ApiError) as error:
        api.uploaded(machine.service, "other", upload.removeprefix("upload:"))
    assert code(error) == "not_found"
    assert api.listed(machine.service, "other", {})["predictions"] == []
    with pytest.raises(ApiError) as error:
        api.submit(machine.service, "other", json.dumps({"image": upload, "prompt": "a"}).encode(), None, BASE)
    assert error.value.fields.keys() == {"image"}


def test_pages(machine: Machine) -> None:
    names = [submitted(machine, seed=place) for place in range(5)][::-1]
    api.cancel(machine.service, KEY, names[1])
    seen, before = [], None
    while True:
        page = api.listed(machine.service, KEY, {"limit": "2"} | ({"before": before} if before else {}))
        seen += [one["id"] for one in page["predictions"]]
        if (before := page["next"]) is None:
            break
    assert seen == names
    found = api.listed(machine.service, KEY, {"status": CANCELLED})["predictions"]
    assert [one["id"] for one in found] == [names[1]]


def test_what_is_old_is_deleted_and_what_is_needed_is_not(machine: Machine) -> None:
    done = submitted(machine)
    machine.runs.begin()
    machine.runs.finish()
    machine.service.look()
    waiting = submitted(machine)
    clip, image = api.result(machine.service, KEY, done), api.get(machine.service, KEY, waiting).order.image
    machine.clock[0] += 6.9 * 86400
    machine.service.sweep()
    assert clip.exists()
    machine.clock[0] += 0.2 * 86400
    machine.service.sweep()
    assert not clip.exists() and status(machine, waiting) == QUEUED
    assert machine.service.uploads.find(KEY, image.removeprefix("upload:"))
    with pytest.raises(ApiError):
        api.get(machine.service, KEY, done)
    api.cancel(machine.service, KEY, waiting)
    machine.clock[0] += 8 * 86400
    machine.service.sweep()
    assert not list(machine.folders.inputs.rglob("*.png"))


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_is_refused(machine: Machine, kind: str) -> None:
    """Load Image would decode all of its frames."""
    frames, file = [Image.new("RGB", (64, 48), colour) for colour in ("teal", "navy", "red")], io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ApiError, match="an animation of 3 frames") as error:
        machine.service.uploads.add_picture(KEY, file.getvalue())
    assert code(error) == "invalid_request" and not list(machine.folders.inputs.rglob("*.*"))


def test_a_photograph_with_a_depth_map_is_a_picture(machine: Machine) -> None:
    photograph, depth, file = Image.new("RGB", (64, 48), "teal"), Image.new("RGB", (32, 24)), io.BytesIO()
    photograph.save(file, "MPO", save_all=True, append_images=[depth])
    assert not machine.service.uploads.add_picture(KEY, file.getvalue()).is_tall
    file = io.BytesIO()
    photograph.save(file, "MPO", save_all=True, append_images=[depth] * 9)
    with pytest.raises(ApiError, match="10 pictures"):
        machine.service.uploads.add_picture(KEY, file.getvalue())


def test_a_clip_that_kills_comfyui_does_so_three_times(machine: Machine) -> None:
    deadly, other = submitted(machine), submitted(machine)
    for _ in range(3):
        assert machine.runs.begin() == deadly
        machine.service.look()
        machine.restart()
    found = api.get(machine.service, KEY, deadly)
    assert found.status == FAILED and "ended 3 times while it made" in found.error
    assert machine.runs.begin() == other


def test_an_end_that_could_not_be_recorded_is_recorded_later(machine: Machine) -> None:
    name = submitted(machine)
    base = machine.folders.own / "jobs.sqlite"

    def check(*_: object) -> list[str]:
        base.rename(base.with_suffix(".away"))
        base.mkdir()  # as a disk that has gone
        raise ValueError("Value not in list")

    machine.service.runs.clear()
    machine.service.queue = replace(machine.service.queue, check=check)
    machine.service.take_up_all()
    base.rmdir()
    base.with_suffix(".away").rename(base)
    assert status(machine, name) == QUEUED
    machine.service.look()
    assert status(machine, name) == FAILED and not machine.service.runs


def test_a_saved_model_that_cannot_be_used_stops_no_other(machine: Machine) -> None:
    name = submitted(machine)
    folder = machine.folders.own / "api_models"
    folder.mkdir()
    (folder / "mine.json").write_text('{"1": {"class_type": "LoadImage", "inputs": {}}}')
    machine.restart()
    assert machine.runs.begin() == name and submitted(machine)
    with pytest.raises(ApiError, match="'mine' cannot be used now") as error:
        submitted(machine, model="mine")
    assert code(error) == "invalid_request"
    (fault,) = settings_page.shown(machine.folders.own, lambda kind, name: False)["model_faults"]
    assert fault.startswith("The saved model 'mine' cannot be used: ") and fault.endswith("or remove it.")


class Life(RuleBasedStateMachine):
    """Any order of requests, runs, cancels, deletions and kills. None is lost, none is made twice, order is kept."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.machine = Machine(Path(self.folder.name))
        self.model: dict[str, str] = {}
        """Id -> the status that it must have."""
        self.order: list[str] = []
        self.made: list[str] = []
        self.keys: dict[str, str] = {}
        self.starts: Counter[str] = Counter()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=names, idempotency=st.sampled_from([None, None, "a", "b"]))
    def submit(self, idempotency: str | None) -> str:
        name = submitted(self.machine, idempotency, seed=1)
        if idempotency in self.keys:
            assert name == self.keys[idempotency]
        else:
            self.model[name] = QUEUED
            self.order.append(name)
            if idempotency:
                self.keys[idempotency] = name
        return name

    @rule()
    def begin(self) -> None:
        if self.machine.runs.running is None and self.machine.runs.waiting:
            name = self.machine.runs.begin()
            assert name == next(one for one in self.order if self.model[one] == QUEUED)
            self.model[name] = RUNNING
            self.starts[name] += 1
            self.machine.service.look()

    @rule(is_good=st.booleans(), is_seen=st.booleans())
    def finish(self, is_good: bool, is_seen: bool) -> None:
        """is_seen: else ComfyUI is killed before the service has looked."""
        if self.machine.runs.running is None:
            return
        name = self.machine.runs.running[1]
        self.machine.runs.finish(None if is_good else failed("a.RequestError", "It went wrong."))
        self.model[name] = COMPLETED if is_good else FAILED
        if is_good:
            self.made.append(name)
        if is_seen:
            self.machine.service.look()
        else:
            if not is_good:
                self.model[name] = RUNNING  # nothing tells that it failed: it is tried again
            self._kill()

    @rule(name=names)
    def cancel(self, name: str) -> None:
        if name in self.model:
            api.cancel(self.machine.service, KEY, name)
            if self.model[name] in OPEN:
                self.model[name] = CANCELLED
            self.machine.service.look()

    @rule(name=consumes(names))
    def delete(self, name: str) -> None:
        if self.model.get(name) is None:
            return
        if self.model[name] in OPEN:
            with pytest.raises(ApiError):
                api.delete(self.machine.service, KEY, name)
            return
        api.delete(self.machine.service, KEY, name)
        self.keys = {key: other for key, other in self.keys.items() if other != name}
        self.order.remove(name)
        del self.model[name]

    @rule()
    def kill(self) -> None:
        self._kill()

    def _kill(self) -> None:
        for name, found in self.model.items():
            if found == RUNNING:
                self.model[name] = QUEUED if self.starts[name] < 3 else FAILED
        self.machine.restart()

    @invariant()
    def statuses_are_right(self) -> None:
        page = api.listed(self.machine.service, KEY, {"limit": "100"})
        assert {one["id"]: one["status"] for one in page["predictions"]} == self.model
        assert len(self.made) == len(set(self.made))
        waiting = [name for _, name, _ in self.machine.runs.waiting]
        assert waiting == [name for name in self.order if self.model[name] == QUEUED]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=12, stateful_step_count=25, deadline=None,
                             suppress_health_check=list(HealthCheck))
