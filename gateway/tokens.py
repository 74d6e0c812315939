"""Who may come in: a file of bearer tokens' hashes, each with its source and its rights.

A token is 32 random bytes, so its plain SHA-256 can't be guessed back; the file never holds the token itself.
Writers replace the file as a whole, one after the other; readers notice within a second.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from ledger.domain.commands import KeyPart
from ledger.errors import BadSettings
from ledger.private import private, replace_text

PREFIX = "stockledger_"
"""By which a token that leaked is found, and told from other secrets."""
RANDOM_BYTES = 32
LOOK_INTERVAL_S = 1.0


class Right(StrEnum):
    """What a token allows: to buy; to read everything; to set up, to correct stock, and to redrive."""

    BUY = "buy"
    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True)
class Caller:
    """Who a request comes from: its token's name, and in whose name it acts."""

    name: str
    source: str
    rights: frozenset[Right]


class TokenEntry(BaseModel):
    """One token in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    source: KeyPart
    rights: tuple[Right, ...]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created_at: datetime

    @property
    def caller(self) -> Caller:
        """Whom it lets in."""
        return Caller(self.name, self.source, frozenset(self.rights))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    tokens: tuple[TokenEntry, ...]


def read(path: Path) -> tuple[TokenEntry, ...]:
    """The tokens of the file; none if it isn't there. Raises BadSettings where it can't be read."""
    try:
        return _File.model_validate_json(path.read_bytes()).tokens
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it isn't what `stockledger token` writes"
        raise BadSettings(
            f"the tokens file {path} can't be read: {why}",
            remedy="restore it, or remove it and make new tokens",
        ) from None


def add(path: Path, name: str, source: str, rights: frozenset[Right]) -> str:
    """Make a token and write its hash; the token, which nobody can be told again.

    Raises BadSettings if the name is taken or can't be one, or the file can't be read or written.
    """
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    try:
        entry = TokenEntry(
            name=name,
            source=source,
            rights=tuple(sorted(rights)),
            sha256=_hash(token),
            created_at=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadSettings(
            f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}",
            remedy="choose a name such as web-1, and a source such as shop-uk",
        ) from None
    with _changing(path) as (known, write):
        if any(each.name == name for each in known):
            raise BadSettings(f"there is a token {name} already", remedy=f"stockledger token revoke {name}")
        write((*known, entry))
    return token


def revoke(path: Path, name: str) -> bool:
    """Take the token out of the file; False if there is none of this name."""
    with _changing(path) as (known, write):
        kept = tuple(each for each in known if each.name != name)
        write(kept)
    return len(kept) < len(known)


Tokens = tuple[TokenEntry, ...]


@contextmanager
def _changing(path: Path) -> Iterator[tuple[Tokens, Callable[[Tokens], None]]]:
    """What is there, and what writes it anew; others who change it wait."""

    def write(tokens: Tokens) -> None:
        replace_text(path, json.dumps(_File(tokens=tokens).model_dump(mode="json"), indent=1) + "\n")

    try:
        with open(path.with_name(f".{path.name}.lock"), "ab", opener=private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield read(path), write
    except OSError as error:
        raise BadSettings(
            f"the tokens file {path} can't be written: {error.strerror}",
            remedy="name a file in a folder that you may write to",
        ) from None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Callers:
    """Tells who presents a token. Without a file everybody is `anybody`."""

    def __init__(
        self, path: Path | None, anybody: Caller | None, told: Callable[[BadSettings], object]
    ) -> None:
        self._path = path
        self._anybody = anybody
        self._told = told
        self._entries = read(path) if path else ()
        self._seen = self._state()
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        self._turn = threading.Lock()

    def find(self, presented: str | None) -> Caller | None:
        """Who it is. Each hash is compared, and in the same time whatever it is."""
        if self._path is None:
            return self._anybody
        self._look()
        presented_hash = _hash(presented or "")
        found = None
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, presented_hash):
                found = entry
        return found.caller if found and presented else None

    def _look(self) -> None:
        with self._turn:
            if time.monotonic() < self._look_at:
                return
            self._look_at = time.monotonic() + LOOK_INTERVAL_S
            if (state := self._state()) != self._seen:
                self._seen = state
                try:
                    self._entries = read(self._path) if self._path else ()
                except BadSettings as error:  # whoever wrote it by hand hasn't finished
                    self._told(error)

    def _state(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path) if self._path else None
        except OSError:
            found = None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()
