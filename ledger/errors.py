"""Every fault of the ledger, sorted by what to do about it.

    LedgerError
    |-- Retry               nothing was written: apply the same batch again, from fresh reads
    |   |-- Contended         lost a race (unique key, deadlock, lock timeout, moved catalogue)
    |   `-- Unavailable       the database or the broker can't be reached, or the connection was cut
    |                         (also ReadOnly, OpenTransaction, GroupUnavailable: Kafka hands out no records)
    |-- Fenced              a newer owner holds the lane: drop it and join the group again
    |-- Park                one record is to blame: isolate it and keep it as a dead letter
    |-- Stale               what a cache holds may be older than its reader allows
    |-- CacheDiffers        a cache says something else of an item than the ledger does
    |-- CacheTaken          another feeder has taken the cache's folder
    |-- RelayTaken          another relay publishes to the same topics now
    `-- Stop                the promise can't be kept: halt and name the one next step
        |-- SchemaMismatch    the schema is older or newer than this build
        |-- Contradiction     rows of the ledger contradict each other: somebody else wrote some
        |-- ServerUnfit       an old server, another encoding than UTF8, a pooler in transaction mode
        |-- IncompleteCopy    the database was copied without all that the ledger needs
        |-- UnsafeSettings    the database is set up to forget what it acknowledged
        |-- ForeignGroup      the ledger belongs to another consumer group
        |-- RestoredCopy      the ledger was copied from another database, and nobody said that it takes over
        |-- TopicReplaced     the topic was deleted and made again, or this is another cluster
        |-- RecordsLost       records were deleted before they were read, or the log was cut short
        |-- TopicUnfit        the topic is missing (TopicMissing), compacted, or may not be read
        |-- BadSettings       a setting is unknown or out of range
        |-- UnreadableEvent   a stored event isn't of a type and shape that this build knows
        |-- NotProvable       Kafka no longer has what a proof needs: neither right nor wrong
        |-- HistoryChanged    a token is of a history that isn't this ledger's: a restore, or another one
        |-- ProjectionFault   a projection can't apply an event (also ProjectionBroken: its code or
        |                     table is at fault; RebuildRunning, ProjectionDiffers, ProjectionUnknown,
        |                     ProjectionRefused: what was asked of one can't be done)
        `-- Defect            a fault that nobody foresaw, in this program or in the schema

A business "no" is not here: a Rejection is a value (`ledger.domain.outcome`).
"""

import re
from typing import Any

DOCTOR = "stockledger doctor"
AGAIN = "run the same again"
REPORT = "run it again with --debug and report what that prints"
MASK = "****"
SECRETS = re.compile(r"(?<=://)[^\s/]*(?=@)|(?<=password=)('[^']*'|[^\s&']+)", re.IGNORECASE)


def concealed(text: str) -> str:
    """The text without what URLs and DSNs in it keep to themselves: whoever quotes one may not know."""
    return SECRETS.sub(MASK, text)


class LedgerError(Exception):
    """Base of all faults. `code` is stable (docs/ERRORS.md); `remedy` is the one next step, and never empty.

    It can be done as it is written: a command to paste, or a sentence without a blank to fill in.
    """

    code = "SL-000"

    def __init__(self, message: str, *, remedy: str) -> None:
        self.message = concealed(message)
        self.remedy = remedy
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker's error goes to its supervisor with all its facts, whatever its arguments were."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[LedgerError], args: tuple[Any, ...], facts: dict[str, Any]) -> LedgerError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class Retry(LedgerError):
    """Nothing was written; the same batch may be applied again from fresh reads."""


