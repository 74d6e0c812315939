"""Stock over HTTP: of one position, as old as it says, after one's own purchase, and as it was."""

from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.api import Ledger
from tests.support.doorstep import gateway
from tests.support.proxy import Proxy
from tests.support.workers import wait_for

ODD = ["a/b", "../tea", "%2F", "<b>é</b>", "日本 茶", "a?b#c&d=e", "+", "."]
"""Ids that an address, a page or a program may take for something else."""


@pytest.fixture(scope="module")
def doors(open_shop):
    """Two gateways of one ledger, which has goods with odd names."""
    with gateway(open_shop) as one, gateway(open_shop) as other:
        for number, goods_id in enumerate(ODD):
            for kind, fields in (("ListGoods", {}), ("ReceiveStock", {"quantity": number + 1})):
                line = {"type": kind, "id": f"{kind}-{number}", "goods_id": goods_id, **fields}
                assert one("POST", "/v1/commands", line, {"Prefer": "wait=30"}).body["outcome"] == "applied"
        yield one, other


def level_of(door, goods_id, token=None, query=""):
    headers = {"Stockledger-Min-Position": token} if token else {}
    return door("GET", f"/v1/stock/{quote(goods_id, safe='')}{query}", None, headers)


def test_it_says_as_of_where_and_how_old(doors, open_shop):
    """The number is the ledger's as of the position that is named, and its age is bounded."""
    bought = doors[0].buys("stock-1").body
    told = level_of(doors[0], "tea", bought["token"])
    assert told.status == 200
    assert told.headers["stockledger-position"] == told.body["token"]
    assert int(told.headers["age"]) <= 1
    with Ledger(open_shop.dsn) as ledger:
        level = ledger.stock("tea", as_of=told.body["token"])
    assert level is not None
    assert told.body == {**level._asdict(), "token": told.body["token"]}


def test_who_has_bought_sees_it_at_any_gateway(doors):
    """With his token he isn't answered before the cache has come so far."""
    for number in range(10):
        bought = doors[number % 2].buys(f"sees-{number}").body
        for door in doors:
            told = level_of(door, "tea", bought["token"])
            assert told.body["version"] >= bought["version"]


@pytest.mark.parametrize("goods_id", ODD)
def test_any_id_can_be_asked_for(doors, goods_id):
    """Percent-encoded, a slash too; what looks like markup is text."""
    told = level_of(doors[0], goods_id, doors[0].buys("odd-ids").body["token"])
    assert (told.status, told.body["goods_id"], told.body["on_hand"]) == (
        200,
        goods_id,
        ODD.index(goods_id) + 1,
    )
    several = doors[0]("GET", f"/v1/stock?goods_id={quote(goods_id, safe='')}&goods_id=tea")
    assert [each["goods_id"] for each in several.body["levels"]] == [goods_id, "tea"]


def test_several_are_of_one_position(doors, open_shop):
    """As of the same token; goods that were never listed are missing."""
    token = doors[0].buys("several").body["token"]
    headers = {"Stockledger-Min-Position": token}
    told = doors[0]("GET", "/v1/stock?goods_id=tea&goods_id=none&goods_id=%2B", None, headers)
    assert [each["goods_id"] for each in told.body["levels"]] == ["tea", "+"]
    with Ledger(open_shop.dsn) as ledger:
        for each in told.body["levels"]:
            level = ledger.stock(each["goods_id"], as_of=told.body["token"])
            assert level is not None
            assert each == level._asdict()


def test_bands_are_read_in_pages(doors):
    """All goods of a band, by id, so many at a time."""
    token = doors[0].buys("bands").body["token"]
    found, after = [], ""
    while True:
        path = f"/v1/stock?band=low&limit=3&after={quote(after, safe='')}"
        told = doors[0]("GET", path, None, {"Stockledger-Min-Position": token})
        found += [each["goods_id"] for each in told.body["levels"]]
        after = found[-1]
        if not told.body["more"]:
            break
    assert found == sorted(found)
    assert {*ODD} <= {*found}
    assert "tea" in [each["goods_id"] for each in doors[0]("GET", "/v1/stock?band=ample").body["levels"]]


def test_the_past(doors, open_shop):
    """As of a position, a token, or a time: what the events made of it by then."""
    first = doors[0].buys("past-1").body
    doors[0].buys("past-2")
    with Ledger(open_shop.dsn) as ledger:
        level = ledger.stock("tea", as_of=first["token"])
    for as_of in (first["token"], first["position"], quote(first["recorded_at"])):
        told = level_of(doors[0], "tea", query=f"?as_of={as_of}")
        assert (told.status, told.body["on_hand"]) == (200, level.on_hand if level else None)
        assert "age" not in told.headers
    assert level_of(doors[0], "tea", query="?as_of=0").status == 404
    assert level_of(doors[0], "tea", query="?as_of=2010-12-01").status == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("/tea?as_of=yesterday", "as_of"),
        ("/tea?as_of=999999", "as_of"),
        ("/tea?as_of=2010-02-30", "as_of"),
        ("/%00?as_of=1", ""),
        ("", "goods_id"),
        ("?goods_id=tea&band=low", "goods_id"),
        ("?band=none", "band"),
        ("?band=low&limit=0", "limit"),
        ("?band=low&limit=many", "limit"),
    ],
)
def test_what_cant_be_asked_is_named(doors, query, field):
    """400 naming the parameter."""
    told = doors[0]("GET", f"/v1/stock{query}")
    assert (told.status, told.body["field"]) == (400, field)


def test_goods_that_were_never_listed(doors):
    """404, now and then."""
    assert level_of(doors[0], "none").status == 404
    assert doors[0]("GET", "/v1/stock/").status == 404


@pytest.mark.parametrize("token", [f"1-{'0' * 16}", f"999999-{'0' * 16}"])
def test_a_token_of_another_history_is_refused(doors, token):
    """409 SL-HIST-001: the ledger was restored, or is another one; also where the past is asked for."""
    for told in (level_of(doors[0], "tea", token), level_of(doors[0], "tea", query=f"?as_of={token}")):
        assert (told.status, told.code) == (409, "SL-HIST-001")


def test_a_position_that_isnt_there_yet(doors):
    """503 after the wait that is preferred; what is no position is 400."""
    headers = {"Stockledger-Min-Position": "999999", "Prefer": "wait=0"}
    told = doors[0]("GET", "/v1/stock/tea", None, headers)
    assert (told.status, told.body["retryable"]) == (503, True)
    told = doors[0]("GET", "/v1/stock/tea", None, {"Stockledger-Min-Position": "soon"})
    assert (told.status, told.body["field"]) == (400, "Stockledger-Min-Position")


def test_nothing_is_served_that_is_older_than_allowed(open_shop):
    """While the database doesn't answer: 503 once the bound is passed, and the number again afterwards."""
    server = conninfo_to_dict(open_shop.dsn)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        dsn = make_conninfo(open_shop.dsn, host="127.0.0.1", port=proxy.port)
        with gateway(open_shop, dsn=dsn) as door:
            assert level_of(door, "tea").status == 200
            proxy.stall()
            told = wait_for("a refusal", lambda: _refused(level_of(door, "tea")))
            assert (told.code, told.body["retryable"]) == ("SL-CACHE-001", True)
            proxy.cut()
            wait_for("the stock", lambda: level_of(door, "tea").status == 200)


def _refused(told):
    return told if told.status == 503 else None
