"""ComfyUI as the host: the only room that imports ComfyUI. Everything here needs a running ComfyUI."""
