"""Files on the disk: written whole or not at all, and how they are named. Knows neither network nor tensors."""
