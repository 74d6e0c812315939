"""Everything that the ledger stands on, looked at one by one."""
