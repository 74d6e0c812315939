"""Every fault of the ledger, sorted by what to do about it.

    LedgerError
    |-- Retry               nothing was written: apply the same batch again, from fresh reads
    |   |-- Contended         lost a race (unique key, deadlock, lock timeout, moved catalogue)
    |   `-- Unavailable       the database or the broker can't be reached, or the connection was cut
    |-- Fenced              a newer owner holds the lane: drop it and join the group again
    |-- Park                one record is to blame: isolate it and keep it as a dead letter
    `-- Stop                the promise can't be kept: halt and name the one next step
        |-- SchemaMismatch    the schema is older or newer than this build
        |-- UnsafeSettings    the database is set up to forget what it acknowledged
        |-- ForeignGroup      the ledger belongs to another consumer group
        |-- TopicReplaced     the topic was deleted and made again, or this is another cluster
        |-- RecordsLost       records were deleted before they were read, or the log was cut short
        |-- TopicUnfit        the topic is missing, compacted, or may not be read
        |-- BadSettings       a setting is unknown or out of range
        |-- UnreadableEvent   a stored event isn't of a type and shape that this build knows
        |-- NotProvable       Kafka no longer has what a proof needs: neither right nor wrong
        |-- ProjectionFault   a projection can't apply an event (also RebuildRunning, ProjectionDiffers,
        |                     ProjectionUnknown, ProjectionRefused: what was asked of one can't be done)
        `-- Defect            a fault that nobody foresaw, in this program or in the schema

A business "no" is not here: a Rejection is a value (`ledger.domain.outcome`).
"""


class LedgerError(Exception):
    """Base of all faults. `code` is stable (docs/ERRORS.md); `remedy` is the one next step."""

    code = "SL-000"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Retry(LedgerError):
    """Nothing was written; the same batch may be applied again from fresh reads."""


class Contended(Retry):
    """Another transaction was first. `sqlstate` and `constraint` are facts for the log."""

    code = "SL-DB-010"

    def __init__(self, message: str, *, sqlstate: str = "", constraint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class Unavailable(Retry):
    """The database or the broker doesn't answer. Whether the last commit took effect is unknown."""

    code = "SL-DB-001"


class BrokerUnavailable(Unavailable):
    """No broker of the cluster answers."""

    code = "SL-KAFKA-001"


class Fenced(LedgerError):
    """The lane isn't ours any more: its epoch was raised by a newer owner."""

    code = "SL-GRP-001"


class Park(LedgerError):
    """One record of the batch can't be applied. `reason` becomes the dead letter's code."""

    code = "SL-CMD-004"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stop(LedgerError):
    """Going on could break the promise, so the process halts; nothing was written."""

    code = "SL-STOP"


class SchemaMismatch(Stop):
    """The database's schema isn't the one that this build was made for."""

    code = "SL-DB-003"


class UnsafeSettings(Stop):
    """`synchronous_commit` or `fsync` is off: an acknowledged commit could vanish."""

    code = "SL-DB-006"


class ForeignGroup(Stop):
    """A ledger has one consumer group, for good; another one asked to write."""

    code = "SL-GRP-003"


class TopicReplaced(Stop):
    """The topic's id isn't the one that the lane was begun with."""

    code = "SL-GRP-004"


class RecordsLost(Stop):
    """Kafka no longer has records that the ledger has not read."""

    code = "SL-GRP-002"


class TopicUnfit(Stop):
    """The topic doesn't exist, is compacted, or can't be read with these rights."""

    code = "SL-KAFKA-005"


class BadSettings(Stop):
    """A setting is unknown, or its value isn't allowed."""

    code = "SL-CONF-001"


class UnreadableEvent(Stop):
    """A stored event is of a type from the future, or its payload is none of its type's shapes."""

    code = "SL-EVT-001"

    def __init__(self, message: str, *, position: int, type: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.position = position
        self.type = type


class NotProvable(Stop):
    """Kafka no longer has the records that a proof begins with."""

    code = "SL-VER-002"


class ProjectionFault(Stop):
    """A projection can't apply an event; its checkpoint stays before it. The event's place are attributes."""

    code = "SL-PRJ-001"

    def __init__(
        self, message: str, *, position: int, stream: str = "", type: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.position = position
        self.stream = stream
        self.type = type


class RebuildRunning(Stop):
    """Somebody else is rebuilding this projection."""

    code = "SL-PRJ-002"


class ProjectionDiffers(Stop):
    """The rebuilt generation isn't row by row what the live one is; the live one was left alone."""

    code = "SL-PRJ-003"


class ProjectionUnknown(Stop):
    """No projection has this name."""

    code = "SL-PRJ-004"


class ProjectionRefused(Stop):
    """The projection can't be used, or what was asked of it can't be done as things stand."""

    code = "SL-PRJ-005"


class Defect(Stop):
    """A fault that isn't in the table of known ones; retrying could hide it."""

    code = "SL-BUG"
