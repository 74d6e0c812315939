"""What programs import: `from stockledger import Ledger, Publisher, PurchaseGoods`; `__all__` has the rest.

Every other module, here and in `ledger`, `consumer`, `producer` and `gateway`, is internal and may change. A
name is loaded when it is asked for: no verb of the command line waits for a client that it doesn't use. Nor
is anything else imported here: before it could hear a signal, a container's first process would wait for it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateway.shop import AsyncShop as AsyncShop
    from gateway.shop import Shop as Shop
    from ledger.answers import RecordedOutcome as RecordedOutcome
    from ledger.api import Ledger as Ledger
    from ledger.api import LedgerStatus as LedgerStatus
    from ledger.cache.host_cache import HostCache as HostCache
    from ledger.cache.options import CacheStatus as CacheStatus
    from ledger.cache.stock_cache import StockCache as StockCache
    from ledger.cache.view import Snapshot as Snapshot
    from ledger.domain.commands import AdjustStock as AdjustStock
    from ledger.domain.commands import CancelPurchase as CancelPurchase
    from ledger.domain.commands import CloseUser as CloseUser
    from ledger.domain.commands import ListGoods as ListGoods
    from ledger.domain.commands import MessageKey as MessageKey
    from ledger.domain.commands import PurchaseGoods as PurchaseGoods
    from ledger.domain.commands import ReceiveStock as ReceiveStock
    from ledger.domain.commands import RegisterUser as RegisterUser
    from ledger.domain.delivery import Lane as Lane
    from ledger.domain.outcome import Outcome as Outcome
    from ledger.domain.outcome import Reason as Reason
    from ledger.errors import BadSettings as BadSettings
    from ledger.errors import BrokerUnavailable as BrokerUnavailable
    from ledger.errors import HistoryChanged as HistoryChanged
    from ledger.errors import LedgerError as LedgerError
    from ledger.errors import Retry as Retry
    from ledger.errors import SchemaMismatch as SchemaMismatch
    from ledger.errors import Stale as Stale
    from ledger.errors import Stop as Stop
    from ledger.errors import TopicUnfit as TopicUnfit
    from ledger.errors import Unavailable as Unavailable
    from ledger.projections.projection import Projection as Projection
    from ledger.store.connection.database import Connection as Connection
    from ledger.store.reads.ranges import EVENTS as EVENTS
    from ledger.store.reads.ranges import IN_RANGE as IN_RANGE
    from ledger.store.reads.ranges import Range as Range
    from ledger.store.tables.dead_letter import LetterStatus as LetterStatus
    from ledger.store.tables.stock import StockLevel as StockLevel
    from producer.publisher import Publisher as Publisher
    from producer.tally import Receipt as Receipt
    from producer.tally import Tally as Tally

_HOMES = {
    "gateway.shop": "AsyncShop Shop",
    "ledger.answers": "RecordedOutcome",
    "ledger.api": "Ledger LedgerStatus",
    "ledger.cache.host_cache": "HostCache",
    "ledger.cache.options": "CacheStatus",
    "ledger.cache.stock_cache": "StockCache",
    "ledger.cache.view": "Snapshot",
    "ledger.domain.commands": "AdjustStock CancelPurchase CloseUser ListGoods MessageKey PurchaseGoods "
    "ReceiveStock RegisterUser",
    "ledger.domain.delivery": "Lane",
    "ledger.domain.outcome": "Outcome Reason",
    "ledger.errors": "BadSettings BrokerUnavailable HistoryChanged LedgerError Retry SchemaMismatch Stale "
    "Stop TopicUnfit Unavailable",
    "ledger.projections.projection": "Projection",
    "ledger.store.connection.database": "Connection",
    "ledger.store.reads.ranges": "EVENTS IN_RANGE Range",
    "ledger.store.tables.dead_letter": "LetterStatus",
    "ledger.store.tables.stock": "StockLevel",
    "producer.publisher": "Publisher",
    "producer.tally": "Receipt Tally",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605 (the imports above are what type checkers read)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if found := hidden():
        raise ImportError(f"{found}: rename that, or take its folder off the path")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def hidden() -> str:
    """Which file of somebody else's Python would take for one of our packages; "" if none."""
    from importlib import util
    from pathlib import Path

    ours = Path(__file__).resolve().parents[1]
    for package in ("ledger", "consumer", "producer", "gateway"):
        spec = util.find_spec(package)
        origin = spec.origin if spec else None
        if origin is None or Path(origin).resolve().parents[1] != ours:
            return f"{origin} hides stockledger's own package {package}"
    return ""


def version() -> str:
    """The version of the installed distribution."""
    from importlib import metadata  # not free, and only `--version` and `doctor` want it

    return metadata.version("stockledger")
