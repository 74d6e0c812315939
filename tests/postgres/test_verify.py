"""`verify` is green on what the ledger wrote, whatever goes on beside it, and red on everything else."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from ledger.batch import apply_batch
from ledger.domain.commands import ReceiveStock
from ledger.domain.delivery import Bad, Delivery, Lane, Record
from ledger.projections.registry import find
from ledger.rebuilding.follow import follow_once
from ledger.store.connection import copy, database, roundtrip
from ledger.store.connection.copy import Rows, TableLines
from ledger.store.connection.roundtrip import Before
from ledger.store.rules import audit
from ledger.store.schema import dump
from ledger.store.tables import dead_letter
from ledger.verify import topic_check
from ledger.verify.run import BUDGETS, verify
from tests.support.batches import TOPIC, Hole, Lanes, read, says
from tests.support.history import buys, history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=BUDGETS) as conn:
        yield conn


@pytest.fixture
def small_pages(monkeypatch):
    """Every entry is a page of its own, and every offset a piece of the topic."""
    monkeypatch.setattr(audit, "RANGE_DELIVERIES", 1)
    monkeypatch.setattr(topic_check, "TOPIC_OFFSETS", 1)


def differences(conn, **options) -> dict[str, str | None]:
    """The sentences of the checks that failed, by name; but for the schema, which is loosened."""
    return {
        found.name: found.difference
        for found in verify(conn, **options)
        if not found.ok and found.name != "schema"
    }


def test_an_empty_ledger_is_green(conn):
    """A ledger without entries keeps every rule, and says that it looked at nothing."""
    found = list(verify(conn, deliveries=Lanes(conn).deliveries))
    assert [f for f in found if not f.ok or f.difference] == []
    seen = {f.name: f.figure for f in found if not f.figure.startswith("0 ")}
    counted = {"projections": "4 projections", "followed": "3 followers"}
    assert seen == {"schema": f"{len(dump.expected())} parts", **counted}
    assert [f.name for f in found][-2:] == ["chain", "topic"]


@pytest.mark.parametrize("pages", ["one page", "small pages"])
def test_what_the_ledger_wrote_is_green(conn, pages, request):
    """All outcomes, gaps, odd bytes and awkward texts keep every rule, however the journal is paged."""
    if pages == "small pages":
        request.getfixturevalue("small_pages")
    lanes = history(conn)
    reached: list[tuple[str, int, int]] = []
    found = verify(conn, deliveries=lanes.deliveries, on_progress=lambda *at: reached.append(at))
    figures = {f.name: f.figure for f in found if f.ok}
    assert figures == {
        "schema": f"{len(dump.expected())} parts",
        "journal": "7 positions",
        "lanes": "7 entries",
        "entries": "7 entries",
        "offsets": "31 rows",
        "orphans": "51 rows",
        "once": "23 messages",
        "outcomes": "23 messages",
        "events": "14 events",
        "buyers": "4 purchases",
        "versions": "4 streams",
        "bounds": "2 goods",
        "stock": "2 goods",
        "deltas": "5 changes",
        "accounts": "2 users",
        "cancellations": "2 purchases",
        "conflicts": "2 conflicts",
        "projections": "4 projections",
        "followed": "3 followers",
        "purchases": "0 rows",
        "sales": "0 days",
        "users": "0 rows",
        "fingerprints": "14 events",
        "chain": "47 rows",
        "topic": "31 records, 0 no longer in Kafka",
    }
    assert {name for name, at, end in reached if at == end} >= {"entries", "chain", "topic"}


# What the owner of the tables, who can switch triggers and constraints off, may try: the statement, the
# checks that must fail (no others may), and what one of them must say.
TAMPERINGS = {
    "payload: a number that folds don't use": (
        "UPDATE ledger.event SET payload = replace(payload::text, '250', '1')::json WHERE id = 'p1'",
        {"fingerprints", "chain"},
        "position 3: its rows are not those that were sealed",
    ),
    "payload: the quantity": (
        """UPDATE ledger.event SET payload = replace(payload::text, '100', '"x"')::json WHERE id = 'r1'""",
        {"events", "fingerprints", "chain"},
        "goods-tea version 2: delta is 100, the payload says x",
    ),
    "payload: the user": (
        """UPDATE ledger.event SET payload = replace(payload::text, 'anna', 'ben')::json WHERE id = 'p5'""",
        {"events", "fingerprints", "chain"},
        "goods-tea version 9: user_id is anna, the payload says ben",
    ),
    "event: the type": (
        "UPDATE ledger.event SET type = 'StockLost' WHERE id = 'a1'",
        {"events", "fingerprints", "chain"},
        "goods-tea version 3: delta is -7, the payload says nothing",
    ),
    "event: the delta": (
        "UPDATE ledger.event SET delta = delta + 1 WHERE id = 'p5'",
        {"events", "stock", "chain", "deltas"},
        "goods tea: stock says 86, events say 87",
    ),
    "event: moved to another stream": (
        "UPDATE ledger.event SET stream = 'goods-milk', version = 1 WHERE id = 'p5'",
        {"events", "stock", "bounds", "outcomes", "chain", "deltas"},
        "goods milk: stock was negative or above 2^53 at version 1",
    ),
    "event: deleted": (
        "DELETE FROM ledger.event WHERE id = 'a1'",
        {"entries", "outcomes", "versions", "stock", "chain", "deltas"},
        "goods-tea has 8 events, with versions from 1 to 9",
    ),
    "event: one more": (
        """INSERT INTO ledger.event
           SELECT entry, ordinal + 1, stream, version + 1, type, payload, delta, user_id, source, id
           FROM ledger.event WHERE id = 'p5'""",
        {"entries", "outcomes", "stock", "chain", "deltas"},
        "message shop p5 was applied once, but has 2 events",
    ),
    "event: one more, of no entry": (
        """INSERT INTO ledger.event
           SELECT 77, 0, stream, version + 1, type, payload, delta, user_id, source, 'p6'
           FROM ledger.event WHERE id = 'p5'""",
        {"orphans", "stock"},
        "1 rows of event have the entry 77, but the journal has not",
    ),
    "event: the ordinal": (
        "UPDATE ledger.event SET ordinal = 5 WHERE id = 'p5'",
        {"entries", "chain"},
        "position 7: events are not numbered from 0",
    ),
    "event: a second beginning": (
        """UPDATE ledger.event SET type = 'GoodsListed', delta = 0, payload = '{"goods_id":"tea"}'::json
           WHERE id = 'a1'""",
        {"events", "stock", "fingerprints", "chain", "deltas"},
        "goods-tea version 3: GoodsListed can not be there",
    ),
    "event: closed twice": (
        """UPDATE ledger.event SET stream = 'user-anna', version = 3, type = 'UserClosed', delta = 0,
               user_id = 'anna', payload = '{"user_id":"anna"}'::json WHERE id = 'x1'""",
        {"events", "outcomes", "versions", "accounts", "fingerprints", "chain"},
        "user-anna version 3: UserClosed can not be there",
    ),
    "events: in another order": (
        "UPDATE ledger.event SET version = CASE version WHEN 2 THEN 3 ELSE 2 END WHERE id IN ('r1', 'a1')",
        {"outcomes", "bounds", "chain"},
        "goods tea: stock was negative or above 2^53 at version 2",
    ),
    "event: the buyer was never registered": (
        """UPDATE ledger.event SET user_id = 'eve', payload = replace(payload::text, 'anna', 'eve')::json
           WHERE id = 'p5'""",
        {"buyers", "fingerprints", "chain"},
        "user eve bought at position 7, but was never registered",
    ),
    "event: the buyer was closed": (
        """UPDATE ledger.event SET user_id = 'ben', payload = replace(payload::text, 'anna', 'ben')::json
           WHERE id = 'p5'""",
        {"buyers", "fingerprints", "chain"},
        "user ben bought at position 7, but was closed at 1",
    ),
    "event: the buyer was registered later": (
        "UPDATE ledger.journal SET position = 17 - 2 * position WHERE position IN (1, 7)",
        {"journal", "lanes", "buyers", "chain", "topic"},
        "user anna bought at position 3, but was registered at 15",
    ),
    "register: a message key twice": (
        """INSERT INTO ledger.processed_message
           SELECT 7, 7, version, reason, fingerprint, source, id
           FROM ledger.processed_message WHERE id = 'p5'""",
        {"entries", "offsets", "once", "chain", "topic"},
        "message shop p5 is registered in entry 7 and in 7",
    ),
    "register: a row deleted": (
        "DELETE FROM ledger.processed_message WHERE id = 'p5'",
        {"entries", "outcomes", "chain", "topic"},
        "message shop p5 has an event, but is not registered in its entry",
    ),
    "register: a reason": (
        "UPDATE ledger.processed_message SET reason = 'goods_not_found' WHERE id = 'p3'",
        {"chain"},
        "position 3: its rows are not those that were sealed",
    ),
    "register: rejected becomes applied": (
        "UPDATE ledger.processed_message SET reason = NULL, version = 6 WHERE id = 'p3'",
        {"entries", "outcomes", "chain", "topic"},
        "message shop p3 was applied, but has no event",
    ),
    "register: applied becomes rejected": (
        "UPDATE ledger.processed_message SET reason = 'user_closed', version = NULL WHERE id = 'p5'",
        {"entries", "outcomes", "chain", "topic"},
        "message shop p5 was rejected, but has an event",
    ),
    "register: a version": (
        "UPDATE ledger.processed_message SET version = 8 WHERE id = 'p5'",
        {"outcomes", "chain"},
        "message shop p5 was applied as version 8, but its event has version 9",
    ),
    "register: a fingerprint": (
        "UPDATE ledger.processed_message SET fingerprint = '\\xff' WHERE id = 'p5'",
        {"fingerprints", "chain", "topic"},
        "purchase-commands[2] offset 6: message shop p5 has another payload, but there is no conflict",
    ),
    "register: the same offset twice": (
        """UPDATE ledger.processed_message SET "offset" = 5 WHERE id = 'p5'""",
        {"offsets", "chain", "topic"},
        "position 7: offset 5 has two outcomes",
    ),
    "register: an offset of another entry": (
        """UPDATE ledger.processed_message SET "offset" = 7 WHERE id = 'p5'""",
        {"offsets", "chain", "topic"},
        "position 7: offset 7 lies outside",
    ),
    "register: a rejected one's fingerprint": (
        "UPDATE ledger.processed_message SET fingerprint = '\\xff' WHERE id = 'p3'",
        {"chain", "topic"},
        "purchase-commands[1] offset 14: message shop p3 has another payload, but there is no conflict",
    ),
    "stock: the pieces": (
        "UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE goods_id = 'tea'",
        {"stock"},
        "goods tea: stock says 87, events say 86",
    ),
    "stock: the version": (
        "UPDATE ledger.stock SET version = version + 1 WHERE goods_id = 'tea'",
        {"stock"},
        "goods tea: stock is at version 10, events at 9",
    ),
    "stock: one more": (
        "INSERT INTO ledger.stock (generation, goods_id, on_hand, version) VALUES (1, 'gold', 5, 1)",
        {"stock"},
        "goods gold: stock says 5, but there are no events",
    ),
    "stock: deleted": (
        "DELETE FROM ledger.stock WHERE goods_id = 'tea'",
        {"stock"},
        "goods tea: events say 86, but there is no stock row",
    ),
    "account: reopened": (
        "UPDATE ledger.account SET closed = false WHERE user_id = 'ben'",
        {"accounts"},
        "user ben: account says version 2, events say 2, closed",
    ),
    "account: one more": (
        "INSERT INTO ledger.account (user_id, version, closed) VALUES ('eve', 1, false)",
        {"accounts"},
        "user eve: there is an account, but no events",
    ),
    "account: deleted": (
        "DELETE FROM ledger.account WHERE user_id = 'anna'",
        {"accounts"},
        "user anna: there are events, but no account",
    ),
    "cancellation: deleted": (
        "DELETE FROM ledger.cancellation WHERE id = 'p4'",
        {"cancellations", "chain"},
        "purchase shop p4 was cancelled by an event, but has no cancellation row",
    ),
    "cancellation: one more": (
        "INSERT INTO ledger.cancellation SELECT entry, source, 'p5' FROM ledger.cancellation WHERE id = 'p4'",
        {"cancellations", "chain"},
        "purchase shop p5 has a cancellation row, but no event cancelled it",
    ),
    "cancellation: of less than was bought": (
        """UPDATE ledger.event SET delta = 1, payload = replace(payload::text, '5', '1')::json
           WHERE id = 'c4'""",
        {"cancellations", "stock", "chain", "deltas"},
        "purchase shop p4 was cancelled with another user or quantity than it was made with",
    ),
    "dead letter: its bytes": (
        r"""UPDATE ledger.dead_letter SET value = '\x00' WHERE "offset" = 8""",
        {"chain", "topic"},
        "purchase-commands[0] offset 8: the dead letter has other bytes than the record",
    ),
    "dead letter: a header": (
        """UPDATE ledger.dead_letter SET header_values[2] = '' WHERE "offset" = 7""",
        {"chain", "topic"},
        "purchase-commands[0] offset 7: the dead letter has other bytes than the record",
    ),
    "dead letter: its reason": (
        """UPDATE ledger.dead_letter SET detail = 'so what' WHERE "offset" = 7""",
        {"chain"},
        "position 4: its rows are not those that were sealed",
    ),
    "dead letter: deleted": (
        """DELETE FROM ledger.dead_letter WHERE "offset" = 7""",
        {"entries", "chain", "topic"},
        "purchase-commands[0] offset 7: the record is no command, but there is no dead letter",
    ),
    "conflict: the first delivery": (
        "UPDATE ledger.conflict SET first_offset = first_offset + 1 WHERE id = 'p4'",
        {"conflicts", "chain"},
        "purchase-commands[0]: offset 10: the evidence is not what the register says of shop p4",
    ),
    "conflict: the second payload": (
        r"UPDATE ledger.conflict SET second_value = '\x00' WHERE id = 'p4'",
        {"chain", "topic"},
        "purchase-commands[0] offset 10: the conflict has another key or payload than the record",
    ),
    "conflict: no longer one": (
        "UPDATE ledger.conflict SET second_fingerprint = first_fingerprint WHERE id = 'p4'",
        {"conflicts", "chain", "topic"},
        "purchase-commands[0]: offset 10: the two payloads are the same",
    ),
    "gap: its cause": (
        "UPDATE ledger.gap SET accepted_by = 'nobody' WHERE cause = 'records_deleted'",
        {"chain"},
        "position 4: its rows are not those that were sealed",
    ),
    "gap: longer": (
        "UPDATE ledger.gap SET next_offset = next_offset + 1 WHERE cause = 'log_hole'",
        {"entries", "offsets", "chain", "topic"},
        "position 2: offset 7 has two outcomes",
    ),
    "gap: deleted": (
        "DELETE FROM ledger.gap WHERE cause = 'before_start'",
        {"entries", "chain"},
        "position 6: counts of applied, rejected, conflict, dead, skipped, events are {0,0,0,0,5,0}, "
        "of its rows {0,0,0,0,0,0}",
    ),
    "journal: an entry deleted": (
        "DELETE FROM ledger.journal WHERE position = 5",
        {"journal", "lanes", "chain"},
        "position 5 is missing",
    ),
    "journal: an entry with rows deleted": (
        "DELETE FROM ledger.journal WHERE position = 3",
        {"journal", "lanes", "orphans", "conflicts", "chain", "topic"},
        "purchase-commands[1]: position 5 begins at offset 19, not at 10",
    ),
    "journal: the last entry deleted": (
        "DELETE FROM ledger.journal WHERE position = 7",
        {"journal", "lanes", "orphans", "chain"},
        "the head is at position 7, the journal ends at 6",
    ),
    "journal: the counts": (
        "UPDATE ledger.journal SET applied = applied + 1, rejected = rejected - 1 WHERE position = 2",
        {"entries", "chain", "topic"},
        "position 2: counts of applied, rejected, conflict, dead, skipped, events are {6,1,0,0,3,6}, "
        "of its rows {5,2,0,0,3,5}",
    ),
    "journal: duplicates that were none": (
        "UPDATE ledger.journal SET duplicate = duplicate + 1 WHERE position = 5",
        {"entries", "chain", "topic"},
        "position 5: counts do not add up to its 2 offsets",
    ),
    "journal: the digest": (
        "UPDATE ledger.journal SET digest = sha256('') WHERE position = 5",
        {"chain"},
        "position 5: its rows are not those that were sealed",
    ),
    "journal: a hash": (
        "UPDATE ledger.journal SET hash = sha256('') WHERE position = 5",
        {"chain"},
        "position 5: its hash does not continue the chain",
    ),
    "journal: the epoch": (
        "UPDATE ledger.journal SET epoch = 9 WHERE position = 2",
        {"lanes", "chain"},
        "purchase-commands[1]: position 3 has epoch 1 after 9",
    ),
    "journal: the time": (
        "UPDATE ledger.journal SET recorded_at = recorded_at + '1 day' WHERE position = 2",
        {"journal", "chain"},
        "position 3 was recorded before its predecessor",
    ),
    "journal: all times moved alike": (
        """WITH moved AS (UPDATE ledger.head SET recorded_at = recorded_at + '1 day')
           UPDATE ledger.journal SET recorded_at = recorded_at + '1 day'""",
        {"chain"},
        "position 1: its hash does not continue the chain",
    ),
    "journal: a time that is none": (
        "UPDATE ledger.journal SET recorded_at = '-infinity' WHERE position = 1",
        {"chain"},
        "position 1: its hash does not continue the chain",
    ),
    "journal: another number": (
        "UPDATE ledger.journal SET entry = 77 WHERE position = 7",
        {"entries", "orphans", "chain", "topic"},
        "1 rows of cancellation have the entry 7, but the journal has not",
    ),
    "projection: no live generation": (
        "UPDATE ledger.projection SET status = 'standby' WHERE name = 'sales_by_day'",
        {"projections", "sales"},
        "sales_by_day has 0 live generations",
    ),
    "projection: its pointer is gone": (
        "DELETE FROM ledger.projection WHERE name = 'purchases_by_user'",
        {"projections", "purchases"},
        "purchases_by_user has 0 live generations",
    ),
    "projection: the stock's pointer is gone": (
        "DELETE FROM ledger.projection WHERE name = 'stock'",
        {"projections"},
        "stock has 0 live generations",
    ),
    "projection: said to be another version's": (
        """WITH forged AS (UPDATE ledger.projection SET version = 2 WHERE name = 'purchases_by_user')
           INSERT INTO ledger.purchases_by_user_rows VALUES (1, 'eve', 'tea', 1, 1, 0, 0)""",
        {"projections", "purchases"},
        "purchases_by_user is of version 2, not 1, so its rows can't be judged",
    ),
    "projection: ahead of the journal": (
        "UPDATE ledger.projection SET position = 8 WHERE name = 'sales_by_day'",
        {"projections", "sales"},
        "sales_by_day is at position 8, the head at 7",
    ),
    "projection: set back, its rows removed": (
        """WITH ago (hours) AS (VALUES (interval '2 hours')),
                began AS (UPDATE ledger.journal SET recorded_at = recorded_at - hours FROM ago),
                made AS (UPDATE ledger.head SET recorded_at = recorded_at - hours FROM ago)
           UPDATE ledger.projection SET started_at = started_at - hours FROM ago
           WHERE name = 'user_events'""",
        {"followed", "chain"},
        "user_events has applied none of the 7 entries, so its rows can't be judged",
    ),
    "head: set back": (
        "UPDATE ledger.head SET position = position - 1",
        {"journal", "chain"},
        "the head is at position 6, the journal ends at 7",
    ),
    "head: the hash": (
        "UPDATE ledger.head SET hash = sha256('')",
        {"journal", "chain"},
        "the head's hash is not the last one of the chain",
    ),
    "head: the time": (
        "UPDATE ledger.head SET recorded_at = now() + '1 day'",
        {"journal"},
        "the head has another hash or time than position 7",
    ),
    "head: another generation of stock": (
        "UPDATE ledger.head SET stock_generation = 2",
        {"stock", "projections"},
        "goods Café  №\\5: events say 5, but there is no stock row",
    ),
    "stock delta: the number": (
        """UPDATE ledger.stock_delta SET on_hands = '1' || on_hands
           WHERE entry = (SELECT min(entry) FROM ledger.stock_delta)""",
        {"deltas"},
        "goods tea after the entry at 2: caches were told something else than the events say",
    ),
    "stock delta: deleted": (
        "DELETE FROM ledger.stock_delta WHERE entry = (SELECT max(entry) FROM ledger.stock_delta)",
        {"deltas"},
        "goods tea after the entry at 7: no cache was told of the change",
    ),
    "stock delta: of goods that have no events": (
        r"""UPDATE ledger.stock_delta SET goods = goods || E'\nghost', versions = versions || E'\n1',
            on_hands = on_hands || E'\n1' WHERE entry = (SELECT min(entry) FROM ledger.stock_delta)""",
        {"deltas"},
        "goods ghost after the entry at 2: caches were told of a change, but there are no events",
    ),
    "stock delta: of no entry": (
        "INSERT INTO ledger.stock_delta VALUES (999, 'tea', '1', '1')",
        {"orphans"},
        "1 rows of stock_delta have the entry 999, but the journal has not",
    ),
    "stock delta: said twice": (
        r"""UPDATE ledger.stock_delta SET goods = goods || E'\n' || goods,
            versions = versions || E'\n' || versions, on_hands = on_hands || E'\n' || on_hands
            WHERE entry = (SELECT min(entry) FROM ledger.stock_delta)""",
        {"deltas"},
        "goods Café  №\\5 after the entry at 2: caches were told something else than the events say",
    ),
    "lane: moved on": (
        "UPDATE ledger.lane SET next_offset = next_offset + 1 WHERE partition = 1",
        {"lanes"},
        "purchase-commands[1]: the lane is at 22, its entries end at 21",
    ),
    "lane: moved before its first entry": (
        "UPDATE ledger.lane SET next_offset = 4 WHERE partition = 3",
        {"lanes"},
        "purchase-commands[3]: the lane is at 4, its entries end at 0",
    ),
    "lane: the epoch": (
        "UPDATE ledger.lane SET epoch = 1 WHERE partition = 1",
        {"lanes"},
        "purchase-commands[1]: the lane has epoch 1, an entry has 2",
    ),
    "lane: begun elsewhere": (
        "UPDATE ledger.lane SET start_offset = 3 WHERE partition = 1",
        {"lanes"},
        "purchase-commands[1]: the lane was begun at 3, but no gap ends there",
    ),
    "lane: deleted": (
        "DELETE FROM ledger.lane WHERE partition = 1",
        {"lanes"},
        "purchase-commands[1]: there are entries, but no lane",
    ),
}
LOOSEN = """
DO $$
DECLARE
    name name;
    rule record;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'ledger' LOOP
        EXECUTE format('ALTER TABLE ledger.%I DISABLE TRIGGER ALL', name);
    END LOOP;
    FOR rule IN SELECT conname, conrelid::regclass AS name FROM pg_constraint
                WHERE connamespace = 'ledger'::regnamespace AND contype IN ('c', 'p', 'u')
                  AND coninhcount = 0 LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.name, rule.conname);
    END LOOP;
