"""The pack's own socket types."""

from comfy_api.latest import io

CATEGORY = "Wan 2.2"
Model = io.Custom("WAN22_MODEL")
"""pipeline.models.load.Wan22Model: both experts."""
FirstFrame = io.Custom("WAN22_FIRST_FRAME")
"""pipeline.models.first_frame.FirstFrame: a picture, encoded for a clip of a given size and length."""
Providers = io.Custom("WAN22_PROVIDERS")
"""A tuple of pipeline.remote.providers.Target: the providers to try, in this order."""
Loras = io.Custom("WAN22_LORAS")
"""A tuple of pipeline.request.Lora, as they were asked for: none has been downloaded."""
Motion = io.Custom("WAN22_MOTION")
"""pipeline.motion.motion.Motion: a camera and objects that move, for a clip of a given size and length."""
Segments = io.Custom("WAN22_SEGMENTS")
"""A tuple of pipeline.segments.Segment, in order: what a long clip is made of."""
