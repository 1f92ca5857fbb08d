"""Start ComfyUI with the internet on loopback, for processes that tests and benches start.

usage: python comfy_launcher.py path/to/main.py [ComfyUI's options], with WAN22_TEST_LOOPBACK in the environment.

The product has no door for tests. This program runs ComfyUI's main.py as `python main.py` would, and when the pack's
pipeline/http/policy.py has been loaded, by whatever name, it puts another `policy_from_environment` in its place.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve()
POLICY = HERE.parents[2] / "pipeline" / "http" / "policy.py"


def put_on_loopback(server: object, network: str) -> None:
    """Have a devtools.server.ComfyServer find the internet where `network` says (see loopback.py)."""
    server.launcher = str(HERE)
    server.environ["WAN22_TEST_LOOPBACK"] = network


def _replace_policy(text: str) -> None:
    """Have the pack's policy be that of loopback.py as soon as its module is loaded."""
    spec = importlib.util.spec_from_file_location("wan22_loopback", HERE.with_name("loopback.py"))
    loopback = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loopback)
    load = SourceFileLoader.exec_module

    def exec_module(self: SourceFileLoader, module: ModuleType) -> None:
        load(self, module)
        if Path(self.path).resolve() == POLICY:
            policy = loopback.loopback_policy_of(module, text)
            module.policy_from_environment = lambda: policy

    SourceFileLoader.exec_module = exec_module


def main() -> None:
    _replace_policy(os.environ["WAN22_TEST_LOOPBACK"])
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
