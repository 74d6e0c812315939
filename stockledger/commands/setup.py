"""Setting up: `migrate`, `config`, `doctor`, `demo`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import BadSettings
from stockledger.call import Answer, Call, flag, verb
from stockledger.exits import Mismatch, SomeFailed, UsageError
from stockledger.output import count

if TYPE_CHECKING:
    from stockledger.demo import Report


@verb()
def migrate(
    call: Call,
    check: Annotated[bool, flag("--check", "Only say whether it is needed; exit 1 if so.")] = False,
    print_: Annotated[bool, flag("--print", "Only print all migrations as one SQL script.")] = False,
    topic: Annotated[
        str | None, typer.Option(help="Make this topic too (default: the one in the settings).")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Make the topic too, with so many partitions.")
    ] = None,
) -> Answer:
    """Bring the schema up to date, and make the topic.

    Run it as the database's owner. With --partitions the topic is made, too, unless it exists.
    """
    if topic and not partitions:
        raise UsageError(
            "--topic needs --partitions N", remedy=f"stockledger migrate --topic {topic} --partitions 12"
        )
    if print_:
        return _print_migrations(call)
    if check:
        return _check_schema(call)
    schema = _apply_migrations(call)
    made = _make_topic(call, topic, partitions) if partitions else {}
    return Answer(schema | made, next="stockledger doctor")


def _print_migrations(call: Call) -> Answer:
    from ledger.store.migrate import BOOTSTRAP, migrations

    call.out.raw(f"BEGIN;\n{BOOTSTRAP}\n")
    for migration in migrations():
        row = f"({migration.number}, '{migration.name}', '{migration.checksum}')"
        call.out.raw(f"-- {migration.name}\n{migration.statements}\n")
        call.out.raw(f"INSERT INTO ledger.migration (number, name, checksum) VALUES {row};\n\n")
    call.out.raw("COMMIT;\n")
    scripts = [{"number": m.number, "name": m.name, "sql": m.statements} for m in migrations()]
    return Answer({"migrations": scripts})


def _check_schema(call: Call) -> Answer:
    from ledger.store.migrate import migrations, pending
    from stockledger.wiring import database

    with database(call.settings(), "migrate") as conn:
        missing = [m.name for m in pending(conn)]
    known = len(migrations())
    data = {"schema": known - len(missing), "needed": known, "pending": missing}
    if missing:
        needed = f"the schema is at {data['schema']}, this build needs {known}: {', '.join(missing)}"
        return Answer(data, error=SomeFailed(needed, remedy="stockledger migrate"))
    call.out.say(f"schema {known}, up to date")
    return Answer(data)


def _apply_migrations(call: Call) -> dict[str, Any]:
    from ledger.store import migrate as runner
    from stockledger.wiring import database

    started = time.monotonic()
    with database(call.settings(), "migrate") as conn:
        applied = runner.migrate(conn)
    known, took_ms = len(runner.migrations()), (time.monotonic() - started) * 1000
    if applied:
        call.out.say(f"schema {known - len(applied)} -> {known} ({', '.join(applied)})", f"{took_ms:.0f} ms")
    else:
        call.out.say(f"schema {known}, nothing to do")
    return {"schema": known, "applied": applied}


def _make_topic(call: Call, name: str | None, partitions: int) -> dict[str, Any]:
    from stockledger.wiring import created_topic

    facts = created_topic(call.settings(topic=name), partitions)
    call.out.say(f"topic {facts.name}: {facts.partitions} partitions, replication {facts.replication}")
    if facts.partitions != partitions:
        call.out.note(
            f"it existed already and was left alone; {partitions} partitions were asked for", "yellow"
        )
    return {
        "topic": {"name": facts.name, "partitions": facts.partitions, "replication": facts.replication},
    }


@verb()
def config(call: Call) -> Answer:
    """Show every setting and where its value comes from.

    Needs no broker and no database. Secrets are masked.
    """
    from stockledger.settings import strangers

    settings = call.settings()
    rows, warnings = settings.rows(), strangers()
    call.out.table(("SETTING", "VALUE", "FROM"), rows)
    for warning in warnings:
        call.out.note(f"warn  {warning}", "yellow")
    data = {"settings": [row._asdict() for row in rows], "warnings": warnings}
    try:
        settings.conninfo()
        if settings.kafka:
            settings.kafka_properties()
    except BadSettings as error:
        return Answer(data, error=error)
    return Answer(data)


@verb()
def doctor(call: Call) -> Answer:
    """Look at all the ledger stands on; say what to fix."""
    from stockledger.doctor import examine, verdict

    findings = []
    for finding in examine(call.settings()):
        findings.append(finding)
        call.out.say(
            f"{finding.level:4}",
            f"{finding.what:14}",
            finding.found,
            *([f"-> {finding.fix}"] if finding.fix else []),
        )
    return Answer({"findings": [finding._asdict() for finding in findings]}, error=verdict(findings))


@verb(connects=False)
def demo(call: Call) -> Answer:
    """See it work: a shop's day, duplicates, a killed worker.

    Needs nothing but this program: broker and database are brought along.
    """
    from dataclasses import asdict

    from stockledger.demo import run

    report = run(call.out.note)
    call.out.table(("FACT", "VALUE", "MEANING"), _demo_rows(report))
    error = None if report.ok else Mismatch("the demo's ledger isn't as promised", remedy="report it, please")
    return Answer({"report": asdict(report)}, next="stockledger doctor", error=error)


def _demo_rows(report: "Report") -> list[tuple[str, str, str]]:
    reasons = ", ".join(f"{reason} {count(n)}" for reason, n in report.rejected.items())
    red = "; ".join(report.red) or "all green, record by record against the topic"
    return [
        ("published", count(report.published), "records that the broker acknowledged"),
        ("delivered", count(report.delivered), "records that the journal accounts for"),
        ("applied", count(report.applied), "commands that changed something"),
        ("rejected", count(sum(report.rejected.values())), reasons),
        ("duplicate", count(report.duplicates), "deliveries that changed nothing"),
        ("lost", count(report.lost), "commands without an outcome"),
        ("wrong", count(report.wrong), "outcomes other than a sequential run of the file gives"),
        ("doubled", count(report.doubled), "goods whose stock differs from that run's"),
        ("verify", count(report.checks), red),
        ("killed", str(report.killed_pid), f"all was applied {report.recovered_s:.1f} s later"),
        ("seconds", f"{report.seconds:.1f}", "from start to proof"),
    ]
