"""One batch, one transaction, one journal entry: the eight steps, in order.

    1 fence    BEGIN, and the lane moves over the batch by compare-and-set, or nothing happens
    2 dedup    known message keys: a duplicate, or a conflict by fingerprint; in the round trip of the fence
    3 load     lock the stock rows, then read them, then accounts: one round trip; purchases to cancel
    4 decide   pure, in offset order; repeats inside the batch are met here
    5 append   register, events and cancellations by COPY, each in the order of its primary key
    6 project  stock and accounts, set-wise; rows that were locked are written in the round trip of the seal
    7 dead     records that are no command, conflicts and gaps: same transaction
    8 seal     position, counter compared, chain, journal row, and COMMIT in one round trip

Lock order: lane; stock rows, sorted; appended rows, table by table in primary key order; head, last.
What can't be locked (accounts, rows that don't exist) is guarded by the head's catalogue counter.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ledger import failpoints
from ledger.domain.decider import State
from ledger.domain.delivery import Batch, Request
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Defect
from ledger.store import (
    account,
    cancellation,
    conflict,
    copy,
    dead_letter,
    event,
    gap,
    journal,
    lane,
    processed_message,
    stock,
)
from ledger.store.database import Connection, rollback, transaction
from ledger.store.together import ask, ask_together
from ledger.work import Work

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
        digest = _append(conn, work, counts)
        _project(conn, work)
        entry = journal.Entry(
            work.entry, batch, epoch, counts, digest, work.bumps_catalogue, work.head.stock_generation
        )
        failpoints.hit("seal")
        position = _seal(conn, work, entry)
    failpoints.hit("committed")
    return Applied(position, outcomes, counts)


def _fence_and_find(conn: Connection, batch: Batch, epoch: int) -> Work:
    keys = [d.content.key for d in batch.deliveries if isinstance(d.content, Request)]
    entry, head, known = ask_together(
        conn,
        lane.advance(batch, epoch),
        journal.read_head(),  # before everything that its counter guards
        processed_message.find(keys),
        begin=True,
    )
    failpoints.hit("dedup")
    return Work(batch, entry, head, known)


def _load(conn: Connection, work: Work) -> None:
    needs, generation = work.needs(), work.head.stock_generation
    if needs.goods or needs.users:
        locked, there, work.state.users = ask_together(
            conn,
            stock.lock(generation, needs.goods),
            stock.read(generation, needs.goods),  # not by the locking statement
            account.read(needs.users),
        )
        work.state.goods = {goods_id: there[goods_id] for goods_id in locked}
        work.missing_goods, work.read_users = needs.goods - locked, needs.users
    if needs.purchases:
        work.state.purchases = event.find_purchases(conn, needs.purchases)
    work.before = State(work.state.users.copy(), work.state.goods.copy())
    failpoints.hit("load")


def _append(conn: Connection, work: Work, counts: Mapping[Outcome, int]) -> bytes:
    """Write what only grows, each table in the order of its primary key; returns the digest of the entry.

    Lines are made, and the digest is, while the server takes in what was sent before.
    """
    conflicts, gaps = conflict.lines(conn, work.entry, work.batch.lane, work.conflicts), work.gap_lines()
    cancelled = work.cancelled_lines()
    try:
        register = work.register_rows()
        with copy.sending(conn, processed_message.COPY, register.blocks()):
            events = work.event_rows()
        with copy.sending(conn, event.COPY, events.blocks()):
            tables = [register.lines(), events.lines(), cancelled, work.dead, conflicts, gaps]
            digest = journal.digest(work.batch, counts, tables)
        copy.send(conn, cancellation.COPY, cancelled)
    except Contended as error:
        if error.constraint in ("event_pkey", "cancellation_pkey") and not work.bumps_catalogue:
            rollback(conn)  # so that the head can be read: a rival on a new generation locks other rows
            if ask(conn, journal.read_head()).stock_generation == work.head.stock_generation:
                raise Defect(f"{error.constraint} was violated although the goods were locked") from error
        raise
    copy.send(conn, dead_letter.COPY, work.dead)
    copy.send(conn, conflict.COPY, conflicts)
    copy.send(conn, gap.COPY, gaps)
    failpoints.hit("append")
    return digest


def _project(conn: Connection, work: Work) -> None:
    generation = work.head.stock_generation
    stock.insert(conn, generation, work.listed_stock())
    account.write(conn, work.changed_users())
    failpoints.hit("project")


def _seal(conn: Connection, work: Work, entry: journal.Entry) -> int:
    """Seal and commit; where the catalogue moved meanwhile, look again at what was read without a lock."""
    written = stock.update(work.head.stock_generation, work.changed_stock())
    if not work.read_users and not work.missing_goods:
        return journal.seal(conn, entry, None, written)
    seen = work.head.catalogue
    for _ in range(SEAL_ROUNDS):
        try:
            return journal.seal(conn, entry, seen, written)
        except Contended as moved:
            if moved.sqlstate != journal.CATALOGUE_MOVED:
                raise
            journal.back_before_seal(conn)
            written = None  # it stands before the savepoint
            seen = ask(conn, journal.read_head()).catalogue  # first the counter, then what it guards
            _require_unchanged(conn, work)
    seen = journal.lock_head(conn)  # endless registrations starve nobody: nothing can move now
    _require_unchanged(conn, work)
    return journal.seal(conn, entry, seen)


def _require_unchanged(conn: Connection, work: Work) -> None:
    """Raise Contended if a row that the decisions rest on has changed."""
    users, missing = work.guarded()
    there = ask(conn, account.read(users))
    if any(there.get(user_id) != user for user_id, user in users.items()):
        raise Contended("a user that the batch was decided on has changed")
    if ask(conn, stock.read(work.head.stock_generation, missing)):
        raise Contended("goods that the batch found missing were listed")
