"""The desk of a remote job in a host's own surroundings: folders, Stop, and the run of a graph that drives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..http.policy import patience_from_environment, policy_from_environment
from ..video.probe import probe
from .context import Desk
from .keys import Keys
from .ledger import Ledger, Limits
from .origins import Origins
from .settings import read_settings


@dataclass(frozen=True)
class Driver:
    """The run of a graph that drives remote jobs, as ComfyUI's queue has it."""

    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    """What was sent beside the graph; of a canvas, its workflow."""

    @property
    def workflow(self) -> dict[str, Any]:
        """As Origins.note takes it."""
        drawn = (self.extra_data.get("extra_pnginfo") or {}).get("workflow")
        return {"workflow": drawn} if drawn else {"graph": self.graph}


def open_desk(folder: Path, results: Path, driver: Driver | None, limits: Limits, say: Callable[[str], None],
              stop: Callable[[], None], changed: Callable[[str], None],
              find_lora: Callable[[str], Path | None]) -> Desk:
    """folder: the pack's own, with keys, settings and ledger. results: of finished clips. driver: None when it cannot
    be told. changed: told the id of each job of which there is news. find_lora: as Desk has it."""
    origins = Origins(folder)

    def drives(job_id: str, asks: bool) -> None:
        if driver is not None:
            origins.note(job_id, driver.prompt_id, driver.workflow if asks else None)
            changed(job_id)

    return Desk(ledger=Ledger(folder, changed), drives=drives, keys=Keys(folder / "keys.json"),
                policy=policy_from_environment(), patience=patience_from_environment(), results=results, say=say,
                stop=stop, check_clip=probe, limits=limits, settings=lambda: read_settings(folder), find_lora=find_lora)
