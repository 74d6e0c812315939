"""What must be true of the tables: one statement a rule, which finds the first row that breaks it.

A batch's rows, its journal row and the head become visible together, so a statement, which has one
snapshot, sees all of a batch or nothing: each rule holds at any moment, while workers run. Rules over rows
that carry their entry are checked page by page of the journal, so that no snapshot is held for long and
memory stays flat; the folds over streams are one statement each. No row is written or locked.

Every statement returns how much it looked at, and a sentence about the first difference or null.
"""

from typing import LiteralString, NamedTuple

from ledger.store.database import Connection

PAGE_ROWS = 10_000
"""About how many deliveries a page of the journal covers; a larger batch is a page of its own."""


class Page(NamedTuple):
    """A range of positions, and the range of entry numbers that it has (others may lie within it, too)."""

    first: int
    last: int
    first_entry: int
    last_entry: int


class Finding(NamedTuple):
    """How much was looked at, and the first difference."""

    seen: int
    difference: str | None


class Rule(NamedTuple):
    """A statement, what it looks at, and whether it runs once a page or once."""

    name: str
    sees: str
    statement: LiteralString
    paged: bool = False


PAGES = """
SELECT min(position), max(position), min(entry), max(entry)
FROM (SELECT position, entry,
             div(sum(next_offset - first_offset - skipped + 1) OVER (ORDER BY position), %s) AS page
      FROM ledger.journal WHERE position <= %s) j
GROUP BY page ORDER BY 1
"""

# A page's rows are found by block range indexes, which know nothing of the newest blocks until a vacuum
# comes by: each page would read all of those. It skips the tables that this user may not maintain.
SETTLE = """
VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false)
    ledger.event, ledger.processed_message, ledger.cancellation,
    ledger.dead_letter, ledger.conflict, ledger.gap
"""
MAY_SETTLE = "SELECT NOT pg_is_in_recovery()"

# Positions are dense from 1, never recorded before their predecessor, and the head is the last entry.
JOURNAL = """
WITH entries AS (
    SELECT position, lag(position, 1, 0::bigint) OVER w AS before,
           recorded_at, lag(recorded_at) OVER w AS earlier
    FROM ledger.journal WINDOW w AS (ORDER BY position)
), compared AS (
    SELECT position, CASE
        WHEN position <> before + 1 THEN concat('position ', before + 1, ' is missing')
        WHEN recorded_at < earlier THEN concat('position ', position, ' was recorded before its predecessor')
    END AS difference
    FROM entries
    UNION ALL
    SELECT h.position, CASE
        WHEN h.position <> coalesce(j.position, 0) THEN
            concat('the head is at position ', h.position, ', the journal ends at ', coalesce(j.position, 0))
        WHEN (h.hash, h.recorded_at) <> (j.hash, j.recorded_at) THEN
            concat('the head has another hash or time than position ', h.position)
    END
    FROM ledger.head h
    LEFT JOIN ledger.journal j ON j.position = (SELECT max(position) FROM ledger.journal)
)
SELECT (SELECT count(*) FROM entries),
       (SELECT difference FROM compared WHERE difference IS NOT NULL ORDER BY position LIMIT 1)
"""

# In journal order each lane's entries begin where the one before ended, from 0 to where the lane is now;
# epochs never fall.
LANES = """
WITH entries AS (
    SELECT topic, partition, position, first_offset, next_offset, epoch,
           lag(next_offset, 1, 0::bigint) OVER w AS expected, lag(epoch, 1, 0::bigint) OVER w AS earlier
    FROM ledger.journal WINDOW w AS (PARTITION BY topic, partition ORDER BY position)
), ends AS (
    SELECT topic, partition, max(next_offset) AS next_offset, max(epoch) AS epoch
    FROM entries GROUP BY topic, partition
), compared AS (
    SELECT topic, partition, position, CASE
        WHEN first_offset <> expected THEN
            concat('position ', position, ' begins at offset ', first_offset, ', not at ', expected)
        WHEN epoch < earlier THEN concat('position ', position, ' has epoch ', epoch, ' after ', earlier)
    END AS difference
    FROM entries
    UNION ALL
    SELECT topic, partition, NULL, CASE
        WHEN l.topic IS NULL THEN 'there are entries, but no lane'
        WHEN l.next_offset <> coalesce(e.next_offset, 0) THEN
            concat('the lane is at ', l.next_offset, ', its entries end at ', coalesce(e.next_offset, 0))
        WHEN l.epoch < e.epoch THEN concat('the lane has epoch ', l.epoch, ', an entry has ', e.epoch)
    END
    FROM ledger.lane l FULL JOIN ends e USING (topic, partition)
)
SELECT (SELECT count(*) FROM entries),
       (SELECT concat(topic, '[', partition, ']: ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY topic, partition, position LIMIT 1)
"""

