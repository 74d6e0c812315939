"""The story: a real day of a shop, a quarter of its purchases sent twice, and a worker that is killed.

What it shows is a feeling, never a proof: the broker is librdkafka's mock. The proof is `make test` on a
real one.
"""

import os
import random
import shlex
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ledger import signals
from ledger.api import Ledger
from ledger.errors import Unavailable
from ledger.store.connection import database
from ledger.store.schema import migrate
from stockledger import online_retail
from stockledger.demo.parts import TOPIC, Parts
from stockledger.demo.report import DemoReport, reported
from stockledger.demo.voice import Voice
from stockledger.embedded.kafka import EmbeddedKafka
from stockledger.embedded.postgres import EmbeddedPostgres

PARTITIONS = 4
DAY = "2010-12-01"
DUPLICATES = 0.25
SEED = 20101201
SESSION_TIMEOUT_MS = 1_500

Opened = Callable[[DemoReport, str], None]
"""Told what was found, and the address of the door, which is open until Ctrl-C."""


def run(tell: Callable[[str], None], opened: Opened | None = None) -> DemoReport:
    """Run the demo, telling what happens. With `opened` the shop stays open after that, until Ctrl-C.

    Raises LedgerError if it can't be run here, KeyboardInterrupt soon after Ctrl-C or SIGTERM before its end.
    """
    stop = signals.Asked()  # however often: an end before the clean-up would let Postgres outlive us
    with signals.installed(lambda number, _: stop.ask(number)), Voice(tell, stop) as voice:
        try:
            return _run(voice, opened)
        except OSError as error:
            if stop.is_set():
                raise KeyboardInterrupt from None
            place = error.filename or os.environ.get("TMPDIR", "/tmp")
            raise Unavailable(
                f"the demo can't use {place}: {error.strerror}; nothing is left of it",
                remedy=f"df -h {shlex.quote(str(place))}",
            ) from None
        except Exception:
            if stop.is_set():  # Ctrl-C goes to what we started, too
                raise KeyboardInterrupt from None
            raise


def _run(voice: Voice, opened: Opened | None) -> DemoReport:
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockledger-demo-")))
        setup, purchases = _input(folder)
        voice.note(f"input: a real shop's {DAY}, every fourth purchase sent twice", "starting PostgreSQL")
        broker = stack.enter_context(EmbeddedKafka({TOPIC: PARTITIONS}))
        broker.set_session_timeout(SESSION_TIMEOUT_MS)
        dsn = stack.enter_context(EmbeddedPostgres()).dsn()
        conn = stack.enter_context(database.connect(dsn, purpose="demo"))
        migrate.migrate(conn)
        up_s = time.monotonic() - begun
        voice.note(
            f"PostgreSQL and an embedded broker are up, {up_s:.1f} s after the start", "starting workers"
        )
        parts = Parts(voice, dsn, {"bootstrap.servers": broker.bootstrap_servers}, folder)
        with Ledger(dsn) as ledger, parts.workers() as group:
            published = parts.publish(setup)
            parts.wait(ledger, published, group)
            published += parts.publish(purchases, kill_owner_of=ledger)
            parts.wait(ledger, published, group)
            parts.recovered_s = time.monotonic() - parts.killed_at
            voice.note(f"all applied, {parts.recovered_s:.1f} s after the kill; now the proof", "the proof")
            report = reported(voice, dsn, parts, files=(setup, purchases), published=published, begun=begun)
            if opened:
                with parts.door() as address:
                    opened(report, address)
                    voice.rest()
        return report


def _input(folder: Path) -> tuple[Path, Path]:
    """The day as two files of JSON lines, the second with duplicates shuffled in after the first copy."""
    online_retail.write_files(online_retail.read_rows(online_retail.DAY), folder)
    lines = (folder / "purchases.jsonl").read_text().splitlines(keepends=True)
    choose = random.Random(SEED)
    order = [(float(n), line) for n, line in enumerate(lines)]
    for n in choose.sample(range(len(lines)), int(len(lines) * DUPLICATES)):
        order.append((choose.uniform(n, len(lines)), lines[n]))
    path = folder / "deliveries.jsonl"
    path.write_text("".join(line for _, line in sorted(order, key=lambda item: item[0])))
    return folder / "setup.jsonl", path
