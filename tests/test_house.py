"""The rules that keep the pack light and its parts apart, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from devtools.environment import local_comfyui
from devtools.paths import ROOT
from pipeline.remote.providers import PROVIDERS

START_UP = """
import asyncio, builtins, importlib.util, sys

root, comfyui, base = sys.argv[1:4]
sys.argv = ["main.py", "--cpu", "--base-directory", base]
sys.path.insert(0, comfyui)
import comfy.options

comfy.options.enable_args_parsing()
import nodes, server

server.PromptServer(asyncio.new_event_loop())
before, asked, plain = set(sys.modules), set(), builtins.__import__

def noting(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {}).get("__name__", "").startswith("wan22_pack"):
        asked.add(name)
    return plain(name, globals, locals, fromlist, level)

builtins.__import__ = noting
spec = importlib.util.spec_from_file_location("wan22_pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["wan22_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

async def load():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]

assert len(asyncio.run(load())) > 10
found = {name.partition(".")[0] for name in asked | (set(sys.modules) - before)}
print(*sorted(found - sys.stdlib_module_names))
"""
"""ComfyUI without the pack, then with it: prints what the pack's own files ask for, and what is loaded with them."""


def test_nothing_heavy_is_imported_at_start_up(tmp_path: Path) -> None:
    """ComfyUI itself is all that a start needs: torch, requests, diffusers and the like wait for a node to run."""
    run = subprocess.run([sys.executable, "-c", START_UP, str(ROOT), str(local_comfyui()), str(tmp_path)],
                         cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) - {"wan22_pack"} == {"aiohttp", "comfy_api", "folder_paths", "server"}


def test_a_provider_is_one_file() -> None:
    """Nothing beside a provider's own file, and the list of them, knows its name, its title or its variables."""
    words = {word for provider in PROVIDERS.values() for word in (provider.name, provider.title, *provider.variables)}
    known = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    own = ROOT / "pipeline" / "remote" / "providers"
    places = ("pipeline/**/*.py", "nodes/**/*.py", "web/**/*.js", "web/**/*.css", "locales/**/*.json")
    files = [path for place in places for path in ROOT.glob(place) if path.parent != own]
    assert len(files) > 100
    found = [f"{path.relative_to(ROOT)}:{number}: {match[0]}" for path in files
             for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) for match in known.finditer(line)]
    assert found == []


def test_every_input_has_a_tooltip() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        for call in (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("Input", "Output"):
                assert "tooltip" in {k.arg for k in call.keywords}, f"{path.name}:{call.lineno}"
