"""What the endpoints say, as models: answers are made by them, and the OpenAPI document describes them."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from ledger.answers import RecordedOutcome
from ledger.domain.outcome import Reason
from producer.tally import Receipt

LATER = "no outcome yet: a worker will decide it; ask for it, or send the same again: it counts once"
EXAMPLE_OUTCOME: JsonDict = {
    "source": "shop-uk",
    "id": "order-42",
    "outcome": "applied",
    "reason": None,
    "topic": "purchase-commands",
    "partition": 3,
    "offset": 5512,
    "position": 18402,
    "token": "18402-9f3c21aa00b7e415",
    "recorded_at": "2026-11-01T10:00:00.000001Z",
    "stream": "stock-85123A",
    "version": 17,
    "fingerprint": "6df0f1b44e3bb51fef0c2fcb4d5e9a5c",
}
EXAMPLE_STOCK: JsonDict = {
    "goods_id": "85123A",
    "on_hand": 94,
    "version": 3,
    "token": "18402-9f3c21aa00b7e415",
}
EXAMPLE_PENDING: JsonDict = {
    "source": "shop-uk",
    "id": "order-42",
    "topic": "purchase-commands",
    "partition": 3,
    "offset": 5512,
    "detail": LATER,
}
EXAMPLE_PROBLEM: JsonDict = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "quantity: Input should be greater than or equal to 1",
    "code": "SL-HTTP-400",
    "remedy": "correct the request, and send it again",
    "retryable": False,
    "field": "quantity",
}


class OutcomeBody(BaseModel):
    """What became of a command, for good: the same for every repeat."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_OUTCOME]})
    source: str
    id: str
    outcome: Literal["applied", "rejected"]
    reason: Reason | None = Field(description="Why it was rejected; null if it was applied.")
    topic: str
    partition: int = Field(description="With `offset`: the delivery that decided it.")
    offset: int
    position: int = Field(description="Its place in the journal.")
    token: str = Field(description="The position in this one history: send it as `Stockledger-Min-Position`.")
    recorded_at: datetime
    stream: str | None = Field(description="With `version`: the place of its event, if it was applied.")
    version: int | None
    fingerprint: str = Field(description="Of the payload that was decided, in hex.")

    @classmethod
    def of(cls, found: RecordedOutcome) -> Self:
        """The outcome as it is told."""
        facts = vars(found) | found.lane._asdict() | {"fingerprint": found.fingerprint.hex()}
        return cls.model_validate({name: facts[name] for name in cls.model_fields})


class LevelBody(BaseModel):
    """How many pieces there are."""

    goods_id: str
    on_hand: int
    version: int = Field(description="How many events the goods have had.")


class StockBody(LevelBody):
    """The stock of an item, as of a position."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_STOCK]})
    token: str = Field(description="The position that it is as of, in this one history.")


class StockListBody(BaseModel):
    """The stock of several items, all as of one position. Goods that were never listed are missing."""

    token: str = Field(description="The position that all of it is as of.")
    levels: list[LevelBody]
    more: bool = Field(description="Whether the band has goods after the last one here.")


class PendingBody(BaseModel):
    """A command that is in the topic and isn't decided yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_PENDING]})
    source: str
    id: str
    topic: str
    partition: int
    offset: int
    detail: str = LATER

    @classmethod
    def of(cls, receipt: Receipt, topic: str) -> Self:
        """The receipt as it is told."""
        source, id = receipt.key
        return cls.model_validate(
            {
                "source": source,
                "id": id,
                "topic": topic,
                "partition": receipt.partition,
                "offset": receipt.offset,
            }
        )


class ProblemBody(BaseModel):
    """Why a request isn't carried out (RFC 9457)."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [EXAMPLE_PROBLEM]})
    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Tells the kinds apart; never changes its meaning.")
    remedy: str = Field(description="The one next step.")
    retryable: bool = Field(description="Whether the same request may be answered later.")
    field: str | None = Field(None, description="What in the request is wrong.")
    trace_id: str | None = Field(
        None, pattern="^[0-9a-f]{32}$", description="The trace that the request is in, where it has one."
    )


class AliveBody(BaseModel):
    """It is there."""

    live: Literal[True] = True


class ReadyBody(BaseModel):
    """It can take purchases: Kafka and the database answer."""

    ready: Literal[True] = True
