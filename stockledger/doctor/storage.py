"""The doctor on what Postgres stores, for which replication slots it keeps its log, and who is connected."""

from collections.abc import Iterator

from ledger.figures import count, counted
from ledger.store.connection import server
from ledger.store.connection.database import Connection
from ledger.store.reads.sessions import sessions
from ledger.store.reads.slots import ReplicationSlot, slots
from stockledger.doctor.finding import OK, WARN, Finding

MB = 1024 * 1024
KEPT_MAX = 1024 * MB
LOSING = ("unreserved", "lost")


def examine(conn: Connection) -> Iterator[Finding]:
    """How much there is, and for whom. How much room the disk has, no role of the database can see."""
    size = server.database_bytes(conn)
    yield Finding(OK, "disk", f"the database takes {_mb(size)}; ask its host how much room is left")
    yield from _slots(slots(conn))
    who = ", ".join(f"{purpose} {count(number)}" for purpose, number in sessions(conn).items())
    yield Finding(OK, "connected", who or "nobody")


def _slots(found: list[ReplicationSlot]) -> Iterator[Finding]:
    wrong = {slot: why for slot in found if (why := _wrong(slot))}
    for slot, why in wrong.items():
        kept = f"Postgres keeps {_mb(slot.kept)} of its log for {slot.name}"
        drop = f"bring its reader back, or: SELECT pg_drop_replication_slot('{slot.name}');"
        yield Finding(WARN, "slots", f"{kept}, {why}", drop)
    if not wrong:
        yield Finding(OK, "slots", f"{counted(len(found), 'slot')}, all read" if found else "none")


def _wrong(slot: ReplicationSlot) -> str:
    """What is wrong with it; empty where its reader keeps up."""
    if slot.status in LOSING:
        return f"which is {slot.status}: its reader must be made anew"
    if not slot.is_active:
        return "whose reader is away: the disk fills"
    return "whose reader lags: the disk fills" if slot.kept > KEPT_MAX else ""


def _mb(size: int) -> str:
    return f"{count(size // MB)} MB"