class Contended(Retry):
    """Another transaction was first. `sqlstate` and `constraint` are facts for the log."""

    code = "SL-DB-010"

    def __init__(
        self, message: str, *, sqlstate: str = "", constraint: str = "", remedy: str = AGAIN
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.sqlstate = sqlstate
        self.constraint = constraint

    @property
    def is_lock_timeout(self) -> bool:
        """Whether it waited for a lock until its time was up, and lost no race."""
        return self.sqlstate == "55P03"


class Unavailable(Retry):
    """The database or the broker doesn't answer. Whether the last commit took effect is unknown."""

    code = "SL-DB-001"

    def __init__(self, message: str, *, remedy: str = DOCTOR) -> None:
        super().__init__(message, remedy=remedy)


class LoginRefused(Unavailable):
    """The database's server answers, but doesn't let this role in, or has no such database."""

    code = "SL-DB-002"


class ReadOnly(Unavailable):
    """The database takes no writes: a standby, or one that is read-only for now."""

    code = "SL-DB-008"


class Held(Unavailable):
    """Somebody else keeps the database waiting: a session that holds a lock, a standby that is gone."""

    code = "SL-DB-011"


class BrokerUnavailable(Unavailable):
    """No broker of the cluster answers."""

    code = "SL-KAFKA-001"


class OpenTransaction(BrokerUnavailable):
    """A producer's transaction that is still open hides records, its own and those written after it."""

    code = "SL-KAFKA-006"


class GroupUnavailable(BrokerUnavailable):
    """The consumer group can't be joined, or one of its members holds a lane and doesn't get on."""

    code = "SL-GRP-005"

    def __init__(self, message: str, *, remedy: str = "stockledger status") -> None:
        super().__init__(message, remedy=remedy)


class Fenced(LedgerError):
    """The lane isn't ours any more: its epoch was raised by a newer owner."""

    code = "SL-GRP-001"

    def __init__(self, message: str, *, remedy: str = "stockledger status") -> None:
        super().__init__(message, remedy=remedy)


class Park(LedgerError):
    """One record of the batch can't be applied. `reason` becomes the dead letter's code."""

    code = "SL-CMD-004"

    def __init__(self, message: str, *, reason: str, remedy: str = "stockledger dlq list") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class Stale(LedgerError):
    """A cache has nothing that is as young as its reader wants, and says why.

    `age_s` is how old what it has may be, by the reader's clock; None: it has nothing. `cause` is why.
    """

    code = "SL-CACHE-001"

    def __init__(
        self, message: str, *, age_s: float | None, cause: str, remedy: str = "stockledger status"
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.age_s = age_s
        self.cause = cause


class CacheDiffers(LedgerError):
    """A cache says something else of an item than the ledger does as of the same position."""

    code = "SL-CACHE-002"


class CacheTaken(LedgerError):
    """Another feeder has taken the folder; this one can write no more."""

    code = "SL-CACHE-003"


class RelayTaken(LedgerError):
    """Another relay has taken over the topics; this one can write no more."""

    code = "SL-RLY-001"


class Stop(LedgerError):
    """Going on could break the promise, so the process halts; nothing was written."""

    code = "SL-STOP"


class SchemaMismatch(Stop):
    """The database's schema isn't the one that this build was made for."""

    code = "SL-DB-003"


class Contradiction(Stop):
    """Rows of the ledger contradict each other: somebody wrote some past it. Nothing is built on them."""

    code = "SL-DB-020"


class ServerUnfit(Stop):
    """No ledger can be kept there: the server's version, the database's encoding, or a pooler before it."""

    code = "SL-DB-007"


class IncompleteCopy(Stop):
    """The database is a copy that lacks something which no table holds."""

    code = "SL-DB-009"


class UnsafeSettings(Stop):
    """`synchronous_commit` or `fsync` is off: an acknowledged commit could vanish."""

    code = "SL-DB-006"


class ForeignGroup(Stop):
    """A ledger has one consumer group, for good; another one asked to write."""

    code = "SL-GRP-003"


class RestoredCopy(Stop):
    """The ledger is a copy of another database's, which may still be at work for the same group."""

    code = "SL-GRP-006"


class TopicReplaced(Stop):
    """The topic's id isn't the one that the lane was begun with."""

    code = "SL-GRP-004"


class RecordsLost(Stop):
    """Kafka no longer has records that the ledger has not read."""

    code = "SL-GRP-002"


class TopicUnfit(Stop):
    """The topic doesn't exist, is compacted, or can't be read with these rights."""

    code = "SL-KAFKA-005"


class TopicMissing(TopicUnfit):
    """The topic doesn't exist; whether it ever did, the ledger's lanes tell."""


class BadSettings(Stop):
    """A setting is unknown, or its value isn't allowed."""

    code = "SL-CONF-001"


class UnreadableEvent(Stop):
    """A stored event is of a type from the future, or its payload is none of its type's shapes."""

    code = "SL-EVT-001"

    def __init__(self, message: str, *, position: int, type: str, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.position = position
        self.type = type


class NotProvable(Stop):
    """Kafka no longer has the records that a proof begins with."""

    code = "SL-VER-002"


class HistoryChanged(Stop):
    """A token names a place in another history: the ledger was restored since, or it is another one.

    `expected` is how the token's hash begins, `actual` how the ledger's does at this position (None: there
    is no such position).
    """

    code = "SL-HIST-001"

    def __init__(
        self,
        message: str,
        *,
        position: int,
        expected: str,
        actual: str | None,
        remedy: str = "drop what was read together with the token, and read it again without one",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.position = position
        self.expected = expected
        self.actual = actual


class ProjectionFault(Stop):
    """A projection can't apply an event, and its checkpoint stays before it; the attributes say where."""

    code = "SL-PRJ-001"

    def __init__(self, message: str, *, position: int, remedy: str, stream: str = "", type: str = "") -> None:
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


class ProjectionBroken(Stop):
    """A projection's package, code or table is at fault, no event is; the other projections go on."""

    code = "SL-PRJ-006"


class Defect(Stop):
    """A fault that isn't in the table of known ones; retrying could hide it."""

    code = "SL-BUG"

    def __init__(self, message: str, *, remedy: str = REPORT) -> None:
        super().__init__(message, remedy=remedy)
