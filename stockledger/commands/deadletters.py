"""Records that are no valid command: `dlq list`, `dlq show`, `dlq redrive`, `dlq discard`."""

import base64
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stockledger.address import Address, parse, written
from stockledger.call import Answer, Call, flag, verb
from stockledger.exits import NotFound, SomeFailed, UsageError
from stockledger.output import count, counted

if TYPE_CHECKING:
    from ledger.api import Ledger
    from ledger.store.dead_letter import DeadLetter
    from stockledger.redriving import Prospect

app = typer.Typer(
    help="Records that are no valid command: list, show, redrive, discard.", no_args_is_help=True
)

Records = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECORD]...", help="As `dlq list` shows them: PARTITION@OFFSET."),
]
Code = Annotated[str | None, typer.Option(metavar="CODE", help="Those with this code.")]
All = Annotated[bool, flag("--all", "All that are parked.")]
Yes = Annotated[bool, flag("--yes", "Do it; without this, only say what would be done.")]


class Which(StrEnum):
    """The letters to list, by status."""

    PARKED = "parked"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ALL = "all"


@app.command("list")
@verb()
def list_(
    call: Call,
    code: Code = None,
    status: Annotated[Which, typer.Option(help="Those with this status.")] = Which.PARKED,
) -> Answer:
    """The dead letters, lane by lane in offset order."""
    from ledger.store.dead_letter import Status
    from stockledger.wiring import ledger

    settings = call.settings()
    with ledger(settings) as book:
        found = book.dead_letters(status=None if status is Which.ALL else Status(status.value), code=code)
    rows = [
        (
            written(d.lane, d.offset, settings.topic),
            d.status.value,
            d.code,
            d.record.key,
            d.recorded_at,
            d.detail,
        )
        for d in found
    ]
    call.out.table(("RECORD", "STATUS", "CODE", "KEY", "SINCE", "DETAIL"), rows)
    follow = f"stockledger dlq show {rows[0][0]}" if rows else ""
    return Answer({"dead_letters": [_summary(d) for d in found]}, next=follow)


@app.command()
@verb()
def show(
    call: Call, record: Annotated[str, typer.Argument(metavar="RECORD", help="PARTITION@OFFSET.")]
) -> Answer:
    """One dead letter, byte for byte, and whether this version could read it."""
    from stockledger.wiring import ledger

    settings = call.settings()
    address = parse(record, settings.topic)
    with ledger(settings) as book:
        found = _existing(book, address, settings.topic)
    headers, now = found.record.headers or [], _now(found)
    for name, value in (
        ("record", f"{found.lane}@{found.offset}"), ("status", found.status.value),
        ("since", found.recorded_at), ("code", found.code), ("detail", found.detail), ("now", now),
        ("key", found.record.key),
        *((f"header {header}", value) for header, value in headers), ("value", found.record.value),
    ):  # fmt: skip
        call.out.say(f"{name:24}", value)
    data = _summary(found) | {"now": now, "value": _bytes(found.record.value)}
    return Answer(
        data | {"headers": [{"name": header, **(_bytes(value) or {})} for header, value in headers]}
    )


@app.command()
@verb()
def redrive(
    call: Call, records: Records = None, code: Code = None, all_: All = False, yes: Yes = False
) -> Answer:
    """Publish dead letters again, byte for byte, in the order of their lanes.

    A dead record was never registered, so its id is still free. What is still no valid command stays parked.
    """
    from stockledger import redriving
    from stockledger.redriving import Prospect
    from stockledger.wiring import ledger

    settings = call.settings()
    choice = _Choice(records or [], code, all_, settings.topic)
    with ledger(settings) as book:
        letters = choice.letters(book)
        prospects = [redriving.prospect(book, letter) for letter in letters]
        counts = Counter(prospects)
        worthy = [d for d, seen in zip(letters, prospects, strict=True) if seen is not Prospect.DEAD]
        data: dict[str, Any] = {"dry_run": not yes, "records": len(letters), "prospects": counts}
        if not yes:
            call.out.say(f"would redrive {count(len(worthy))} of {counted(len(letters), 'record')}")
            _explain(call, counts)
            return Answer(data, next=f"stockledger dlq redrive {choice.text} --yes" if worthy else "")
        done, fault = redriving.redrive(settings, book, worthy)
    for letter in done:
        call.out.say("redriven", written(letter.lane, letter.offset, settings.topic), letter.code)
    _explain(call, counts)
    if not fault and counts[Prospect.DEAD]:
        fault = SomeFailed(f"{counted(counts[Prospect.DEAD], 'record')} still no valid command: parked")
    return Answer(
        data | {"redriven": [_summary(letter) for letter in done]}, next="stockledger status", error=fault
    )


