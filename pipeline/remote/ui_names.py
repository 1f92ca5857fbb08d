"""Places in ComfyUI's settings dialog, for messages; the headings are those of web/js/settings.js."""

from __future__ import annotations

KEYS = "Settings > Wan 2.2 > Providers and keys"
BUDGET = "Settings > Wan 2.2 > Budget"
SENDING = "Settings > Wan 2.2 > What leaves this machine"
