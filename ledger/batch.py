"""One batch, one transaction, one journal entry: the eight steps, in order.

    1 fence    BEGIN, and the lane moves over the batch by compare-and-set, or nothing happens
    2 dedup    known message keys: a duplicate, or a conflict by fingerprint; in the round trip of the fence
    3 load     lock the stock rows, then read them, then accounts: one round trip; purchases to cancel
    4 decide   pure, in offset order; repeats inside the batch are met here
    5 append   register, events and cancellations by COPY, each in the order of its primary key
    6 dead     records that are no command, conflicts and gaps: likewise
    7 project  stock and accounts, set-wise
    8 seal     position, counter compared, chain, journal row, and COMMIT

The last four are one message, so that the locks are held for as few round trips as can be: one for each table
that rows are sent to, and one.

Lock order: lane; stock rows, sorted; appended rows, table by table in primary key order; head, last.
What can't be locked (accounts, rows that don't exist) is guarded by the head's catalogue counter.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ledger import codec, failpoints
from ledger.batch_state import Work
from ledger.domain.decider import State
from ledger.domain.delivery import Batch, Request
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Contradiction
from ledger.store.connection.copy import Rows, TableLines
from ledger.store.connection.database import Connection, rollback, transaction
from ledger.store.connection.roundtrip import NOTHING, Before, Statement, execute, execute_together
from ledger.store.tables import (
    account,
    cancellation,
    conflict,
    dead_letter,
    event,
    gap,
    journal,
    lane,
    processed_message,
    stock,
)

OFFSET_KEYS = {"dead_letter_pkey", "conflict_pkey", "gap_pkey"}
GOODS_KEYS = {"event_pkey", "cancellation_pkey"}
SEAL_ROUNDS = 2  # optimistic rounds before the head is locked first


@dataclass(frozen=True)
class Applied:
    """A committed batch: its position, and one outcome per delivery, in offset order."""

    position: int
    outcomes: list[Outcome]
    counts: Mapping[Outcome, int]


def apply_batch(conn: Connection, batch: Batch, epoch: int) -> Applied:
    """Apply the batch exactly once, and commit it. The connection must be in autocommit and idle.

    Raises Retry (nothing was written, or the commit's fate is unknown: `lane.resume` before trying again),
    Park (one record is to blame: isolate it), or Stop.
    """
    failpoints.hit("begin")
    with transaction(conn, begins=False):
        work = _fence_and_find(conn, batch, epoch)
        _load(conn, work)
        failpoints.hit("decide")
        outcomes = [work.decide(delivery) for delivery in batch.deliveries]
        counts = Counter(outcomes)
        position = _write(conn, work, counts, epoch)
    failpoints.hit("committed")
    return Applied(position, outcomes, counts)


def _fence_and_find(conn: Connection, batch: Batch, epoch: int) -> Work:
    keys = [d.content.key for d in batch.deliveries if isinstance(d.content, Request)]
    entry, head, known = execute_together(
        conn,
        lane.advance_statement(batch, epoch),
        journal.head_statement(),  # before everything that its counter guards
        processed_message.find_statement(keys),
        begin=True,
    )
    # so that no row which was written past the journal answers for it
    origins = processed_message.origins(conn, known) if known else {}
    failpoints.hit("dedup")
    return Work(batch, entry, head, known, origins)


def _load(conn: Connection, work: Work) -> None:
    needs, generation = work.needs(), work.head.stock_generation
    if needs.goods or needs.users:
        locked, there, work.state.users = execute_together(
            conn,
            stock.lock_statement(generation, needs.goods),
            stock.read_statement(generation, needs.goods),  # not by the locking statement
            account.read_statement(needs.users),
        )
        work.state.goods = {goods_id: there[goods_id] for goods_id in locked}
        work.missing_goods, work.read_users = needs.goods - locked, needs.users
    if needs.purchases:
        work.state.purchases = event.find_purchases(conn, needs.purchases)
    work.before = State(work.state.users.copy(), work.state.goods.copy())
    failpoints.hit("load")


def _write(conn: Connection, work: Work, counts: Mapping[Outcome, int], epoch: int) -> int:
    """Write what only grows, each table in the order of its primary key; then the stock; seal and commit."""
    tables = [
        Rows(processed_message.COPY, codec.in_use.register_rows(work.register)),
        Rows(event.COPY, codec.in_use.event_rows(work.entry, work.events)),
        Rows(cancellation.COPY, TableLines(work.cancelled_lines())),
        Rows(dead_letter.COPY, TableLines(work.dead)),
        Rows(conflict.COPY, TableLines(work.conflict_lines())),
        Rows(gap.COPY, TableLines(work.gap_lines())),
    ]
    digest = journal.digest(work.batch, counts, [rows.made for rows in tables])
    entry = journal.Entry(
        work.entry, work.batch, epoch, counts, digest, work.bumps_catalogue, work.head.stock_generation
    )
    try:
        before = Before([rows for rows in tables if len(rows.made)], _projected(work))
        failpoints.hit("seal")
        return _seal(conn, work, entry, before)
    except Contended as error:
        if error.constraint:
            rollback(conn)  # so that the head can be read
            if _is_no_race(conn, work, error.constraint):
                what = f"{error.constraint} was violated, although nobody else may write there now"
                raise Contradiction(what, remedy="stockledger verify") from error
        raise


def _projected(work: Work) -> list[Statement[None]]:
    generation, listed = work.head.stock_generation, work.listed_stock()
    changed, users = work.changed_stock(), work.changed_users()
    statements = []
    if listed:
        statements.append(stock.insert_statement(generation, listed))
    if users:
        statements.append(account.write_statement(users))
    if listed or changed:
        statements.append(stock.write_statement(work.entry, generation, listed, changed))
    return statements


def _is_no_race(conn: Connection, work: Work, constraint: str) -> bool:
    """Whether who violates this constraint has met a row that was written past the journal."""
    if constraint in OFFSET_KEYS:  # the lane is ours
        return True
    if constraint not in GOODS_KEYS or work.bumps_catalogue:
        return False
    # the goods were locked; but a rival on a new generation locks other rows
    return execute(conn, journal.head_statement()).stock_generation == work.head.stock_generation


def _seal(conn: Connection, work: Work, entry: journal.Entry, before: Before) -> int:
    """Seal and commit; where the catalogue moved meanwhile, look again at what was read without a lock."""
    if not work.read_users and not work.missing_goods:
        return journal.seal(conn, entry, None, before)
    seen = work.head.catalogue
    for _ in range(SEAL_ROUNDS):
        try:
            return journal.seal(conn, entry, seen, before)
        except Contended as moved:
            if moved.sqlstate != journal.CATALOGUE_MOVED:
                raise
            journal.back_before_seal(conn)
            before = NOTHING  # what was there stands before the savepoint
            seen = execute(conn, journal.head_statement()).catalogue  # first the counter, then what it guards
            _require_unchanged(conn, work)
    seen = journal.lock_head(conn)  # endless registrations starve nobody: nothing can move now
    _require_unchanged(conn, work)
    return journal.seal(conn, entry, seen)


def _require_unchanged(conn: Connection, work: Work) -> None:
    """Raise Contended if a row that the decisions rest on has changed."""
    users, missing = work.guarded()
    there = execute(conn, account.read_statement(users))
    if any(there.get(user_id) != user for user_id, user in users.items()):
        raise Contended("a user that the batch was decided on has changed")
    if execute(conn, stock.read_statement(work.head.stock_generation, missing)):
        raise Contended("goods that the batch found missing were listed")
