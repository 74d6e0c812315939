"""One line of the doctor: what was looked at, what was found, and the next step where it isn't well."""

from collections.abc import Callable, Generator
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from ledger.errors import DOCTOR, LedgerError, Retry

OK, WARN, FAIL = "ok", "warn", "fail"

T = TypeVar("T")


class Finding(NamedTuple):
    """One line: `fix` is the next step where the level isn't `ok`, `code` the error's if it is one."""

    level: str
    what: str
    found: str
    fix: str = ""
    unreachable: bool = False
    code: str = ""


Findings = Generator[Finding, None, T]


def attempt(what: str, look: Callable[[], T], fix: str = "") -> Findings[T | None]:
    """What `look` returns; a LedgerError becomes a finding and None.

    `fix` takes the place of a remedy that would lead here again.
    """
    try:
        return look()
    except LedgerError as error:
        remedy = fix if error.remedy == DOCTOR and fix else error.remedy
        yield Finding(
            FAIL, what, f"{error.code}: {error.message}", remedy, isinstance(error, Retry), error.code
        )
        return None


def is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if host in ("localhost", "") or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
