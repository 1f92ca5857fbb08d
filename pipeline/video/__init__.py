"""Frames to files and back: MP4s with their settings and metadata, trimming, pictures. Knows tensors, no network."""
