"""Join clips into one MP4, with a report of its joints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..quality.seams import Seam
from .conform import check_same, differences
from .join import Joint, check_overlaps, join
from .join_settings import FIND, REFUSE, JoinSettings
from .joined_sound import joined_sound
from .mp4_writer import Written
from .save import Mp4, write_pieces
from .source import ClipSource, opaque


@dataclass
class _Joints:
    """What is known of the joints so far."""

    clips: Sequence[ClipSource]
    was_found: bool
    """The overlap, and not given."""
    show: Callable[[str], None]
    joints: dict[int, Joint] = field(default_factory=dict)
    seams: dict[int, Seam] = field(default_factory=dict)

    def made(self, joint: Joint) -> None:
        self.joints[joint.clip] = joint
        self.show(self.text())

    def measured(self, joint: Joint, seam: Seam) -> None:
        self.seams[joint.clip] = seam
        self.show(self.text())

    def text(self) -> str:
        """Return a line for each joint, and its warnings."""
        lines = []
        for number, joint in self.joints.items():
            seam = self.seams.get(number)
            what = "new shot" if joint.new_shot else f"{joint.overlap} frames shared, {joint.faded} blended"
            lines.append(f"{self.clips[number - 1].name} from frame {joint.frame + 1}: {what}"
                         + (f"; {seam.describe()}" if seam else ""))
            lines += [f"⚠ {sentence}" for sentence in (seam.warnings() if seam else [])]
        return "\n".join(lines)

    def report(self) -> list[dict[str, Any]]:
        """Return the joints as JSON holds them."""
        return [{**asdict(joint), "overlap_was_found": self.was_found,
                 "seam": {**asdict(self.seams[number]), "warnings": self.seams[number].warnings()}
                 if number in self.seams else None} for number, joint in self.joints.items()]


def join_to_mp4(mp4: Mp4, clips: Sequence[ClipSource], settings: JoinSettings, mismatch: str,
                on_frame: Callable[[int, int], None], stop: Callable[[], None],
                show: Callable[[str], None]) -> tuple[Written, str]:
    """Write clips joined, in the size of the first one and the rate of `mp4`; return the file, and a report (JSON).

    mismatch: one of join_settings.MISMATCHES. mp4.audio, when given, replaces the clips' own
    sound. show(text) is called with what is known of the joints, after each. Raises RequestError, and then no file is
    left: for settings that cannot be, for clips that are refused, and as `join` and `write_pieces` do.
    """
    settings.check(len(clips))
    clips = [opaque(clip, mp4.encoding.alpha) for clip in clips]
    size, rate = (clips[0].width, clips[0].height), mp4.encoding.rate
    if mismatch == REFUSE:
        check_same(clips, *size, rate)
    check_overlaps(clips, settings, rate)
    sound = joined_sound(clips) if mp4.audio is None else None
    joints = _Joints(clips, settings.overlap == FIND, show)
    frames = join(clips, size, rate, settings, sound, joints.made, joints.measured)
    total = sum(round(clip.expected * rate / clip.rate) for clip in clips)
    written = write_pieces(mp4 if sound is None else replace(mp4, audio=sound), frames, total, "the clips are",
                           lambda done, total: on_frame(min(done, total), total), stop)
    on_frame(total, total)  # which counted the frames that were dropped
    changed = {clip.name: difference for clip in clips if (difference := differences(clip, *size, rate))}
    report = {"frames": written.clip.frames, "fps": float(rate), "width": size[0], "height": size[1],
              "clips": [clip.name for clip in clips], "conformed": changed, "joints": joints.report()}
    notes = [written.note, joints.text(), *(f"{name} had {what}: conformed" for name, what in changed.items())]
    return replace(written, note="\n".join(filter(None, notes))), json.dumps(report, indent=1)