END $$
"""


def test_tampering_is_named(conn, monkeypatch, subtests):
    """Whatever the tables' owner changes behind the ledger's back is found, and the check says what it is."""
    lanes = history(conn)
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    for name, (statement, red, sentence) in TAMPERINGS.items():
        with subtests.test(name), conn.transaction(force_rollback=True):
            conn.execute(LOOSEN)
            assert conn.execute(statement).rowcount > 0
            found = differences(conn, deliveries=lanes.deliveries)
            assert found.keys() == red, found
            assert sentence in found.values()
    assert differences(conn, deliveries=lanes.deliveries) == {}


OTHER = {
    "bigint": "{0} + 1000",
    "integer": "{0} + 1000",
    "text": "{0} || 'x'",
    "json": """replace({0}::text, '}}', ',"x":1}}')::json""",
    "bytea": "{0} || '\\x00'",
    "bytea[]": "{0} || '\\x00'::bytea",
    "timestamp with time zone": "{0} + '1 microsecond'",
}
NULLS = {"integer": "1", "bigint": "1", "text": "'x'", "bytea": "'\\x00'", "bytea[]": "ARRAY['\\x00'::bytea]"}
SEALED = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relname = ANY(%s) ORDER BY c.relname, a.attnum
"""
NOT_SEALED = {("dead_letter", "status")}
"""Changes with what became of the letter: redriven, discarded."""


