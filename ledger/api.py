"""The ledger for Python programs: what became of a command, how much is in stock, and how things stand.

Everything here reads committed state, but for `mark` and `rebuild`. A `Ledger` outlives its connections, and
may be shared by threads; a rebuild makes connections of its own for as long as it lasts.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from ledger import signals
from ledger.answers import RecordedOutcome, Sent, answers
from ledger.domain.commands import AnyCommand, MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.envelope import request
from ledger.domain.outcome import Reason
from ledger.domain.token import AnyPosition
from ledger.errors import ProjectionUnknown
from ledger.history import events
from ledger.projections.registry import find
from ledger.rebuilding.pace import RebuildReporter
from ledger.rebuilding.rebuild import BUDGETS, Rebuilt, rebuild
from ledger.store.connection import database
from ledger.store.connection.database import Connection
from ledger.store.connection.lending import ConnectionSource, Lender
from ledger.store.reads import balance, history, lag, recent
from ledger.store.reads.balance import Balance, Change
from ledger.store.reads.history import Moment, StockNow
from ledger.store.reads.lag import JournalLag
from ledger.store.reads.recent import SeveralLanes
from ledger.store.reads.sessions import sessions
from ledger.store.schema import migrate
from ledger.store.tables import (
    dead_letter,
    gap,
    identity,
    journal,
    lane,
    processed_message,
    projection_state,
    stock,
)
from ledger.store.tables.dead_letter import DeadLetter, Heading, LetterStatus
from ledger.store.tables.gap import RecordedGap
from ledger.store.tables.lane import LaneRow
from ledger.store.tables.projection_state import GenerationProgress
from ledger.store.tables.stock import StockLevel
from ledger.waiting import OutcomeWatcher

T = TypeVar("T")


@dataclass(frozen=True)
class LedgerStatus:
    """How things stand: the journal's last position, its token, the lanes, and how many of what there are.

    `deliveries` has one number for each outcome, and `skipped` for the offsets in gaps.
    """

    position: int
    token: str
    lanes: list[LaneRow]
    deliveries: dict[str, int]
    rejected: dict[Reason, int]
    dead_letters: dict[LetterStatus, int]
    projections: list[GenerationProgress] = field(default_factory=list)
    cluster_id: str | None = None
    """The Kafka cluster whose logs these are; None as long as no worker has run."""
    several_lanes: SeveralLanes = field(default_factory=SeveralLanes)
    """The goods that came by several lanes lately."""
    source: str = ""
    """The `source` of its events."""
    sessions: dict[str, int] = field(default_factory=dict)
    """How many are connected to the database, by what they are for: `run`, `project`, `relay` and so on."""


class Ledger:
    """The ledger in the database that `source` leads to.

    A DSN (`""` leaves all to libpq's `PG*`) is one connection, made again when it was lost. A psycopg
    connection, or a pool such as psycopg_pool's, stays the caller's: each question borrows it for a
    transaction, or for a savepoint of the one that is open, and leaves its settings as they were.

    Threads may share one: with a pool they are answered side by side, else one after the other. However many
    of them wait, it asks for all of them together.

    Its methods raise Unavailable when the database can't be reached, after a lost connection was tried anew;
    LoginRefused when it refuses us, SchemaMismatch when it holds no ledger. The next call tries again.
    """

    def __init__(self, source: ConnectionSource = "") -> None:
        self._lender = Lender(source, "api")
        self._watcher = OutcomeWatcher(self._lender)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; one that was given, or a pool, stays open."""
        self._lender.close()

    def outcome(self, id: str, source: str | None = None) -> list[RecordedOutcome]:
        """The outcomes of the commands with this id: one a source that used it, or that of `source` alone.

        Empty while no such command was applied or rejected.
        """
        return self._lender.ask(lambda conn: answers(conn, processed_message.outcomes(conn, id, source)))

    def search(
        self,
        *,
        like: str | None = None,
        user: str | None = None,
        source: str | None = None,
        since: AnyPosition | datetime | None = None,
        until: AnyPosition | datetime | None = None,
        limit: int = 100,
    ) -> list[RecordedOutcome]:
        """The first `limit` outcomes of ids that begin with `like`, by id; without it, in journal order.

        Or of what this `user` did, as far as the projection `user_events` has come: applied commands only.
        `since` and `until` bound when they were recorded: after that position and up to that one, or from
        that time on and before that one. Raises what `stock` raises, and ValueError
        for both a beginning and a user.
        """
        if like is not None and user is not None:
            raise ValueError("like and user can't be asked for together")

        def ask(conn: Connection) -> list[RecordedOutcome]:
            bounds = history.bounds(conn, since, until)
            if like is not None:
                found = processed_message.like(conn, like, source, *bounds, limit)
            elif user is not None:
                found = processed_message.of_user(conn, user, source, *bounds, limit)
            else:
                found = processed_message.between(conn, source, *bounds, limit)
            return answers(conn, found)

        return self._lender.ask(ask)

    def wait(
        self, sent: Sent | MessageKey, timeout_s: float, *, command: AnyCommand | None = None
    ) -> RecordedOutcome:
        """The command's outcome, as soon as there is one. Raises TimeoutError after `timeout_s` seconds.

        `sent` is the receipt, or the key together with the `command`: where the key was first used for
        another payload, the answer is `conflict`. A key alone asks what became of its first payload.
        A command whose record turns out to be dead, or that was never published, has no outcome.
        """
        if isinstance(sent, MessageKey):
            if command is None:
                return _result(self._watcher.outcome(sent, timeout_s))
            sent = request(sent, command)
        return _result(self._watcher.outcome(sent, timeout_s)).answer_to(sent.fingerprint)

    def wait_for_position(self, position: AnyPosition, timeout_s: float, name: str = "stock") -> int:
        """Read your own write: return once what is read of the projection covers the position or token.

        Returns the position that it covers. Raises TimeoutError after `timeout_s` seconds, ProjectionUnknown;
        HistoryChanged for a token of another history, also for one beyond the journal's end, unless the
        database is a standby: then it may be on its way. ValueError for a text that is no token.
        The stock is written by the batches themselves, so it covers a position as soon as there is one.
        """
        return _result(self._watcher.position(position, timeout_s, name))

    def lag(self, name: str) -> int:
        """How many of the journal's positions the live generation of the projection doesn't cover yet.

        Raises ProjectionUnknown.
        """
        return max(self._lender.ask(journal.tip).position - self._position(name), 0)

    def lag_after(self, at: AnyPosition) -> JournalLag:
        """How much of the journal lies after this position or token: entries, and the age of the first.

        For whoever follows the relay's topics, and keeps how far they are. Raises HistoryChanged for a token
        of another history, ValueError for a text that is no token.
        """
        return self._lender.ask(lambda conn: lag.after(conn, history.proven(conn, at)))

    def _position(self, name: str) -> int:
        at = self._lender.ask(lambda conn: projection_state.live_position(conn, name))
        if at is None:
            raise ProjectionUnknown(f"there is no projection {name} here", remedy="stockledger status")
        return at

    def stock(self, goods_id: str, *, as_of: AnyPosition | datetime | None = None) -> StockLevel | None:
        """The goods' stock, now or as of a position, token or time; None if they weren't listed by then.

        Raises ValueError for a position that isn't there yet, for a text that is no token, and for a time
        without an offset from UTC; HistoryChanged for a token of another history.
        """
        if as_of is None:
            return self._lender.ask(lambda conn: stock.level(conn, goods_id))
        return self._lender.ask(
            lambda conn: history.level(conn, goods_id, history.moment(conn, as_of).position)
        )

    def stock_now(self, goods_ids: Iterable[str]) -> StockNow:
        """The live stock of these goods, all of it as of one position, and which one that is."""
        wanted = list(goods_ids)
        return self._lender.ask(lambda conn: history.live(conn, wanted))

    def similar_goods(self, goods_id: str) -> str | None:
        """The listed goods whose id may be meant where this one isn't listed."""
        near = self._lender.ask(
            lambda conn: [
                goods
                for spelling in dict.fromkeys((goods_id, goods_id.upper(), goods_id.lower()))
                for goods in stock.neighbours(conn, spelling)
            ]
        )
        folded = {goods.casefold(): goods for goods in near}
        found = get_close_matches(goods_id.casefold(), folded, 1)
        return folded[found[0]] if found else None

    def stock_levels(self, *, as_of: AnyPosition | datetime) -> list[StockLevel]:
        """The stock of all goods as of a position, token or time, by id. Raises what `stock` raises."""
        return self._lender.ask(lambda conn: history.levels(conn, history.moment(conn, as_of).position))

    def moment(self, as_of: AnyPosition | datetime | None = None) -> Moment:
        """The last position that was recorded by then (None: now), when, and its token.

        Raises what `stock` raises.
        """
        return self._lender.ask(
            lambda conn: history.now(conn) if as_of is None else history.moment(conn, as_of)
        )

    def why(self, goods_id: str, limit: int, *, version: int | None = None) -> tuple[Balance, list[Change]]:
        """What the goods' stock says, what their events add up to, and the last `limit` of these.

        With `version`, the last ones up to that version of the goods.
        """

        def ask(conn: Connection) -> tuple[Balance, list[Change]]:
            found = balance.balance(conn, goods_id)
            upto = found if version is None else balance.upto(conn, goods_id, version)
            return found, balance.changes(conn, goods_id, upto, limit)

        return self._lender.ask(ask)

    def status(self, *, counts: bool = True) -> LedgerStatus:
        """How things stand. The numbers are read one after the other, each as of its own moment.

        Without `counts`, what takes longer the longer the journal is stays empty: `deliveries`, `rejected`
        and `several_lanes`.
        """
        return self._lender.ask(lambda conn: _status(conn, counts))

    def dead_letters(
        self,
        *,
        status: LetterStatus | None = None,
        code: str | None = None,
        after: tuple[Lane, int] | None = None,
        limit: int | None = None,
    ) -> list[Heading]:
        """The dead letters with that status and code, by lane and offset; `dead_letter` has the record.

        The first `limit` of them (None: all), `after` a lane and an offset.
        """
        return self._lender.ask(
            lambda conn: dead_letter.listed(conn, status=status, code=code, after=after, limit=limit)
        )

    def dead_letter(self, lane: Lane, offset: int) -> DeadLetter | None:
        """The dead letter at this offset, if the record there is one."""
        return self._lender.ask(lambda conn: dead_letter.find(conn, lane, offset))

    def dead_letters_naming(self, id: str, *, limit: int = 100) -> list[DeadLetter]:
        """The dead letters that name this id in a header or in their value. Reads all that there are."""
        return self._lender.ask(lambda conn: dead_letter.naming(conn, id, limit))

    def repaired(self) -> set[tuple[Lane, int]]:
        """The places of the parked dead letters whose command was sent again since and has its outcome."""
        return self._lender.ask(dead_letter.repaired)

    def mark(self, letter: Heading | DeadLetter, status: LetterStatus) -> bool:
        """Note that the dead letter was redriven or discarded.

        False if its status isn't that of `letter` any more: somebody else was first. After Unavailable it may
        have been noted: ask for it again.
        """
        return self._lender.tell(
            lambda conn: dead_letter.set_status(
                conn, letter.lane, letter.offset, was=letter.status, now=status
            )
        )

    def topics(self) -> list[str]:
        """The command topics that the ledger has lanes in, by name."""
        return self._lender.ask(lane.topics)

    def gaps(self) -> list[RecordedGap]:
        """All gaps, lane by lane in offset order."""
        return self._lender.ask(gap.listed)

    def rebuild(self, name: str, *, on_progress: RebuildReporter | None = None) -> Rebuilt:
        """Build the projection anew beside the live one, compare row by row, and swap; interrupted, the same
        again goes on. Returns once that is done. Needs the database's owner.

        `on_progress` is told the phase, events, events a second and seconds left, from several threads.
        Raises ProjectionUnknown, RebuildRunning, ProjectionFault (an event can't be applied),
        ProjectionDiffers (nothing was swapped), ProjectionRefused. The verb `rebuild` has more options.
        """
        self._lender.ask(migrate.require_current)
        connect = partial(database.connect, self._lender.dsn(), purpose="rebuild", budgets=BUDGETS)
        return rebuild(connect, find(name), report=on_progress)


def _result(waits: Future[T]) -> T:
    """What it comes to; whoever is interrupted waits no more."""
    try:
        return signals.result(waits)
    finally:
        waits.cancel()


def _status(conn: Connection, counts: bool) -> LedgerStatus:
    now = history.now(conn)
    return LedgerStatus(
        position=now.position,
        token=now.token,
        lanes=lane.read_all(conn),
        deliveries=journal.totals(conn) if counts else {},
        rejected=processed_message.rejected(conn) if counts else {},
        dead_letters=dead_letter.totals(conn),
        projections=projection_state.progress(conn),
        cluster_id=identity.read(conn)[1],
        several_lanes=recent.several_lanes(conn) if counts else SeveralLanes(),
        source=events.source(conn),
        sessions=sessions(conn),
    )
