"""`migrate`: the schema, the roles and the topics."""

import time
from typing import Annotated, Any

import typer

from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import SomeFailed, UsageError


@verb(topics=True)
def migrate(
    call: Call,
    check: Annotated[bool, flag("--check", "Only say whether it is needed; exit 1 if so.")] = False,
    print_: Annotated[bool, flag("--print", "Only print all migrations as one SQL script.")] = False,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=2**31 - 1, metavar="N", help="Make the topics too, with so many partitions."),
    ] = None,
    relay: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Make the topics of `relay --to PREFIX`, too.")
    ] = None,
    adopt: Annotated[
        bool, flag("--adopt", "This database is a restored copy, and takes the original's place.")
    ] = False,
) -> Answer:
    """Bring the schema up to date, and make the topics.

    Run it as the database's owner. With --partitions the topics are made, too, unless they exist.
    """
    if call.names["topic"] is not None and not partitions:
        raise UsageError("--topic needs --partitions N", remedy=call.onward("migrate --partitions 12"))
    if relay is not None and not partitions:
        raise UsageError(
            "--relay needs --partitions N", remedy=call.onward("migrate --partitions 12 --relay", relay)
        )
    if print_:
        return _print_migrations(call)
    if check:
        return _check_schema(call)
    schema = _apply_migrations(call)
    if adopt:
        schema |= _adopt(call)
    made = _make_topics(call, partitions, relay) if partitions else {}
    return Answer(schema | made, next=call.onward("doctor"))


def _print_migrations(call: Call) -> Answer:
    from ledger.store.schema.migrate import migrations, script

    for part in script():
        call.out.raw(part)
    scripts = [{"number": m.number, "name": m.name, "sql": m.statements} for m in migrations()]
    return Answer({"migrations": scripts})


def _check_schema(call: Call) -> Answer:
    from ledger.store.schema.comparison import compare
    from ledger.store.schema.migrate import migrations, pending
    from stockledger.wiring import database

    with database(call.settings(), "migrate") as conn:
        missing = [m.name for m in pending(conn)]
        different = [] if missing else compare(conn)
    known = len(migrations())
    data = {"schema": known - len(missing), "needed": known, "pending": missing}
    data["differences"] = [difference._asdict() for difference in different]
    if missing:
        needed = f"the schema is at {data['schema']}, this build needs {known}: {', '.join(missing)}"
        return Answer(data, error=SomeFailed(needed, remedy="stockledger migrate"))
    for difference in different:
        call.out.say(difference)
    if different:
        words = f"{len(different)} parts of the schema aren't as this build makes them; {different[0].what}"
        return Answer(data, error=SomeFailed(words, remedy="stockledger migrate"))
    call.out.say(f"schema {known}, up to date")
    return Answer(data)


def _apply_migrations(call: Call) -> dict[str, Any]:
    from ledger.store.schema import migrate
    from stockledger.wiring import database

    started = time.monotonic()
    with database(call.settings(), "migrate") as conn:
        applied, mended, left = migrate.migrate(conn)
    known, took_ms = len(migrate.migrations()), (time.monotonic() - started) * 1000
    if applied:
        call.out.say(f"schema {known - len(applied)} -> {known} ({', '.join(applied)})", f"{took_ms:.0f} ms")
    else:
        call.out.say(f"schema {known}, nothing to apply")
    for difference in mended:
        call.out.say("mended", difference.what)
    for difference in left:
        call.out.note(f"warn  {difference}", "yellow")
    return {
        "schema": known, "applied": applied, "mended": [difference.what for difference in mended],
        "left": [difference._asdict() for difference in left],
    }  # fmt: skip


def _adopt(call: Call) -> dict[str, Any]:
    from ledger.store.tables import identity
    from stockledger.wiring import database

    with database(call.settings(), "migrate") as conn:
        adopted = identity.adopt(conn)
    call.out.say("adopted: workers may join the group" if adopted else "no copy, so nothing to adopt")
    return {"adopted": adopted}


def _make_topics(call: Call, partitions: int, relay: str | None) -> dict[str, Any]:
    from stockledger import relay_topics
    from stockledger.wiring import created_topic

    settings, made = call.settings(), []
    found = [created_topic(settings, name, partitions) for name in settings.topics]
    if relay:
        found += relay_topics.make(settings, relay, partitions)
    for facts in found:
        call.out.say(f"topic {facts.name}: {facts.partitions} partitions, replication {facts.replication}")
        if facts.name in settings.topics and facts.partitions != partitions:
            call.out.note(
                f"it existed already and was left alone; {partitions} partitions were asked for", "yellow"
            )
        made.append({"name": facts.name, "partitions": facts.partitions, "replication": facts.replication})
    return {"topics": made}
