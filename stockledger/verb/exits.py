"""What a verb's end means to the shell: 0 ok, 1 some item failed, 2 usage, 3 dependency unreachable, 4 data
problem, 130 interrupted; and the errors that only a command line can have."""

import signal
from typing import TYPE_CHECKING, Any

from ledger.errors import AGAIN, BadSettings, LedgerError, Retry
from ledger.shell import command

if TYPE_CHECKING:
    from ledger.signals import Asked

OK, SOME_FAILED, USAGE, UNREACHABLE, DATA, INTERRUPTED = 0, 1, 2, 3, 4, 130


class UsageError(LedgerError):
    """The command line can't be understood."""

    code = "SL-CLI-001"


class NotFound(LedgerError):
    """Nothing in the ledger has this name."""

    code = "SL-CLI-002"


class Mismatch(LedgerError):
    """The ledger isn't what it promises to be."""

    code = "SL-VER-001"


class AnchorUnfit(LedgerError):
    """The file isn't there, holds no anchor, or can't be written."""

    code = "SL-VER-003"


class NotFollowed(LedgerError):
    """A projection was never begun, so nothing of it can be judged; all else is what it promises to be."""

    code = "SL-VER-004"


class SomeFailed(LedgerError):
    """The verb went through all of its items, and some of them failed."""

    code = "SL-CLI-003"


class OutputFailed(LedgerError):
    """The result can't be written where it was to go."""

    code = "SL-CLI-008"


class NotYet(Retry):
    """The ledger hasn't come as far as was asked for, within the time that was given."""

    code = "SL-CLI-005"


class Interrupted(LedgerError):
    """Ended by the person at the keyboard."""

    code = "SL-CLI-004"


def interruption(stop: "Asked", *, has_goal: bool) -> Interrupted | None:
    """Why a verb that goes on ended, if that was Ctrl-C, or any signal before its goal; else None."""
    if stop.number == signal.SIGINT or (stop.is_set() and has_goal):
        return Interrupted("interrupted", remedy=AGAIN)
    return None


def exit_code(error: LedgerError) -> int:
    """The exit code of a verb that ends with this error."""
    match error:
        case UsageError() | BadSettings():
            return USAGE
        case SomeFailed():
            return SOME_FAILED
        case Interrupted():
            return INTERRUPTED
        case Retry():
            return UNREACHABLE
    return DATA


def as_json(error: LedgerError) -> dict[str, Any]:
    """The error as every `--json` shows it."""
    return {
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
        "retryable": isinstance(error, Retry),
    }


def never_listed(goods_id: str, similar: str | None) -> NotFound:
    """The goods aren't there; `similar` ones may be meant."""
    if similar is None:
        return NotFound(f"the goods {goods_id} were never listed", remedy="stockledger stock")
    return NotFound(
        f"the goods {goods_id} were never listed; did you mean {similar}?", remedy=command("stock", similar)
    )
