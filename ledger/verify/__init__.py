"""Is the ledger what it promises? Every rule over the tables, the chain, and Kafka's records one by one.

Reads only, in short transactions that are bounded by the head as it was at the start, so it may run beside
the workers at any time. The rules over the tables are in `ledger.store.check`; what takes more than a
statement is here: the digests of the rows as they were written (`chain`), a hash that was kept elsewhere
(`anchor`), and the comparison with the topic (`topic`).
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from ledger.errors import Park
from ledger.store import check
from ledger.store.check import ENTRY_MAX, Finding, Page, Rule
from ledger.store.database import Budgets, Connection, faults
from ledger.verify import chain, topic
from ledger.verify.anchor import Anchor, check_anchor
from ledger.verify.crew import in_order
from ledger.verify.scope import Scope
from ledger.verify.scope import scope as everything_now
from ledger.verify.topic import Deliveries

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0)
"""For the connections of `verify`: a fold over all events takes as long as it takes."""

STREAMS = 1_000
"""How many streams are folded at a time, where not all of them are."""

Progress = Callable[[str, int, int], None]
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
    on_progress: Progress | None = None,
) -> Generator[Check]:
    """Check rule after rule, and yield what was found. The connections must be in autocommit (see `BUDGETS`).

    `scope` is what is looked at (None: everything). With `helpers`, as many more parts of checks go on at the
    same time. With `anchors`, they are compared with the journal. With `deliveries`, the last check goes
    through the topic record by record; `on_progress` is always called in the caller's thread.
    """
    progress = on_progress or (lambda *_: None)
    scope = scope or everything_now(conn)
    waiting = deque(_todo(scope, anchors))
    work = (partial(todo.look, part) for todo in list(waiting) for part in todo.parts if todo.ok)
    with closing(in_order(work, [conn, *helpers])) as results:
        while waiting:
            while waiting and waiting[0].finished:
                yield waiting.popleft().check()
            for todo, finding, seconds in islice(results, 1):
                if todo.ok:  # what lies behind its first difference doesn't count
                    todo.take(finding, seconds)
                    progress(todo.name, todo.taken, len(todo.parts))
    if deliveries:
        yield _topic(conn, scope, deliveries, progress)


@dataclass
class _Todo:
    """A check: its parts, each looked at by itself, and what was found so far."""

    name: str
    sees: str
    parts: Sequence[Any]
    statement: Callable[[Connection, Any], Finding]
    taken: int = 0
    found: Finding = field(default=Finding(0))
    seconds: float = 0

    @property
    def ok(self) -> bool:
        return self.found.difference is None

    @property
    def finished(self) -> bool:
        return not self.ok or self.taken == len(self.parts)

    def look(self, part: Any, conn: Connection) -> "tuple[_Todo, Finding, float]":
        start = time.perf_counter()
        finding = _readable(lambda: self.statement(conn, part))
        return self, finding, time.perf_counter() - start

    def take(self, finding: Finding, seconds: float) -> None:
        """Add what a part found."""
        self.taken, self.seconds = self.taken + 1, self.seconds + seconds
        self.found = finding._replace(seen=self.found.seen + finding.seen)

    def check(self) -> Check:
        seen, difference, stored, expected = self.found
        figure = f"{seen:,} {self.sees}"
        return Check(self.name, self.ok, figure, self.seconds, difference, stored, expected)


def _readable(look: Callable[[], Finding]) -> Finding:
    try:
        with faults():
            return look()
    except Park as error:  # a value that was tampered with may be no number, no JSON object, no text
        return Finding(0, f"a row can't be read: {error.message}")


def _todo(scope: Scope, anchors: Sequence[Anchor]) -> Iterator[_Todo]:
    if anchors:
        yield _Todo("anchor", "entries", anchors, check_anchor)
    parts: dict[str, Sequence[Any]] = {
        "journal": [{"since": scope.since}],
        "pages": scope.pages,
        "entries": scope.pages if scope.sample else [Page(0, 0, scope.first_entry, ENTRY_MAX)],
        "streams": [{"streams": some} for some in _some(scope.streams)],
        "everything": [{}],
    }
    for rule in check.RULES:
        if scope.everything or rule.over != "everything":
            yield _Todo(rule.name, rule.sees, parts[rule.over], partial(_rule, rule))
    heads: list[Page | None] = [*scope.pages, None]
    yield _Todo("chain", "rows", heads, partial(_chain, scope))


def _some(streams: Sequence[str] | None) -> list[Sequence[str] | None]:
    """The streams in pieces; all of them as one piece."""
    if streams is None:
        return [None]
    return [streams[at : at + STREAMS] for at in range(0, len(streams), STREAMS)]


def _rule(rule: Rule, conn: Connection, part: Any) -> Finding:
    return check.run(conn, rule.statement, part._asdict() if isinstance(part, Page) else part)


def _chain(scope: Scope, conn: Connection, page: Page | None) -> Finding:
    return chain.check_page(conn, page) if page else chain.check_head(conn, scope.tip)


def _topic(conn: Connection, scope: Scope, deliveries: Deliveries, progress: Progress) -> Check:
    """Alone and last: decoding is this program's own work, which takes turns anyway."""
    start = time.perf_counter()
    with faults():
        found = topic.compare(conn, scope.since, scope.tip.position, deliveries, partial(progress, "topic"))
    figure = f"{found.records:,} records, {found.gone:,} no longer in Kafka"
    ok = found.difference is None
    return Check("topic", ok, figure, time.perf_counter() - start, found.difference)
