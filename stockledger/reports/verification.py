"""`verify`, shown: each check as it is done, the first differing row as a diff, the anchor at the end."""

import os
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from consumer import known_log
from consumer.admin import watermarks
from consumer.hidden import Hidden, hidden
from consumer.known_log import KnownRecords
from ledger.domain.delivery import Lane
from ledger.errors import LedgerError
from ledger.figures import count
from ledger.store.connection.database import Connection
from ledger.store.reads import history
from ledger.store.rules.audit import FOLLOWED
from ledger.verify.anchor import Anchor, anchor_at
from ledger.verify.run import BUDGETS, Check, verify
from ledger.verify.scope import Sample, Scope, scope_of
from stockledger.reports.anchor_file import read_anchor, require_writable, write_anchor
from stockledger.settings import Settings
from stockledger.verb.call import Answer, Call
from stockledger.verb.exits import Mismatch, NotFollowed, UsageError
from stockledger.verb.moment import moment_of
from stockledger.verb.output import Advance, plain
from stockledger.wiring import database, ledger_database

JOBS_MAX = 4
SEEDS = 2**32


@dataclass(frozen=True)
class VerifyOptions:
    """What a run looks at, how, and what it writes.

    `since` is a position or a time, `sample` a percentage. `jobs` None means one a CPU, `JOBS_MAX` at most.
    `anchor` is the file to write, `against` one to compare with.
    """

    topic: bool = False
    since: str | None = None
    sample: float | None = None
    seed: int | None = None
    jobs: int | None = None
    anchor: Path | None = None
    against: Path | None = None


def run_checks(call: Call, options: VerifyOptions) -> Answer:
    """Run the checks and show them. Raises UsageError and AnchorUnfit, before anything is looked at."""
    if options.seed is not None and options.sample is None:
        raise UsageError("--seed says which sample it is", remedy="give --sample, too")
    if options.topic and options.sample is not None:
        raise UsageError("--topic reads every record, so no --sample", remedy="--since goes with it")
    anchors, settings = _anchors(options), call.settings()
    jobs = options.jobs or min(JOBS_MAX, os.cpu_count() or 1)
    with ExitStack() as stack:
        conn = stack.enter_context(ledger_database(settings, "verify", BUDGETS))
        helpers = [stack.enter_context(database(settings, "verify", BUDGETS)) for _ in range(jobs - 1)]
        known = known_log.read(conn)
        raw = KnownRecords(settings.kafka_properties(), known) if options.topic else None
        looked_at = _scope(conn, options)
        _say_scope(call, looked_at)
        run = partial(verify, conn, scope=looked_at, helpers=helpers, anchors=anchors, deliveries=raw)
        checks = []
        for check in _each(call, run):
            checks.append(check)
            _show(call, check)
        bad = [check for check in checks if not check.ok]
        left = raw.left_behind if raw else {}
        readable = [row.lane for row in known.rows if row.lane not in left]
        waits = _say_hidden(call, settings, readable) if raw else []
        for lane, fault in left.items():
            call.out.say("warn", f"{'topic':13}", f"{lane}: its records count as gone; {fault.message}")
        taken = anchor_at(conn, looked_at.tip) if options.anchor and not bad else None
    if options.anchor and taken:
        write_anchor(options.anchor, taken)
        call.out.say("anchor", f"position {taken.position}", f"hash {taken.hash.hex()}", options.anchor)
    data = _scope_json(looked_at) | {"checks": [vars(check) for check in checks]}
    if options.topic:
        data["hidden"] = [each.as_json() for each in waits]
        data["left_behind"] = [{**lane._asdict(), "why": fault.message} for lane, fault in left.items()]
    if options.anchor:
        data["anchor"] = taken and {
            "file": options.anchor,
            "position": taken.position,
            "hash": taken.hash.hex(),
        }
    return Answer(data, error=_mismatch(options, checks, bad) if bad else None)


def _say_hidden(call: Call, settings: Settings, lanes: list[Lane]) -> list[Hidden]:
    """What these lanes hold that nobody could compare yet."""
    kafka = settings.kafka_properties()
    waits = hidden(kafka, watermarks(kafka, lanes).known)
    for each in waits:
        call.out.say("warn", f"{'topic':13}", each)
    return waits


def _anchors(options: VerifyOptions) -> list[Anchor]:
    """The anchors to compare with; also the one that is to be replaced, so that no other ledger's is lost."""
    files = [options.against] if options.against else []
    if options.anchor:
        require_writable(options.anchor)
        files += [options.anchor] if options.anchor.exists() else []
    return [read_anchor(file) for file in files]


def _scope(conn: Connection, options: VerifyOptions) -> Scope:
    sample = None
    if options.sample is not None:
        sample = Sample(options.sample, random.randrange(SEEDS) if options.seed is None else options.seed)
    try:
        after = history.bounds(conn, None if options.since is None else moment_of(options.since), None)[0] - 1
        return scope_of(conn, since=after, sample=sample)
    except ValueError as error:
        raise UsageError(str(error), remedy="stockledger status") from error


def _say_scope(call: Call, looked_at: Scope) -> None:
    """Say what is looked at where that isn't everything, so that a finding can be repeated."""
    parts = []
    if looked_at.since:
        parts.append(f"after position {looked_at.since}, to {looked_at.tip.position}")
    if sample := looked_at.sample:
        parts.append(f"{count(len(looked_at.ranges))} of {count(looked_at.ranges_max)} pages")
        parts.append(f"--seed {sample.seed} chooses the same")
    if parts:
        call.out.note(", ".join(parts), "dim")


def _scope_json(looked_at: Scope) -> dict[str, Any]:
    sample = looked_at.sample
    return {
        "position": looked_at.tip.position, "since": looked_at.since, "sample": sample and sample.percent,
        "seed": sample and sample.seed, "pages": len(looked_at.ranges), "pages_max": looked_at.ranges_max,
    }  # fmt: skip


@dataclass
class _ShownBar:
    """Progress goes to the bar that is shown now."""

    bar: Advance | None = None

    def __call__(self, name: str, done: int, of: int) -> None:
        if self.bar:
            self.bar(name, done, of)


def _each(call: Call, run: Callable[..., Generator[Check]]) -> Iterator[Check]:
    """The checks, each with a bar of its own, so that none is shown while a result is printed."""
    shown = _ShownBar()
    with closing(run(on_progress=shown)) as checks:  # also on Ctrl-C: it ends what runs on the helpers
        while True:
            with call.out.progress() as shown.bar:
                check = next(checks, None)
            if check is None:
                return
            yield check


def _show(call: Call, check: Check) -> None:
    level = "ok" if check.ok else "fail"
    call.out.say(f"{level:4}", f"{check.name:13}", f"{check.figure:>20}", f"{check.seconds:.1f} s")
    if check.difference:
        call.out.say("    ", check.difference)
        for sign, row in (("-", check.stored), ("+", check.expected)):
            if row:
                call.out.say(f"      {sign} {_row(row)}")


def _row(row: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {plain(value)}" for name, value in row.items())


def _mismatch(options: VerifyOptions, checks: list[Check], bad: list[Check]) -> LedgerError:
    words = f"{len(bad)} of {len(checks)} checks failed: {', '.join(check.name for check in bad)}"
    kept = f"; {options.anchor} was left as it is" if options.anchor else ""
    message = f"{words}; {bad[0].difference}{kept}"
    if [check.name for check in bad] == [FOLLOWED]:
        return NotFollowed(message, remedy="stockledger project")
    return Mismatch(
        message, remedy="stop the workers, keep the database as it is, and report the first difference"
    )
