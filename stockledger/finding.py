"""One line of the doctor: what was looked at, what was found, and the next step where it isn't well."""

from collections.abc import Callable, Generator
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from ledger.errors import LedgerError, Retry

OK, WARN, FAIL = "ok", "warn", "fail"

T = TypeVar("T")


class Finding(NamedTuple):
    """One line: `fix` is the next step where the level isn't `ok`."""

    level: str
    what: str
    found: str
    fix: str = ""
    unreachable: bool = False


Findings = Generator[Finding, None, T]


def attempt(what: str, look: Callable[[], T], fix: str = "") -> Findings[T | None]:
    """What `look` returns; a LedgerError becomes a finding and None. `fix`: if it can't be reached."""
    try:
        return look()
    except LedgerError as error:
        unreachable = isinstance(error, Retry)
        remedy = fix if unreachable and fix else error.remedy
        yield Finding(FAIL, what, f"{error.code}: {error.message}", remedy, unreachable)
        return None


def is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if host in ("localhost", "") or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
