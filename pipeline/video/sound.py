"""Encode an AUDIO of ComfyUI's as a clip's AAC track, exactly as long as its frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..request import RequestError

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np
    import torch
    from av import AudioStream, Packet
    from av.container import OutputContainer

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sample rates of AAC, in Hz (ISO/IEC 14496-3, table 1.18); other rates are resampled to 48000."""
MAX_RATE = 768_000
"""Highest sample rate in Hz, that of the fastest converters."""


@runtime_checkable
class SoundPieces(Protocol):
    """Sound that is read piece by piece, from its start to its end."""

    rate: int
    """Samples a second."""
    channels: int
    """One of LAYOUTS."""

    def piece(self, start: int, end: int) -> np.ndarray:
        """Return the samples from index `start` to before `end`, (C, T), float32 in -1..1; silence behind its end."""


@dataclass(frozen=True)
class Sound:
    """The sound of one clip, in memory."""

    samples: np.ndarray
    """(C, T), float32 in -1..1; C is one of LAYOUTS, T at least 1."""
    rate: int
    """Samples a second."""

    @property
    def channels(self) -> int:
        return len(self.samples)

    def piece(self, start: int, end: int) -> np.ndarray:
        """Return samples as `SoundPieces.piece` does."""
        import numpy as np

        found = self.samples[:, start:end]
        return np.pad(found, ((0, 0), (0, end - start - found.shape[1])))


def read_sound(audio: Mapping[str, Any] | None) -> tuple[Sound | None, str]:
    """Return the sound of an AUDIO {"waveform": (B, C, T), "sample_rate"}, and a sentence on any part that is left out.

    (C, T) and (T,), which some nodes hand out, are one clip; of several clips the first is taken. Whole numbers are
    PCM, whose full scale is that of their dtype. None for no AUDIO and for one without a sample. Raises RequestError
    for any other value, and for channels that AAC has no layout for.
    """
    import numpy as np
    import torch

    if audio is None:
        return None, ""
    try:
        waveform, rate = audio["waveform"], int(audio["sample_rate"])
        waveform = torch.from_numpy(waveform) if isinstance(waveform, np.ndarray) else waveform
        dimensions = waveform.ndim
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"The audio is not an AUDIO of ComfyUI ({error!r}): it needs a waveform and a "
                           "sample_rate. Connect Load Audio or a node like it.") from error
    if dimensions not in (1, 2, 3):
        raise RequestError(f"The audio's waveform has the shape {tuple(waveform.shape)}; an AUDIO has (batch, "
                           "channels, samples).")
    if not 1 <= rate <= MAX_RATE:
        raise RequestError(f"The audio's sample_rate is {rate}; choose 1 to {MAX_RATE} samples a second, such as "
                           "48000.")
    clips = waveform.reshape((1,) * (3 - dimensions) + tuple(waveform.shape))
    if clips.numel() == 0:
        return None, "The audio is empty: the file has no sound."
    if clips.shape[1] not in LAYOUTS:
        raise RequestError(f"The audio has {clips.shape[1]} channels; an MP4 takes {', '.join(map(str, LAYOUTS))}. Mix "
                           "it down to stereo first.")
    note = f"The audio has {len(clips)} clips; the file has the sound of the first." if len(clips) > 1 else ""
    samples = np.nan_to_num(_as_float(clips[0]).cpu().numpy(), nan=0.0, posinf=1.0, neginf=-1.0)
    return Sound(samples.clip(-1, 1), rate), note


def _as_float(samples: torch.Tensor) -> torch.Tensor:
    """Return samples as float32, of whole numbers in -1..1; uint8 is PCM around 128, as in WAV files.

    Raises RequestError for a dtype that no sound has.
    """
    import torch

    if samples.is_floating_point():
        return samples.float()
    if samples.dtype == torch.uint8:
        return (samples.float() - 128) / 128
    if samples.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise RequestError(f"The audio's waveform holds {str(samples.dtype).removeprefix('torch.')}; an AUDIO holds "
                           "floats of -1 to 1.")
    return samples.float() / -float(torch.iinfo(samples.dtype).min)


class SoundTrack:
    """The AAC track of a file that is being written, with silence behind a sound that is shorter than the clip."""

    def __init__(self, container: OutputContainer, sound: SoundPieces) -> None:
        import av

        self._sound, self._done = sound, 0
        layout, kept = LAYOUTS[sound.channels], sound.rate if sound.rate in AAC_RATES else 48000
        self._stream: AudioStream = container.add_stream("aac", rate=kept, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=kept)

    def until(self, time: Fraction) -> Iterator[Packet]:
        """Yield the packets up to a time in seconds, which must not decrease from call to call."""
        import av
        import numpy as np

        end = round(time * self._sound.rate)
        if end > self._done:
            # Channels in turns, in one plane: PyAV 18 fills no frame of eight planes.
            interleaved = self._sound.piece(self._done, end).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(interleaved), format="flt",
                                               layout=self._stream.layout.name)
            frame.sample_rate, frame.pts = self._sound.rate, self._done
            self._done = end
            for resampled in self._resampler.resample(frame):
                yield from self._stream.encode(resampled)

    def rest(self) -> Iterator[Packet]:
        """Yield the last packets."""
        for resampled in self._resampler.resample(None):
            yield from self._stream.encode(resampled)
        yield from self._stream.encode(None)
