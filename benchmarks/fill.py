"""A ledger that has a past: users, goods with stock and, on demand, millions of processed messages.

Written set-wise by INSERT ... SELECT, in the order of the primary keys, with plausible rows in every table
that a batch reads: ids, streams, versions, payloads and stock agree. The hash chain is not computed, so
`verify` would refuse these entries; nothing that a batch costs depends on it.
"""

import psycopg

from benchmarks.workload import BORN_MS, SOURCE, STOCK_EACH, Workload

PER_ENTRY = 5_000
STEP = 1_000_000
"""Rows a statement: each is sorted by itself."""
GONE = 100
"""Goods that are listed and have no stock."""

USERS = (
    """INSERT INTO ledger.account
       SELECT 'user' || to_char(n, 'FM0000000'), 1, false FROM generate_series(0, %(users)s - 1) n""",
    """INSERT INTO ledger.processed_message
       SELECT 0, n, 1, NULL, '\\x00000000000000000000000000000000'::bytea, %(source)s, 'setup-user-' || n
       FROM generate_series(0, %(users)s - 1) n ORDER BY 7""",
    """INSERT INTO ledger.event
       SELECT 0, n, 'user-' || id, 1, 'UserRegistered', json_build_object('user_id', id), 0, id,
              %(source)s, 'setup-user-' || n
       FROM (SELECT n, 'user' || to_char(n, 'FM0000000') AS id FROM generate_series(0, %(users)s - 1) n) x
       ORDER BY 3""",
)
GOODS = (
    """INSERT INTO ledger.stock
       SELECT 1, 'sku' || to_char(n, 'FM0000000'), %(stock)s, 2 FROM generate_series(0, %(goods)s - 1) n""",
    """INSERT INTO ledger.stock
       SELECT 1, 'gone' || to_char(n, 'FM0000000'), 0, 1 FROM generate_series(0, %(gone)s - 1) n""",
    """INSERT INTO ledger.event
       SELECT 0, n, 'goods-' || id, version,
              CASE version WHEN 1 THEN 'GoodsListed' ELSE 'StockReceived' END,
              CASE version WHEN 1 THEN json_build_object('goods_id', id)
                   ELSE json_build_object('goods_id', id, 'quantity', %(stock)s) END,
              CASE version WHEN 1 THEN 0 ELSE %(stock)s END, NULL, %(source)s,
              CASE version WHEN 1 THEN 'setup-goods-' ELSE 'setup-stock-' END || n
       FROM (SELECT n, 'sku' || to_char(n, 'FM0000000') AS id FROM generate_series(0, %(goods)s - 1) n) x,
            generate_series(1, 2) version
       ORDER BY 3, 4""",
    """INSERT INTO ledger.event
       SELECT 0, n, 'goods-gone' || to_char(n, 'FM0000000'), 1, 'GoodsListed',
              json_build_object('goods_id', 'gone' || to_char(n, 'FM0000000')), 0, NULL, %(source)s,
              'setup-gone-' || n
       FROM generate_series(0, %(gone)s - 1) n""",
    """INSERT INTO ledger.processed_message
       SELECT 0, n, version, NULL, '\\x00000000000000000000000000000000'::bytea, %(source)s,
              CASE version WHEN 1 THEN 'setup-goods-' ELSE 'setup-stock-' END || n
       FROM generate_series(0, %(goods)s - 1) n, generate_series(1, 2) version ORDER BY 7""",
)
# Purchase number n (from 0): its goods in turn, so that versions stay dense; a time-based or a random id.
# `first` is a multiple of the number of goods.
PAST = """
CREATE TEMPORARY TABLE past AS
SELECT n, 1 + n %% 9 AS quantity, s.version + (n - %(first)s) / %(goods)s + 1 AS version, s.goods_id,
       'user' || to_char(abs(hashint8(n)) %% %(users)s, 'FM0000000') AS user_id,
       CASE WHEN %(id_version)s = 4 THEN random_id
            ELSE substr(born, 1, 8) || '-' || substr(born, 9) || '-7' || substr(random_id, 16) END AS id,
       decode(md5(n::text), 'hex') AS fingerprint
FROM (SELECT n, lpad(to_hex(%(born_ms)s + n / 20), 12, '0') AS born, gen_random_uuid()::text AS random_id
      FROM generate_series(%(first)s, %(next)s - 1) n) x
JOIN ledger.stock s ON s.goods_id = 'sku' || to_char(n %% %(goods)s, 'FM0000000')
"""
PURCHASES = (
    """INSERT INTO ledger.processed_message
       SELECT %(entry)s + (n - %(first)s) / %(size)s, n, version, NULL, fingerprint, %(source)s, id
       FROM past ORDER BY id COLLATE "C" """,
    """INSERT INTO ledger.event
       SELECT %(entry)s + (n - %(first)s) / %(size)s, n %% %(size)s, 'goods-' || goods_id, version,
              'GoodsPurchased',
              json_build_object('goods_id', goods_id, 'quantity', quantity, 'user_id', user_id),
              -quantity, user_id, %(source)s, id
       FROM past ORDER BY goods_id, version""",
    """UPDATE ledger.stock s SET on_hand = on_hand - sold, version = x.version
       FROM (SELECT goods_id, sum(quantity) AS sold, max(version) AS version FROM past GROUP BY goods_id) x
       WHERE s.goods_id = x.goods_id""",
    "DROP TABLE past",
)
NEXT_ENTRY = "SELECT nextval('ledger.entry_number')"
USED_ENTRIES = "SELECT setval('ledger.entry_number', %s)"
SETTLE = (
    "VACUUM (ANALYZE) ledger.event, ledger.processed_message, ledger.stock, ledger.account",
    "CHECKPOINT",
)


def set_up(conn: psycopg.Connection, workload: Workload) -> None:
    """The users, the goods and their stock, as if commands of long ago had made them."""
    facts = {
        "users": workload.users,
        "goods": workload.goods,
        "gone": GONE,
        "stock": STOCK_EACH,
        "source": SOURCE,
    }
    for statement in (*USERS, *GOODS, *SETTLE):
        conn.execute(statement, facts if "%(" in statement else None)


def add_past(conn: psycopg.Connection, workload: Workload, first: int, next_: int) -> None:
    """Purchases number `first` to `next_` - 1 of the same goods and users, all applied.

    Call it with rising ranges that begin at a multiple of the number of goods.
    """
    for begin in range(first, next_, STEP):
        entry = conn.execute(NEXT_ENTRY).fetchone()
        assert entry is not None
        facts = {
            "entry": entry[0],
            "first": begin,
            "next": min(begin + STEP, next_),
            "goods": workload.goods,
            "users": workload.users,
            "id_version": workload.id_version,
            "born_ms": BORN_MS - 1_000_000_000,
            "size": PER_ENTRY,
            "source": SOURCE,
        }
        for statement in (PAST, *PURCHASES):
            conn.execute(statement, facts if "%(" in statement else None)
        conn.execute(USED_ENTRIES, [entry[0] + STEP // PER_ENTRY])
    for statement in SETTLE:
        conn.execute(statement)
