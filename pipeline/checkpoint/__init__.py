"""Weight files to tensors: formats, headers, the model a file holds, the slot it fits. Knows no host or network."""
