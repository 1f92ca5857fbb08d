"""Write frames as an MP4 that plays everywhere: BT.709 and tagged so, with the index at the front.

A thread encodes frames while the next ones are made.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ..files.atomic import new_file
from .encoding import Encoding, choose_encoder, encoder_pix_fmt, options
from .probe import VideoFacts
from .sound import SoundPieces, SoundTrack, read_sound

if TYPE_CHECKING:
    from typing import Any

    import torch
    from av import VideoFrame

Item = TypeVar("Item")
POLL_SECONDS = 0.1
"""Seconds between two checks for Stop."""
BT709 = 1
"""Code of BT.709 primaries, transfer and matrix alike (ITU-T H.273, tables 2 to 4)."""
LIMITED_RANGE = 1
WAITING_FRAMES = 6
"""Frames in Y'CbCr that wait for the encoder: more than a latent makes, so that the decoder need not wait."""


@dataclass(frozen=True)
class Written:
    """An MP4 that has been written."""

    path: Path
    note: str
    """Sentences for the user: another encoder than the one asked for, or sound that was left out."""
    clip: VideoFacts
    """The facts that `probe_video` would return."""


def write_mp4(new_path: Callable[[], Path], images: Iterable[torch.Tensor], encoding: Encoding,
              metadata: dict[str, str], audio: dict[str, Any] | SoundPieces | None = None,
              on_frame: Callable[[int], None] = lambda count: None,
              stop: Callable[[], None] = lambda: None) -> Written:
    """Encode an IMAGE that comes in pieces (f, H, W, 3 or 4), float 0..1, into a file that `new_path` names.

    `audio`, an AUDIO or pieces, is cut or filled with silence to the clip's length; the pieces are asked for on
    another thread, none before its frames. on_frame(count) is called for each frame.
    stop() raises to end the run. After an error no file is left. Raises OSError when the file cannot be written,
    RequestError for images, settings or sound that no MP4 can hold, ValueError when there are no frames.
    """
    from av import Codec

    from .yuv import to_rgb, to_yuv

    encoding.check()
    sound, silence = (audio, "") if isinstance(audio, SoundPieces) else read_sound(audio)
    frames = (frame for piece in images for frame in piece)
    first = next(frames, None)
    if first is None:
        raise ValueError("There are no frames to write.")
    rgb = to_rgb(first, 1, encoding)
    height, width = rgb.shape[:2]
    encoder, note = choose_encoder(encoding, width, height)
    with new_file(new_path) as file:

        def work(pictures: Iterator[VideoFrame], check: Callable[[], None]) -> None:
            _encode(file.unfinished, pictures, encoder, encoding, (width, height), metadata, sound, check)

        with EncoderThread(work, WAITING_FRAMES, stop) as thread:
            thread.put(to_yuv(rgb, encoding))
            on_frame(1)
            number = 1
            for number, frame in enumerate(frames, start=2):
                thread.put(to_yuv(to_rgb(frame, number, encoding), encoding))
                on_frame(number)
            thread.finish()
    clip = VideoFacts(Codec(encoder, "w").canonical_name, encoding.pix_fmt, width, height, encoding.rate, number,
                      sound is not None)
    return Written(file.path, "\n".join(filter(None, (note, silence))), clip)


def _encode(path: Path, pictures: Iterable[VideoFrame], encoder: str, encoding: Encoding, size: tuple[int, int],
            metadata: dict[str, str], sound: SoundPieces | None, check: Callable[[], None]) -> None:
    """Encode pictures and sound into an MP4 at `path`; check() raises when the work is abandoned."""
    import av

    with av.open(str(path), "w", options={"movflags": "use_metadata_tags+faststart"}) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(encoder, rate=encoding.rate, options=options(encoder, encoding))
        stream.width, stream.height = size
        stream.pix_fmt = encoder_pix_fmt(encoder, encoding)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        if stream.codec.canonical_name == "hevc":
            context.codec_tag = "hvc1"  # Apple's players know no other
        track = None if sound is None else SoundTrack(container, sound)
        count = 0
        for count, picture in enumerate(pictures, start=1):
            check()
            picture.colorspace = picture.color_primaries = picture.color_trc = BT709
            picture.color_range = LIMITED_RANGE
            if picture.format.name != stream.pix_fmt:
                picture = picture.reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = count - 1, 1 / encoding.rate
            container.mux(stream.encode(picture))
            if track is not None:
                container.mux(list(track.until(count / encoding.rate)))
        for packet in context.encode_lazy(None):  # flushing delayed frames can take a while
            check()
            packet.stream = stream
            container.mux(packet)
        if track is not None:
            container.mux(list(track.rest()))


class AbandonedError(Exception):
    """Raised on the encoder thread to end work that is not wanted any more."""


class EncoderThread(Generic[Item]):
    """A thread that runs `work` on the items put into its queue, in order; at most `room` items wait.

    Use it as a context: an exception in the block abandons the work. After the block the thread has ended.
    """

    def __init__(self, work: Callable[[Iterator[Item], Callable[[], None]], None], room: int,
                 stop: Callable[[], None]) -> None:
        """work(items, check): consume the items; check() raises when the work is abandoned. stop(): raise on Stop."""
        self._items: queue.Queue[Item | None] = queue.Queue(room)
        self._abandoned = threading.Event()
        self._error: BaseException | None = None
        self._stop, self._work = stop, work
        self._thread = threading.Thread(target=self._run, name="MP4 encoder", daemon=True)

    def __enter__(self) -> EncoderThread[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandoned.set()
        self._thread.join()

    def put(self, item: Item | None) -> None:
        """Add an item to the queue, None after the last one. Raises what the work raised, and what `stop` raises."""
        while True:
            self._stop()
            if self._error is not None:
                raise self._error
            try:
                return self._items.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                pass

    def finish(self) -> None:
        """Wait until all items are done. Raises as `put` does."""
        self.put(None)
        while self._thread.is_alive():
            self._stop()
            self._thread.join(POLL_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._iterate(), self._check)
        except BaseException as error:  # raised by `put` or `finish`, in the thread that waits
            self._error = error

    def _check(self) -> None:
        if self._abandoned.is_set():
            raise AbandonedError

    def _iterate(self) -> Iterator[Item]:
        while True:
            self._check()
            try:
                item = self._items.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
