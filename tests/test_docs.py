"""README.md, docs/ and the other pages written by hand: what they link to and name is there, and examples run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from pipeline.remote.api import Reply
from pipeline.remote.errors import ErrorKind
from pipeline.remote.job import JobState
from pipeline.remote.plan import plan_clip
from pipeline.remote.providers import PROVIDERS, atlascloud, comfyui, replicate, wavespeed
from pipeline.request import HIGH, ClipRequest
from pipeline.sampling.denoise import Predict, guided, guided_in_one_pass
from pipeline.sampling.hooks import NEGATIVE, PAIR, POSITIVE, ModelInputs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bench").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:bench|devtools|docs|locales|models|nodes|pipeline|subgraphs|tests|web|workflows)/[^`\s]*)`")
"""A file or folder of this repository, named by its path from the root."""
NOT_OURS = re.compile(r"[<*]|models/(?!demo)|there_?and_?back|fading|/example\.py", re.IGNORECASE)
"""Marks a pattern, a path in ComfyUI's folders, or a file of an example."""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    for name in NAMED.findall(page.read_text("utf-8")):
        assert NOT_OURS.search(name) or (ROOT / name).exists(), name


CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"`([\w/]+\.py)`[^`]*:\n\n```python\n(.*?)```", CONTRIBUTING, re.S))
"""Files that contributing.md shows whole: path -> text."""


def example(path: str) -> ModuleType:
    """Return an example file as a module of the package that it would lie in."""
    module = ModuleType(path.removesuffix(".py").replace("/", "."))
    module.__package__ = module.__name__.rpartition(".")[0]
    exec(compile(EXAMPLES[path], path, "exec"), module.__dict__)
    return module


def test_the_example_of_a_provider_translates() -> None:
    provider = example("pipeline/remote/providers/example.py").Example()
    clip = ClipRequest(prompt="a cat", num_frames=81, resolution="480p", num_inference_steps=50)
    plan = plan_clip(provider.models[0], clip, "trim")
    assert provider.body(plan, "https://example.com/cat.png")["num_frames"] == 81
    assert list(plan.changes) == ["num_inference_steps"]
    asking = provider.poll("wan-2.2-i2v", "job-1")
    assert next(asking).url == "https://api.example.com/v1/jobs/job-1"
    with pytest.raises(StopIteration) as end:
        asking.send(Reply(200, {}, b'{"status": "done", "video": "https://example.com/clip.mp4"}'))
    assert (end.value.value.state, end.value.value.url) == (JobState.DOWNLOADING, "https://example.com/clip.mp4")
    assert provider.refusal(Reply(402, {}, b'{"error": "empty"}')).kind is ErrorKind.QUOTA
    assert provider.refusal(Reply(200, {}, b"{}")) is None


@pytest.mark.parametrize("guidance", [guided, guided_in_one_pass])
@pytest.mark.parametrize(("step", "scale"), [(0, 5.0), (5, 3.0), (10, 1.0)])
def test_the_example_of_a_sampling_idea_fades_guidance(guidance: Callable[..., Predict], step: int, scale: float,
                                                       ) -> None:
    """A conditional velocity of 3 and an unconditional one of 1, under guidance 5 that fades over eleven steps."""
    values = {POSITIVE: [3.0], NEGATIVE: [1.0], PAIR: [3.0, 1.0]}
    hooks = example("pipeline/sampling/fading_guidance.py").fading_guidance(11)
    velocity = hooks.wrap(lambda latents, timestep, branch, inputs: torch.tensor(values[branch]), step, HIGH)
    predict = guidance(velocity, ModelInputs(torch.zeros(1)), 5.0)
    assert predict(torch.zeros(1), torch.tensor(1000.0)).tolist() == pytest.approx([1 + scale * (3 - 1)])


def test_the_example_of_a_node_runs(tmp_path: Path) -> None:
    """In a copy of the pack, by ComfyUI's own node class; ComfyUI itself is not started."""
    for part in ("nodes", "pipeline", "__init__.py"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, tmp_path / "wan22" / part)
    for path in ("nodes/there_and_back.py", "pipeline/video/there_and_back.py"):
        (tmp_path / "wan22" / path).write_text(EXAMPLES[path], "utf-8")
    program = """
import sys, torch
sys.path[:0] = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
from wan22.nodes.there_and_back import ThereAndBack
schema = ThereAndBack.GET_SCHEMA()
frames = torch.arange(4.0).reshape(4, 1, 1, 1)
print(schema.node_id, ThereAndBack.execute(frames).result[0].flatten().tolist())
"""
    run = subprocess.run([sys.executable, "-c", program, str(local_comfyui()), str(tmp_path)], capture_output=True,
                         text=True, timeout=300)
    assert run.stdout.strip().endswith("Wan22ThereAndBack [0.0, 1.0, 2.0, 3.0, 2.0, 1.0]"), run.stderr


def test_the_tables_of_models_are_those_of_the_code() -> None:
    from docs.provider_tables import PAGE, renewed

    assert renewed(PAGE.read_text("utf-8")) == PAGE.read_text("utf-8"), "run python docs/provider_tables.py"


@pytest.mark.parametrize("module", [wavespeed, atlascloud, replicate, comfyui], ids=lambda module: module.__name__)
def test_every_state_of_a_provider_is_in_the_table_of_answers(module: ModuleType) -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "remote.md").read_text("utf-8").splitlines()]
    titles = next(row for row in rows if row[0] == "| Answer")
    (column,) = (number for number, title in enumerate(titles) if title.rstrip(" |") in [
        provider.title for provider in PROVIDERS.values() if type(provider).__module__ == module.__name__])
    told = " ".join(row[column] for row in rows if len(row) == len(titles))
    assert [word for word in module.STATES if f"`{word}`" not in told] == []
