"""The models that requests may name: workflows in API form whose picture, prompts and settings a request replaces.

Two come with the pack, for the bundled weights and for the 14B ones; others are the user's own, saved from the canvas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.atomic import read_json_object, write_json_object
from ..graph.nodes import Graph
from ..request import ClipRequest
from .recipe import check_recipe, defaults_of

FOLDER = "api_models"
"""In the pack's own folder: the user's models, one file each."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"
GUIDE_DEFAULTS = ClipRequest("", num_frames=49)
"""The hosted API's defaults; the other fields have them already."""
WEIGHTS = {"high_noise_expert": "diffusion_models", "low_noise_expert": "diffusion_models",
           "text_encoder": "text_encoders", "vae": "vae"}
"""Input of Load Wan 2.2 -> kind of ComfyUI's folder that its file is in."""
SIZES = {"480p": (832, 480), "720p": (1280, 720)}
"""Names of sizes in pixels, width first, of a picture that is not tall."""
HasFile = Callable[[str, str], bool]
"""(kind of folder, file's name) -> whether ComfyUI has it."""


@dataclass(frozen=True)
class Model:
    """A workflow that requests are carried out with."""

    id: str
    description: str
    graph: Graph
    defaults: ClipRequest
    """What a request leaves out; without a prompt and a seed."""
    trained_size: tuple[int, int] | None = None
    """Width and height in pixels that stand for every name of a size; None where names mean what they say."""

    def size(self, resolution: str, is_tall: bool) -> tuple[int, int]:
        """Return width and height in pixels of a clip. is_tall: its picture is taller than wide."""
        return self.trained_size if self.trained_size and resolution in SIZES else size_of(resolution, is_tall)

    def warning(self, resolution: str) -> str:
        """Return a sentence when clips have another size than was asked for, else ""."""
        if self.trained_size is None or resolution not in SIZES:
            return ""
        width, height = self.trained_size
        return f"resolution is {resolution}, but {self.id} makes clips of {width}x{height}."


def size_of(resolution: str, is_tall: bool) -> tuple[int, int]:
    """Return width and height in pixels of a resolution, 480p, 720p or WIDTHxHEIGHT."""
    if resolution in SIZES:
        long, short = SIZES[resolution]
        return (short, long) if is_tall else (long, short)
    width, _, height = resolution.partition("x")
    return int(width), int(height)


def find_models(folder: Path, has_file: HasFile, wanted: str) -> list[Model]:
    """Return all models that can be used, the default first. folder: the pack's own. wanted: the default by the
    settings, "" for none."""
    real = _shipped("wan2.2-i2v-14b", "image-to-video", "Wan 2.2 I2V-A14B at full size")
    demo = _shipped("wan2.2-i2v-demo", "image-to-video-demo", "The bundled demo model: clips of 128x128 pixels",
                    (128, 128))
    found = [*([real] if _has_weights(real.graph, has_file) else []), demo, *_read_saved(folder)[0]]
    return sorted(found, key=lambda model: model.id != wanted)


def find_model(folder: Path, has_file: HasFile, wanted: str, name: str) -> Model:
    """Return the model of a name, the default for "". Raises ValueError for one that is unknown or cannot be used."""
    if (name or wanted) in faults_of_saved(folder):
        raise ValueError(f"The model {name or wanted!r} cannot be used now: the server's owner has to save it again.")
    models = find_models(folder, has_file, wanted)
    model = next((model for model in models if name in ("", model.id)), None)
    if model is None or (not name and wanted not in ("", model.id)):
        raise ValueError(f"model is {(name or wanted)[:100]!r}; choose one of "
                         f"{', '.join(model.id for model in models)}.")
    return model


def save_model(folder: Path, name: str, graph: Graph) -> None:
    """Save a workflow in API form as a model. Raises ValueError for a name or a workflow that cannot be one."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:60]!r} cannot be a model's name: it has 1 to 60 letters, digits, ., - and _.")
    check_recipe(graph)
    write_json_object(folder / FOLDER / f"{name}.json", graph)


def remove_model(folder: Path, name: str) -> None:
    """Remove a saved model. Raises ValueError when there is none of that name."""
    path = folder / FOLDER / f"{name}.json"
    if not NAME.fullmatch(name) or not path.is_file():
        raise ValueError(f"There is no saved model named {name[:60]!r}.")
    path.unlink()


def saved_names(folder: Path) -> list[str]:
    """Return the names of the user's models."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.json") if NAME.fullmatch(path.stem))


def faults_of_saved(folder: Path) -> dict[str, str]:
    """Return why saved models cannot be used, for the owner: name -> sentence."""
    return _read_saved(folder)[1]


def _shipped(name: str, file: str, description: str, trained_size: tuple[int, int] | None = None) -> Model:
    graph = json.loads((WORKFLOWS / f"{file}.json").read_text("utf-8"))
    return Model(name, description, graph, GUIDE_DEFAULTS, trained_size)


def _read_saved(folder: Path) -> tuple[list[Model], dict[str, str]]:
    """Return the saved models that can be used, and why others cannot: name -> sentence."""
    models, faults = [], {}
    for name in saved_names(folder):
        try:
            graph = read_json_object(folder / FOLDER / f"{name}.json")
            check_recipe(graph)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            faults[name] = f"The saved model {name!r} cannot be used: {why} Save it again, or remove it."
        else:
            models.append(Model(name, "A workflow of this server's owner", graph,
                                replace(defaults_of(graph), prompt="")))
    return models, faults


def _has_weights(graph: Graph, has_file: HasFile) -> bool:
    loaders = [node["inputs"] for node in graph.values() if node["class_type"] == "Wan22Load"]
    return all(has_file(kind, inputs[name]) for inputs in loaders for name, kind in WEIGHTS.items())
