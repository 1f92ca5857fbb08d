"""How a clip goes on from another, as Extend Clip and Long Clip show it."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.request import AUTO
from ..pipeline.segments import KNOWN_FRAMES, WAYS


def extension_inputs() -> list[io.Input]:
    """Return the choice of the way, and of the number of known frames."""
    return [
        io.Combo.Input("way", options=list(WAYS), default=AUTO,
                       tooltip="How to go on. SVI: from the last latent and an anchor picture; needs the LoRA pair SVI "
                               "2.0 Pro. frames: from the last frames, which keeps the motion. last frame: from that "
                               "one alone. auto: SVI with that LoRA pair, else frames."),
        io.Combo.Input("known_frames", options=list(map(str, KNOWN_FRAMES)), default=str(KNOWN_FRAMES[0]),
                       tooltip="For the way frames: how many last frames to go on from. More hold the motion better, "
                               "and leave fewer new ones."),
    ]
