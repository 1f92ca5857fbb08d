"""Read and change settings: each comes from its environment variable, else from a JSON file, else it is the default."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import read_json_object, write_json_object

ENVIRONMENT, FILE, DEFAULT = "environment", "file", "default"
MAX_BODY = 2**14
"""Most bytes of a request that changes settings."""
_changing = threading.Lock()


@dataclass(frozen=True)
class Setting:
    """One setting: its name, its default and how it is read."""

    name: str
    """Its key in the file and in requests."""
    default: Any
    check: Callable[[Any], Any]
    """JSON value -> the setting's value. Raises ValueError with a clause that follows the name."""
    variable: str = ""
    """Environment variable that overrides the file; "" for none."""
    parse: Callable[[str], Any] = str
    """Text of the variable -> what `check` takes."""


@dataclass(frozen=True)
class SettingValue:
    """A setting's value and where it comes from."""

    value: Any
    source: str
    """ENVIRONMENT, FILE or DEFAULT."""


@dataclass(frozen=True)
class SettingsFile:
    """The settings of one file. Other keys in the file are kept."""

    path: Path
    settings: tuple[Setting, ...]

    def read(self, environ: Mapping[str, str]) -> dict[str, SettingValue]:
        """Return each setting by its name. Raises ValueError with a sentence for a value that cannot be used."""
        whole = self._whole()
        return {setting.name: self._find(setting, whole, environ) for setting in self.settings}

    def shown(self, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return {name: {"value", "default", "source", "variable"}} for a settings page. Raises as `read` does."""
        found = self.read(environ)
        return {setting.name: {"value": found[setting.name].value, "default": setting.default,
                               "source": found[setting.name].source, "variable": setting.variable}
                for setting in self.settings}

    def change(self, body: bytes, environ: Mapping[str, str]) -> None:
        """Save the settings in a JSON object; null resets one to its default.

        Changes nothing and raises ValueError with a sentence when one is unknown, not valid or set by the environment,
        or when the file is no JSON object. Raises OSError when the file cannot be written.
        """
        changes, known = self._read_changes(body), {setting.name: setting for setting in self.settings}
        checked = {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"{name[:40]!r} is not a setting; the settings are {', '.join(known)}.")
            if self._is_in(known[name], environ):
                raise ValueError(f"{name} comes from the environment variable {known[name].variable}, which "
                                 "overrides the value set here. Change it there.")
            checked[name] = value if value is None else _checked(known[name], value, "")
        with _changing:
            whole = {name: value for name, value in (self._whole() | checked).items()
                     if value is not None or name not in checked}
            write_json_object(self.path, whole)

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
            return read_json_object(self.path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a JSON object"
            raise ValueError(f"The settings in {self.path} cannot be read: {why}. Correct the file, or delete it.",
                             ) from None

    @staticmethod
    def _is_in(setting: Setting, environ: Mapping[str, str]) -> bool:
        return bool(setting.variable and environ.get(setting.variable, "").strip())

    def _find(self, setting: Setting, whole: dict[str, Any], environ: Mapping[str, str]) -> SettingValue:
        if self._is_in(setting, environ):
            place = f"The environment variable {setting.variable} cannot be used: "
            return SettingValue(_checked(setting, setting.parse(environ[setting.variable].strip()), place), ENVIRONMENT)
        if setting.name in whole:
            place = f"The settings in {self.path} cannot be used: "
            return SettingValue(_checked(setting, whole[setting.name], place), FILE)
        return SettingValue(setting.default, DEFAULT)


def _checked(setting: Setting, value: Any, place: str) -> Any:
    try:
        return setting.check(value)
    except ValueError as error:
        raise ValueError(f"{place}{setting.name} {error}") from None


def yes_or_no(value: Any) -> bool:
    """Check a switch: true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"is {_quoted(value)}; it takes true or false.")
    return value


def number(least: float, most: float, unit: str) -> Callable[[Any], float]:
    """Return the `check` of a number from `least` to `most`, both allowed."""

    def check(value: Any) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise ValueError(f"is {_quoted(value)}; it takes a number of {unit} from {least:g} to {most:g}.")
        return float(value)

    return check


def parse_number(text: str) -> float | str:
    """Parse a number; other text is returned as it is, for `check` to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def _quoted(value: Any) -> str:
    """Return a value for a message, in at most 63 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
