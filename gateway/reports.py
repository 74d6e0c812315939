"""What is said of the past, and of how things stand: models, beside those of `gateway.bodies`."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class EventsBody(BaseModel):
    """A page of events."""

    events: list[dict[str, Any]] = Field(description="CloudEvents 1.0, as `stockledger replay` has them.")
    token: str = Field(description="The journal's end when the page was read.")
    next: str | None = Field(description="Where the next page is; null: there is none yet.")


class BoughtBody(BaseModel):
    """A purchase that was applied."""

    source: str
    id: str
    goods_id: str
    quantity: int
    unit_price_minor: int | None
    cancelled: bool
    position: int
    recorded_at: datetime


class PurchasesBody(BaseModel):
    """A page of what a user bought."""

    purchases: list[BoughtBody]
    next: str | None = Field(description="Where the next page is; null: there is none yet.")
    lag: int = Field(description="So many positions at the journal's end aren't followed yet.")


class TroubleBody(BaseModel):
    """Why a part of an answer is missing, or a part of an order wasn't carried out."""

    code: str
    message: str
    remedy: str
    retryable: bool


class LaneBody(BaseModel):
    """A partition of the topic; null is what isn't known, for the reason `why`."""

    topic: str
    partition: int
    next_offset: int | None
    log_end_offset: int | None
    lag: int | None
    owner: str | None
    last_moved_at: datetime | None
    why: str | None


class ProgressBody(BaseModel):
    """How far a generation of a projection is."""

    model_config = ConfigDict(from_attributes=True)
    name: str
    generation: int
    version: int
    status: str
    position: int
    lag: int
    lag_seconds: float


class ProjectionsBody(BaseModel):
    """All generations of all projections."""

    projections: list[ProgressBody]


class StatusBody(BaseModel):
    """As `stockledger status --json` says it: FORMAT has each member."""

    model_config = ConfigDict(extra="allow")
    position: int
    token: str
    lag: int | None = Field(description="Records that aren't applied yet; null where that isn't known.")
    deliveries: dict[str, int]
    rejections: dict[str, int]
    letters: dict[str, int]
    lanes: list[LaneBody]
    projections: list[ProgressBody]
    error: TroubleBody | None = Field(description="Why Kafka's part is missing.")


class BytesBody(BaseModel):
    """Bytes, as text where they are text."""

    text: str | None
    base64: str


class LetterBody(BaseModel):
    """A record that is no valid command."""

    topic: str
    partition: int
    offset: int
    status: str
    code: str
    detail: str
    recorded_at: datetime
    key: BytesBody | None


class LettersBody(BaseModel):
    """Some dead letters."""

    dead_letters: list[LetterBody]
    more: bool


class RedriveBody(BaseModel):
    """What became of dead letters that were sent again, or what would become of them."""

    dry_run: bool
    records: int = Field(description="How many are meant.")
    prospects: dict[str, int] = Field(description="How many are `valid`, `known`, `dead`, `unsendable`.")
    redriven: list[LetterBody]
    error: TroubleBody | None = Field(description="What kept some of them from being sent.")
