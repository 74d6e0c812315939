"""The limit: COPY of the very rows that ours wrote, encoded beforehand, one transaction a batch."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg

from benchmarks import checks
from benchmarks.measure import Run
from benchmarks.ours import ours_on
from benchmarks.processes import Layout
from benchmarks.testbed import Testbed
from benchmarks.workload import Load, Workload

REGISTER_OUT = """
COPY (SELECT p.* FROM ledger.processed_message p JOIN ledger.journal j USING (entry)
      ORDER BY position, "offset") TO STDOUT
"""
EVENTS_OUT = """
COPY (SELECT e.* FROM ledger.event e JOIN ledger.journal j USING (entry) ORDER BY position, ordinal) TO STDOUT
"""
REGISTER_IN = "COPY ledger.processed_message FROM STDIN"
EVENTS_IN = "COPY ledger.event FROM STDIN"
COPIED = """
SELECT (SELECT count(*) FROM ledger.processed_message WHERE entry > 0),
       (SELECT count(*) FROM ledger.event WHERE entry > 0)
"""


class Limit:
    """The rows that ours wrote for a load, ready to be sent again in any batch size."""

    def __init__(self, bed: Testbed, workload: Workload, load: Load) -> None:
        self._bed, self._workload = bed, workload
        with bed.ledger(workload) as dsn:
            ours_on(bed, dsn, load, Layout())
            with psycopg.connect(dsn) as conn:
                self._register, self._events = _rows(conn, REGISTER_OUT), _rows(conn, EVENTS_OUT)
        checks.same("rows", (len(load), len(load)), (len(self._register), len(self._events)))

    def run(self, commands: int, connections: int, batch: int) -> Run:
        """Write the first so many again, one transaction a batch, over one or more connections in turn."""
        batches = [
            (
                _sorted(self._register[i : min(i + batch, commands)], _register_key),
                _sorted(self._events[i : min(i + batch, commands)], _event_key),
            )
            for i in range(0, commands, batch)
        ]
        with self._bed.ledger(self._workload) as dsn, ExitStack() as stack:
            conns = [stack.enter_context(psycopg.connect(dsn)) for _ in range(connections)]
            threads = [
                threading.Thread(target=_copy, args=(conn, batches[number::connections]))
                for number, conn in enumerate(conns)
            ]

            def work() -> None:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

            run = self._bed.measured(commands, [os.getpid()], work, batches=len(batches))
            checks.same("rows", (commands, commands), conns[0].execute(COPIED).fetchone())
        return run


def _rows(conn: psycopg.Connection, statement: LiteralString) -> list[bytes]:
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        return [bytes(line) for line in copy]


def _sorted(lines: list[bytes], primary_key: Callable[[list[bytes]], tuple[Any, ...]]) -> bytes:
    ordered = sorted(lines, key=lambda line: primary_key(line.rstrip().split(b"\t")))
    return b"".join(ordered)


def _register_key(columns: list[bytes]) -> tuple[bytes, bytes]:
    return columns[6], columns[5]  # id, source


def _event_key(columns: list[bytes]) -> tuple[bytes, int]:
    return columns[2], int(columns[3])  # stream, version


def _copy(conn: psycopg.Connection, batches: list[tuple[bytes, bytes]]) -> None:
    for register, events in batches:
        with conn.cursor() as cursor:
            with cursor.copy(REGISTER_IN) as copy:
                copy.write(register)
            with cursor.copy(EVENTS_IN) as copy:
                copy.write(events)
        conn.commit()
