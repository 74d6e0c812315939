"""The truth in Postgres: which commands were applied, in which order, and what followed from them.

Floors, imports go down only:
    4 command   -- the command line, wiring, the demo
                stockledger
    3 edges     -- the only floor with Kafka; the two below are siblings
                gateway
                consumer | producer
    2 services  -- a batch, rebuilding, the past, the proof, questions
                ledger.api
                ledger.waiting
                ledger.{answers, batch, cache, verify} | ledger.rebuilding.{projector, rebuild} |
                ledger.history.{decisions, pages}
                ledger.history.events
                ledger.rebuilding.{build, swap}
                ledger.rebuilding.{builder, create, follow, pace, retire}
                ledger.rebuilding.fold
                ledger.codec
                ledger.batch_state
    1 storage   -- read models, and the only SQL
                ledger.projections
                ledger.store.rules
                ledger.store.reads
                ledger.store.tables
                ledger.store.schema
                ledger.store.connection
    0 core      -- pure: no clock, randomness, environment, I/O
                ledger.domain
                ledger.errors
    aside       -- small, without a floor: whoever needs them
                ledger.{brokers, failpoints, figures, private, shell, signals, telemetry}

Why every command takes effect exactly once, however often it is delivered and whoever crashes:
 1. A batch is consecutive records of one lane, applied in one transaction, all or nothing.
 2. The first statement moves the lane's stored offset by compare-and-set on (offset, epoch). Two owners
    can't both succeed: the second waits for the first one's commit, then matches no row.
 3. The offset is stored with the effect. A crash before the commit leaves both undone, one after it
    leaves both done; a reader always begins at the stored offset, never at Kafka's.
 4. So each record is applied by exactly one committed batch. Records that carry the same message key
    (a retry, a republication, another topic) meet the register of processed messages, whose primary
    key admits one row per key: its first outcome stands for all of them.
 5. The outcome is decided on stock rows that stay locked from before they are read until the commit,
    and on accounts that the head's catalogue counter guards: it is what a sequential run would decide.
 6. The journal's position is taken under the head's lock, held to the commit: order and proof in one.

Internal: programs import from `stockledger` only (docs/PUBLIC.md).
"""
