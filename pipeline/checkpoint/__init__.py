"""Weight files to tensors: formats, headers, what a file holds, and which files fit. Knows no host, no network."""
