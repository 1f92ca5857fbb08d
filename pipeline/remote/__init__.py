"""Clips made by hosted providers: job model, ledger, one client, one small adapter per provider. Knows no tensors."""
