"""Weight files -> modules. Knows tensors and files, no network; never fetches anything."""
