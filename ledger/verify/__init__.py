"""Is the ledger what it promises? `run` goes through every check; the others are what a check needs."""
