"""What must be true of streams, and of the rows that batches and projectors keep current from them.

Statements of `ledger.store.check`. They fold whole streams: all of them, or where not everything is looked
at, those named `streams`, each found by the event's primary key.
"""

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
BOUNDS = """
WITH levels AS (
    SELECT stream, version, sum(delta) OVER (PARTITION BY stream ORDER BY version) AS on_hand
    FROM ledger.event
    WHERE starts_with(stream, 'goods-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
), goods AS (
    SELECT stream, min(version) FILTER (WHERE on_hand NOT BETWEEN 0 AND 9007199254740992) AS version
    FROM levels GROUP BY stream
)
SELECT (SELECT count(*) FROM goods),
       (SELECT concat('goods ', substr(stream, 7), ': stock was negative or above 2^53 at version ', version)
        FROM goods WHERE version IS NOT NULL ORDER BY stream LIMIT 1),
       NULL::json, NULL::json
"""

# The live stock is what the events add up to, for all goods that were listed and for no others.
STOCK = """
WITH events AS (
    SELECT substr(stream, 7) AS goods_id, sum(delta) AS on_hand, max(version) AS version
    FROM ledger.event
    WHERE starts_with(stream, 'goods-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
    GROUP BY stream
), stock AS (
    SELECT goods_id, on_hand, version
    FROM ledger.stock WHERE generation = (SELECT stock_generation FROM ledger.head)
    AND (%(streams)s::text[] IS NULL
         OR goods_id = ANY(ARRAY(SELECT substr(stream, 7) FROM unnest(%(streams)s::text[]) AS t (stream)
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

# An account is what its user's events say.
ACCOUNTS = """
WITH events AS (
    SELECT substr(stream, 6) AS user_id, max(version) AS version, bool_or(type = 'UserClosed') AS closed
    FROM ledger.event
    WHERE starts_with(stream, 'user-') AND (%(streams)s::text[] IS NULL OR stream = ANY(%(streams)s))
    GROUP BY stream
), accounts AS (
    SELECT user_id, version, closed FROM ledger.account
    WHERE %(streams)s::text[] IS NULL
       OR user_id = ANY(ARRAY(SELECT substr(stream, 6) FROM unnest(%(streams)s::text[]) AS t (stream)
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

# Each projection has one live generation, none has applied more than there is, and the stock's is the head's.
PROJECTIONS = """
WITH compared AS (
    SELECT p.name, CASE
        WHEN count(*) FILTER (WHERE status = 'live') <> 1 THEN
            concat('has ', count(*) FILTER (WHERE status = 'live'), ' live generations')
        WHEN max(p.position) > h.position THEN
            concat('is at position ', max(p.position), ', the head at ', h.position)
        WHEN p.name = 'stock' AND max(generation) FILTER (WHERE status = 'live') <> h.stock_generation THEN
            concat('has the live generation ', max(generation) FILTER (WHERE status = 'live'),
                   ', but the head says ', h.stock_generation)
    END AS difference
    FROM ledger.projection p CROSS JOIN ledger.head h GROUP BY p.name, h.position, h.stock_generation
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat(name, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY name LIMIT 1),
       NULL::json, NULL::json
"""

# What users bought is what the events up to the projection's position add up to.
PURCHASES = """
WITH live AS (
    SELECT generation, position FROM ledger.projection
    WHERE name = 'purchases_by_user' AND status = 'live' AND version = 1
), events AS (
    SELECT e.user_id, substr(e.stream, 7) AS goods_id,
           count(*) FILTER (WHERE e.type = 'GoodsPurchased') AS purchases,
           coalesce(-sum(e.delta) FILTER (WHERE e.type = 'GoodsPurchased'), 0) AS quantity,
           count(*) FILTER (WHERE e.type = 'PurchaseCancelled') AS cancelled,
           coalesce(sum(e.delta) FILTER (WHERE e.type = 'PurchaseCancelled'), 0) AS cancelled_quantity
    FROM ledger.event e JOIN ledger.journal j USING (entry)
    WHERE j.position <= (SELECT position FROM live) AND e.type IN ('GoodsPurchased', 'PurchaseCancelled')
    GROUP BY e.user_id, e.stream
), rows AS (
    SELECT user_id, goods_id, purchases, quantity, cancelled, cancelled_quantity
    FROM ledger.purchases_by_user_rows WHERE generation = (SELECT generation FROM live)
), pairs AS (
    SELECT user_id, goods_id, r AS stored, e AS expected,
           (r.purchases, r.quantity, r.cancelled, r.cancelled_quantity) IS DISTINCT FROM
           (e.purchases, e.quantity, e.cancelled, e.cancelled_quantity) AS differ
    FROM rows r FULL JOIN events e USING (user_id, goods_id)
)
SELECT (SELECT count(*) FROM pairs), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('purchases_by_user: user ', user_id, ', goods ', goods_id,
                  ': the row is not what the events say') AS difference,
           to_json(stored), to_json(expected)
    FROM pairs WHERE differ ORDER BY user_id, goods_id LIMIT 1
) d ON true
"""

# What was sold on a day is what the events up to the projection's position add up to.
SALES = """
WITH live AS (
    SELECT generation, position FROM ledger.projection
    WHERE name = 'sales_by_day' AND status = 'live' AND version = 1
), sold AS (
    SELECT (j.recorded_at AT TIME ZONE 'UTC')::date AS day, e.type = 'GoodsPurchased' AS bought, e.delta,
           CASE WHEN e.type = 'GoodsPurchased' THEN (e.payload ->> 'unit_price_minor')::numeric END AS price
    FROM ledger.event e JOIN ledger.journal j USING (entry)
    WHERE j.position <= (SELECT position FROM live) AND e.type IN ('GoodsPurchased', 'PurchaseCancelled')
), events AS (
    SELECT day, count(*) FILTER (WHERE bought) AS purchases,
           coalesce(-sum(delta) FILTER (WHERE bought), 0) AS quantity,
           count(*) FILTER (WHERE NOT bought) AS cancelled,
           coalesce(sum(delta) FILTER (WHERE NOT bought), 0) AS cancelled_quantity,
           count(price) AS priced, coalesce(sum(price * -delta), 0) AS revenue_minor
    FROM sold GROUP BY day
), rows AS (
    SELECT day, purchases, quantity, cancelled, cancelled_quantity, priced, revenue_minor
    FROM ledger.sales_by_day_rows WHERE generation = (SELECT generation FROM live)
), pairs AS (
    SELECT day, r AS stored, e AS expected,
           (r.purchases, r.quantity, r.cancelled, r.cancelled_quantity, r.priced, r.revenue_minor)
           IS DISTINCT FROM
           (e.purchases, e.quantity, e.cancelled, e.cancelled_quantity, e.priced, e.revenue_minor) AS differ
    FROM rows r FULL JOIN events e USING (day)
)
SELECT (SELECT count(*) FROM pairs), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT concat('sales_by_day: ', day, ': the row is not what the events say') AS difference,
           to_json(stored), to_json(expected)
    FROM pairs WHERE differ ORDER BY day LIMIT 1
) d ON true
"""
