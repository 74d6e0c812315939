"""The journal's hashes that were read of late: they prove a token without asking the database."""

from collections import OrderedDict
from collections.abc import Iterable

from ledger.cache.sink import Point

KNOWN_MAX = 4096


class Known:
    """Hashes by position, of one history; the ones that were used longest ago are forgotten first."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[int, bytes] = OrderedDict()

    def add(self, points: Iterable[Point]) -> None:
        """Remember these."""
        for position, hash in points:
            self._hashes[position] = hash
            self._hashes.move_to_end(position)
        while len(self._hashes) > KNOWN_MAX:
            self._hashes.popitem(last=False)

    def hash_at(self, position: int) -> bytes | None:
        """The journal's hash at the position; None if it isn't remembered."""
        if position in self._hashes:
            self._hashes.move_to_end(position)
        return self._hashes.get(position)

    def forget(self) -> None:
        """Another history."""
        self._hashes.clear()
