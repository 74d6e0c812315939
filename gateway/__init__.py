"""The door for who doesn't speak Kafka: publish, wait, outcome, as one call in Python.

`sender` publishes for any number of callers, `till` takes an order to its outcome, `shop` is what programs
call. The ledger's register is the only memory: any number of these may run, and each may be killed.

Internal: programs import from `stockledger` only (docs/PUBLIC.md).
"""
