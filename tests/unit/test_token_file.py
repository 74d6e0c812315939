"""The tokens file: hashes alone, whole or unchanged, and for no other eyes."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.tokens import Caller, Callers, Right, add, read, revoke
from ledger.errors import BadSettings
from tests.support.cli import Cli

ALL = frozenset(Right)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


def callers(path):
    return Callers(path, None, lambda error: None)


def test_a_token_is_known_by_its_hash(path):
    """The file has the hash, the token lets its owner in, and whatever is near it doesn't."""
    token = add(path, "shop", "shop-uk", frozenset([Right.BUY, Right.READ]))
    text = path.read_text()
    assert token not in text
    assert hashlib.sha256(token.encode()).hexdigest() in text
    found = callers(path).find(token)
    assert found == Caller("shop", "shop-uk", frozenset([Right.BUY, Right.READ]))
    near = [token[:-1], token + "x", token.upper(), "", None, hashlib.sha256(token.encode()).hexdigest()]
    assert [callers(path).find(each) for each in near] == [None] * len(near)


def test_the_file_is_for_no_other_eyes(path):
    """Mode 0600, when it is made and after each change; nothing is left beside it but the lock."""
    for name in ("one", "two"):
        add(path, name, "shop", ALL)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    revoke(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == [".tokens.json.lock", "tokens.json"]


def test_those_who_write_at_the_same_time_lose_nothing(path):
    """Each of them adds its token to what the others have written."""
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda number: add(path, f"t{number}", "shop", ALL), range(16))]
    assert len({*made}) == 16
    assert sorted(each.name for each in read(path)) == sorted(f"t{number}" for number in range(16))


def test_a_revoked_token_is_gone_and_its_name_is_free(path):
    """Revoking says whether there was one; a name is taken as long as its token is there."""
    first = add(path, "shop", "shop", ALL)
    with pytest.raises(BadSettings, match="already"):
        add(path, "shop", "shop", ALL)
    assert revoke(path, "shop")
    assert not revoke(path, "shop")
    assert add(path, "shop", "shop", ALL) != first
    assert callers(path).find(first) is None


@pytest.mark.parametrize(("name", "source"), [("two words", "shop"), ("", "shop"), ("shop", "two words")])
def test_what_cant_be_a_token_is_named(path, name, source):
    """A name is a word, a source as in a command; nothing is written."""
    with pytest.raises(BadSettings):
        add(path, name, source, ALL)
    assert read(path) == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"tokens":[{}]}', '{"tokens":[],"more":1}', '{"tokens":[{"name":"a","canary":"7f3a"}]}'],
)
def test_a_file_that_is_none_is_refused(path, text):
    """Whoever serves with it is told at the start; what it holds isn't quoted."""
    path.write_text(text)
    with pytest.raises(BadSettings, match="can't be read") as caught:
        callers(path)
    assert "7f3a" not in str(caught.value)
    with pytest.raises(BadSettings):
        add(path, "shop", "shop", ALL)
    assert path.read_text() == text


def test_a_file_that_is_away_lets_nobody_in(path):
    """Deleted, it is a file without tokens."""
    token = add(path, "shop", "shop", ALL)
    path.unlink()
    assert callers(path).find(token) is None


def test_a_link_isnt_followed(path, tmp_path):
    """A link that was planted in the place of the lock makes us write nothing elsewhere."""
    other = tmp_path / "other"
    os.symlink(other, tmp_path / ".tokens.json.lock")
    with pytest.raises(BadSettings):
        add(path, "shop", "shop", ALL)
    assert not other.exists()


def test_the_file_is_json_that_can_be_looked_at(path):
    """One entry a token: name, source, rights, hash and when."""
    add(path, "shop", "shop-uk", frozenset([Right.READ, Right.BUY]))
    [entry] = json.loads(path.read_text())["tokens"]
    assert entry["rights"] == ["buy", "read"]
    assert entry.keys() == {"name", "source", "rights", "sha256", "created_at"}


def test_the_verbs_answer_with_what_is_documented(path):
    """`token add` tells the token once, `list` shows the others' names, `revoke` says whose it was."""
    stockledger = Cli("", "", "x", TOKENS=str(path))
    made = stockledger("token", "add", "shop", "--source", "shop-uk", "--rights", "buy,read")
    assert callers(path).find(made["token"]) is not None
    assert [each["name"] for each in stockledger("token", "list")["tokens"]] == ["shop"]
    assert made["token"] not in stockledger.said
    assert stockledger("token", "revoke", "shop")["name"] == "shop"
    assert stockledger("token", "revoke", "shop", exits=4)["error"]["code"] == "SL-CLI-002"
