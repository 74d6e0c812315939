"""What the relay writes: its topics, and a record of each kind.

Events and outcomes are CloudEvents 1.0 in Kafka's binary mode: attributes in headers, the data as JSON.
(CloudEvents 1.0.2, "Kafka Protocol Binding", section 3.2.) What all records of an entry share is made once.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from msgspec import Meta, Struct
from msgspec.json import Encoder, encode

from ledger.domain.delivery import Lane
from ledger.domain.envelope import JSON_TYPE, SPEC_VERSION, TYPE_PREFIX, TYPE_VERSION
from ledger.domain.goods import STOCK_MAX
from ledger.domain.outcome import Outcome, Reason
from ledger.domain.token import TEXT, Token
from ledger.history import events
from ledger.store.reads.columns import EventColumns, OutcomeColumns
from ledger.store.tables.stock import StockLevel

DECIDED = b"CommandDecided"
VERSION, JSON = ("ce_specversion", SPEC_VERSION.encode()), ("content-type", JSON_TYPE.encode())
ENCODER = Encoder()
POSITION_KEY = b"relay"
TOKEN_PATTERN = f"^{TEXT.pattern}$"
_Token = Annotated[str, Meta(pattern=TOKEN_PATTERN)]
_Count = Annotated[int, Meta(ge=0)]
_Number = Annotated[int, Meta(ge=1)]


class CommandDecided(Struct, frozen=True):
    """What became of a command: the value of a record of outcomes."""

    source: str
    id: str
    outcome: Annotated[str, Meta(extra_json_schema={"enum": [Outcome.APPLIED, Outcome.REJECTED]})]
    reason: Annotated[
        str | None,
        Meta(description="Why it was rejected, else null; more may come.", examples=[*Reason]),
    ]
    topic: str
    partition: _Count
    offset: _Count
    position: _Number
    token: _Token
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class RelayedStock(Struct, frozen=True):
    """The stock of an item as of the token: the value of a record of stock."""

    goods_id: str
    on_hand: Annotated[int, Meta(ge=0, le=STOCK_MAX)]
    version: _Number
    token: _Token


class Outputs(NamedTuple):
    """The topics, by what is in them."""

    events: str
    outcomes: str
    stock: str
    positions: str

    @classmethod
    def of(cls, prefix: str) -> Self:
        """Those that are named after this."""
        return cls(f"{prefix}-events", f"{prefix}-outcomes", f"{prefix}-stock", f"{prefix}-relay")

    @property
    def prefix(self) -> str:
        """What they are named after."""
        return self.positions.removesuffix("-relay")

    @property
    def compacted(self) -> tuple[str, str]:
        """Those that keep the last record of each key, and only that."""
        return self.stock, self.positions


class OutgoingRecord(NamedTuple):
    """What goes to a topic."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Placed(NamedTuple):
    """How far a relay has come: up to this token's position, of the ledger that is `source`.

    `ids` are Kafka's ids of the topics that it wrote, by name.
    """

    source: str
    token: Token
    ids: Mapping[str, str]

    def record(self, topic: str) -> OutgoingRecord:
        """As it is kept, in the same transaction as what was relayed."""
        return OutgoingRecord(topic, POSITION_KEY, _json(self._asdict() | {"token": str(self.token)}), [])

    @classmethod
    def read(cls, value: bytes) -> Self:
        """As it was kept. Raises ValueError for what no relay wrote."""
        try:
            fields = json.loads(value)
            return cls(str(fields["source"]), Token.parse(fields["token"]), dict(fields["ids"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"no relay wrote this: {error}") from None


class Relayed(NamedTuple):
    """What Kafka has by now: the ids of the topics by name, and the last position that was kept."""

    ids: Mapping[str, str]
    last: bytes | None


def of_events(topic: str, stored: EventColumns, source: str, token: str) -> Iterator[OutgoingRecord]:
    """An entry's events; the key is the stream's name, so each stream is in order. Raises UnreadableEvent.

    Their attributes are those of `events.attributes`, and the token.
    """
    now = events.of_today(stored)
    place, reached = f"{now.position}".encode(), ("ce_token", token.encode())
    ledger, time, position = ("ce_source", source.encode()), _time(now.recorded_at), ("ce_position", place)
    for ordinal, stream, version, type, payload, by_source, by_id in zip(*now[2:], strict=True):
        headers = [
            VERSION,
            ("ce_id", b"%b.%b" % (place, ordinal)),
            ledger,
            _type(type),
            ("ce_subject", stream),
            time,
            JSON,
            position,
            ("ce_ordinal", ordinal),
            ("ce_version", version),
            ("ce_causationsource", by_source),
            ("ce_causationid", by_id),
            reached,
        ]
        yield OutgoingRecord(topic, stream, payload, headers)


def of_outcomes(
    topic: str, stored: OutcomeColumns, source: str, token: str, lane: Lane
) -> Iterator[OutgoingRecord]:
    """What became of an entry's commands; the key is the command's id."""
    place, reached = f"{stored.position}".encode(), ("ce_token", token.encode())
    ledger, time = ("ce_source", f"{source}/outcomes".encode()), _time(stored.recorded_at)
    position = "ce_position", place
    for offset, id, value in zip(stored.offsets, stored.ids, _decided(stored, token, lane), strict=True):
        headers = [
            VERSION,
            ("ce_id", b"%b.%b" % (place, offset)),
            ledger,
            _type(DECIDED),
            ("ce_subject", id),
            time,
            position,
            reached,
            JSON,
        ]
        yield OutgoingRecord(topic, id, value, headers)


def of_stock(topic: str, level: StockLevel, token: str) -> OutgoingRecord:
    """The stock of an item as of the token; its key is the item's id."""
    return OutgoingRecord(topic, level.goods_id.encode(), encode(RelayedStock(*level, token)), [])


def _decided(stored: OutcomeColumns, token: str, lane: Lane) -> list[bytes]:
    """The values of records of outcomes."""
    texts = (b"\n".join(column).decode().split("\n") for column in stored[2:])
    found = [
        CommandDecided(
            by_source, by_id, Outcome.REJECTED if reason else Outcome.APPLIED, reason or None,
            *lane, int(offset), stored.position, token, fingerprint,
        )
        for offset, reason, fingerprint, by_source, by_id in zip(*texts, strict=True)
    ]  # fmt: skip
    return ENCODER.encode_lines(found).splitlines()


def _time(recorded_at: datetime) -> tuple[str, bytes]:
    return "ce_time", events.attribute_time(recorded_at).encode()


@cache
def _type(stored: bytes) -> tuple[str, bytes]:
    return "ce_type", b"%b%b%b" % (TYPE_PREFIX.encode(), stored, TYPE_VERSION.encode())


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
