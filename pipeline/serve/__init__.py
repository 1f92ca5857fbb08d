"""The API: requests of other programs over HTTP become runs of this ComfyUI, and their clips go back by links."""
