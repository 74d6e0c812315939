"""What must be true of projections: their generations, and the rows that projectors keep current.

Statements of `audit`. They compare everything, up to where the live generation is.
"""

from typing import LiteralString

from ledger.store.schema.dump import SHIPPED
from ledger.store.tables.event import GOODS_ID

# Each projection has one live generation, none has applied more than there is, and the stock's is the head's;
# the shipped ones are there, and their live generation is of the version that this build folds.
PROJECTIONS: LiteralString = (
    """
WITH shipped (name, version) AS ("""
    + SHIPPED
    + """), compared AS (
    SELECT coalesce(p.name, s.name) AS name, CASE
        WHEN count(*) FILTER (WHERE status = 'live') <> 1 THEN
            concat('has ', count(*) FILTER (WHERE status = 'live'), ' live generations')
        WHEN max(p.position) > h.position THEN
            concat('is at position ', max(p.position), ', the head at ', h.position)
        WHEN p.name = 'stock' AND max(generation) FILTER (WHERE status = 'live') <> h.stock_generation THEN
            concat('has the live generation ', max(generation) FILTER (WHERE status = 'live'),
                   ', but the head says ', h.stock_generation)
        WHEN max(p.version) FILTER (WHERE status = 'live') <> s.version THEN
            concat('is of version ', max(p.version) FILTER (WHERE status = 'live'), ', not ', s.version,
                   ', so its rows can''t be judged')
    END AS difference
    FROM (SELECT * FROM ledger.projection WHERE status <> 'dropped') p FULL JOIN shipped s ON s.name = p.name
    CROSS JOIN ledger.head h GROUP BY p.name, s.name, s.version, h.position, h.stock_generation
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat(name, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY name LIMIT 1),
       NULL::json, NULL::json
"""
)

# Each follower was begun: an hour after there was something to follow, it has applied some of it. A lag is
# no fault, and `status` shows it; but of one at the beginning nothing at all would be compared, and its view
# says that nothing was sold.
FOLLOWED = """
WITH compared AS (
    SELECT p.name, CASE
        WHEN p.position = 0 AND clock_timestamp() - greatest(j.recorded_at, p.started_at) > '1 hour' THEN
            concat('has applied none of the ', h.position, ' entries, so its rows can''t be judged')
    END AS difference
    FROM ledger.projection p CROSS JOIN ledger.head h LEFT JOIN ledger.journal j ON j.position = 1
    WHERE p.status = 'live' AND NOT p.inline
)
SELECT (SELECT count(*) FROM compared),
       (SELECT concat(name, ' ', difference)
        FROM compared WHERE difference IS NOT NULL ORDER BY name LIMIT 1),
       NULL::json, NULL::json
"""

# What users bought is what the events up to the projection's position add up to.
PURCHASES: LiteralString = (
    """
WITH live AS (
    SELECT generation, position FROM ledger.projection
    WHERE name = 'purchases_by_user' AND status = 'live' AND version = 1
), events AS (
    SELECT e.user_id, """
    + GOODS_ID
    + """ AS goods_id,
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
    SELECT 'purchases_by_user: there is no live generation of version 1 to compare' AS difference,
           NULL::json, NULL::json WHERE NOT EXISTS (SELECT FROM live)
    UNION ALL
    (SELECT concat('purchases_by_user: user ', user_id, ', goods ', goods_id,
                  ': the row is not what the events say'),
           to_json(stored), to_json(expected)
    FROM pairs WHERE differ ORDER BY user_id, goods_id LIMIT 1)
    LIMIT 1
) d ON true
"""
)

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
    SELECT 'sales_by_day: there is no live generation of version 1 to compare' AS difference,
           NULL::json, NULL::json WHERE NOT EXISTS (SELECT FROM live)
    UNION ALL
    (SELECT concat('sales_by_day: ', day, ': the row is not what the events say'),
           to_json(stored), to_json(expected)
    FROM pairs WHERE differ ORDER BY day LIMIT 1)
    LIMIT 1
) d ON true
"""

# Each event that has a user stands among this user's, up to the projection's position; nothing else does.
USERS = """
WITH live AS (
    SELECT generation, position FROM ledger.projection
    WHERE name = 'user_events' AND status = 'live' AND version = 1
), events AS (
    SELECT e.user_id, j.position, e.ordinal, e.source, e.id
    FROM ledger.event e JOIN ledger.journal j USING (entry)
    WHERE j.position <= (SELECT position FROM live) AND e.user_id IS NOT NULL
), rows AS (
    SELECT user_id, position, ordinal, source, id
    FROM ledger.user_events_rows WHERE generation = (SELECT generation FROM live)
), pairs AS (
    SELECT user_id, position, ordinal, r AS stored, e AS expected,
           (r.source, r.id) IS DISTINCT FROM (e.source, e.id) AS differ
    FROM rows r FULL JOIN events e USING (user_id, position, ordinal)
)
SELECT (SELECT count(*) FROM pairs), d.*
FROM (SELECT) one LEFT JOIN (
    SELECT 'user_events: there is no live generation of version 1 to compare' AS difference,
           NULL::json, NULL::json WHERE NOT EXISTS (SELECT FROM live)
    UNION ALL
    (SELECT concat('user_events: ', user_id, ' at position ', position,
                   ': the row is not what the events say'),
           to_json(stored), to_json(expected)
    FROM pairs WHERE differ ORDER BY user_id, position, ordinal LIMIT 1)
    LIMIT 1
) d ON true
"""
