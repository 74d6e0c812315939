"""A token names a place in one history: a position, and how the journal's hash there begins.

After a restore, or the promotion of a standby that lagged, positions come again with other content. The hash
chains an entry to all before it, so who compares it knows whether a position means what it meant.
"""

import re
from typing import NamedTuple, Self

from ledger.errors import HistoryChanged

HASH_DIGITS = 16
TEXT = re.compile(rf"(0|[1-9][0-9]{{0,17}})-([0-9a-f]{{{HASH_DIGITS}}})")
AnyPosition = int | str
"""Where a position is taken, a token's text is, too: then the history is proved."""


class Token(NamedTuple):
    """A position, and the first 16 hex digits of the journal's hash there; `str` is what others are given."""

    position: int
    hash: str

    def __str__(self) -> str:
        return f"{self.position}-{self.hash}"

    @classmethod
    def at(cls, position: int, hash: bytes) -> Self:
        """The token of this position of a journal that has this hash there."""
        return cls(position, hash.hex()[:HASH_DIGITS])

    @classmethod
    def parse(cls, text: str) -> Self:
        """The token that is written so. Raises ValueError for any other text."""
        found = TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text} is no token, such as 18402-9f3c21aa00b7e415")
        return cls(int(found[1]), found[2])

    def prove(self, hash: bytes | None) -> None:
        """Raise HistoryChanged unless a journal that has this hash at the position is the token's.

        None: the journal ends before the position, and no entry is on its way there.
        """
        actual = hash.hex()[:HASH_DIGITS] if hash else None
        if actual != self.hash:
            has = f"the hash {actual} there" if actual else "no such position"
            raise HistoryChanged(
                f"the token {self} is of another history: its hash is {self.hash}, and the ledger has {has}; "
                "it was restored to an older state, or is another ledger",
                position=self.position,
                expected=self.hash,
                actual=actual,
            )


def position_of(at: AnyPosition) -> int:
    """The position that is meant. Raises ValueError for a text that is no token."""
    return at if isinstance(at, int) else Token.parse(at).position


def prove(at: AnyPosition, hash: bytes | None) -> None:
    """As `Token.prove`; a bare position claims nothing."""
    if isinstance(at, str):
        Token.parse(at).prove(hash)
