"""Encode an AUDIO of ComfyUI's as a clip's AAC track, exactly as long as its frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..request import RequestError

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np
    from av import AudioStream, Packet
    from av.container import OutputContainer

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sample rates of AAC, in Hz (ISO/IEC 14496-3, table 1.18); other rates are resampled to 48000."""


def read_sound(audio: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Return the first sound of AUDIO {"waveform": (B, C, T), "sample_rate"}: (C, T) float32 -1..1, and its rate in Hz.

    Raises RequestError for a number of channels that AAC has no layout for.
    """
    import numpy as np

    waveform = audio["waveform"]
    channels = waveform.shape[1]
    if channels not in LAYOUTS:
        raise RequestError(f"The audio has {channels} channels; an MP4 takes {', '.join(map(str, LAYOUTS))}. Mix it "
                           "down to stereo.")
    sound = np.nan_to_num(waveform[0].float().cpu().numpy(), nan=0.0, posinf=1.0, neginf=-1.0)
    return sound.clip(-1, 1), int(audio["sample_rate"])


class SoundTrack:
    """The AAC track of a file that is being written, with silence behind a sound that is shorter than the clip."""

    def __init__(self, container: OutputContainer, sound: np.ndarray, rate: int) -> None:
        import av

        self._sound, self._rate, self._done = sound, rate, 0
        layout, kept = LAYOUTS[len(sound)], rate if rate in AAC_RATES else 48000
        self._stream: AudioStream = container.add_stream("aac", rate=kept, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=kept)

    def until(self, time: Fraction) -> Iterator[Packet]:
        """Yield the packets up to a time in seconds, which must not decrease from call to call."""
        import av
        import numpy as np

        end = round(time * self._rate)
        piece = self._sound[:, self._done : end]
        missing = end - self._done - piece.shape[1]
        if end > self._done:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.pad(piece, ((0, 0), (0, missing)))),
                                               format="fltp", layout=self._stream.layout.name)
            frame.sample_rate, frame.pts = self._rate, self._done
            self._done = end
            for resampled in self._resampler.resample(frame):
                yield from self._stream.encode(resampled)

    def rest(self) -> Iterator[Packet]:
        """Yield the last packets."""
        for resampled in self._resampler.resample(None):
            yield from self._stream.encode(resampled)
        yield from self._stream.encode(None)
