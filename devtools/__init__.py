"""The work of dev.py: set up, start a ComfyUI, run workflows. What a user runs needs the standard library only."""