# An entry has as many rows of each kind as it counts, and its counts cover its offsets.
ENTRIES = """
WITH register AS (
    SELECT entry, count(*) FILTER (WHERE reason IS NULL) AS applied, count(reason) AS rejected
    FROM ledger.processed_message WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
), events AS (
    SELECT entry, count(*) AS events, min(ordinal) AS first, max(ordinal) AS last
    FROM ledger.event WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
), dead AS (
    SELECT entry, count(*) AS dead
    FROM ledger.dead_letter WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
), conflicts AS (
    SELECT entry, count(*) AS conflict
    FROM ledger.conflict WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
), gaps AS (
    SELECT entry, sum(next_offset - first_offset)::bigint AS skipped
    FROM ledger.gap WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
), counted AS (
    SELECT j.*, e.first, e.last,
           ARRAY[j.applied, j.rejected, j.conflict, j.dead, j.skipped, j.applied] AS counts,
           ARRAY[coalesce(r.applied, 0), coalesce(r.rejected, 0), coalesce(c.conflict, 0),
                 coalesce(d.dead, 0), coalesce(g.skipped, 0), coalesce(e.events, 0)] AS rows
    FROM ledger.journal j LEFT JOIN register r USING (entry) LEFT JOIN events e USING (entry)
    LEFT JOIN dead d USING (entry) LEFT JOIN conflicts c USING (entry) LEFT JOIN gaps g USING (entry)
    WHERE j.position BETWEEN %(first)s AND %(last)s
), compared AS (
    SELECT position, CASE
        WHEN counts <> rows THEN
            concat('counts of applied, rejected, conflict, dead, skipped, events are ', counts,
                   ', of its rows ', rows)
        WHEN applied + rejected + duplicate + conflict + dead + skipped <> next_offset - first_offset THEN
            concat('counts do not add up to its ', next_offset - first_offset, ' offsets')
        WHEN (first, last) <> (0, applied - 1) THEN 'events are not numbered from 0'
    END AS difference
    FROM counted
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('position ', position, ': ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY position LIMIT 1)
"""

# No offset has two outcomes, and none lies outside its entry.
OFFSETS = """
WITH taken AS (
    SELECT entry, NULL AS topic, NULL AS partition, "offset" AS first_offset, "offset" + 1 AS next_offset
    FROM ledger.processed_message WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
    UNION ALL SELECT entry, topic, partition, "offset", "offset" + 1
    FROM ledger.dead_letter WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
    UNION ALL SELECT entry, second_topic, second_partition, second_offset, second_offset + 1
    FROM ledger.conflict WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
    UNION ALL SELECT entry, topic, partition, first_offset, next_offset
    FROM ledger.gap WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
), compared AS (
    SELECT j.position, t.first_offset, CASE
        WHEN lag(t.next_offset) OVER (PARTITION BY entry ORDER BY t.first_offset) > t.first_offset THEN
            ' has two outcomes'
        WHEN t.first_offset < j.first_offset OR t.next_offset > j.next_offset
             OR (t.topic, t.partition) <> (j.topic, j.partition) THEN ' lies outside'
    END AS difference
    FROM taken t JOIN ledger.journal j USING (entry) WHERE j.position BETWEEN %(first)s AND %(last)s
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('position ', position, ': offset ', first_offset, difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY position, first_offset LIMIT 1)
"""

# Every row belongs to an entry of the journal.
ORPHANS = """
WITH rows AS (
    SELECT 'event' AS name, entry, count(*) AS rows FROM ledger.event GROUP BY entry
    UNION ALL SELECT 'processed_message', entry, count(*) FROM ledger.processed_message GROUP BY entry
    UNION ALL SELECT 'cancellation', entry, count(*) FROM ledger.cancellation GROUP BY entry
    UNION ALL SELECT 'dead_letter', entry, count(*) FROM ledger.dead_letter GROUP BY entry
    UNION ALL SELECT 'conflict', entry, count(*) FROM ledger.conflict GROUP BY entry
    UNION ALL SELECT 'gap', entry, count(*) FROM ledger.gap GROUP BY entry
)
SELECT (SELECT coalesce(sum(rows), 0) FROM rows),
       (SELECT concat(rows, ' rows of ', name, ' have the entry ', entry, ', but the journal has not')
        FROM rows r WHERE NOT EXISTS (SELECT FROM ledger.journal j WHERE j.entry = r.entry)
        ORDER BY entry, name LIMIT 1)
"""

