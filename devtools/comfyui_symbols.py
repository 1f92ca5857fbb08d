"""Check that a ComfyUI has what this pack uses of it: names, and the arguments that they are called with.

    python -m devtools.comfyui_symbols [COMFYUI]

Run it with the Python of that ComfyUI (default: the one that dev.py tests with). The names are read from the source of
pipeline/host and nodes, and what is reached through an object from OBJECTS; nothing of the pack is imported, and
nothing is run but ComfyUI's imports. Exit status 1 when something is missing.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .environment import local_comfyui
from .paths import ROOT

OF_COMFYUI = ("comfy", "comfy_aimdo", "comfy_api", "comfy_execution", "comfy_kitchen", "execution", "folder_paths",
              "latent_preview", "server")


@dataclasses.dataclass(frozen=True)
class Use:
    """A name of ComfyUI's, where it stands, and how it is called; without `keywords` it is only looked up."""

    name: str
    place: str
    positional: int = 0
    keywords: tuple[str, ...] | None = None


OBJECTS: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {
    "comfy.model_patcher.CoreModelPatcher": {
        "clone": (0, ()), "add_patches": (2, ()), "get_model_object": (1, ()), "is_dynamic": (0, ()),
        "partially_unload": (2, ()), "set_model_unet_function_wrapper": (1, ()),
        "set_model_sampler_calc_cond_batch_function": (1, ())},
    "comfy.samplers.CFGGuider": {
        "set_conds": (2, ()), "set_cfg": (1, ()), "sample": (4, ("callback", "disable_pbar", "seed"))},
    "comfy.utils.ProgressBar": {"update_absolute": (3, ())},
    "comfy.weight_adapter.base.WeightAdapterBase": {"calculate_weight": (6, ())},
    "comfy_aimdo.model_mmap.ModelMMAP": {"get": (0, ()), "get_file_handle": (0, ())},
    "comfy_aimdo.model_vbar.ModelVBAR": {"get_residency": (0, ()), "unpin": (2, ())},
    "comfy_api.latest.InputImpl.VideoFromFile": {
        "get_components": (0, ()), "get_dimensions": (0, ()), "get_frame_count": (0, ()), "get_frame_rate": (0, ()),
        "get_stream_source": (0, ())},
    "comfy_execution.graph.DynamicPrompt": {
        "get_display_node_id": (1, ()), "get_real_node_id": (1, ()), "get_original_prompt": (0, ())},
    "execution.PromptQueue": {
        "get_history": (1, ()), "get_current_queue_volatile": (0, ()), "put": (1, ()), "delete_queue_item": (1, ()),
        "interrupt_if_running": (1, ())},
    "server.PromptServer": {"send_progress_text": (3, ()), "send_sync": (2, ())},
}
"""Class -> its methods that the pack calls on objects: how many arguments by place, and those by name."""

FIELDS = {
    "comfy_aimdo.model_vbar.ModelVBAR": ("base_addr", "max_size"),
    "comfy.model_patcher.ModelPatcher": ("load_device", "offload_device", "model", "model_options", "patches_uuid"),
    "comfy.latent_formats.Wan21": ("latent_rgb_factors", "latent_rgb_factors_bias"),
    "comfy_execution.progress.ProgressRegistry": ("dynprompt", "nodes", "prompt_id"),
    "comfy_execution.utils.ExecutionContext": ("node_id", "prompt_id"),
    "server.PromptServer": (
        "app", "client_id", "instance", "loop", "node_replace_manager", "number", "prompt_queue", "routes"),
}
"""Class -> fields that are read on its objects."""


# ---- what the pack uses -----------------------------------------------------------------------------------------


def uses_of(files: Iterable[Path]) -> Iterator[Use]:
    """Yield each use of ComfyUI's names in Python files."""
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        names = dict(_imported(tree))
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        yield from (Use(name, f"{file.name}:1") for name in names.values())
        for node in ast.walk(tree):
            name = _dotted(node, names)
            if name and id(node) not in inner:
                yield _use(name, f"{file.name}:{node.lineno}", called.get(id(node)))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield local names of ComfyUI's modules and of what is imported from them, with their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top in OF_COMFYUI:
                    yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] in OF_COMFYUI:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Return the full name that an expression spells; "" for one that is not of ComfyUI."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return owner and f"{owner}.{node.attr}"
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""


