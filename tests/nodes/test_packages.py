"""A Python package that isn't there is named where it is missed, with the command that installs it."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devtools.environment import local_comfyui
from devtools.server import ComfyServer
from tests.support.comfy_client import ComfyClient, RejectedError, changed, clip_workflow, messages, sample_picture

HIDDEN = ("diffusers", "gguf")

LAUNCHER = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path[:] = [sys.argv[0].rpartition("/")[0], *({links!r} if path == {site!r} else path for path in sys.path[1:])]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs ComfyUI with another folder in place of site-packages."""


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyClient]:
    """A ComfyUI whose Python has all packages but the hidden ones, and a GGUF file among its models."""
    folder = tmp_path_factory.mktemp("packages")
    site, links = Path(sysconfig.get_paths()["purelib"]), folder / "site-packages"
    links.mkdir()
    for entry in site.iterdir():
        if not entry.name.startswith(HIDDEN):
            (links / entry.name).symlink_to(entry)
    server = ComfyServer(local_comfyui(), folder / "comfyui", folder / "server.log")
    server.launcher = str(folder / "launcher.py")
    Path(server.launcher).write_text(LAUNCHER.format(links=str(links), site=str(site)))
    models = server.base / "models" / "diffusion_models"
    models.mkdir(parents=True)
    (models / "wan2.2-high-noise-Q4_0.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(16))
    server.options.append("--cpu")
    with server, closing(ComfyClient(server)) as client:
        yield client


def test_a_node_that_misses_a_package_says_so(comfy: ComfyClient) -> None:
    workflow = clip_workflow(comfy.upload("still", sample_picture(96, 64)))
    run = comfy.run(workflow)
    assert run.outcome == "execution_error" and run.error["node_id"] == "load"
    sentence = run.error["exception_message"].strip()
    assert sentence == ("The Python package diffusers is missing. Run this command, then start ComfyUI again: "
                        f'{sys.executable} -m pip install "diffusers>=0.37.1,<0.40"')
    assert run.texts("load")[-1].strip() == sentence


def test_a_file_that_no_package_reads_is_refused_by_the_package_s_name(comfy: ComfyClient) -> None:
    workflow = clip_workflow(comfy.upload("still", sample_picture(96, 64)))
    with pytest.raises(RejectedError) as refused:
        comfy.run(changed(workflow, "load", high_noise_expert="wan2.2-high-noise-Q4_0.gguf"))
    sentence, = messages(refused.value.errors["load"])
    assert sentence.startswith("The Python package gguf is missing. Run this command, then start ComfyUI again: ")
