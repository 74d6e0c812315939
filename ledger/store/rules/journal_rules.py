"""What must be true of the journal: it accounts for every position, every offset and every row.

Statements of `ledger.store.rules.audit`: those over the journal itself know `since`, the others a range.
"""

# Positions are dense, never recorded before their predecessor, and the head is the last entry. The entry at
# `since` is the one that the first has to follow.
JOURNAL = """
WITH entries AS (
    SELECT position, lag(position, 1, greatest(%(since)s::bigint - 1, 0)) OVER w AS before,
           recorded_at, lag(recorded_at) OVER w AS earlier
    FROM ledger.journal WHERE position >= %(since)s WINDOW w AS (ORDER BY position)
), compared AS (
    SELECT position, CASE
        WHEN position <> before + 1 THEN concat('position ', before + 1, ' is missing')
        WHEN recorded_at < earlier THEN concat('position ', position, ' was recorded before its predecessor')
    END AS difference, NULL::json AS stored, NULL::json AS expected
    FROM entries
    UNION ALL
    SELECT h.position, CASE
        WHEN h.position <> coalesce(j.position, 0) THEN
            concat('the head is at position ', h.position, ', the journal ends at ', coalesce(j.position, 0))
        WHEN (h.hash, h.recorded_at) <> (j.hash, j.recorded_at) THEN
            concat('the head has another hash or time than position ', h.position)
    END,
    json_build_object('position', h.position, 'hash', encode(h.hash, 'hex'), 'recorded_at', h.recorded_at),
    json_build_object('position', j.position, 'hash', encode(j.hash, 'hex'), 'recorded_at', j.recorded_at)
    FROM ledger.head h
    LEFT JOIN ledger.journal j ON j.position = (SELECT max(position) FROM ledger.journal)
)
SELECT (SELECT count(*) FROM entries WHERE position > %(since)s), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT difference, stored, expected FROM compared WHERE difference IS NOT NULL ORDER BY position LIMIT 1
) d ON true
"""

# In journal order each lane's entries begin where the one before ended, from 0 to where the lane is now.
# Epochs never fall, and what lies before the lane's start is a gap. A lane's last entry up to `since` is the
# one that the first has to follow.
LANES = """
WITH lanes AS (
    SELECT topic, partition FROM ledger.lane
    UNION SELECT topic, partition FROM ledger.journal WHERE position > %(since)s
), entries AS (
    SELECT topic, partition, position, first_offset, next_offset, epoch
    FROM ledger.journal WHERE position > %(since)s
    UNION ALL
    SELECT before.* FROM lanes l CROSS JOIN LATERAL (
        SELECT topic, partition, position, first_offset, next_offset, epoch FROM ledger.journal j
        WHERE (j.topic, j.partition) = (l.topic, l.partition) AND position <= %(since)s
        ORDER BY first_offset DESC LIMIT 1
    ) before
), pairs AS (
    SELECT *, lag(next_offset, 1, 0::bigint) OVER w AS before, lag(epoch, 1, 0::bigint) OVER w AS earlier
    FROM entries WINDOW w AS (PARTITION BY topic, partition ORDER BY position)
), ends AS (
    SELECT topic, partition, max(next_offset) AS next_offset, max(epoch) AS epoch
    FROM entries GROUP BY topic, partition
), compared AS (
    SELECT topic, partition, position, CASE
        WHEN first_offset <> before THEN
            concat('position ', position, ' begins at offset ', first_offset, ', not at ', before)
        WHEN epoch < earlier THEN concat('position ', position, ' has epoch ', epoch, ' after ', earlier)
    END AS difference, NULL::json AS stored, NULL::json AS expected
    FROM pairs WHERE position > %(since)s
    UNION ALL
    SELECT topic, partition, NULL, CASE
        WHEN l.topic IS NULL THEN 'there are entries, but no lane'
        WHEN l.next_offset <> coalesce(e.next_offset, 0) THEN
            concat('the lane is at ', l.next_offset, ', its entries end at ', coalesce(e.next_offset, 0))
        WHEN l.epoch < e.epoch THEN concat('the lane has epoch ', l.epoch, ', an entry has ', e.epoch)
        WHEN l.start_offset > 0 AND e.next_offset > 0 AND NOT EXISTS (
            SELECT FROM ledger.gap g
            WHERE g.topic = l.topic AND g.partition = l.partition AND g.first_offset = 0
              AND (g.cause, g.next_offset) = ('before_start', l.start_offset)
        ) THEN concat('the lane was begun at ', l.start_offset, ', but no gap ends there')
    END,
    CASE WHEN l.topic IS NOT NULL THEN json_build_object(
        'topic', topic, 'partition', partition, 'next_offset', l.next_offset, 'epoch', l.epoch) END,
    json_build_object('topic', topic, 'partition', partition, 'next_offset', coalesce(e.next_offset, 0),
                      'epoch', greatest(l.epoch, e.epoch))
    FROM ledger.lane l FULL JOIN ends e USING (topic, partition)
)
SELECT (SELECT count(*) FROM entries WHERE position > %(since)s), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat(topic, '[', partition, ']: ', difference) AS difference, stored, expected
    FROM compared WHERE difference IS NOT NULL ORDER BY topic, partition, position LIMIT 1
) d ON true
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
    SELECT position, counts, rows, CASE
        WHEN counts <> rows THEN
            concat('counts of applied, rejected, conflict, dead, skipped, events are ', counts,
                   ', of its rows ', rows)
        WHEN applied + rejected + duplicate + conflict + dead + skipped <> next_offset - first_offset THEN
            concat('counts do not add up to its ', next_offset - first_offset, ' offsets')
        WHEN (first, last) <> (0, applied - 1) THEN 'events are not numbered from 0'
    END AS difference
    FROM counted
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('position ', position, ': ', difference) AS difference,
           CASE WHEN counts <> rows THEN json_build_object(
               'position', position, 'applied', counts[1], 'rejected', counts[2], 'conflict', counts[3],
               'dead', counts[4], 'skipped', counts[5], 'events', counts[6]) END AS stored,
           CASE WHEN counts <> rows THEN json_build_object(
               'position', position, 'applied', rows[1], 'rejected', rows[2], 'conflict', rows[3],
               'dead', rows[4], 'skipped', rows[5], 'events', rows[6]) END AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY position LIMIT 1
) d ON true
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
        FROM compared WHERE difference IS NOT NULL ORDER BY position, first_offset LIMIT 1),
       NULL::json, NULL::json
"""

# Every row belongs to an entry of the journal.
ORPHANS = """
WITH rows AS (
    SELECT 'event' AS name, entry, count(*) AS rows FROM ledger.event
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'processed_message', entry, count(*) FROM ledger.processed_message
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'cancellation', entry, count(*) FROM ledger.cancellation
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'dead_letter', entry, count(*) FROM ledger.dead_letter
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'conflict', entry, count(*) FROM ledger.conflict
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'gap', entry, count(*) FROM ledger.gap
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s GROUP BY entry
    UNION ALL SELECT 'stock_delta', entry, 1 FROM ledger.stock_delta
    WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
)
SELECT (SELECT coalesce(sum(rows), 0) FROM rows),
       (SELECT concat(rows, ' rows of ', name, ' have the entry ', entry, ', but the journal has not')
        FROM rows r WHERE NOT EXISTS (SELECT FROM ledger.journal j WHERE j.entry = r.entry)
        ORDER BY entry, name LIMIT 1),
       NULL::json, NULL::json
"""
