"""The register says of each applied command the fingerprint of the command that its event comes from."""

from ledger.domain.cause import stored_fingerprint
from ledger.domain.commands import MessageKey
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import Range
from ledger.store.rules.audit import CheckFinding
from ledger.store.tables import event


def check_range(conn: Connection, within: Range) -> CheckFinding:
    """Recompute the fingerprints of a range's applied commands from their events."""
    seen = 0
    for key, type_, payload, registered in event.registered(conn, within.first_entry, within.last_entry):
        seen += 1
        what = f"message {' '.join(key)}"
        try:
            expected = stored_fingerprint(MessageKey(*key), type_, payload)
        except ValueError as error:
            return CheckFinding(seen, f"{what}: its event can't be read: {error}")
        if expected != registered:
            pair = [
                {"source": key.source, "id": key.id, "fingerprint": f.hex()} for f in (registered, expected)
            ]
            return CheckFinding(seen, f"{what} has another fingerprint than its event's command", *pair)
    return CheckFinding(seen)
