"""The fingerprint is part of the storage format: frozen vectors, and the rule computed a second time.

The rule (design, section 2; `ledger.domain.envelope.fingerprint`): the first 16 bytes of SHA-256 over the
type's name without its version, LF, and the fields as compact JSON with sorted keys in UTF-8, fields that
equal their default left out. The default of `purchase_source` is the command's own source.
"""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given

from ledger.domain.cause import stored_fingerprint
from ledger.domain.commands import COMMANDS, CancelPurchase, MessageKey, RegisterUser
from ledger.domain.delivery import Request
from ledger.domain.envelope import fingerprint
from ledger.domain.events import (
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
    UserClosed,
    UserRegistered,
    payload,
)
from tests.support.codecs import decode
from tests.unit.strategies import commands, keys, quick

VECTORS = json.loads(Path(__file__).with_name("fingerprints.json").read_text(encoding="utf-8"))
IDS = [vector["what"] for vector in VECTORS]
QUICK = quick(100)


def by_the_rule(name, fields, source):
    """The digest, from the rule alone: nothing of the ledger is used."""
    kept = {field: value for field, value in fields.items() if value is not None}
    if kept.get("purchase_source") == source:
        del kept["purchase_source"]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"stockledger.{name}\n{text}".encode()).digest()[:16].hex()


def by_the_ledger(vector):
    """The digest that the decoder gives to a record with these fields."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": vector["id"],
        "ce_source": vector["source"],
        "ce_type": f"stockledger.{vector['name']}.v1",
    }
    found = decode(
        [(name, text.encode()) for name, text in headers.items()], json.dumps(vector["fields"]).encode()
    )
    assert isinstance(found, Request), found
    return found.fingerprint.hex()


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_fingerprints_are_frozen(vector):
    """A command that was sent last year has the same fingerprint today, or its repeat would be a conflict."""
    assert by_the_ledger(vector) == vector["fingerprint"]


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_the_vectors_follow_the_rule(vector):
    """The frozen digests are those of the written rule: another program can compute them."""
    assert by_the_rule(vector["name"], vector["fields"], vector["source"]) == vector["fingerprint"]


def test_the_vectors_cover_every_field():
    """Each command and each optional field, set and left out, has a vector."""
    assert len(VECTORS) >= 16
    for name, model in COMMANDS.items():
        payloads = [vector["fields"] for vector in VECTORS if vector["name"] == name]
        assert payloads, name
        for field, info in model.model_fields.items():
            assert any(payload.get(field) is not None for payload in payloads), field
            assert info.is_required() or any(field not in payload for payload in payloads), field


def test_the_vectors_that_agree():
    """Two digests are equal where one is the other with a default spelt out, and nowhere else."""
    same: dict[str, list[str]] = {}
    for vector in VECTORS:
        same.setdefault(vector["fingerprint"], []).append(vector.get("same_as", vector["what"]))
    assert all(len(set(names)) == 1 for names in same.values()), same
    assert len(same) == len([vector for vector in VECTORS if "same_as" not in vector])


@QUICK
@given(keys, commands)
def test_any_command_follows_the_rule(key, command):
    """Every valid command has the digest of the written rule."""
    expected = by_the_rule(command.NAME, command.model_dump(), key.source)
    assert fingerprint(key, command).hex() == expected
    assert len(fingerprint(key, command)) == 16


@QUICK
@given(keys, keys, commands)
def test_the_identity_is_not_in_the_fingerprint(one, other, command):
    """Two senders of the same payload agree on it, unless it means their own source by default."""
    if isinstance(command, CancelPurchase):
        command = command.model_copy(update={"purchase_source": "crm"})
        one, other = one._replace(source="x"), other._replace(source="y")
    assert fingerprint(one, command) == fingerprint(other, command)


def test_the_default_source_of_a_purchase():
    """`purchase_source` counts where it differs from the command's own source, and only there."""
    own, crm = MessageKey("shop", "1"), MessageKey("crm", "1")
    plain = CancelPurchase(goods_id="tea", purchase_id="p1")
    shop = CancelPurchase(goods_id="tea", purchase_id="p1", purchase_source="shop")
    assert fingerprint(own, shop) == fingerprint(own, plain) == fingerprint(crm, plain)
    assert fingerprint(crm, shop) != fingerprint(crm, plain)


def test_empty_text_is_not_left_out():
    """An empty name is a name: only what equals the default is left out."""
    key = MessageKey("shop", "1")
    assert fingerprint(key, RegisterUser(user_id="a", name="")) != fingerprint(key, RegisterUser(user_id="a"))


@pytest.mark.parametrize("model", COMMANDS.values(), ids=COMMANDS.keys())
def test_fields_stand_in_alphabetical_order(model):
    """The canonical payload is written in declared order, so declared order must be sorted order."""
    assert list(model.model_fields) == sorted(model.model_fields)


@pytest.mark.parametrize("model", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_only_default_is_none(model):
    """The canonical payload leaves out what is `None`: another default would have to be left out as well."""
    assert all(info.default is None for info in model.model_fields.values() if not info.is_required())


APPLIED_AS = {
    "RegisterUser": UserRegistered,
    "CloseUser": UserClosed,
    "ListGoods": GoodsListed,
    "ReceiveStock": StockReceived,
    "AdjustStock": StockAdjusted,
    "PurchaseGoods": GoodsPurchased,
}


@QUICK
@given(keys, commands)
def test_an_applied_command_is_determined_by_its_event(key, command):
    """The fingerprint of a command can be made from the event that it was applied as, whichever it is."""
    fields = command.model_dump()
    if isinstance(command, CancelPurchase):
        fields["purchase_source"] = command.purchase_source or key.source
        event = PurchaseCancelled(**fields, user_id="anna", quantity=1)
    else:
        event = APPLIED_AS[command.NAME](**fields)
    stored = stored_fingerprint(key, event.TYPE, payload(event).decode())
    assert stored == fingerprint(key, command)