def test_every_column_of_what_is_sealed_is_under_the_chain(conn, monkeypatch, subtests):
    """Whichever column of a sealed table is changed, in whichever row, and be it a column of tomorrow: the
    chain alone finds it."""
    history(conn)
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    tables = ["journal", "event", "processed_message", "cancellation", "dead_letter", "conflict", "gap"]
    for table, column, type_ in conn.execute(SEALED, (tables,)).fetchall():
        if (table, column) in NOT_SEALED:
            continue
        with subtests.test(f"{table}.{column}"), conn.transaction(force_rollback=True):
            conn.execute(LOOSEN)
            name = f'"{column}"'
            value = OTHER[type_].format(name)
            if type_ in NULLS:
                value = f"coalesce({value}, {NULLS[type_]})"
            where = f"ctid = (SELECT max(ctid) FROM ledger.{table})"
            assert conn.execute(f"UPDATE ledger.{table} SET {name} = {value} WHERE {where}").rowcount == 1
            assert "chain" in differences(conn)


# Of some of these: the check, the row as it is stored, and the one that should be there (None: no row).
ROWS = {
    "stock: the pieces": (
        "stock",
        {"goods_id": "tea", "on_hand": 87, "version": 9},
        {"goods_id": "tea", "on_hand": 86, "version": 9},
    ),
    "stock: one more": ("stock", {"goods_id": "gold", "on_hand": 5, "version": 1}, None),
    "stock: deleted": ("stock", None, {"goods_id": "tea", "on_hand": 86, "version": 9}),
    "account: reopened": (
        "accounts",
        {"user_id": "ben", "version": 2, "closed": False},
        {"user_id": "ben", "version": 2, "closed": True},
    ),
    "account: deleted": ("accounts", None, {"user_id": "anna", "version": 1, "closed": False}),
    "payload: the user": (
        "events",
        {"type": "GoodsPurchased", "stream": "goods-tea", "version": 9, "delta": "-5", "user_id": "anna"},
        {"type": "GoodsPurchased", "stream": "goods-tea", "version": 9, "delta": "-5", "user_id": "ben"},
    ),
    "register: a version": (
        "outcomes",
        {"source": "shop", "id": "p5", "reason": None, "version": 8, "events": 1},
        {"source": "shop", "id": "p5", "reason": None, "version": 9, "events": 1},
    ),
    "register: a row deleted": (
        "outcomes",
        None,
        {"source": "shop", "id": "p5", "reason": None, "version": 9, "events": 1},
    ),
    "cancellation: deleted": (
        "cancellations",
        None,
        {"source": "shop", "id": "p4", "user_id": "anna", "quantity": 5},
    ),
    "cancellation: of less than was bought": (
        "cancellations",
        {"source": "shop", "id": "p4", "user_id": "anna", "quantity": 1},
        {"source": "shop", "id": "p4", "user_id": "anna", "quantity": 5},
    ),
    "journal: the counts": (
        "entries",
        {"position": 2, "applied": 6, "rejected": 1, "conflict": 0, "dead": 0, "skipped": 3, "events": 6},
        {"position": 2, "applied": 5, "rejected": 2, "conflict": 0, "dead": 0, "skipped": 3, "events": 5},
    ),
    "lane: moved on": (
        "lanes",
        {"topic": TOPIC, "partition": 1, "next_offset": 22, "epoch": 2},
        {"topic": TOPIC, "partition": 1, "next_offset": 21, "epoch": 2},
    ),
    "lane: deleted": ("lanes", None, {"topic": TOPIC, "partition": 1, "next_offset": 21, "epoch": 2}),
}


