"""Which projections there are: the shipped ones, and those that installed packages register.

[project.entry-points."stockledger.projections"]
my_projection = "my_package.my_module:MyProjection"

A package that can't be used is set aside by name; it harms no other one.
"""

import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from ledger.errors import LedgerError, ProjectionBroken, ProjectionRefused, ProjectionUnknown
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock
from ledger.projections.user_events import UserEvents

GROUP = "stockledger.projections"
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SHIPPED: Sequence[Projection] = (Stock(), PurchasesByUser(), SalesByDay(), UserEvents())
REMEDY = "correct or uninstall that package"


class Installed(NamedTuple):
    """The projections by name, and what is wrong with the packages that can't be used, by entry point."""

    projections: dict[str, Projection]
    faults: dict[str, LedgerError]


def installed() -> Installed:
    """All projections of this environment."""
    found = Installed({each.name: each for each in SHIPPED}, {})
    for entry in entry_points(group=GROUP):
        try:
            own = _loaded(entry)
            _require_fit(entry, own, found.projections)
        except LedgerError as fault:
            found.faults[entry.name if entry.name not in found.faults else entry.value] = fault
        else:
            found.projections[own.name] = own
    return found


def find(name: str) -> Projection:
    """The projection of this name; what other packages brought is not even loaded for a shipped one.

    Raises ProjectionUnknown, or what is wrong with the package that has an entry point of this name.
    """
    for each in SHIPPED:
        if each.name == name:
            return each
    projections, faults = installed()
    if name in projections:
        return projections[name]
    if name in faults:
        raise faults[name]
    unusable = f"; {', '.join(sorted(faults))} can't be used" if faults else ""
    raise ProjectionUnknown(
        f"there is no projection {name}; there are {', '.join(sorted(projections))}{unusable}",
        remedy="stockledger status",
    )


def _loaded(entry: EntryPoint) -> Projection:
    try:
        loaded = entry.load()
        own: Projection = loaded() if isinstance(loaded, type) else loaded
        words = own.name, own.table, own.ddl, *own.key
        ours = all(isinstance(word, str) for word in words) and isinstance(own.version, int)
        if not ours or not callable(own.apply):
            raise TypeError("name, table, ddl and key must be texts, version a number, apply a method")
    except (Exception, SystemExit) as error:
        raise ProjectionBroken(
            f"the projection {_named(entry)} can't be loaded: {error!r}; the others go on", remedy=REMEDY
        ) from error
    return own


def _require_fit(entry: EntryPoint, own: Projection, others: dict[str, Projection]) -> None:
    """Raises ProjectionRefused for what can't be a projection beside the others."""
    taken = {word for other in others.values() for word in (other.name, other.table)}
    if own.name in others:
        raise _refused(entry, f"there is a projection {own.name} already")
    if not NAME.fullmatch(own.name) or not NAME.fullmatch(own.table) or own.table == own.name:
        raise _refused(entry, "its name and table must be different words of small letters, digits and _")
    for word in (own.name, own.table):
        if word in taken:
            raise _refused(entry, f"{word} is another projection's name or table already")
    if own.inline or not own.key:
        raise _refused(entry, "it needs a key, and can't be inline")


def _named(entry: EntryPoint) -> str:
    package = f", package {entry.dist.name}" if entry.dist else ""
    return f"{entry.name} ({entry.value}{package})"


def _refused(entry: EntryPoint, why: str) -> ProjectionRefused:
    return ProjectionRefused(f"the projection {_named(entry)} can't be used: {why}", remedy=REMEDY)
