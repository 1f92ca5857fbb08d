"""The clips of the ledger and of this server's runs in one list, as the canvas shows it."""
