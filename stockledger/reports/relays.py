"""The relays of a ledger: how far each has come, whatever its topics are called.

Each keeps its place in Kafka, with the name of its ledger. So the topics are looked through for such places;
what nobody's relay wrote isn't one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from consumer import admin, records
from ledger.api import Ledger
from ledger.domain.delivery import Lane
from ledger.errors import BrokerUnavailable, HistoryChanged, TopicUnfit
from ledger.figures import count
from ledger.history import events
from producer.relay.outputs import Outputs, Placed


@dataclass(frozen=True)
class RelayStatus:
    """A relay: its PREFIX, up to where it has published, and what it lacks; None where `why` says why not."""

    to: str
    position: int
    token: str
    lag: int | None = None
    lag_seconds: float | None = None
    why: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return asdict(self)

    def __str__(self) -> str:
        if self.lag is None:
            return f"the relay to {self.to} can't go on: {self.why}"
        late = f", the first {self.lag_seconds:.1f} s old" if self.lag else ""
        return f"the relay to {self.to} is at position {self.position}, {count(self.lag)} entries to go{late}"


def find(ledger: Ledger, kafka: dict[str, str], source: str) -> list[RelayStatus]:
    """Those of the ledger whose events have this source. Raises BrokerUnavailable or Unavailable."""
    return [
        _status(ledger, outputs, at)
        for outputs in _kept(kafka)
        if (at := _place(kafka, outputs)) and at.source in (source, events.SOURCE)
    ]


def _kept(kafka: dict[str, str]) -> Iterator[Outputs]:
    names = admin.topics(kafka)
    suffix = Outputs.of("").positions
    for name in sorted(names):
        if name.endswith(suffix) and names.issuperset(outputs := Outputs.of(name.removesuffix(suffix))):
            yield outputs


def _place(kafka: dict[str, str], outputs: Outputs) -> Placed | None:
    lane = Lane(outputs.positions, 0)
    try:
        value = records.last_committed(kafka, lane, admin.watermarks(kafka, [lane]).all()[lane])
        return Placed.read(value) if value else None
    except (ValueError, TopicUnfit, BrokerUnavailable):  # perhaps another ledger's, which may be as it likes
        return None


def _status(ledger: Ledger, outputs: Outputs, at: Placed) -> RelayStatus:
    to, token = outputs.prefix, str(at.token)
    try:
        lag = ledger.lag_after(token)
    except HistoryChanged as changed:
        return RelayStatus(to, at.token.position, token, why=changed.message)
    return RelayStatus(to, at.token.position, token, lag.entries, lag.seconds)