# A command that was applied has exactly one event, at the version that its register row says; one that was
# rejected has none.
OUTCOMES = """
WITH register AS (
    SELECT entry, source, id, reason, version, true AS registered
    FROM ledger.processed_message WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
), events AS (
    SELECT entry, source, id, count(*) AS events, min(version) AS event_version
    FROM ledger.event WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry, source, id
), compared AS (
    SELECT entry, source, id, CASE
        WHEN registered IS NULL THEN 'has an event, but is not registered in its entry'
        WHEN events IS NULL AND reason IS NULL THEN 'was applied, but has no event'
        WHEN reason IS NOT NULL AND events > 0 THEN 'was rejected, but has an event'
        WHEN events > 1 THEN concat('was applied once, but has ', events, ' events')
        WHEN version <> event_version THEN
            concat('was applied as version ', version, ', but its event has version ', event_version)
    END AS difference
    FROM register FULL JOIN events USING (entry, source, id)
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('message ', source, ' ', id, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY entry, source, id LIMIT 1)
"""

# What folds use (stream, delta, user_id) is what the payload says. As text: a number that was tampered with
# may be none.
EVENTS = """
WITH said AS (
    SELECT e.entry, e.ordinal, e.stream, e.version, e.delta, e.user_id, said.user_id AS said_user,
           CASE WHEN e.type IN ('UserRegistered', 'UserClosed') THEN 'user-' || said.user_id
                ELSE 'goods-' || said.goods_id END AS said_stream,
           CASE WHEN e.type IN ('UserRegistered', 'UserClosed', 'GoodsListed') THEN '0'
                WHEN e.type IN ('StockReceived', 'PurchaseCancelled') THEN said.quantity
                WHEN e.type = 'GoodsPurchased' THEN '-' || said.quantity
                WHEN e.type = 'StockAdjusted' THEN said.delta END AS said_delta
    FROM ledger.event e
    CROSS JOIN json_to_record(e.payload)
        AS said (user_id text COLLATE "C", goods_id text COLLATE "C", quantity text, delta text)
    WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s
), compared AS (
    SELECT entry, ordinal, stream, version, CASE
        WHEN stream IS DISTINCT FROM said_stream THEN concat('the payload belongs to ', said_stream)
        WHEN delta::text IS DISTINCT FROM said_delta THEN
            concat('delta is ', delta, ', the payload says ', coalesce(said_delta, 'nothing'))
        WHEN user_id IS DISTINCT FROM said_user THEN
            concat('user_id is ', user_id, ', the payload says ', coalesce(said_user, 'nothing'))
    END AS difference
    FROM said
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat(stream, ' version ', version, ': ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY entry, ordinal LIMIT 1)
"""

# A stream's versions are 1, 2, 3, ...
VERSIONS = """
WITH streams AS (
    SELECT stream, count(*) AS events, min(version) AS first, max(version) AS last
    FROM ledger.event GROUP BY stream
)
SELECT (SELECT count(*) FROM streams),
       (SELECT concat(stream, ' has ', events, ' events, with versions from ', first, ' to ', last)
        FROM streams WHERE (first, last) <> (1, events) ORDER BY stream LIMIT 1)
"""

# Stock was never negative nor above 2^53, after none of its events.
BOUNDS = """
WITH levels AS (
    SELECT stream, version, sum(delta) OVER (PARTITION BY stream ORDER BY version) AS on_hand
    FROM ledger.event WHERE starts_with(stream, 'goods-')
), goods AS (
    SELECT stream, min(version) FILTER (WHERE on_hand NOT BETWEEN 0 AND 9007199254740992) AS version
    FROM levels GROUP BY stream
)
SELECT (SELECT count(*) FROM goods),
       (SELECT concat('goods ', substr(stream, 7), ': stock was negative or above 2^53 at version ', version)
        FROM goods WHERE version IS NOT NULL ORDER BY stream LIMIT 1)
"""

# The live stock is what the events add up to, for all goods that were listed and for no others.
STOCK = """
WITH events AS (
    SELECT substr(stream, 7) AS goods_id, sum(delta) AS on_hand, max(version) AS version
    FROM ledger.event WHERE starts_with(stream, 'goods-') GROUP BY stream
), stock AS (
    SELECT goods_id, on_hand, version
    FROM ledger.stock WHERE generation = (SELECT stock_generation FROM ledger.head)
), compared AS (
    SELECT goods_id, CASE
        WHEN e.version IS NULL THEN concat('stock says ', s.on_hand, ', but there are no events')
        WHEN s.version IS NULL THEN concat('events say ', e.on_hand, ', but there is no stock row')
        WHEN s.on_hand <> e.on_hand THEN concat('stock says ', s.on_hand, ', events say ', e.on_hand)
        WHEN s.version <> e.version THEN concat('stock is at version ', s.version, ', events at ', e.version)
    END AS difference
    FROM stock s FULL JOIN events e USING (goods_id)
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('goods ', goods_id, ': ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY goods_id LIMIT 1)
"""

