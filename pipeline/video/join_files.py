"""Files of clips, each of which begins with the last frame of the one before, joined into one MP4."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..request import RequestError
from .encoding import Encoding
from .join_settings import CONFORM, JoinSettings
from .join_to_mp4 import join_to_mp4
from .provenance import ai_generated
from .save import Mp4
from .source import file_source

REPEATED = JoinSettings(overlap=1, new_shots=frozenset())


def last_frame(path: Path, frames: int | None) -> torch.Tensor:
    """Return the last frame of a file, or of its first so many frames, as IMAGE (1, H, W, 3), float32 0..1.

    Raises RequestError for a file that is damaged.
    """
    (found,) = deque(itertools.islice(file_source(path, path.name).frames(), frames), maxlen=1)
    return found[None]


def join_files(paths: Sequence[Path], whole: Path, show: Callable[[str], None], stop: Callable[[], None]) -> None:
    """Write the clips one after another into `whole`, without the frame that each repeats, its colours matched.

    Raises RequestError when a file is damaged or the whole cannot be written; then no file is left.
    """
    sources = [file_source(path, path.name) for path in paths]
    mp4 = Mp4(lambda: whole, Encoding(fps=float(sources[0].rate)), ai_generated(None, None))
    show(f"Joining {len(paths)} clips.")
    try:
        join_to_mp4(mp4, sources, REPEATED, CONFORM, lambda done, total: None, stop, show)
    except RequestError as error:
        raise RequestError(f"{error} The clips themselves are whole: {', '.join(map(str, paths))}. Run again: nothing "
                           "is bought.") from error
