"""What must be true of a range's messages: registered once, with the event, and the evidence, that they say.

Statements of `ledger.store.rules.audit`.
"""

# No message key is registered twice.
ONCE = """
WITH compared AS (
    SELECT p.entry, p.source, p.id,
           (SELECT min(twin.entry) FROM ledger.processed_message twin
            WHERE twin.id = p.id AND twin.source = p.source AND twin.ctid <> p.ctid) AS other
    FROM ledger.processed_message p WHERE p.entry BETWEEN %(first_entry)s AND %(last_entry)s
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat('message ', source, ' ', id, ' is registered in entry ', entry, ' and in ', other)
        FROM compared WHERE other IS NOT NULL ORDER BY entry, source, id LIMIT 1),
       NULL::json, NULL::json
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
    SELECT *, CASE
        WHEN registered IS NULL THEN 'has an event, but is not registered in its entry'
        WHEN events IS NULL AND reason IS NULL THEN 'was applied, but has no event'
        WHEN reason IS NOT NULL AND events > 0 THEN 'was rejected, but has an event'
        WHEN events > 1 THEN concat('was applied once, but has ', events, ' events')
        WHEN version <> event_version THEN
            concat('was applied as version ', version, ', but its event has version ', event_version)
    END AS difference
    FROM register FULL JOIN events USING (entry, source, id)
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('message ', source, ' ', id, ' ', difference) AS difference,
           CASE WHEN registered THEN json_build_object(
               'source', source, 'id', id, 'reason', reason, 'version', version,
               'events', CASE WHEN reason IS NULL THEN 1 ELSE 0 END) END AS stored,
           CASE WHEN events IS NOT NULL THEN json_build_object(
               'source', source, 'id', id, 'reason', NULL, 'version', event_version, 'events', events)
           END AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY entry, source, id LIMIT 1
) d ON true
"""

# What folds use (stream, delta, user_id) is what the payload says. As text: a number that was tampered with
# may be none. A stream begins with what makes it, and nothing else does; a user is closed once, at the end.
EVENTS = """
WITH said AS (
    SELECT e.entry, e.ordinal, e.stream, e.version, e.type, e.delta, e.user_id, said.user_id AS said_user,
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
    SELECT *, CASE
        WHEN stream IS DISTINCT FROM said_stream THEN concat('the payload belongs to ', said_stream)
        WHEN delta::text IS DISTINCT FROM said_delta THEN
            concat('delta is ', delta, ', the payload says ', coalesce(said_delta, 'nothing'))
        WHEN user_id IS DISTINCT FROM said_user THEN
            concat('user_id is ', user_id, ', the payload says ', coalesce(said_user, 'nothing'))
        WHEN (type IN ('UserRegistered', 'GoodsListed')) <> (version = 1)
             OR (type = 'UserClosed') <> (version = 2 AND starts_with(stream, 'user-'))
             OR (version > 2 AND starts_with(stream, 'user-')) THEN
            concat(type, ' can not be there')
    END AS difference
    FROM said
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat(stream, ' version ', version, ': ', difference) AS difference,
           json_build_object('type', type, 'stream', stream, 'version', version,
                             'delta', delta::text, 'user_id', user_id) AS stored,
           json_build_object('type', type, 'stream', said_stream, 'version', version,
                             'delta', said_delta, 'user_id', said_user) AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY entry, ordinal LIMIT 1
) d ON true
"""

