"""Workflows in API form and their runs in ComfyUI's queue, as plain data: imports nothing of ComfyUI."""
