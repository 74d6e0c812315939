"""Which projections there are: the shipped ones, and those that installed packages register.

[project.entry-points."stockledger.projections"]
my_projection = "my_package.my_module:MyProjection"
"""

import re
from importlib.metadata import entry_points

from ledger.errors import ProjectionRefused, ProjectionUnknown
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock

GROUP = "stockledger.projections"
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def registered() -> dict[str, Projection]:
    """The projections by name. Raises ProjectionRefused for one that can't be one, naming its package."""
    found: dict[str, Projection] = {p.name: p for p in (Stock(), PurchasesByUser(), SalesByDay())}
    for entry in entry_points(group=GROUP):
        loaded = entry.load()
        own: Projection = loaded() if isinstance(loaded, type) else loaded
        if own.name in found:
            raise _refused(entry.value, f"there is a projection {own.name} already")
        if not NAME.fullmatch(own.name) or not NAME.fullmatch(own.table) or own.table == own.name:
            raise _refused(
                entry.value, "its name and table must be different words of small letters, digits and _"
            )
        if own.inline or not own.key:
            raise _refused(entry.value, "it needs a key, and can't be inline")
        found[own.name] = own
    return found


def find(name: str) -> Projection:
    """The projection of this name. Raises ProjectionUnknown."""
    known = registered()
    if name not in known:
        raise ProjectionUnknown(f"there is no projection {name}; there are {', '.join(sorted(known))}")
    return known[name]


def _refused(value: str, why: str) -> ProjectionRefused:
    return ProjectionRefused(
        f"the projection {value} can't be used: {why}", remedy="correct or uninstall that package"
    )
