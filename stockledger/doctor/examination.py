"""Everything the ledger stands on, looked at one by one: what was found, and what to do about it.

Changes nothing, joins no group but one of its own, and goes on after a failure: the next finding may be its
cause.
"""

import platform
from collections.abc import Iterable, Iterator
from importlib import metadata

from ledger import codec
from ledger.errors import MASK, BadSettings, LedgerError, Unavailable
from stockledger import version
from stockledger.doctor import kafka, postgres, relays
from stockledger.doctor.finding import FAIL, OK, WARN, Finding
from stockledger.settings import KAFKA_PREFIX, PREFIX, Settings, strangers
from stockledger.verb.exits import SomeFailed

NO_LEDGER = ("postgres", "rights", "schema")
DISTRIBUTIONS = ("confluent-kafka", "psycopg", "pydantic", "typer")


def examine(settings: Settings) -> Iterator[Finding]:
    """The findings, each as soon as it is made."""
    yield from _program()
    yield _codec(settings)
    yield from _on_the_command_line(settings)
    topics = yield from kafka.examine(settings)
    of_database = list(postgres.examine(settings, topics))
    yield from of_database
    if topics and not any(each.level == FAIL and each.what in NO_LEDGER for each in of_database):
        yield from relays.examine(settings)


def verdict(findings: Iterable[Finding]) -> LedgerError | None:
    """What the findings come to: Unavailable, SomeFailed, or None."""
    failed = [finding for finding in findings if finding.level == FAIL]
    if not failed:
        return None
    words = f"{len(failed)} of the checks failed: {', '.join(finding.what for finding in failed)}"
    away = [finding for finding in failed if finding.unreachable]
    if not away:
        return SomeFailed(words, remedy=failed[0].fix)
    error = Unavailable(words, remedy=away[0].fix)
    error.code = away[0].code
    return error


def _program() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in DISTRIBUTIONS)
    yield Finding(OK, "versions", f"stockledger {version()}, Python {platform.python_version()}, {libraries}")
    for stranger in strangers():
        yield Finding(WARN, "environment", stranger, "correct the name, or unset it")


def _codec(settings: Settings) -> Finding:
    """Which one is in use, and whether a better one lies unused."""
    try:
        used = codec.named(settings.codec)
    except BadSettings as error:
        return Finding(FAIL, "codec", error.message, error.remedy)
    if settings.codec is None and (why := codec.unfit()):
        return Finding(
            WARN, "codec", f"{used.name}: {why}", f"pip install 'stockledger[native]=={version()}'"
        )
    return Finding(OK, "codec", used.name)


def _on_the_command_line(settings: Settings) -> Iterator[Finding]:
    """Secrets that every user of this machine can read in the list of processes."""
    for row in settings.rows():
        if MASK in row.value and row.origin in ("-X", "--dsn"):
            variable = f"{PREFIX}DSN"
            if row.origin == "-X":
                variable = f"{KAFKA_PREFIX}{row.name.upper().replace('.', '_')}"
            found = f"{row.name} is on the command line, where every user of this machine can read it"
            yield Finding(WARN, "secrets", found, f"put it into {variable}")
