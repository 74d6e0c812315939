"""Everything that goes into Kafka: commands as CloudEvents, each acknowledged or accounted for.

`publisher` sends from Python, `publish` a file of JSON lines, `redrive` dead letters a second time. Nothing
here knows Postgres: what became of a command is the ledger's answer (`ledger.api`). What librdkafka knows of
its own properties is asked in `librdkafka`, also for the settings.

Internal: programs import from `stockledger` only (docs/PUBLIC.md).
"""
