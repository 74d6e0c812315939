"""Records that are no valid command: `dlq list`, `dlq show`, `dlq redrive`, `dlq discard`."""

import shlex
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.figures import count, counted
from stockledger.verb.address import Address, Addresses, parse
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import NotFound, SomeFailed, UsageError

if TYPE_CHECKING:
    from ledger.api import Ledger
    from ledger.store.tables.dead_letter import DeadLetter, Heading
    from stockledger.reports.prospects import Prospect
    from stockledger.settings import Settings

app = typer.Typer(
    help="Records that are no valid command: list, show, redrive, discard.", no_args_is_help=True
)

Records = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECORD]...", help="As `dlq list` shows them."),
]
RECORD = "PARTITION@OFFSET, or TOPIC[PARTITION]@OFFSET; as `dlq list` shows it."
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
@verb(topics=True)
def list_(
    call: Call,
    code: Code = None,
    status: Annotated[Which, typer.Option(help="Those with this status.")] = Which.PARKED,
) -> Answer:
    """The dead letters, lane by lane in offset order.

    `repaired` is a parked one whose command was sent again since, and has its outcome.
    """
    from ledger.store.tables.dead_letter import LetterStatus
    from stockledger.reports.dead_letters import summaries
    from stockledger.wiring import ledger

    settings = call.settings()
    with ledger(settings) as book:
        found = book.dead_letters(
            status=None if status is Which.ALL else LetterStatus(status.value), code=code
        )
        listed, addresses = summaries(found, book.repaired()), _addresses(book, settings)
    rows = [
        (addresses.written(d.lane, d.offset), said["status"], d.code, d.key, d.recorded_at, d.detail)
        for d, said in zip(found, listed, strict=True)
    ]
    call.out.table(("RECORD", "STATUS", "CODE", "KEY", "SINCE", "DETAIL"), rows)
    follow = call.onward("dlq show", rows[0][0]) if rows else ""
    return Answer({"dead_letters": listed}, next=follow)


@app.command()
@verb(topics=True)
def show(call: Call, record: Annotated[str, typer.Argument(metavar="RECORD", help=RECORD)]) -> Answer:
    """One dead letter, byte for byte, and whether this version could read it."""
    from stockledger.reports.dead_letters import shown
    from stockledger.wiring import ledger

    address, settings = parse(record), call.settings()
    with ledger(settings) as book:
        found = _existing(book, address, _addresses(book, settings))
        data = shown(book, found)
    for name, value in (
        ("record", f"{found.lane}@{found.offset}"), ("status", data["status"]),
        ("since", found.recorded_at), ("code", found.code), ("detail", found.detail), ("now", data["now"]),
        ("key", found.record.key),
        *((f"header {header}", value) for header, value in found.record.headers or []),
        ("value", found.record.value),
    ):  # fmt: skip
        call.out.say(f"{name:24}", value)
    return Answer(data)


@app.command()
@verb(topics=True, group=True)
def redrive(
    call: Call, records: Records = None, code: Code = None, all_: All = False, yes: Yes = False
) -> Answer:
    """Publish dead letters again, byte for byte, in the order of their lanes.

    A dead record was never registered, so its id is still free. What is still no valid command stays parked.
    """
    from stockledger.reports import prospects
    from stockledger.reports.dead_letters import summary
    from stockledger.reports.prospects import Prospect
    from stockledger.wiring import ledger

    settings = call.settings()
    choice = _Choice(records or [], code, all_)
    with ledger(settings) as book:
        addresses = _addresses(book, settings)
        letters = choice.letters(book, addresses)
        seen, worthy = prospects.sorted_out(book, letters)
        counts = Counter(seen)
        data: dict[str, Any] = {"dry_run": not yes, "records": len(letters), "prospects": counts}
        if not yes:
            call.out.say(f"would redrive {count(len(worthy))} of {counted(len(letters), 'record')}")
            _explain(call, counts)
            return Answer(data, next=call.onward(f"dlq redrive {choice.text} --yes") if worthy else "")
        done, fault = prospects.redrive(settings, book, worthy)
    for letter in done:
        call.out.say("redriven", addresses.written(letter.lane, letter.offset), letter.code)
    _explain(call, counts)
    if not fault and Prospect.UNSENDABLE in seen:
        odd = letters[seen.index(Prospect.UNSENDABLE)]
        where = addresses.written(odd.lane, odd.offset)
        fault = SomeFailed(
            f"{counted(counts[Prospect.UNSENDABLE], 'record')} not sent, the first of them {where}: "
            "the name of a header isn't UTF-8; publish the command anew with its id",
            remedy=call.onward("dlq show", where),
        )
    if not fault and counts[Prospect.DEAD]:
        fault = SomeFailed(
            f"{counted(counts[Prospect.DEAD], 'record')} still no valid command: parked",
            remedy="stockledger dlq list",
        )
    return Answer(
        data | {"redriven": [summary(letter) for letter in done]},
        next=call.onward("status"),
        error=fault,
    )


