"""Say which Python package is missing, too old or unusable, and the command that installs the right one.

requirements.txt is the one list of what is right. ComfyUI's installers read it, but people also install by hand, and
other node packs move versions.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
DISTRIBUTIONS = {"PIL": "pillow"}
"""Names of distributions that are not those of their modules."""


class PackageError(RuntimeError):
    """A Python package is missing or cannot be used. The message names it, the version found and what to do."""


def package_fault(error: BaseException) -> PackageError | None:
    """Return what to tell the user about an error that a required package is to blame for, None for any other error.

    An ImportError is always a package's fault when it comes out of one. An AttributeError or TypeError is one when a
    package is older than requirements.txt allows: it may lack what is used of it.
    """
    errors = list(_causes(error))
    required = {requirement.name.lower(): requirement for requirement in _required()}
    imports = [cause for cause in errors if isinstance(cause, ImportError)]
    if imports:
        blamed = next((required[name] for name in _distributions(errors, imports[-1]) if name in required), None)
        return None if blamed is None else PackageError(_sentence(blamed, str(imports[-1])))
    if any(isinstance(cause, (AttributeError, TypeError)) for cause in errors):
        old = next((requirement for requirement in required.values() if _is_too_old(requirement)), None)
        return None if old is None else PackageError(_sentence(old, ""))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those it was raised from: diffusers and transformers wrap an ImportError in a RuntimeError."""
    while error is not None:
        yield error
        error = error.__cause__


def _required() -> Iterator[Requirement]:
    from packaging.requirements import Requirement

    for line in REQUIREMENTS.read_text("utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            yield Requirement(text)


def _distributions(errors: list[BaseException], failed: ImportError) -> Iterator[str]:
    """Yield names of distributions that may be to blame: those whose code ran, from the outside in, then the one whose
    import failed."""
    for error in errors:
        trace = error.__traceback__
        while trace is not None:
            yield _distribution(trace.tb_frame.f_globals.get("__name__", ""))
            trace = trace.tb_next
    yield _distribution(failed.name or "")


def _distribution(module: str) -> str:
    top = module.partition(".")[0]
    return DISTRIBUTIONS.get(top, top).lower()


def _version(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _is_too_old(requirement: Requirement) -> bool:
    """Return True when an installed version is below the lower bound. One above the upper bound may work."""
    from packaging.version import Version

    found = _version(requirement)
    return found is not None and any(bound.operator == ">=" and Version(found) < Version(bound.version)
                                     for bound in requirement.specifier)


def _sentence(requirement: Requirement, reason: str) -> str:
    found = _version(requirement)
    if found is None:
        fault = f"The Python package {requirement.name} is missing"
    elif _is_too_old(requirement):
        fault = f"The Python package {requirement.name} {found} is too old: {_bounds(requirement)} is needed"
    else:
        fault = f"The Python package {requirement.name} {found} can't be used here ({reason})"
    return f"{fault}. Run this command, then start ComfyUI again: {_command(requirement)}"


def _bounds(requirement: Requirement) -> str:
    """Return the versions that will do as requirements.txt writes them, the lower bound first."""
    return ",".join(sorted(map(str, requirement.specifier), reverse=True))


def _command(requirement: Requirement) -> str:
    """Return the command that installs a requirement into the Python that runs; double quotes suit every shell."""
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    wanted = f'"{requirement.name}{_bounds(requirement)}"'
    if importlib.util.find_spec("pip") is None:  # an environment of uv's
        return f"uv pip install --python {python} {wanted}"
    return f"{python} {'-s ' if sys.flags.no_user_site else ''}-m pip install {wanted}"