def test_a_differing_row_is_shown_beside_the_right_one(conn, monkeypatch, subtests):
    """Where a row is wrong, the check has it as it is stored and as it should be, by column."""
    history(conn)
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    for name, (red, stored, expected) in ROWS.items():
        with subtests.test(name), conn.transaction(force_rollback=True):
            conn.execute(LOOSEN)
            conn.execute(TAMPERINGS[name][0])
            found = next(found for found in verify(conn) if found.name == red)
            assert (found.stored, found.expected) == (stored, expected)


def test_a_projections_row_is_compared_with_the_events(conn, monkeypatch, subtests):
    """Each row of the shipped projections is what the events up to the projection's position add up to."""
    lanes = history(conn)
    for name in ("purchases_by_user", "sales_by_day", "user_events"):
        while any(step.applied for step in follow_once(conn, find(name))):
            pass
    lanes.apply(2, buys("p7", "anna", 2, 100))  # not followed yet
    figures = {found.name: found.figure for found in verify(conn) if found.ok}
    assert [figures[name] for name in ("purchases", "sales", "users")] == ["1 rows", "1 days", "9 rows"]
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    for statement, red in (
        ("UPDATE ledger.purchases_by_user_rows SET cancelled = cancelled + 1", "purchases"),
        ("UPDATE ledger.sales_by_day_rows SET revenue_minor = revenue_minor + 1", "sales"),
        ("DELETE FROM ledger.sales_by_day_rows", "sales"),
        ("UPDATE ledger.user_events_rows SET id = 'p2' WHERE id = 'p1' AND source = 'shop'", "users"),
        ("DELETE FROM ledger.user_events_rows WHERE (position, ordinal) = (1, 0)", "users"),
        ("INSERT INTO ledger.user_events_rows VALUES (1, 'eve', 1, 1, 'shop', 'p1')", "users"),
        ("INSERT INTO ledger.purchases_by_user_rows VALUES (1, 'eve', 'tea', 1, 1, 0, 0)", "purchases"),
    ):
        with subtests.test(statement), conn.transaction(force_rollback=True):
            assert conn.execute(statement).rowcount == 1
            assert differences(conn).keys() == {red}