def _use(name: str, place: str, call: ast.Call | None) -> Use:
    if call is None or any(isinstance(one, ast.Starred) for one in call.args) or any(
            one.arg is None for one in call.keywords):
        return Use(name, place)
    return Use(name, place, len(call.args), tuple(one.arg for one in call.keywords))


# ---- what ComfyUI has -------------------------------------------------------------------------------------------


def fault_of(use: Use) -> str:
    """Return what is wrong with a use; "" when ComfyUI has it."""
    try:
        found = resolve(use.name)
        if use.keywords is not None:
            bound = ".instance." in use.name  # resolved by its class, so that `self` is an argument too
            inspect.signature(found).bind(*[None] * (use.positional + bound), **dict.fromkeys(use.keywords))
    except (AttributeError, ImportError) as error:
        return f"{use.place}: {use.name} is not there ({error})"
    except TypeError as error:
        return f"{use.place}: {use.name} is called otherwise ({error})"
    except ValueError:  # a function of C: it tells no signature
        return ""
    return ""


def resolve(name: str) -> Any:
    """Return the object of a full name. A class stands for its `instance`. Raises AttributeError or ImportError."""
    parts = name.split(".")
    found, done = importlib.import_module(parts[0]), parts[0]
    for part in parts[1:]:
        done += f".{part}"
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(done)
        elif inspect.isclass(found) and has_field(found, part):
            if part != "instance":
                return None
        else:
            found = getattr(found, part)
    return found


def has_field(owner: type, name: str) -> bool:
    """Return whether objects of a class are given this attribute where the class is written."""
    written = rf"\b(self|{owner.__name__})\.{name}\b[^=\n]*="
    return not hasattr(owner, name) and any(
        re.search(written, inspect.getsource(base)) for base in owner.__mro__[:-1])


def faults_of_objects() -> Iterator[str]:
    """Yield what OBJECTS and FIELDS name and ComfyUI has not, or not so."""
    for owner, methods in OBJECTS.items():
        for name, (positional, keywords) in methods.items():
            yield fault_of(Use(f"{owner}.{name}", "an object", positional + 1, keywords))
    for owner, names in FIELDS.items():
        yield from (fault_of(Use(f"{owner}.{name}", "an object")) for name in names)


def faults_of_layers() -> Iterator[str]:
    """Yield what is new in the classes that pipeline/host/ops.py derives its own from."""
    import comfy.ops
    import torch
    from comfy.quant_ops import QuantizedLayout
    from comfy_kitchen.tensor.base import BaseLayoutParams

    layer = comfy.ops.mixed_precision_ops({}, torch.bfloat16, disabled=set()).Linear
    try:
        inspect.signature(layer.forward).bind(None, None)
    except TypeError as error:
        yield f"The linear layer takes more than its input ({error})"
    methods = {"quantize", "dequantize", "get_plain_tensors", "state_dict_tensors"}
    more = getattr(QuantizedLayout, "__abstractmethods__", frozenset()) - methods
    if more:
        yield f"A quantised layout must have {', '.join(sorted(more))}"
    fields = [field.name for field in dataclasses.fields(BaseLayoutParams)]
    if fields != ["scale", "orig_dtype", "orig_shape"]:
        yield f"The parameters of a quantised layout are {', '.join(fields)}"


def check(files: Iterable[Path]) -> list[str]:
    """Return what these files use and the importable ComfyUI has not, a line each."""
    faults = [*map(fault_of, dict.fromkeys(uses_of(files))), *faults_of_objects(), *faults_of_layers()]
    return list(dict.fromkeys(filter(None, faults)))


def main(arguments: list[str]) -> int:
    comfyui = Path(arguments[0]).absolute() if arguments else local_comfyui()
    sys.path.insert(0, str(comfyui))  # before this checkout: both have a module `nodes`
    from comfy.cli_args import args
    from comfyui_version import __version__

    args.cpu = True
    try:
        importlib.import_module("server")
    except Exception as error:  # of any kind, by whatever it needs
        print(f"ComfyUI {__version__} itself cannot be imported here: {error}. Install its requirements.txt first.")
        return 1
    files = sorted(Path(file) for file in arguments[1:]) or [
        *(ROOT / "pipeline" / "host").glob("*.py"), *(ROOT / "nodes").glob("*.py"), ROOT / "__init__.py"]
    faults = check(files)
    print(*faults, f"ComfyUI {__version__}: " + (f"{len(faults)} of the pack's uses do not hold." if faults else
                                               "it has all that this pack uses."), sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
