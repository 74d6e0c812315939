"""The table and the view of a projection: made where there are none, widened for what a version brings."""

from ledger.errors import LedgerError, ProjectionRefused, Retry
from ledger.projections.projection import Projection, origin
from ledger.rebuilding.fold import broken
from ledger.store.connection.database import Connection, faults, transaction
from ledger.store.connection.sqlstates import driver_error
from ledger.store.schema import migrate, shape
from ledger.store.tables import partitions, projection_state

NO_RIGHT = "42501"
FILLFACTOR = 90
FILLFACTOR_INLINE = 50  # batches update it in place


def ensure(conn: Connection, projection: Projection) -> None:
    """See to it that the projection has a live generation: made, or found again where its row was lost.

    Only where there is none the database's owner is needed. Raises ProjectionRefused where something else has
    its names, ProjectionBroken where its `ddl` fails.
    """
    with faults():
        if _is_live(conn, projection):
            return
    try:
        with transaction(conn):
            migrate.lock(conn)
            if not _is_live(conn, projection):
                _make_first(conn, projection)
    except LedgerError as error:
        state = driver_error(error)[0]
        if isinstance(error, Retry) or not state:
            raise
        if state == NO_RIGHT:
            raise ProjectionRefused(
                f"{projection.name} was never built here, and only the database's owner can make it",
                remedy=f"as the database's owner: stockledger project {projection.name} --until-caught-up",
            ) from error
        raise broken(projection, error) from error


def _is_live(conn: Connection, projection: Projection) -> bool:
    return any(each.status == "live" for each in projection_state.generations(conn, projection.name))


def _make_first(conn: Connection, projection: Projection) -> None:
    if projection.inline:
        projection_state.restore_inline(conn, projection.name, projection.version, projection.table)
        return
    if projection.ddl and not projection_state.generations(conn, projection.name):
        if found := shape.taken(conn, [projection.name, projection.table]):
            raise ProjectionRefused(
                f"{projection.name} ({origin(projection)}) can't be made: the ledger has the {found} already",
                remedy="give the projection another name and another table",
            )
        shape.make(conn, projection.ddl)
    projection_state.adopt(conn, projection.name, projection.table)
    first = projection_state.add_generation(
        conn, projection.name, projection.version, projection.table, "live", inline=False
    )
    partitions.make(conn, projection.table, first, FILLFACTOR)
    partitions.add_key(conn, projection.table, first, projection.key)
    if projection.ddl:
        publish(conn, projection)


def publish(conn: Connection, projection: Projection) -> None:
    """The view of an own projection, with the columns of this version, in the caller's transaction.

    Raises ProjectionRefused if its key isn't among them, ProjectionBroken where a view is built upon it.
    """
    try:
        with faults():
            asked = [column.name for column in shape.wanted(conn, projection.table, projection.ddl)]
            if not set(asked).issuperset(projection.key):
                raise ProjectionRefused(
                    f"{projection.name} ({origin(projection)}) can't be made: its table lacks a column "
                    f"of its key ({', '.join(projection.key)})",
                    remedy=f"correct its key, then: stockledger project {projection.name}",
                )
            partitions.publish(conn, projection.name, projection.table, asked)
    except LedgerError as error:
        if isinstance(error, Retry) or not driver_error(error)[0]:
            raise
        raise broken(projection, error) from error


def fit_table(conn: Connection, projection: Projection) -> None:
    """An own projection's table gets the columns that this version brings; another table is made."""
    try:
        with faults():
            refused = _unfit(conn, projection)
    except LedgerError as error:
        raise error if isinstance(error, Retry) else broken(projection, error) from error
    if refused:
        raise ProjectionRefused(
            f"the table {projection.table} can't hold version {projection.version} of {projection.name} "
            f"({origin(projection)}): {refused}",
            remedy="give this version another table",
        )


def _unfit(conn: Connection, projection: Projection) -> str | None:
    if partitions.exists(conn, projection.table):
        return shape.widen(conn, projection.table, shape.wanted(conn, projection.table, projection.ddl))
    if found := shape.taken(conn, [projection.table]):
        return f"the ledger has the {found} already"
    shape.make(conn, projection.ddl)
    return None