def test_a_payload_that_is_none_is_named(conn):
    """A payload that was replaced by something unreadable makes a check fail, not the program."""
    history(conn)
    conn.execute(LOOSEN)
    conn.execute("UPDATE ledger.event SET payload = '5' WHERE id = 'p5'")
    found = differences(conn)
    assert found.keys() == {"events", "fingerprints", "chain"}
    assert "on a scalar" in str(found["events"])
    assert str(found["fingerprints"]).startswith("message shop p5: its event can't be read")


def test_a_dead_letters_status_may_change(conn):
    """What was done about a dead letter is no part of what was recorded."""
    lanes = history(conn)
    conn.execute("UPDATE ledger.dead_letter SET status = 'redriven'")
    assert differences(conn, deliveries=lanes.deliveries) == {}


def test_a_databases_own_settings_change_nothing(ledger_dsn):
    """Rows are printed as they were written, whatever output format the database or the user prefers."""
    options = "-c bytea_output=escape -c client_encoding=latin1 -c DateStyle=SQL -c extra_float_digits=0"
    dsn = make_conninfo(ledger_dsn, options=options)
    with database.connect(dsn, purpose="test", budgets=BUDGETS) as conn:
        lanes = history(conn)
        assert differences(conn, deliveries=lanes.deliveries) == {}


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
BYTES = st.none() | st.binary(max_size=40)
HEADERS = st.none() | st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), BYTES))


