"""Bring files that a user names by a link onto the disk. Knows the network, no tensors.

`fetch.fetch` for LoRA files, `picture.fetch_picture` for pictures. What follows from what is listed in fetch.py.
"""
