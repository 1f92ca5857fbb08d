"""What the nodes do: describe a clip, load weights, sample latents, write frames. Imports nothing heavy by itself."""