def test_a_row_is_printed_as_it_was_sent(conn):
    """Postgres prints any row as the very line that was sent, which is what digests rest on."""

    @settings(max_examples=300)
    @given(TEXT, TEXT, st.builds(Record, BYTES, BYTES, HEADERS))
    def there_and_back(code: str, detail: str, record: Record) -> None:
        sent = dead_letter.line(7, Lane(TOPIC, 0), 1, Bad(code, detail), record)
        with conn.transaction(force_rollback=True):
            roundtrip.finish(conn, Before([Rows(dead_letter.COPY, TableLines([sent]))]), b"SELECT", ())
            assert copy.receive(conn, dead_letter.LINES, 7, 7) == {7: [sent.encode()]}
            assert dead_letter.in_range(conn, Lane(TOPIC, 0), 1, 2) == {1: record}

    there_and_back()


def test_a_batch_between_any_two_statements_changes_nothing(conn, ledger_dsn, small_pages):
    """Verify is green while batches commit between its statements, old lanes and new ones alike."""
    lanes = history(conn)
    with database.connect(ledger_dsn, purpose="test") as other:
        writer = Lanes(other)
        numbers = iter(range(1000))

        def write(*_: object) -> None:
            number = next(numbers)
            for partition in (1, 4):
                bought = buys(f"w{number}-{partition}", "anna", 1)
                broken = Record(None, b"", None)
                writer.apply(
                    partition, bought, bought, buys(f"w{number}", "anna", partition), broken, Hole(1)
                )

        for found in verify(conn, deliveries=lanes.deliveries, on_progress=write):
            assert found.ok, found
            write()
    assert next(numbers) > 50


