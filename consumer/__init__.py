"""Kafka to Postgres: reads a lane's records in order and hands them to `ledger.batch`.

Never produces to Kafka: one side effect, one transaction. Kafka's group offsets are advanced after the
commit, for lag tools only, and never read back; where to read on is what the lane's row says.

Internal: programs import from `stockledger` only (docs/PUBLIC.md).
"""
