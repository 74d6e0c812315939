"""One batch, one transaction, one journal entry: the eight steps, in order.

    1 fence    the lane moves over the batch by compare-and-set, or nothing happens
    2 dedup    known message keys: a duplicate, or a conflict by fingerprint
    3 load     lock the stock rows, then read them; then accounts and purchases to cancel
    4 decide   pure, in offset order; repeats inside the batch are met here
    5 append   register, events and cancellations by COPY, each in the order of its primary key
    6 project  stock and accounts, set-wise
    7 dead     records that are no command, conflicts and gaps: same transaction
    8 seal     position, counter compared, chain, journal row, and COMMIT in one round trip

Lock order: lane; stock rows, sorted; appended rows, table by table in primary key order; head, last.
What can't be locked (accounts, rows that don't exist) is guarded by the head's catalogue counter.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ledger import failpoints
from ledger.domain.commands import CancelPurchase, MessageKey, PurchaseGoods, UserCommand
from ledger.domain.decider import State, decide, evolve
from ledger.domain.delivery import Bad, Batch, Delivery, Request
from ledger.domain.events import AnyEvent, GoodsListed, PurchaseCancelled, UserEvent
from ledger.domain.goods import purchase_key
from ledger.domain.outcome import Outcome, Rejection
from ledger.errors import Contended, Defect, Park
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
from ledger.store.processed_message import Processed

SEAL_ROUNDS = 2  # optimistic rounds before the head is locked first


@dataclass(frozen=True)
class Applied:
    """A committed batch: its position, and one outcome per delivery, in offset order."""

    position: int
    outcomes: list[Outcome]
    counts: Mapping[Outcome, int]


@dataclass
class _Work:
    """What the batch has loaded and decided, and the rows it is about to write."""

    batch: Batch
    entry: int
    head: journal.Head
    known: dict[MessageKey, Processed]
    state: State = field(default_factory=State)
    # what was read without a lock
    read_users: set[str] = field(default_factory=set)
    missing_goods: set[str] = field(default_factory=set)
    # what was changed
    users: set[str] = field(default_factory=set)
    goods: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    # rows, as (primary key, line)
    register: list[tuple[str, str, str]] = field(default_factory=list)
    events: list[tuple[str, int, str]] = field(default_factory=list)
    cancelled: list[tuple[str, str, str]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    conflicts: list[tuple[Delivery, Request, Processed]] = field(default_factory=list)

    @property
    def bumps_catalogue(self) -> bool:
        return bool(self.users or self.listed)


def apply_batch(conn: Connection, batch: Batch, epoch: int) -> Applied:
    """Apply the batch exactly once, and commit it. The connection must be in autocommit and idle.

    Raises Retry (nothing was written, or the commit's fate is unknown: `lane.resume` before trying again),
    Park (one record is to blame: isolate it), or Stop.
    """
    failpoints.hit("begin")
    with transaction(conn):
        work = _fence_and_find(conn, batch, epoch)
        _load(conn, work)
        failpoints.hit("decide")
        outcomes = [_decide(work, delivery) for delivery in batch.deliveries]
        tables = _append(conn, work)
        _project(conn, work)
        counts = Counter(outcomes)
        digest = journal.digest(batch, counts, tables)
        entry = journal.Entry(
            work.entry, batch, epoch, counts, digest, work.bumps_catalogue, work.head.stock_generation
        )
        failpoints.hit("seal")
        position = _seal(conn, work, entry)
    failpoints.hit("committed")
    return Applied(position, outcomes, counts)


def _fence_and_find(conn: Connection, batch: Batch, epoch: int) -> _Work:
    keys = [d.content.key for d in batch.deliveries if isinstance(d.content, Request)]
    entry = lane.advance(conn, batch, epoch)
    failpoints.hit("fence")
    head = journal.read_head(conn)  # before everything that its counter guards
    known = processed_message.find(conn, keys)
    failpoints.hit("dedup")
    return _Work(batch, entry, head, known)


def _load(conn: Connection, work: _Work) -> None:
    requests = [d.content for d in work.batch.deliveries if isinstance(d.content, Request)]
    fresh = [request for request in requests if request.key not in work.known]
    goods_ids = sorted({r.command.goods_id for r in fresh if not isinstance(r.command, UserCommand)})
    work.read_users = {r.command.user_id for r in fresh if isinstance(r.command, UserCommand | PurchaseGoods)}
    wanted = [
        (purchase_key(r.command, r.key), r.command.goods_id)
        for r in fresh
        if isinstance(r.command, CancelPurchase)
    ]
    if goods_ids:
        stock.lock(conn, work.head.stock_generation, goods_ids)
        work.state.goods = stock.read(conn, work.head.stock_generation, goods_ids)
        work.missing_goods = set(goods_ids) - work.state.goods.keys()
    if work.read_users:
        work.state.users = account.read(conn, work.read_users)
    if wanted:
        work.state.purchases = event.find_purchases(conn, wanted)
    failpoints.hit("load")


def _decide(work: _Work, delivery: Delivery) -> Outcome:
    request = delivery.content
    if isinstance(request, Bad):
        row = dead_letter.line(work.entry, work.batch.lane, delivery.offset, request, delivery.record)
        work.dead.append(row)
        return Outcome.DEAD
    first = work.known.get(request.key)
    if first is None:
        return _first_time(work, delivery.offset, request)
    if first.fingerprint == request.fingerprint:
        return Outcome.DUPLICATE
    work.conflicts.append((delivery, request, first))
    return Outcome.CONFLICT


def _first_time(work: _Work, offset: int, request: Request) -> Outcome:
    try:
        decision = decide(work.state, request)
    except Exception as error:
        raise Park(
            f"deciding offset {offset} of {work.batch.lane} failed: {error!r}", reason="bug"
        ) from error
    version = reason = None
    if isinstance(decision, Rejection):
        reason = decision.reason.value
    else:
        version = _take(work, request.key, decision)
    processed = Processed(request.fingerprint, reason, version, work.entry, offset)
    work.known[request.key] = processed
    source, id_ = request.key
    work.register.append((id_, source, processed_message.line(request.key, processed)))
    return processed.outcome


def _take(work: _Work, key: MessageKey, happened: AnyEvent) -> int:
    """Take the event into the batch's state and rows; returns its version."""
    place = evolve(work.state, key, happened)
    work.events.append((*place, event.line(work.entry, len(work.events), place, key, happened)))
    if isinstance(happened, UserEvent):
        work.users.add(happened.user_id)
        return place.version
    work.goods.add(happened.goods_id)
    if isinstance(happened, GoodsListed):
        work.listed.add(happened.goods_id)
    elif isinstance(happened, PurchaseCancelled):
        row = cancellation.line(work.entry, happened)
        work.cancelled.append((happened.purchase_id, happened.purchase_source, row))
    return place.version


def _append(conn: Connection, work: _Work) -> list[list[str]]:
    """Write what only grows, each table in the order of its primary key; returns the lines as digested."""
    work.cancelled.sort()
    conflicts = conflict.lines(conn, work.entry, work.batch.lane, work.conflicts)
    gaps = [gap.line(work.entry, work.batch.lane, g) for g in work.batch.gaps]
    tables = [_lines(work.register), _lines(work.events), _lines(work.cancelled), work.dead, conflicts, gaps]
    try:
        copy.send(conn, processed_message.COPY, _lines(sorted(work.register)))
        copy.send(conn, event.COPY, _lines(sorted(work.events)))
        copy.send(conn, cancellation.COPY, _lines(work.cancelled))
    except Contended as error:
        if error.constraint in ("event_pkey", "cancellation_pkey") and not work.bumps_catalogue:
            rollback(conn)  # so that the head can be read: a rival on a new generation locks other rows
            if journal.read_head(conn).stock_generation == work.head.stock_generation:
                raise Defect(f"{error.constraint} was violated although the goods were locked") from error
        raise
    copy.send(conn, dead_letter.COPY, work.dead)
    copy.send(conn, conflict.COPY, conflicts)
    copy.send(conn, gap.COPY, gaps)
    failpoints.hit("append")
    return tables


def _lines(rows: list[tuple[str, str, str]] | list[tuple[str, int, str]]) -> list[str]:
    return [row[2] for row in rows]


def _project(conn: Connection, work: _Work) -> None:
    generation = work.head.stock_generation
    stock.update(conn, generation, {g: work.state.goods[g] for g in work.goods - work.listed})
    stock.insert(conn, generation, {g: work.state.goods[g] for g in work.listed})
    account.write(conn, {u: work.state.users[u] for u in work.users})
    failpoints.hit("project")


def _seal(conn: Connection, work: _Work, entry: journal.Entry) -> int:
    """Seal and commit; where the catalogue moved meanwhile, look again at what was read without a lock."""
    if not work.read_users and not work.missing_goods:
        return journal.seal(conn, entry, None)
    seen = work.head.catalogue
    for _ in range(SEAL_ROUNDS):
        try:
            return journal.seal(conn, entry, seen)
        except Contended as moved:
            if moved.sqlstate != journal.CATALOGUE_MOVED:
                raise
            journal.back_before_seal(conn)
            seen = journal.read_head(conn).catalogue  # first the counter, then what it guards
            _require_unchanged(conn, work)
    seen = journal.lock_head(conn)  # endless registrations starve nobody: nothing can move now
    _require_unchanged(conn, work)
    return journal.seal(conn, entry, seen)


def _require_unchanged(conn: Connection, work: _Work) -> None:
    """Raise Contended if a row that the decisions rest on has changed; those we changed have their own guard.

    (A user that another lane registered or closed too collides with ours on the event's primary key.)
    """
    users = work.read_users - work.users
    decided_on = {u: work.state.users[u] for u in users if u in work.state.users}
    goods = work.missing_goods - work.listed
    if account.read(conn, users) != decided_on or stock.read(conn, work.head.stock_generation, goods):
        raise Contended("what the batch was decided on has changed")
