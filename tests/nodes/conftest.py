"""ComfyUI beside the providers, for the remote nodes and their routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.comfy_outside import PACE, Outside


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """One ComfyUI that has no key yet, with all it can reach, at a pace for tests."""
    with Outside(tmp_path_factory.mktemp("outside") / "servers", pace=PACE) as outside:
        yield outside
        outside.check()
