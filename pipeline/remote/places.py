"""Where ComfyUI's settings dialog has what a message asks for; the headings are those of web/js/settings/."""

KEYS = "Settings > Wan 2.2 > Providers and keys"
BUDGET = "Settings > Wan 2.2 > Budget"
SENDING = "Settings > Wan 2.2 > What leaves this machine"