def _explain(call: Call, counts: "Counter[Prospect]") -> None:
    meaning = {
        "valid": "valid for this version",
        "known": "with an id that is known by now: a repeat or a conflict",
        "dead": "still no valid command: stays parked",
    }
    for prospect, number in counts.items():
        call.out.say(f"  {count(number)} {meaning[prospect.value]}")


@app.command()
@verb()
def discard(
    call: Call, records: Records = None, code: Code = None, all_: All = False, yes: Yes = False
) -> Answer:
    """Mark dead letters as done with. They are kept, byte for byte."""
    from ledger.store.dead_letter import Status
    from stockledger.wiring import ledger

    settings = call.settings()
    choice = _Choice(records or [], code, all_, settings.topic)
    with ledger(settings) as book:
        letters = choice.letters(book)
        codes = Counter(letter.code for letter in letters)
        data: dict[str, Any] = {"dry_run": not yes, "records": len(letters), "codes": codes}
        if not yes:
            call.out.say(f"would discard {counted(len(letters), 'record')}")
            for each, number in codes.items():
                call.out.say(f"  {count(number)} {each}")
            return Answer(data, next=f"stockledger dlq discard {choice.text} --yes" if letters else "")
        done = [letter for letter in letters if book.mark(letter, Status.DISCARDED)]
    for letter in done:
        call.out.say("discarded", written(letter.lane, letter.offset, settings.topic), letter.code)
    missed = len(letters) - len(done)
    error = SomeFailed(f"somebody else dealt with {counted(missed, 'record')} meanwhile") if missed else None
    return Answer(data | {"discarded": [_summary(letter) for letter in done]}, error=error)


class _Choice:
    """The parked letters that the command line means. Raises UsageError if it means none."""

    def __init__(self, records: list[str], code: str | None, all_: bool, topic: str) -> None:
        if not records and not code and not all_:
            raise UsageError(
                "which ones? Name records, or say --code CODE or --all", remedy="stockledger dlq list"
            )
        self.text = " ".join([*records, *([f"--code {code}"] if code else []), *(["--all"] if all_ else [])])
        self._addresses = sorted({parse(text, topic) for text in records})
        self._code, self._topic = code, topic

    def letters(self, book: "Ledger") -> "list[DeadLetter]":
        """In the order of lanes and offsets. Raises NotFound where a named one isn't parked."""
        from ledger.store.dead_letter import Status

        if not self._addresses:
            return book.dead_letters(status=Status.PARKED, code=self._code)
        found = [_existing(book, address, self._topic) for address in self._addresses]
        for letter in found:
            if letter.status is not Status.PARKED:
                where = written(letter.lane, letter.offset, self._topic)
                raise NotFound(
                    f"the record {where} isn't parked but {letter.status}", remedy="stockledger dlq list"
                )
        return [letter for letter in found if self._code in (None, letter.code)]


def _existing(book: "Ledger", address: Address, topic: str) -> "DeadLetter":
    found = book.dead_letter(*address)
    if found is None:
        raise NotFound(
            f"the record {written(*address, topic)} is no dead letter",
            remedy="stockledger dlq list --status all",
        )
    return found


def _now(letter: "DeadLetter") -> str:
    """What this version makes of the record."""
    from ledger.domain.delivery import Bad
    from ledger.domain.envelope import decode

    content = decode(letter.record.headers, letter.record.value)
    return f"{content.code}: {content.detail}" if isinstance(content, Bad) else "a valid command"


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "topic": letter.lane.topic, "partition": letter.lane.partition, "offset": letter.offset,
        "status": letter.status, "code": letter.code, "detail": letter.detail,
        "recorded_at": letter.recorded_at, "key": _bytes(letter.record.key),
    }  # fmt: skip


def _bytes(value: bytes | None) -> dict[str, str | None] | None:
    """Bytes for JSON: as they are, and as text where they are text."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    return {"text": text, "base64": base64.b64encode(value).decode()}
