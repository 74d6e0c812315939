"""What must be true of streams, and of the rows that batches keep current from them.

Statements of `audit`. They fold whole streams: all of them, or where not everything is looked
at, those named `streams`, each found by the event's primary key.
"""

from typing import LiteralString

from ledger.store.tables.event import GOODS_ID, USER_ID

# A stream's versions are 1, 2, 3, ..., each of them once.
VERSIONS = """
WITH found AS (
    SELECT stream, count(*) AS events, count(DISTINCT version) AS versions,
           min(version) AS first, max(version) AS last
    FROM ledger.event WHERE %(streams)s::text[] IS NULL OR stream = ANY(%(streams)s) GROUP BY stream
)
SELECT (SELECT count(*) FROM found),
       (SELECT concat(stream, ' has ', events, ' events, with versions from ', first, ' to ', last)
        FROM found WHERE (first, last, versions) <> (1, events, events) ORDER BY stream LIMIT 1),
       NULL::json, NULL::json
"""

# Stock was never negative nor above 2^53, after none of its events.
BOUNDS: LiteralString = (
    """
WITH levels AS (
    SELECT stream, version, sum(delta) OVER (PARTITION BY stream ORDER BY version) AS on_hand
    FROM ledger.event
    WHERE starts_with(stream, 'goods-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
), goods AS (
    SELECT stream, min(version) FILTER (WHERE on_hand NOT BETWEEN 0 AND 9007199254740992) AS version
    FROM levels GROUP BY stream
)
SELECT (SELECT count(*) FROM goods),
       (SELECT concat('goods ', """
    + GOODS_ID
    + """, ': stock was negative or above 2^53 at version ', version)
        FROM goods WHERE version IS NOT NULL ORDER BY stream LIMIT 1),
       NULL::json, NULL::json
"""
)

# The live stock is what the events add up to, for all goods that were listed and for no others.
STOCK: LiteralString = (
    """
WITH events AS (
    SELECT """
    + GOODS_ID
    + """ AS goods_id, sum(delta) AS on_hand, max(version) AS version
    FROM ledger.event
    WHERE starts_with(stream, 'goods-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
    GROUP BY stream
), stock AS (
    SELECT goods_id, on_hand, version
    FROM ledger.stock WHERE generation = (SELECT stock_generation FROM ledger.head)
    AND (%(streams)s::text[] IS NULL
         OR goods_id = ANY(ARRAY(SELECT """
    + GOODS_ID
    + """ FROM unnest(%(streams)s::text[]) AS t (stream)
                                 WHERE starts_with(stream, 'goods-'))))
), compared AS (
    SELECT goods_id, s.on_hand, s.version, e.on_hand AS sum, e.version AS last, CASE
        WHEN e.version IS NULL THEN concat('stock says ', s.on_hand, ', but there are no events')
        WHEN s.version IS NULL THEN concat('events say ', e.on_hand, ', but there is no stock row')
        WHEN s.on_hand <> e.on_hand THEN concat('stock says ', s.on_hand, ', events say ', e.on_hand)
        WHEN s.version <> e.version THEN concat('stock is at version ', s.version, ', events at ', e.version)
    END AS difference
    FROM stock s FULL JOIN events e USING (goods_id)
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('goods ', goods_id, ': ', difference) AS difference,
           CASE WHEN version IS NOT NULL THEN json_build_object(
               'goods_id', goods_id, 'on_hand', on_hand, 'version', version) END AS stored,
           CASE WHEN last IS NOT NULL THEN json_build_object(
               'goods_id', goods_id, 'on_hand', sum, 'version', last) END AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY goods_id LIMIT 1
) d ON true
"""
)

