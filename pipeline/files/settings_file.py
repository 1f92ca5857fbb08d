"""Settings of a kind: each from its environment variable, else from a JSON file of the user's, else its default."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import read_object, write_object

ENVIRONMENT, FILE, DEFAULT = "environment", "file", "default"
MAX_BODY = 2**14
"""Bytes of a request that changes settings."""
_changing = threading.Lock()


@dataclass(frozen=True)
class Setting:
    """One of them."""

    name: str
    """In the file, and in requests."""
    default: Any
    check: Callable[[Any], Any]
    """What was read or sent -> the value. Raises ValueError with a sentence that goes on after the name."""
    variable: str = ""
    """Environment variable that goes before the file; "" for none."""
    parse: Callable[[str], Any] = str
    """What the variable holds -> what `check` takes."""


@dataclass(frozen=True)
class Found:
    """A setting as it stands."""

    value: Any
    source: str
    """ENVIRONMENT, FILE or DEFAULT."""


@dataclass(frozen=True)
class SettingsFile:
    """The settings of one file. What else the file holds is left as it is."""

    path: Path
    settings: tuple[Setting, ...]

    def read(self, environ: Mapping[str, str]) -> dict[str, Found]:
        """Name -> the setting as it stands. Raises ValueError with a sentence for what cannot be used."""
        whole = self._whole()
        return {setting.name: self._find(setting, whole, environ) for setting in self.settings}

    def shown(self, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Name -> {"value", "default", "source", "variable"} for a settings page. Raises as `read` does."""
        found = self.read(environ)
        return {setting.name: {"value": found[setting.name].value, "default": setting.default,
                               "source": found[setting.name].source, "variable": setting.variable}
                for setting in self.settings}

    def change(self, body: bytes, environ: Mapping[str, str]) -> None:
        """Take over the settings of a JSON object; null puts one back to its default.

        Raises ValueError with a sentence, with nothing changed, for one that is not known, not valid, or comes from the
        environment, and for a file that is no JSON object; OSError.
        """
        changes, known = self._read_changes(body), {setting.name: setting for setting in self.settings}
        checked = {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"{name[:40]!r} is no setting; there are {', '.join(known)}.")
            if self._is_in(known[name], environ):
                raise ValueError(f"{name} comes from the environment variable {known[name].variable}, which goes "
                                 "before what is set here. Change it there.")
            checked[name] = value if value is None else _checked(known[name], value, "")
        with _changing:
            whole = {name: value for name, value in (self._whole() | checked).items()
                     if value is not None or name not in checked}
            write_object(self.path, whole)

    @staticmethod
    def _read_changes(body: bytes) -> dict[str, Any]:
        try:
            changes = json.loads(body)
        except (ValueError, RecursionError):
            changes = None
        if not isinstance(changes, dict) or not changes:
            raise ValueError('The body is JSON such as {"setting": value}.')
        return changes

    def _whole(self) -> dict[str, Any]:
        try:
            return read_object(self.path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it holds no JSON object"
            raise ValueError(f"The settings in {self.path} cannot be read: {why}. Correct the file, or delete it.",
                             ) from None

    @staticmethod
    def _is_in(setting: Setting, environ: Mapping[str, str]) -> bool:
        return bool(setting.variable and environ.get(setting.variable, "").strip())

    def _find(self, setting: Setting, whole: dict[str, Any], environ: Mapping[str, str]) -> Found:
        if self._is_in(setting, environ):
            place = f"The environment variable {setting.variable} cannot be used: "
            return Found(_checked(setting, setting.parse(environ[setting.variable].strip()), place), ENVIRONMENT)
        if setting.name in whole:
            place = f"The settings in {self.path} cannot be used: "
            return Found(_checked(setting, whole[setting.name], place), FILE)
        return Found(setting.default, DEFAULT)


def _checked(setting: Setting, value: Any, place: str) -> Any:
    try:
        return setting.check(value)
    except ValueError as error:
        raise ValueError(f"{place}{setting.name} {error}") from None


def yes_or_no(value: Any) -> bool:
    """The `check` of a switch."""
    if not isinstance(value, bool):
        raise ValueError(f"is {_said(value)}; it takes true or false.")
    return value


def number(least: float, most: float, unit: str) -> Callable[[Any], float]:
    """The `check` of a number from `least` to `most`, both allowed."""

    def check(value: Any) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise ValueError(f"is {_said(value)}; it takes a number of {unit} from {least:g} to {most:g}.")
        return float(value)

    return check


def parse_number(text: str) -> float | str:
    """The `parse` of a number; what is none stays text, for `check` to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def _said(value: Any) -> str:
    """A value for a message, not too long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
