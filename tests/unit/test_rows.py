"""The rows of a table between their two orders."""

import random

from ledger.store.connection import copy


def test_rows_are_sent_by_primary_key_and_digested_in_their_own_order():
    """However many blocks they take; each line is made once."""
    numbers = list(range(3 * copy.BLOCK_LINES + 1))
    keys = [f"{number:09}" for number in random.sample(numbers, len(numbers))]
    made = []

    def line(number, key):
        made.append(number)
        return f"{number}\t{key}\n"

    rows = copy.Rows(keys, [*zip(numbers, keys, strict=True)], line)
    blocks = [*rows.blocks()]
    by_number = [f"{number}\t{key}\n" for number, key in zip(numbers, keys, strict=True)]
    assert "".join(blocks) == "".join(sorted(by_number, key=lambda line: line.split("\t")[1]))
    assert len(blocks) == 4
    assert rows.lines() == by_number
    assert sorted(made) == numbers


def test_no_rows_are_no_blocks():
    """Nothing is sent for none."""
    rows = copy.Rows([], [], str)
    assert [*rows.blocks()] == rows.lines() == []
