"""Check the layers of the house: import-linter's contracts in pyproject.toml. `dev.py test` runs it.

The checkout stands for the package `wan22`, whatever its folder is called, so that nodes/ and pipeline/ are seen
together. Nothing of it is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from .paths import ROOT

PACKAGE = "wan22"


def main() -> int:
    from importlinter.cli import lint_imports

    package = ModuleType(PACKAGE)
    package.__spec__ = importlib.util.spec_from_file_location(PACKAGE, ROOT / "__init__.py",
                                                              submodule_search_locations=[str(ROOT)])
    sys.modules[PACKAGE] = package
    return lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)


if __name__ == "__main__":
    sys.exit(main())
