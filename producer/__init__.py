"""Everything that goes into Kafka: commands as CloudEvents, each acknowledged or accounted for.

`publisher` sends from Python, `publish` a file of JSON lines, `redrive` dead letters a second time. Nothing
here knows Postgres: what became of a command is the ledger's answer (`ledger.api`).
"""

from producer.publisher import Publisher

__all__ = ["Publisher"]
