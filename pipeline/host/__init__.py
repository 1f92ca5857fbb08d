"""ComfyUI as the host: the only room that imports it. Everything here needs a running ComfyUI."""
