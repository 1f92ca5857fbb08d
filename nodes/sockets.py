"""The pack's own socket types."""

from comfy_api.latest import io

CATEGORY = "Wan 2.2"
Model = io.Custom("WAN22_MODEL")
"""pipeline.image_to_video.Wan22Model: both experts."""
FirstFrame = io.Custom("WAN22_FIRST_FRAME")
"""pipeline.first_frame.FirstFrame: the picture, encoded for a clip of a size and length."""
Providers = io.Custom("WAN22_PROVIDERS")
"""A tuple of pipeline.remote_clip.Offer: whom to ask, in this order."""
Loras = io.Custom("WAN22_LORAS")
"""A tuple of pipeline.request.Lora, as they were asked for: nothing of them has been fetched."""
