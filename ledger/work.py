"""What one batch has read and decided, and the rows that it will write. In memory; dropped with the batch.

Deliveries are decided in offset order on the batch's own state; repeats inside the batch meet their first
one here. Nothing outlives the transaction that it was read in.
"""

from dataclasses import dataclass, field

from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place, State, decide, evolve
from ledger.domain.delivery import Batch, Delivery, Request
from ledger.domain.events import (
    AnyEvent,
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
    UserClosed,
    UserRegistered,
)
from ledger.domain.goods import Goods, purchase_key
from ledger.domain.outcome import Outcome, Rejection
from ledger.domain.slim import (
    AdjustStock,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.user import User
from ledger.errors import Park
from ledger.store import cancellation, dead_letter, event, gap, processed_message
from ledger.store.journal import Head
from ledger.store.processed_message import Processed


@dataclass
class Needs:
    """What must be read before the batch can be decided."""

    goods: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    purchases: list[tuple[MessageKey, str]] = field(default_factory=list)
    """To be cancelled: message key, and the goods that the canceller names."""


@dataclass
class Work:
    """One batch in hand. `known` is what the register knows, and then also what was decided here."""

    batch: Batch
    entry: int
    head: Head
    known: dict[MessageKey, Processed]
    state: State = field(default_factory=State)
    # what was read without a lock: guarded by the catalogue counter
    read_users: set[str] = field(default_factory=set)
    missing_goods: set[str] = field(default_factory=set)
    # what was changed
    _users: set[str] = field(default_factory=set)
    _goods: set[str] = field(default_factory=set)
    _listed: set[str] = field(default_factory=set)
    events: list[tuple[Place, MessageKey, AnyEvent]] = field(default_factory=list)
    # rows, as (primary key, line)
    register: list[tuple[str, str, str]] = field(default_factory=list)
    cancelled: list[tuple[str, str, str]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    conflicts: list[tuple[Delivery, Request, Processed]] = field(default_factory=list)

    def needs(self) -> Needs:
        """What the commands that aren't known yet will be decided on."""
        needs = Needs()
        for delivery in self.batch.deliveries:
            request = delivery.content
            if not isinstance(request, Request) or request.key in self.known:
                continue
            match request.command:
                case PurchaseGoods() as command:
                    needs.users.add(command.user_id)
                    needs.goods.add(command.goods_id)
                case CancelPurchase() as command:
                    needs.purchases.append((purchase_key(command, request.key), command.goods_id))
                    needs.goods.add(command.goods_id)
                case ReceiveStock() | AdjustStock() | ListGoods() as command:
                    needs.goods.add(command.goods_id)
                case RegisterUser() | CloseUser() as command:
                    needs.users.add(command.user_id)
        return needs

    def decide(self, delivery: Delivery) -> Outcome:
        """The delivery's outcome. Raises Park if deciding fails, which is a fault and no rejection."""
        request = delivery.content
        if not isinstance(request, Request):
            row = dead_letter.line(self.entry, self.batch.lane, delivery.offset, request, delivery.record)
            self.dead.append(row)
            return Outcome.DEAD
        first = self.known.get(request.key)
        if first is None:
            return self._first_time(delivery.offset, request)
        if first.fingerprint == request.fingerprint:
            return Outcome.DUPLICATE
        self.conflicts.append((delivery, request, first))
        return Outcome.CONFLICT

    def _first_time(self, offset: int, request: Request) -> Outcome:
        try:
            decision = decide(self.state, request)
        except Exception as error:
            what = f"deciding offset {offset} of {self.batch.lane} failed: {error!r}"
            raise Park(what, reason="bug") from error
        key, version, reason = request.key, None, None
        if isinstance(decision, Rejection):
            reason = decision.reason.value
        else:
            version = self._take(key, decision)
        processed = Processed(request.fingerprint, reason, version, self.entry, offset)
        self.known[key] = processed
        self.register.append((key.id, key.source, processed_message.line(key, processed)))
        return processed.outcome

    def _take(self, key: MessageKey, happened: AnyEvent) -> int:
        """Take the event into the batch's state and rows; returns its version."""
        place = evolve(self.state, key, happened)
        self.events.append((place, key, happened))
        match happened:
            case GoodsPurchased() | StockReceived() | StockAdjusted():
                self._goods.add(happened.goods_id)
            case PurchaseCancelled():
                self._goods.add(happened.goods_id)
                row = cancellation.line(self.entry, happened)
                self.cancelled.append((happened.purchase_id, happened.purchase_source, row))
            case GoodsListed():
                self._listed.add(happened.goods_id)
            case UserRegistered() | UserClosed():
                self._users.add(happened.user_id)
        return place.version

    @property
    def bumps_catalogue(self) -> bool:
        """Whether it registers, closes or lists: what others may have read without a lock."""
        return bool(self._users or self._listed)

    def changed_stock(self) -> dict[str, Goods]:
        """The new state of the goods that have a row."""
        return {goods_id: self.state.goods[goods_id] for goods_id in self._goods - self._listed}

    def listed_stock(self) -> dict[str, Goods]:
        """The state of the goods that were listed in this batch."""
        return {goods_id: self.state.goods[goods_id] for goods_id in self._listed}

    def changed_users(self) -> dict[str, User]:
        """The new state of the users that were registered or closed."""
        return {user_id: self.state.users[user_id] for user_id in self._users}

    def guarded(self) -> tuple[dict[str, User | None], set[str]]:
        """The users as they were read (None: not there), and the goods that weren't there.

        Without those that this batch changed: a rival who changed them too collides with it on the primary
        key of the event.
        """
        users = {user_id: self.state.users.get(user_id) for user_id in self.read_users - self._users}
        return users, self.missing_goods - self._listed

    def event_rows(self) -> list[tuple[str, int, str]]:
        """The rows of the events, as (primary key, line), by ordinal."""
        return [
            (place.stream, place.version, event.line(self.entry, ordinal, place, key, happened))
            for ordinal, (place, key, happened) in enumerate(self.events)
        ]

    def gap_lines(self) -> list[str]:
        """The rows of the batch's gaps."""
        return [gap.line(self.entry, self.batch.lane, g) for g in self.batch.gaps]


def lines(rows: list[tuple[str, str, str]] | list[tuple[str, int, str]]) -> list[str]:
    """The lines of keyed rows, in their order."""
    return [row[2] for row in rows]
