"""The rows of a table between their two orders."""

import random

from ledger.store.connection import copy


def test_rows_are_sent_by_primary_key():
    """However long the lines are together, and however many blocks they take."""
    numbers = list(range(copy.BLOCK_CHARS // 5))
    keys = [f"{number:09}" for number in random.sample(numbers, len(numbers))]
    lines = [f"{number}\t{key}\n" for number, key in zip(numbers, keys, strict=True)]
    blocks = [*copy.TableLines(lines, keys).blocks()]
    by_key = sorted(lines, key=lambda line: line.split("\t")[1])
    assert b"".join(blocks).decode() == "".join(by_key)
    assert len(blocks) > 2
    assert max(map(len, blocks)) < 1.1 * copy.BLOCK_CHARS


def test_no_rows_are_no_blocks():
    """Nothing is sent for none."""
    assert [*copy.TableLines([], []).blocks()] == []
