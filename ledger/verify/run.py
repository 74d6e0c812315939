"""Is the ledger what it promises? Every rule over the tables, the chain, and Kafka's records one by one.

Reads only, in short transactions that are bounded by the head as it was at the start, so it may run beside
the workers at any time. The rules over the tables are in `ledger.store.rules.audit`; what takes more than a
statement is here: the digests of the rows as they were written (`chain`), a hash that was kept elsewhere
(`anchor`), and the comparison with the topic (`topic_check`).
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from ledger.domain.delivery import Deliveries
from ledger.figures import count, counted
from ledger.store.connection.database import Budgets, Connection, faults
from ledger.store.reads.ranges import ENTRY_MAX, Range
from ledger.store.rules import audit
from ledger.store.rules.audit import CheckFinding, Rule
from ledger.store.schema import comparison, dump
from ledger.verify import chain, fingerprints
from ledger.verify.anchor import Anchor, check_anchor
from ledger.verify.pool import in_order
from ledger.verify.scope import Scope, scope_of
from ledger.verify.topic_check import check_topic

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0)
"""The budgets of the connections of `verify`: a fold over all events takes as long as it takes."""

STREAMS = 1_000
"""How many streams are folded at a time, where not all of them are."""

CheckProgress = Callable[[str, int, int], None]
"""Told a check's name, how many of its parts are done (of the topic: the offset), and of how many."""


@dataclass(frozen=True)
class Check:
    """One rule: `ok`, or the first `difference`; `figure` says how much was looked at, `seconds` how long.

    Where the difference is one between rows, `stored` is the row as it is, `expected` the one that the others
    make expect; None: there is, or should be, no such row.
    """

    name: str
    ok: bool
    figure: str
    seconds: float
    difference: str | None
    stored: Mapping[str, Any] | None = None
    expected: Mapping[str, Any] | None = None


def verify(
    conn: Connection,
    *,
    scope: Scope | None = None,
    helpers: Sequence[Connection] = (),
    anchors: Sequence[Anchor] = (),
    deliveries: Deliveries | None = None,
    on_progress: CheckProgress | None = None,
) -> Generator[Check]:
    """Check rule after rule, and yield what was found. The connections must be in autocommit (see `BUDGETS`).

    `scope` is what is looked at (None: everything). With `helpers`, as many more parts of checks go on at the
    same time. With `anchors`, they are compared with the journal. With `deliveries`, the last check goes
    through the topic record by record; `on_progress` is always called in the caller's thread.
    """
    progress = on_progress or (lambda *_: None)
    scope = scope or scope_of(conn)
    checks = list(_todo(scope, anchors))
    parts = (partial(check.look, part) for check in checks for part in check.parts if check.ok)
    with closing(in_order(parts, [conn, *helpers])) as results:
        for check in checks:
            while not check.finished:
                looked_at, finding, seconds = next(results)
                if looked_at.ok:  # what lies after its first difference doesn't count
                    looked_at.take(finding, seconds)
                    progress(looked_at.name, looked_at.taken, len(looked_at.parts))
            yield check.result()
    if deliveries:
        yield _topic(conn, scope, deliveries, progress)


@dataclass
class _Todo:
    """A check: its parts, each looked at by itself, and what was found so far."""

    name: str
    sees: str
    parts: Sequence[Any]
    statement: Callable[[Connection, Any], CheckFinding]
    taken: int = 0
    found: CheckFinding = field(default=CheckFinding(0))
    seconds: float = 0

    @property
    def ok(self) -> bool:
        return self.found.difference is None

    @property
    def finished(self) -> bool:
        return not self.ok or self.taken == len(self.parts)

    def look(self, part: Any, conn: Connection) -> "tuple[_Todo, CheckFinding, float]":
        start = time.perf_counter()
        finding = _readable(lambda: self.statement(conn, part))
        return self, finding, time.perf_counter() - start

    def take(self, finding: CheckFinding, seconds: float) -> None:
        """Add what a part found."""
        self.taken, self.seconds = self.taken + 1, self.seconds + seconds
        self.found = finding._replace(seen=self.found.seen + finding.seen)

    def result(self) -> Check:
        seen, difference, stored, expected = self.found
        figure = f"{count(seen)} {self.sees}"
        return Check(self.name, self.ok, figure, self.seconds, difference, stored, expected)


def _readable(look: Callable[[], CheckFinding]) -> CheckFinding:
    with faults():
        try:
            return look()
        except psycopg.DataError as error:  # a forged value may be no number, no JSON object, no text
            return CheckFinding(0, f"a row can't be read: {error.diag.message_primary or error}")


def _todo(scope: Scope, anchors: Sequence[Anchor]) -> Iterator[_Todo]:
    if anchors:
        yield _Todo("anchor", "entries", anchors, check_anchor)
    yield _Todo("schema", "parts", [None], _schema)
    parts: dict[str, Sequence[Any]] = {
        "journal": [{"since": scope.since}],
        "ranges": scope.ranges,
        "entries": scope.ranges if scope.sample else [Range(0, 0, scope.first_entry, ENTRY_MAX, 0)],
        "streams": [
            {"streams": some, "since": scope.since, "first_entry": scope.first_entry}
            for some in _some(scope.streams)
        ],
        "everything": [{}],
    }
    for rule in audit.RULES:
        if scope.everything or rule.over != "everything":
            yield _Todo(rule.name, rule.sees, parts[rule.over], partial(_rule, rule))
    yield _Todo("fingerprints", "events", scope.ranges, fingerprints.check_range)
    heads: list[Range | None] = [*scope.ranges, None]
    yield _Todo("chain", "rows", heads, partial(_chain, scope))


def _some(streams: Sequence[str] | None) -> list[Sequence[str] | None]:
    """The streams in pieces; all of them as one piece."""
    if streams is None:
        return [None]
    return [streams[at : at + STREAMS] for at in range(0, len(streams), STREAMS)]


def _rule(rule: Rule, conn: Connection, part: Any) -> CheckFinding:
    return audit.run(conn, rule.statement, part._asdict() if isinstance(part, Range) else part)


def _schema(conn: Connection, _: object) -> CheckFinding:
    found = comparison.compare(conn)
    return CheckFinding(len(dump.expected()), "\n     ".join(map(str, found)) or None)


def _chain(scope: Scope, conn: Connection, within: Range | None) -> CheckFinding:
    return chain.check_range(conn, within) if within else chain.check_head(conn, scope.tip)


def _topic(conn: Connection, scope: Scope, deliveries: Deliveries, progress: CheckProgress) -> Check:
    """Alone and last: decoding is this program's own work, which takes turns anyway."""
    start = time.perf_counter()
    with faults():
        found = check_topic(conn, scope.since, scope.tip.position, deliveries, partial(progress, "topic"))
    figure = f"{counted(found.records, 'record')}, {count(found.gone)} no longer in Kafka"
    if found.skipped:
        figure += f", {count(found.skipped)} left out by --start latest"
    ok = found.difference is None
    return Check("topic", ok, figure, time.perf_counter() - start, found.difference)