# Whoever bought was registered before the first of a range's purchases, and not closed before the last one.
BUYERS = """
WITH buyers AS (
    SELECT e.user_id, count(*) AS purchases,
           min(ARRAY[j.position, e.ordinal]) AS first, max(ARRAY[j.position, e.ordinal]) AS last
    FROM ledger.event e JOIN ledger.journal j USING (entry)
    WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
      AND e.type = 'GoodsPurchased'
    GROUP BY e.user_id
), lives AS (
    SELECT b.*, ARRAY[rj.position, r.ordinal] AS registered,
           ARRAY[cj.position, c.ordinal] AS closed, r.entry IS NOT NULL AS known
    FROM buyers b
    LEFT JOIN LATERAL (SELECT entry, ordinal FROM ledger.event
                       WHERE stream = 'user-' || b.user_id AND version = 1 LIMIT 1) r ON true
    LEFT JOIN LATERAL (SELECT entry, ordinal FROM ledger.event
                       WHERE stream = 'user-' || b.user_id AND version = 2 LIMIT 1) c ON true
    LEFT JOIN ledger.journal rj ON rj.entry = r.entry LEFT JOIN ledger.journal cj ON cj.entry = c.entry
), compared AS (
    SELECT user_id, purchases, CASE
        WHEN NOT known THEN concat('bought at position ', first[1], ', but was never registered')
        WHEN registered > first THEN
            concat('bought at position ', first[1], ', but was registered at ', registered[1])
        WHEN closed < last THEN concat('bought at position ', last[1], ', but was closed at ', closed[1])
    END AS difference
    FROM lives
)
SELECT (SELECT coalesce(sum(purchases), 0) FROM compared),
       (SELECT concat('user ', user_id, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY user_id LIMIT 1),
       NULL::json, NULL::json
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
    SELECT c.*, e.user_id AS buyer, -e.delta AS bought, CASE
        WHEN c.found IS NULL THEN 'was cancelled by an event, but has no cancellation row'
        WHEN c.stream IS NULL THEN 'has a cancellation row, but no event cancelled it'
        WHEN (e.user_id, -e.delta) IS DISTINCT FROM (c.user_id, c.delta) THEN
            'was cancelled with another user or quantity than it was made with'
    END AS difference
    FROM pairs c
    LEFT JOIN ledger.processed_message p ON p.id = c.id AND p.source = c.source
    LEFT JOIN ledger.event e ON e.stream = c.stream AND e.version = p.version AND e.type = 'GoodsPurchased'
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('purchase ', source, ' ', id, ' ', difference) AS difference,
           CASE WHEN found THEN json_build_object(
               'source', source, 'id', id, 'user_id', user_id, 'quantity', delta) END AS stored,
           CASE WHEN stream IS NOT NULL THEN json_build_object(
               'source', source, 'id', id, 'user_id', buyer, 'quantity', bought) END AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY entry, source, id LIMIT 1
) d ON true
"""

# A conflict's evidence is what the register says of the first delivery, and the second one really differs.
CONFLICTS = """
WITH compared AS (
    SELECT c.*, p.fingerprint, j.topic, j.partition, p."offset", CASE
        WHEN (c.first_fingerprint, c.first_topic, c.first_partition, c.first_offset)
             IS DISTINCT FROM (p.fingerprint, j.topic, j.partition, p."offset") THEN
            concat('the evidence is not what the register says of ', c.source, ' ', c.id)
        WHEN c.first_fingerprint = c.second_fingerprint THEN 'the two payloads are the same'
    END AS difference
    FROM ledger.conflict c
    LEFT JOIN ledger.processed_message p ON p.id = c.id AND p.source = c.source
    LEFT JOIN ledger.journal j ON j.entry = p.entry
    WHERE c.entry BETWEEN %(first_entry)s AND %(last_entry)s
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat(second_topic, '[', second_partition, ']: offset ', second_offset, ': ', difference)
               AS difference,
           json_build_object(
               'source', source, 'id', id, 'first_topic', first_topic, 'first_partition', first_partition,
               'first_offset', first_offset, 'first_fingerprint', encode(first_fingerprint, 'hex')) AS stored,
           CASE WHEN fingerprint IS NOT NULL THEN json_build_object(
               'source', source, 'id', id, 'first_topic', topic, 'first_partition', partition,
               'first_offset', "offset", 'first_fingerprint', encode(fingerprint, 'hex')) END AS expected
    FROM compared WHERE difference IS NOT NULL
    ORDER BY second_topic, second_partition, second_offset LIMIT 1
) d ON true
"""
