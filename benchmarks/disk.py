"""What commands take on disks, so that others can reckon: rows and indexes by table, WAL, records in Kafka.

    applied    purchases that are applied: a row of the register, an event
    rejected   purchases of what is sold out: a row of the register

On a fresh ledger with 1,000 goods and users, UUIDv7, one worker, batches of up to 5,000. A table's size is
that of its files, indexes included, less what it was before. A record's is its key, value and headers, before
Kafka packs them. Needs the services of the other benchmarks:

    python -m benchmarks.disk [--commands 200000]
"""

import argparse
from contextlib import closing

import psycopg

from benchmarks.ours import ours_on
from benchmarks.processes import Layout
from benchmarks.testbed import Testbed
from benchmarks.workload import Load, Workload, encoded

SIZES = """SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r'"""
LOADS = {"applied": 0.0, "rejected": 1.0}
LEAST = 0.05
"""Bytes a command; tables that grow by less aren't shown."""


def main() -> None:
    """Measure both kinds, and print bytes a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    given = parser.parse_args()
    with closing(Testbed()) as bed:
        for name, rejections in LOADS.items():
            _show(bed, name, Workload(given.commands, rejections=rejections))
        for what in bed.skipped:
            print(f"skipped: {what}")


def _show(bed: Testbed, name: str, workload: Workload) -> None:
    load = encoded(workload)
    with bed.ledger(workload) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        before = _sizes(conn)
        run = ours_on(bed, dsn, load, Layout())
        conn.execute("CHECKPOINT")
        after = _sizes(conn)
    grown = {
        table: tuple((now - then) / workload.commands for now, then in zip(sizes, before[table], strict=True))
        for table, sizes in after.items()
    }
    print(f"{name}: {workload.commands:,} commands; bytes a command")
    for table, (rows, indexes) in sorted(grown.items(), key=lambda item: -sum(item[1])):
        if rows + indexes > LEAST:
            print(f"  {table:24} {rows:8.1f} rows {indexes:8.1f} indexes")
    print(f"  {'all':24} {sum(map(sum, grown.values())):8.1f}")
    print(f"  {'WAL':24} {run.wal_bytes:8.1f}")
    print(f"  {'a record in Kafka':24} {_record(load):8.1f}")
    print(
        f"  CPU, us: worker {run.cpu_worker_us}, Postgres {run.cpu_postgres_us}, broker {run.cpu_broker_us}"
    )


def _sizes(conn: psycopg.Connection) -> dict[str, tuple[int, int]]:
    return {table: (rows, indexes) for table, rows, indexes in conn.execute(SIZES)}


def _record(load: Load) -> float:
    """The mean size of a record."""
    sizes = (
        len(each.key) + len(each.value) + sum(len(name) + len(value or b"") for name, value in each.headers)
        for each in load.records
    )
    return sum(sizes) / len(load)


if __name__ == "__main__":
    main()
