"""Whether the LoRAs that a node names are what they should be: each file's header read, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..checkpoint.header import FileHeader
from ..checkpoint.safetensors_file import read_header, read_remote_header
from ..download.online import Read
from ..download.peek import NotAskedError, Peeks
from ..download.policy import policy_from_environment
from ..download.source import is_remote
from ..download.tokens import Tokens
from ..node_inputs import NodeInputs
from ..remote.settings import read_settings
from .foresee import foresee
from .lora import AUTO, DEFAULT_MIN_MATCH, DEFAULT_SCALE, Lora, new_loras
from .match import FOR_EXPERT, check_match
from .open import Find, no_such_file

INPUTS = {"source": str, "source_low": str, "expert": str, "sha256": str, "sha256_low": str, "min_match": float,
          "ask": bool, "ask_low": bool}
"""Of the node, and whether the server of each link may be asked."""
DECIDING = ("source", "source_low", "expert", "sha256", "sha256_low")
KEPT_HEADER = 2 * 2**20
"""Bytes of the longest header that is kept in memory."""


@dataclass(frozen=True)
class Checked:
    """What a chip says of one file. `fault`, or `host` for a link that was not asked for, or all the rest."""

    fault: str = ""
    host: str = ""
    """Whose server would have to be asked."""
    local_only: bool = False
    """Why it may not be asked at all: it is so set."""
    name: str = ""
    size: int | None = None
    """Bytes; None: its server does not say."""
    kinds: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None
    made_for: str = ""
    expert: str = ""
    why: str = ""
    """The reason for the expert, when that was left to the file."""
    keys: tuple[tuple[str, int, int], ...] = ()
    """(expert, keys that find their place, keys in all)."""
    notes: tuple[str, ...] = ()
    warning: str = ""
    """Why the run will stop."""


@dataclass(frozen=True)
class _Header:
    header: FileHeader
    size: int | None
    name: str
    """With the folders before it."""


def _look(read: Read, size: int | None, name: str) -> _Header:
    return _Header(read_remote_header(PurePosixPath(name).name or "The file", read, size), size, name)


_PEEKS: Peeks[_Header] = Peeks(_look, lambda seen: min(seen.header.offsets.values(), default=0) <= KEPT_HEADER)


def check_loras(inputs: NodeInputs, find: Find, downloads: Path, own: Path) -> dict[str, object]:
    """{"unknown": inputs of other nodes} or {"files": one Checked, those of the pair, or none where nothing is
    given yet}.

    downloads: the folder of the download cache. own: the pack's, with settings and keys. Raises RequestError or
    DownloadError for inputs that go together badly, RemoteError for settings that cannot be read.
    """
    if unknown := [name for name in DECIDING if name in inputs.linked]:
        return {"unknown": unknown}
    given = inputs.values
    if not any(given.get(name, "").strip() for name in DECIDING if name != "expert"):
        return {"files": []}
    loras = new_loras(given.get("source", ""), DEFAULT_SCALE, given.get("expert", AUTO),
                      given.get("min_match", DEFAULT_MIN_MATCH), given.get("sha256", ""), given.get("source_low", ""),
                      given.get("sha256_low", ""))
    local_only = read_settings(own).local_only
    files = []
    for lora, ask in zip(loras, (given.get("ask", False), given.get("ask_low", False)), strict=False):
        try:
            files.append(_checked(lora, _opened(lora, find, downloads, own, ask and not local_only)))
        except NotAskedError as error:
            files.append(Checked(host=error.host, local_only=local_only))
        except (ValueError, OSError) as error:
            files.append(Checked(fault=str(error)))
    return {"files": files}


def _opened(lora: Lora, find: Find, downloads: Path, own: Path, ask: bool) -> _Header:
    path = find(lora.source)
    if path is not None:
        return _Header(read_header(path), path.stat().st_size, lora.source)
    if not is_remote(lora.source):
        raise no_such_file(lora.source)
    return _PEEKS.peek(lora.source, folder=downloads, policy=policy_from_environment(),
                       tokens=Tokens(store=own / "keys.json"), sha256=lora.sha256, ask=ask)


def _checked(lora: Lora, there: _Header) -> Checked:
    file, matches = foresee(lora, there.header, there.name)
    facts, warning = file.facts, ""
    try:
        for index, match in matches.items():
            check_match(file, index, match)
    except ValueError as error:
        warning = str(error)
    notes = dict.fromkeys(f"{count} are {why}" for match in matches.values() for why, count in match.no_place.items())
    return Checked(name=facts.name, size=there.size if there.size is not None else there.header.whole,
                   kinds=tuple(kind.value for kind in facts.adapters), ranks=facts.ranks, made_for=facts.made_for,
                   expert=file.lora.expert, why=file.why,
                   keys=tuple((FOR_EXPERT[index], match.used, match.total) for index, match in matches.items()),
                   notes=tuple(notes), warning=warning)
