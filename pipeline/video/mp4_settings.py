"""The settings of an MP4 as the nodes give them: checked, and turned into what the writer takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..files.names import fill_in, name_fault
from ..request import RequestError
from . import provenance
from .encoding import Encoding


def settings_fault(values: Mapping[str, Any]) -> str:
    """Return a sentence when the typed values cannot make a file, or an empty string.

    values: those of Mp4Settings that are typed; a linked one is None or missing, for it is not known yet.
    """
    known = {key: value for key, value in values.items() if value is not None}
    metadata = known.pop("metadata", provenance.WORKFLOW)
    fault = name_fault(known.pop("filename_prefix", "clip"))
    if metadata not in provenance.METADATA:
        fault += f" metadata is {metadata!r}; choose one of {', '.join(provenance.METADATA)}."
    try:
        Encoding(**known).check()
    except RequestError as error:
        fault += f" {error}"
    return fault.strip()


@dataclass(frozen=True)
class Mp4Settings:
    """The settings of Save MP4 and Decode to MP4.

    filename_prefix: with its tokens replaced. kept: one of provenance.METADATA. marked: True when the file shall say
    that the clip is AI-generated. audio: an AUDIO or None.
    """

    filename_prefix: str
    encoding: Encoding
    kept: str
    marked: bool
    audio: dict[str, Any] | None

    def metadata(self, workflow: Callable[[], dict[str, str]] | None, prompt: dict[str, Any] | None,
                 node_id: str | None) -> tuple[dict[str, str], str]:
        """Return the file's metadata, and a sentence when some of it could not be made.

        workflow: makes the graph as metadata; None when the user disabled that.
        """
        parts: list[Callable[[], dict[str, str]]] = []
        if workflow is not None and self.kept == provenance.WORKFLOW:
            parts.append(workflow)
        if workflow is not None and self.kept == provenance.REQUEST:
            parts.append(lambda: provenance.request_of(prompt, node_id))
        if self.marked:
            parts.append(lambda: provenance.ai_generated(None, None))  # also of a graph that cannot be read
            parts.append(lambda: provenance.ai_generated(prompt, node_id))
        return provenance.without_faults(parts)


def read_settings(values: Mapping[str, Any], prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None,
                  now: datetime) -> Mp4Settings:
    """Return the node's inputs as one object. Raises RequestError: a linked value was not checked before the run."""
    values = dict(values)
    audio, marked = values.pop("audio", None), values.pop("mark_ai_generated", True)
    kept = values.get("metadata", provenance.WORKFLOW)
    if fault := settings_fault(values):
        raise RequestError(fault)
    prefix = fill_in(values.pop("filename_prefix"), prompt, extra_pnginfo, now)
    if fault := name_fault(prefix):
        raise RequestError(fault)
    values.pop("metadata", None)
    return Mp4Settings(prefix, Encoding(**values), kept, marked, audio)
