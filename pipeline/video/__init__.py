"""Frames: the VAE as a stream, and the MP4 writer. Knows tensors, no network."""
