"""The settings page's view of the API: keys are made and shown once, settings and saved models changed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .keys import ApiKeys
from .models import HasFile, faults_of_saved, find_models, remove_model, save_model, saved_names
from .settings import read_settings, settings_file

MAX_BODY = 2**20
"""Bytes of a request that brings a workflow."""


def shown(folder: Path, has_file: HasFile, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return {"settings": {name: {"value", "default", "source", "variable"}}, "keys": [{"name", "created"}],
    "models": [ids, the default first], "saved_models": [ids], "model_faults": [sentences]}. Raises ValueError for
    settings or keys that cannot be used."""
    found = settings_file(folder).shown(environ)
    models = find_models(folder, has_file, read_settings(folder, environ).model)
    return {"settings": found, "keys": ApiKeys(folder, environ).shown(), "models": [model.id for model in models],
            "saved_models": saved_names(folder), "model_faults": [*faults_of_saved(folder).values()]}


def change(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """Change settings as SettingsFile.change does, with its errors."""
    settings_file(folder).change(body, environ)


def make_key(folder: Path, body: bytes) -> dict[str, str]:
    """Make the key of {"name"}; return {"name", "key", "callback_secret"}. Raises ValueError; OSError."""
    name = _text(_object(body, {"name"}), "name")
    made = ApiKeys(folder).make(name)
    return {"name": name, "key": made.key, "callback_secret": made.callback_secret}


def revoke_key(folder: Path, body: bytes) -> None:
    """Revoke the key of {"name"}. Raises ValueError; OSError."""
    ApiKeys(folder).revoke(_text(_object(body, {"name"}), "name"))


def keep_model(folder: Path, body: bytes) -> None:
    """Save {"name", "graph"}, a workflow in API form, as a model. Raises ValueError; OSError."""
    found = _object(body, {"name", "graph"})
    save_model(folder, _text(found, "name"), found["graph"])


def drop_model(folder: Path, body: bytes) -> None:
    """Remove the saved model of {"name"}. Raises ValueError; OSError."""
    remove_model(folder, _text(_object(body, {"name"}), "name"))


def _object(body: bytes, names: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or set(found) != names:
        raise ValueError(f"The body must be a JSON object with {' and '.join(sorted(names))}.")
    return found


def _text(found: dict[str, Any], name: str) -> str:
    if not isinstance(found[name], str):
        raise ValueError(f"{name} must be text.")
    return found[name].strip()
