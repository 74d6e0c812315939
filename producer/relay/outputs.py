"""What the relay writes: its topics, and a record of each kind.

Events and outcomes are CloudEvents 1.0 in Kafka's binary mode: attributes in headers, the data as JSON.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from msgspec import Meta, Struct
from msgspec.json import encode

from ledger.domain.envelope import JSON_TYPE, SPEC_VERSION, TYPE_PREFIX, TYPE_VERSION
from ledger.domain.events import payload
from ledger.domain.goods import STOCK_MAX
from ledger.domain.outcome import Outcome, Reason
from ledger.domain.token import TEXT, Token
from ledger.history import events
from ledger.store.reads.history import StoredEvent
from ledger.store.tables.processed_message import StoredOutcome
from ledger.store.tables.stock import StockLevel

DECIDED = f"{TYPE_PREFIX}CommandDecided{TYPE_VERSION}"
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
    headers: tuple[tuple[str, bytes], ...] = ()


class Placed(NamedTuple):
    """How far a relay has come: up to this token's position, of the ledger that is `source`.

    `ids` are Kafka's ids of the topics that it wrote, by name.
    """

    source: str
    token: Token
    ids: Mapping[str, str]

    def record(self, topic: str) -> OutgoingRecord:
        """As it is kept, in the same transaction as what was relayed."""
        return OutgoingRecord(topic, POSITION_KEY, _json(self._asdict() | {"token": str(self.token)}))

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


def of_event(topic: str, stored: StoredEvent, source: str, token: Token) -> OutgoingRecord:
    """An event; its key is its stream's name, so each stream is in order. Raises UnreadableEvent."""
    happened = events.event(stored)
    attributes = events.attributes(stored, happened, source) | {"token": str(token)}
    return OutgoingRecord(topic, stored.stream.encode(), payload(happened), _headers(attributes))


def of_outcome(topic: str, stored: StoredOutcome, source: str) -> OutgoingRecord:
    """A row of the register: what became of a command; its key is the command's id."""
    token = str(Token.at(stored.position, stored.hash))
    attributes = {
        "specversion": SPEC_VERSION,
        "id": f"{stored.position}.{stored.offset}",
        "source": f"{source}/outcomes",
        "type": DECIDED,
        "subject": stored.key.id,
        "time": events.attribute_time(stored.recorded_at),
        "position": stored.position,
        "token": token,
    }
    data = CommandDecided(
        *stored.key, stored.outcome, stored.reason, *stored.lane, stored.offset, stored.position, token,
        stored.fingerprint.hex(),
    )  # fmt: skip
    headers = _headers(attributes | {"datacontenttype": JSON_TYPE})
    return OutgoingRecord(topic, stored.key.id.encode(), encode(data), headers)


def of_stock(topic: str, level: StockLevel, token: str) -> OutgoingRecord:
    """The stock of an item as of the token; its key is the item's id."""
    return OutgoingRecord(topic, level.goods_id.encode(), encode(RelayedStock(*level, token)))


def _headers(attributes: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """CloudEvents 1.0.2, "Kafka Protocol Binding", section 3.2."""
    return tuple([(_header(name), str(value).encode()) for name, value in attributes.items()])


@cache
def _header(attribute: str) -> str:
    return "content-type" if attribute == "datacontenttype" else f"ce_{attribute}"


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
