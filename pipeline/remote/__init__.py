"""Make clips at hosted providers: the ledger of jobs, one client, one file per provider. Imports no torch."""
