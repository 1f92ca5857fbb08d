"""The list of jobs on the canvas: the ledger's clips and this server's runs together."""