def test_verify_beside_a_busy_writer_is_green(conn, ledger_dsn):
    """Verify is green over and over while another connection applies batches as fast as it can."""
    lanes = history(conn)
    finished = threading.Event()
    written: list[int] = []

    def write() -> None:
        with database.connect(ledger_dsn, purpose="test") as other:
            writer = Lanes(other)
            writer.delivered = lanes.delivered
            while not finished.is_set():
                number = len(written)
                orders = [buys(f"t{number}-{n}", "anna", 1) for n in range(20)]
                more = says(f"r{number}", ReceiveStock(goods_id="tea", quantity=20))
                written.append(writer.apply(number % 3, more, *orders, orders[0], Hole(1)).position)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        rounds = 0
        while len(written) < 50 and thread.is_alive():
            assert differences(conn, deliveries=lanes.deliveries) == {}
            rounds += 1
    finally:
        finished.set()
        thread.join()
    assert len(written) >= 50
    assert rounds > 1


def changed(lanes: Lanes, lane: Lane, offset: int, delivery: Delivery | None):
    """The topic, but for one record: another one, or none."""
    if delivery is None:
        del lanes.delivered[lane][offset]
    else:
        lanes.delivered[lane][offset] = delivery
    return lanes.deliveries


@pytest.mark.parametrize(
    ("partition", "offset", "record", "sentence"),
    [
        (1, 10, buys("p1", "anna", 99), "message shop p1 has another payload, but there is no conflict"),
        (1, 10, buys("p77", "anna", 3), "message shop p77 is not registered"),
        (1, 12, buys("p1", "anna", 99), "the conflict has another key or payload than the record"),
        (1, 12, buys("p1", "anna", 3, 250), "the conflict has another key or payload than the record"),
        (1, 5, buys("p5", "anna", 1), "a gap (log_hole by nobody) skipped it, but there is a record"),
        (1, 5, buys("p5", "anna", 5), "a gap (log_hole by nobody) skipped it, but there is a record"),
        (
            0,
            12,
            buys("p5", "anna", 5),
            "a gap (records_deleted by op\\erator\t) skipped it, but there is a record",
        ),
        (1, 11, Record(None, b"", None), "the record is no command, but there is no dead letter"),
        (0, 6, buys("p5", "anna", 5), "the dead letter has other bytes than the record"),
        (0, 6, Record(b"", b"no JSON", None), "the dead letter has other bytes than the record"),
        (0, 7, Record(b"k\x00\xff", None, None), "the dead letter has other bytes than the record"),
        (1, 11, None, "Kafka's records are 3 applied, 4 rejected, 0 duplicate, 1 conflict, 0 dead"),
        (2, 6, None, "Kafka's records are 1 applied, 0 rejected, 0 duplicate, 0 conflict, 0 dead"),
    ],
)
def test_a_topic_that_says_something_else_is_named(conn, partition, offset, record, sentence):
    """A record that isn't what the ledger has of its offset is found, and so is one that is lacking."""
    lane = Lane(TOPIC, partition)
    lanes = history(conn)
    topic = changed(lanes, lane, offset, read(offset, record) if record else None)
    [(name, difference)] = differences(conn, deliveries=topic).items()
    assert name == "topic"
    assert difference
    assert difference.startswith(
        f"{lane} offset {offset}: " if "Kafka" not in sentence else f"{lane}: position "
    )
    assert difference.endswith(sentence)