def _explain(call: Call, counts: "Counter[Prospect]") -> None:
    meaning = {
        "valid": "valid for this version",
        "known": "with an id that is known by now: a repeat or a conflict",
        "dead": "still no valid command: stays parked",
        "unsendable": "with a header name that isn't UTF-8, which can't be sent: stays parked",
    }
    for prospect, number in counts.items():
        call.out.say(f"  {count(number)} {meaning[prospect.value]}")


@app.command()
@verb(topics=True)
def discard(
    call: Call, records: Records = None, code: Code = None, all_: All = False, yes: Yes = False
) -> Answer:
    """Mark dead letters as done with. They are kept, byte for byte."""
    from ledger.store.tables.dead_letter import LetterStatus
    from stockledger.reports.dead_letters import summary
    from stockledger.wiring import ledger

    settings = call.settings()
    choice = _Choice(records or [], code, all_)
    with ledger(settings) as book:
        addresses = _addresses(book, settings)
        letters = choice.letters(book, addresses)
        codes = Counter(letter.code for letter in letters)
        data: dict[str, Any] = {"dry_run": not yes, "records": len(letters), "codes": codes}
        if not yes:
            call.out.say(f"would discard {counted(len(letters), 'record')}")
            for each, number in codes.items():
                call.out.say(f"  {count(number)} {each}")
            return Answer(data, next=call.onward(f"dlq discard {choice.text} --yes") if letters else "")
        done = [letter for letter in letters if book.mark(letter, LetterStatus.DISCARDED)]
    for letter in done:
        call.out.say("discarded", addresses.written(letter.lane, letter.offset), letter.code)
    missed = len(letters) - len(done)
    error = None
    if missed:
        error = SomeFailed(
            f"somebody else dealt with {counted(missed, 'record')} meanwhile",
            remedy="stockledger dlq list --status all",
        )
    return Answer(data | {"discarded": [summary(letter) for letter in done]}, error=error)


class _Choice:
    """The parked letters that the command line means. Raises UsageError if it means none."""

    def __init__(self, records: list[str], code: str | None, all_: bool) -> None:
        if not records and not code and not all_:
            raise UsageError(
                "which ones? Name records, or say --code CODE or --all", remedy="stockledger dlq list"
            )
        options = [*(["--code", code] if code else []), *(["--all"] if all_ else [])]
        self.text = shlex.join([*records, *options])
        self._named = [parse(text) for text in records]
        self._code = code

    def letters(self, book: "Ledger", addresses: Addresses) -> "Sequence[Heading | DeadLetter]":
        """The letters, in the order of lanes and offsets. Raises NotFound where a named one isn't parked."""
        from ledger.store.tables.dead_letter import LetterStatus

        if not self._named:
            return book.dead_letters(status=LetterStatus.PARKED, code=self._code)
        letters = [_existing(book, address, addresses) for address in self._named]
        by_place = {(letter.lane, letter.offset): letter for letter in letters}
        found = [by_place[place] for place in sorted(by_place)]
        for letter in found:
            if letter.status is not LetterStatus.PARKED:
                where = addresses.written(letter.lane, letter.offset)
                raise NotFound(
                    f"the record {where} isn't parked but {letter.status}", remedy="stockledger dlq list"
                )
        return [letter for letter in found if self._code in (None, letter.code)]


def _addresses(book: "Ledger", settings: "Settings") -> Addresses:
    """How records are named here: the ledger may have read topics that the settings don't name."""
    return Addresses([*settings.topics, *book.topics()])


def _existing(book: "Ledger", address: Address, addresses: Addresses) -> "DeadLetter":
    place = addresses.read(address)
    found = book.dead_letter(*place)
    if found is None:
        raise NotFound(
            f"the record {addresses.written(*place)} is no dead letter",
            remedy="stockledger dlq list --status all",
        )
    return found
