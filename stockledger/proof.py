"""`verify`, shown: each check as it is done, the first differing row as a diff, the anchor at the end."""

import os
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from consumer.topic import deliveries
from ledger.store.database import Connection
from ledger.verify import BUDGETS, Check, Progress, verify
from ledger.verify.anchor import Anchor, anchor_at
from ledger.verify.scope import Sample, Scope, scope
from stockledger.anchor_file import read_anchor, require_writable, write_anchor
from stockledger.call import Answer, Call
from stockledger.exits import Mismatch, UsageError
from stockledger.output import Advance, count, plain
from stockledger.wiring import database, ledger_database

JOBS_MAX = 4
SEEDS = 2**32


@dataclass(frozen=True)
class Wish:
    """What was asked for. `sample` is a percentage; `jobs` None: one a CPU, `JOBS_MAX` at most."""

    topic: bool = False
    since: int = 0
    sample: float | None = None
    seed: int | None = None
    jobs: int | None = None
    anchor: Path | None = None
    against: Path | None = None


def prove(call: Call, wish: Wish) -> Answer:
    """Run the checks and show them. Raises UsageError and AnchorUnfit, before anything is looked at."""
    if wish.seed is not None and wish.sample is None:
        raise UsageError("--seed says which sample it is", remedy="give --sample, too")
    if wish.topic and wish.sample is not None:
        raise UsageError("--topic reads every record, so no --sample", remedy="--since goes with it")
    anchors, settings = _anchors(wish), call.settings()
    raw = partial(deliveries, settings.kafka_properties()) if wish.topic else None
    jobs = wish.jobs or min(JOBS_MAX, os.cpu_count() or 1)
    with ExitStack() as stack:
        conn = stack.enter_context(ledger_database(settings, "verify", BUDGETS))
        helpers = [stack.enter_context(database(settings, "verify", BUDGETS)) for _ in range(jobs - 1)]
        looked_at = _scope(conn, wish)
        _say_scope(call, looked_at)
        run = partial(verify, conn, scope=looked_at, helpers=helpers, anchors=anchors, deliveries=raw)
        checks = []
        for check in _each(call, run):
            checks.append(check)
            _show(call, check)
        bad = [check for check in checks if not check.ok]
        taken = anchor_at(conn, looked_at.tip) if wish.anchor and not bad else None
    if wish.anchor and taken:
        write_anchor(wish.anchor, taken)
        call.out.say("anchor", f"position {count(taken.position)}", f"hash {taken.hash.hex()}", wish.anchor)
    data = _scope_json(looked_at) | {"checks": [vars(check) for check in checks]}
    if wish.anchor:
        data["anchor"] = taken and {"file": wish.anchor, "position": taken.position, "hash": taken.hash.hex()}
    return Answer(data, error=_mismatch(wish, checks, bad) if bad else None)


def _anchors(wish: Wish) -> list[Anchor]:
    """Those to compare with; also the one that is to be replaced, so that no other ledger's is lost."""
    files = [wish.against] if wish.against else []
    if wish.anchor:
        require_writable(wish.anchor)
        files += [wish.anchor] if wish.anchor.exists() else []
    return [read_anchor(file) for file in files]


def _scope(conn: Connection, wish: Wish) -> Scope:
    sample = None
    if wish.sample is not None:
        sample = Sample(wish.sample, random.randrange(SEEDS) if wish.seed is None else wish.seed)
    try:
        return scope(conn, since=wish.since, sample=sample)
    except ValueError as error:
        raise UsageError(str(error), remedy="stockledger status") from error


def _say_scope(call: Call, looked_at: Scope) -> None:
    """Where not everything is looked at, what is, so that a finding can be repeated."""
    parts = []
    if looked_at.since:
        parts.append(f"behind position {count(looked_at.since)} to {count(looked_at.tip.position)}")
    if sample := looked_at.sample:
        parts.append(f"{count(len(looked_at.pages))} of {count(looked_at.pages_max)} pages")
        parts.append(f"--seed {sample.seed} chooses the same")
    if parts:
        call.out.note(", ".join(parts), "dim")


def _scope_json(looked_at: Scope) -> dict[str, Any]:
    sample = looked_at.sample
    return {
        "position": looked_at.tip.position, "since": looked_at.since, "sample": sample and sample.percent,
        "seed": sample and sample.seed, "pages": len(looked_at.pages), "pages_max": looked_at.pages_max,
    }  # fmt: skip


def _each(call: Call, run: Callable[..., Generator[Check]]) -> Iterator[Check]:
    """The checks, each with its own progress, so that none is shown while a result is printed."""
    advance: Advance

    def on_progress(name: str, at: int, end: int) -> None:
        advance(name, at, end)

    told: Progress = on_progress
    with closing(run(on_progress=told)) as checks:  # also on Ctrl-C: it ends what runs on the helpers
        while True:
            with call.out.progress() as advance:
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


def _mismatch(wish: Wish, checks: list[Check], bad: list[Check]) -> Mismatch:
    words = f"{len(bad)} of {len(checks)} checks failed: {', '.join(check.name for check in bad)}"
    kept = f"; {wish.anchor} was left as it is" if wish.anchor else ""
    return Mismatch(
        f"{words}; {bad[0].difference}{kept}",
        remedy="stop the workers, keep the database as it is, and report the first difference",
    )
