"""Records to what they say, and what was decided to rows: in Python, or compiled, with the same result.

The codec in Python is the specification. The native one (`native/`, installed apart) does what is plain and
hands everything else to the functions here, one record or row at a time: whatever is refused is refused here,
in the same words. It knows no Kafka, no SQL and no decision.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module, metadata
from typing import Any, Literal, NamedTuple

from ledger.domain import envelope, structs
from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place
from ledger.domain.delivery import Delivery, Headers, Request, pack
from ledger.domain.events import EVENTS, AnyEvent
from ledger.errors import BadSettings
from ledger.store.connection.copy import Made, TableLines
from ledger.store.tables import event, processed_message
from ledger.store.tables.processed_message import Processed

NATIVE = "stockledger_native"
CodecName = Literal["python", "native"]


class Codec(NamedTuple):
    """What turns bytes to requests, and decisions to rows."""

    name: CodecName
    delivery: Callable[[int, bytes | None, bytes | None, Headers | None, int, int], Delivery]
    """Of a record's offset, key, value, headers, leader epoch and time: the record and what it says."""
    register_rows: Callable[[list[tuple[MessageKey, Processed]]], Made]
    """The register's rows, in the order of their offsets."""
    event_rows: Callable[[int, list[tuple[int, Place, MessageKey, AnyEvent]]], Made]
    """The rows of an entry's events, by ordinal."""


def _delivery(
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    leader_epoch: int,
    timestamp_ms: int,
) -> Delivery:
    packed = pack(key, value, headers, leader_epoch, timestamp_ms)
    return Delivery(offset, envelope.decode(headers, value), packed)


def _register_rows(register: Sequence[tuple[MessageKey, Processed]]) -> TableLines:
    lines = [processed_message.line(key, processed) for key, processed in register]
    return TableLines(lines, [(key.id, key.source) for key, _ in register])


def _event_rows(entry: int, events: Sequence[tuple[int, Place, MessageKey, AnyEvent]]) -> TableLines:
    lines = [event.line(entry, *each) for each in events]
    keys = [place.stream for _, place, _, _ in events]  # within one their versions rise already
    return TableLines(lines, keys)


PYTHON = Codec("python", _delivery, _register_rows, _event_rows)
in_use = PYTHON
"""The codec of this process."""


def choose(name: CodecName | None) -> Codec:
    """Use the codec of this name in this process from here on. Raises as `named` does."""
    global in_use  # noqa: PLW0603 (a process has one, chosen at its start)
    in_use = named(name)
    return in_use


def named(name: CodecName | None) -> Codec:
    """The codec of this name; of none: the native one if it is installed and of this version.

    Raises BadSettings where the native one is asked for and can't be used.
    """
    if name == PYTHON.name:
        return PYTHON
    try:
        return _native()
    except BadSettings:
        if name is None:
            return PYTHON
        raise


def unfit() -> str:
    """Why a native codec that is installed can't be used; empty if there is none, or it can."""
    try:
        _native()
    except BadSettings as why:
        return "" if isinstance(why.__cause__, ModuleNotFoundError) else why.message
    return ""


@cache
def _native() -> Codec:
    ours = metadata.version("stockledger")
    remedy = f"pip install 'stockledger[native]=={ours}', or STOCKLEDGER_CODEC=python"
    try:
        library: Any = import_module(NATIVE)
    except ImportError as why:
        raise BadSettings(f"the native codec can't be loaded: {why}", remedy=remedy) from why
    if ours != library.VERSION:
        raise BadSettings(f"the native codec is of version {library.VERSION}, not {ours}", remedy=remedy)
    made = library.Codec(
        (_delivery, processed_message.line, event.line),
        (Delivery, Request, MessageKey),
        structs.STRUCTS,
        EVENTS,
    )
    return Codec("native", made.delivery, made.register_rows, made.event_rows)
