"""The work of the nodes: describe a clip, load weights, sample latents, write frames. Imports nothing heavy."""
