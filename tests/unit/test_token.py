"""Tokens: one text for one place in one history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.token import Token
from ledger.errors import HistoryChanged

HASH = bytes.fromhex("9f3c21aa00b7e415") + bytes(24)


@given(st.integers(0, 10**18 - 1), st.binary(min_size=32, max_size=32))
def test_a_token_is_read_back_as_it_was_written(position, hash):
    """Its text is the position, a hyphen, and the first 16 hex digits of the hash."""
    token = Token.at(position, hash)
    assert str(token) == f"{position}-{hash.hex()[:16]}"
    assert Token.parse(str(token)) == token
    token.prove(hash)


@pytest.mark.parametrize(
    "text",
    ["", "18402", "-9f3c21aa00b7e415", "18402-", "18402-9f3c21aa00b7e41", "18402-9f3c21aa00b7e4150",
     "18402-9F3C21AA00B7E415", "018402-9f3c21aa00b7e415", "-1-9f3c21aa00b7e415", " 1-9f3c21aa00b7e415",
     "1-9f3c21aa00b7e415\n", "\u0661-9f3c21aa00b7e415", "1" + "0" * 18 + "-9f3c21aa00b7e415"],
)  # fmt: skip
def test_any_other_text_is_no_token(text):
    """One place has one text, so texts can be compared: no capitals, leading zeros or other digits."""
    with pytest.raises(ValueError, match="is no token"):
        Token.parse(text)


@pytest.mark.parametrize("hash", [bytes(32), None])
def test_another_history_is_named_with_both_hashes(hash):
    """Whoever asks with a token of a lost past learns which hash he knew, and which one the ledger has."""
    with pytest.raises(HistoryChanged, match="18402-9f3c21aa00b7e415 is of another history") as refused:
        Token.at(18402, HASH).prove(hash)
    assert (refused.value.position, refused.value.expected) == (18402, "9f3c21aa00b7e415")
    assert refused.value.actual == (hash and "0" * 16)
    assert ("0" * 16 if hash else "no such position") in refused.value.message
