"""The network: the only room that opens a connection. Knows no tensors."""