# An account is what its user's events say.
ACCOUNTS = """
WITH events AS (
    SELECT substr(stream, 6) AS user_id, max(version) AS version, bool_or(type = 'UserClosed') AS closed
    FROM ledger.event WHERE starts_with(stream, 'user-') GROUP BY stream
), compared AS (
    SELECT user_id, CASE
        WHEN e.version IS NULL THEN 'there is an account, but no events'
        WHEN a.version IS NULL THEN 'there are events, but no account'
        WHEN (a.version, a.closed) <> (e.version, e.closed) THEN
            concat('account says version ', a.version, CASE WHEN a.closed THEN ', closed' END,
                   ', events say ', e.version, CASE WHEN e.closed THEN ', closed' END)
    END AS difference
    FROM ledger.account a FULL JOIN events e USING (user_id)
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('user ', user_id, ': ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY user_id LIMIT 1)
"""

# Each cancellation row is one PurchaseCancelled event's, which returns what that purchase took.
CANCELLATIONS = """
WITH events AS (
    SELECT e.entry, said.purchase_source AS source, said.purchase_id AS id, e.stream, e.user_id, e.delta
    FROM ledger.event e
    CROSS JOIN json_to_record(e.payload)
        AS said (purchase_source text COLLATE "C", purchase_id text COLLATE "C")
    WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND e.type = 'PurchaseCancelled'
), cancellations AS (
    SELECT entry, source, id, true AS found
    FROM ledger.cancellation WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
), pairs AS (
    SELECT * FROM events FULL JOIN cancellations USING (entry, source, id)
), compared AS (
    SELECT c.entry, c.source, c.id, CASE
        WHEN c.found IS NULL THEN 'was cancelled by an event, but has no cancellation row'
        WHEN c.stream IS NULL THEN 'has a cancellation row, but no event cancelled it'
        WHEN (e.user_id, -e.delta) IS DISTINCT FROM (c.user_id, c.delta) THEN
            'was cancelled with another user or quantity than it was made with'
    END AS difference
    FROM pairs c
    LEFT JOIN ledger.processed_message p ON p.id = c.id AND p.source = c.source
    LEFT JOIN ledger.event e ON e.stream = c.stream AND e.version = p.version AND e.type = 'GoodsPurchased'
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('purchase ', source, ' ', id, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY entry, source, id LIMIT 1)
"""

# A conflict's evidence is what the register says of the first delivery, and the second one really differs.
CONFLICTS = """
WITH compared AS (
    SELECT c.second_topic, c.second_partition, c.second_offset, CASE
        WHEN (c.first_fingerprint, c.first_topic, c.first_partition, c.first_offset)
             IS DISTINCT FROM (p.fingerprint, j.topic, j.partition, p."offset") THEN
            concat('the evidence is not what the register says of ', c.source, ' ', c.id)
        WHEN c.first_fingerprint = c.second_fingerprint THEN 'the two payloads are the same'
    END AS difference
    FROM ledger.conflict c
    LEFT JOIN ledger.processed_message p ON p.id = c.id AND p.source = c.source
    LEFT JOIN ledger.journal j ON j.entry = p.entry
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat(second_topic, '[', second_partition, ']: offset ', second_offset, ': ', difference)
        FROM compared WHERE difference IS NOT NULL
        ORDER BY second_topic, second_partition, second_offset LIMIT 1)
"""

RULES = (
    Rule("journal", "positions", JOURNAL),
    Rule("lanes", "entries", LANES),
    Rule("entries", "entries", ENTRIES, paged=True),
    Rule("offsets", "rows", OFFSETS, paged=True),
    Rule("orphans", "rows", ORPHANS),
    Rule("outcomes", "messages", OUTCOMES, paged=True),
    Rule("events", "events", EVENTS, paged=True),
    Rule("versions", "streams", VERSIONS),
    Rule("bounds", "goods", BOUNDS),
    Rule("stock", "goods", STOCK),
    Rule("accounts", "users", ACCOUNTS),
    Rule("cancellations", "purchases", CANCELLATIONS, paged=True),
    Rule("conflicts", "conflicts", CONFLICTS),
)
"""All of them, but for the chain, whose digests are computed outside the database."""


def settle(conn: Connection) -> None:
    """Index what was just written, so that a page finds its rows. Outside a transaction; no row changes."""
    if conn.execute(MAY_SETTLE).fetchone() == (True,):
        conn.execute(SETTLE)


def pages(conn: Connection, last: int) -> list[Page]:
    """The journal up to the position `last`, in pages of about `PAGE_ROWS` deliveries."""
    return [Page(*row) for row in conn.execute(PAGES, (PAGE_ROWS, last))]


def run(conn: Connection, statement: LiteralString, page: Page | None = None) -> Finding:
    """Check a rule, over a page or over everything, in one snapshot."""
    row = conn.execute(statement, page._asdict() if page else None).fetchone()
    assert row is not None
    return Finding(int(row[0]), row[1])
