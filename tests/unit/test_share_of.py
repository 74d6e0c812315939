"""Shares of the goods: the same function as Kafka's own partitioner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.shares import murmur2, share_of

VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""From Apache Kafka's own `UtilsTest.testMurmur2`, as signed numbers."""


@pytest.mark.parametrize("data", VECTORS)
def test_murmur2_is_kafkas(data):
    """Kafka's published vectors, of lengths that leave 0, 1, 2 and 3 bytes after the last word."""
    assert murmur2(data) == VECTORS[data] % 2**32


@given(st.text(min_size=1, max_size=64), st.integers(1, 64))
def test_every_goods_is_of_one_share(goods_id, shares):
    """Its number is one of the shares, and always the same."""
    share = share_of(goods_id, shares)
    assert 0 <= share < shares
    assert share_of(goods_id, shares) == share


def test_shares_are_about_as_large_as_each_other():
    """Among 16 shares of 16 000 goods none is twice as large as it should be."""
    sizes = [0] * 16
    for number in range(16_000):
        sizes[share_of(f"{number}A", 16)] += 1
    assert min(sizes) > 500
    assert max(sizes) < 2000
