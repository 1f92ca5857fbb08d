"""What stands behind dev.py: set-up, a ComfyUI to talk to, and the talking. Standard library only."""