def test_records_that_kafka_has_deleted_are_counted(conn):
    """Retention deletes from the front of a lane; what is left is compared, what is gone is counted."""
    lanes = history(conn)
    kept = lanes.delivered[Lane(TOPIC, 1)]
    for gone, offset in enumerate(sorted(kept), 1):
        del kept[offset]
        topic = list(verify(conn, deliveries=lanes.deliveries))[-1]
        assert topic.ok, topic.difference
        assert topic.figure == f"{31 - gone} records, {gone} no longer in Kafka"
    assert not kept


def test_a_parked_command_is_accounted_for_by_its_bytes(conn):
    """A dead letter may hold a valid command (a release that knew less, a fault): its bytes are compared."""
    lanes = history(conn)
    record = buys("p9", "anna", 1)
    lanes.claims[0] = lanes.claims[0]._replace(next_offset=13)
    batch = lanes.batch(0, record)
    parked = batch._replace(deliveries=[Delivery(13, Bad("bug", "deciding failed"), record.packed())])
    apply_batch(conn, parked, lanes.claims[0].epoch)
    lanes.delivered[batch.lane][13] = batch.deliveries[0]
    lanes.claims[0] = lanes.claims[0]._replace(next_offset=14)
    lanes.apply(0, record)  # and again, later: now it is applied
    assert differences(conn, deliveries=lanes.deliveries) == {}
