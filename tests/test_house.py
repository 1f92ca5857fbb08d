"""The rules that keep the pack light and its parts apart, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from pipeline.remote.providers import PROVIDERS

HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes", "execution",
        "comfy_kitchen", "latent_preview"}
PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    found |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 0}
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("path", PIPELINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_one_file_of_the_pipeline_touches_comfyui(path: Path) -> None:
    if path.name != "py":
        assert not imports(path) & HOST


def test_a_provider_is_one_file() -> None:
    """Nothing beside a provider's own file, and the list of them, knows it by name."""
    own = {word for provider in PROVIDERS.values() for word in (provider.name, provider.title, *provider.variables)}
    providers = ROOT / "pipeline" / "remote" / "providers"
    for path in (*PIPELINE, *(ROOT / "nodes").rglob("*.py")):
        if path.parent != providers:
            tree = ast.parse(path.read_text("utf-8"))
            words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            words |= {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
            assert not words & own, path


def test_nothing_heavy_is_imported_at_start_up() -> None:
    """In ComfyUI's process torch is there already; diffusers, transformers and av must wait for a node to run."""
    program = """
import asyncio, importlib.util, sys
sys.argv = ["main.py", "--cpu"]
root, comfyui = sys.path.pop(0), sys.path.pop(0)
sys.path.insert(0, comfyui)
import comfy_api.latest
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("wan22_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["wan22_pack"] = pack
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
nodes = asyncio.run(extension.get_node_list())
for node in nodes:
    node.GET_SCHEMA()
heavy = {"torch", "diffusers", "transformers", "av", "requests", "numpy", "safetensors", "sentencepiece"}
print(len(nodes), sorted({m.split(".")[0] for m in set(sys.modules) - before} & heavy))
"""
    comfyui = str(local_comfyui())
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {comfyui!r}]\n{program}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith("16 []"), run.stdout


def test_every_input_has_a_tooltip() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        for call in (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("Input", "Output"):
                assert "tooltip" in {k.arg for k in call.keywords}, f"{path.name}:{call.lineno}"