# What caches follow is what the events made of the stock, entry by entry, as far back as it is kept.
# Entries are found by their numbers; a position decides which of those that differ were forgotten, or lie
# before `since`. What is of no entry is an orphan.
DELTAS: LiteralString = (
    """
WITH kept AS (
    SELECT min(entry) AS first FROM ledger.journal
    WHERE position > %(since)s AND position > (SELECT position FROM ledger.stock_horizon)
), noted AS (
    SELECT d.entry, t.goods_id, t.version, t.on_hand,
           count(*) OVER (PARTITION BY d.entry, t.goods_id) AS times
    FROM ledger.stock_delta d CROSS JOIN LATERAL unnest(
        string_to_array(d.goods, E'\\n'), string_to_array(d.versions, E'\\n')::bigint[],
        string_to_array(d.on_hands, E'\\n')::bigint[]) AS t (goods_id, version, on_hand)
    WHERE d.entry >= %(first_entry)s AND d.entry >= (SELECT first FROM kept)
), folded AS (
    SELECT entry, stream, version, sum(delta) OVER past AS on_hand, lead(entry) OVER past AS next
    FROM ledger.event
    WHERE starts_with(stream, 'goods-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
    WINDOW past AS (PARTITION BY stream ORDER BY version)
), levels AS (
    SELECT entry, """
    + GOODS_ID
    + """ AS goods_id, version, on_hand
    FROM folded WHERE entry >= (SELECT first FROM kept) AND next IS DISTINCT FROM entry
), differ AS MATERIALIZED (
    SELECT entry, goods_id, d.version, d.on_hand, e.version AS last, e.on_hand AS sum
    FROM noted d FULL JOIN levels e USING (entry, goods_id)
    WHERE ((d.version, d.on_hand) IS DISTINCT FROM (e.version, e.on_hand) OR d.times > 1)
    AND (%(streams)s::text[] IS NULL OR 'goods-' || goods_id = ANY(%(streams)s))
)
SELECT (SELECT count(*) FROM levels), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('goods ', goods_id, ' after the entry at ', position, CASE
               WHEN version IS NULL THEN ': no cache was told of the change'
               WHEN last IS NULL THEN ': caches were told of a change, but there are no events'
               ELSE ': caches were told something else than the events say' END) AS difference,
           CASE WHEN version IS NOT NULL THEN json_build_object(
               'goods_id', goods_id, 'on_hand', on_hand, 'version', version) END AS stored,
           CASE WHEN last IS NOT NULL THEN json_build_object(
               'goods_id', goods_id, 'on_hand', sum, 'version', last) END AS expected
    FROM differ JOIN ledger.journal USING (entry)
    WHERE position > %(since)s AND position > (SELECT position FROM ledger.stock_horizon)
    ORDER BY position, goods_id LIMIT 1
) d ON true
"""
)

# An account is what its user's events say.
ACCOUNTS: LiteralString = (
    """
WITH events AS (
    SELECT """
    + USER_ID
    + """ AS user_id, max(version) AS version, bool_or(type = 'UserClosed') AS closed
    FROM ledger.event
    WHERE starts_with(stream, 'user-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
    GROUP BY stream
), accounts AS (
    SELECT user_id, version, closed FROM ledger.account
    WHERE %(streams)s::text[] IS NULL
       OR user_id = ANY(ARRAY(SELECT """
    + USER_ID
    + """ FROM unnest(%(streams)s::text[]) AS t (stream)
                              WHERE starts_with(stream, 'user-')))
), compared AS (
    SELECT user_id, a.version, a.closed, e.version AS last, e.closed AS ended, CASE
        WHEN e.version IS NULL THEN 'there is an account, but no events'
        WHEN a.version IS NULL THEN 'there are events, but no account'
        WHEN (a.version, a.closed) <> (e.version, e.closed) THEN
            concat('account says version ', a.version, CASE WHEN a.closed THEN ', closed' END,
                   ', events say ', e.version, CASE WHEN e.closed THEN ', closed' END)
    END AS difference
    FROM accounts a FULL JOIN events e USING (user_id)
)
SELECT (SELECT count(*) FROM compared), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('user ', user_id, ': ', difference) AS difference,
           CASE WHEN version IS NOT NULL THEN json_build_object(
               'user_id', user_id, 'version', version, 'closed', closed) END AS stored,
           CASE WHEN last IS NOT NULL THEN json_build_object(
               'user_id', user_id, 'version', last, 'closed', ended) END AS expected
    FROM compared WHERE difference IS NOT NULL ORDER BY user_id LIMIT 1
) d ON true
"""
)
