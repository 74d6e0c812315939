"""The past and how things stand, over HTTP: what the verbs say, in pages."""

import re
from urllib.parse import quote

import pytest

from ledger.projections.registry import find
from ledger.rebuilding.projector import Projector
from tests.support.doorstep import gateway
from tests.support.parked import listing, park
from tests.support.projections import connector
from tests.support.workers import wait_for


@pytest.fixture(scope="module")
def door(open_shop):
    """A gateway of a ledger in which something has happened."""
    with gateway(open_shop) as client:
        for number in range(12):
            assert client.buys(f"reads-{number}", unit_price_minor=number or None).status == 200
        yield client


def pages_of(door, path):
    """All that the pages have, in their order, and how many pages there were."""
    found, count = [], 0
    while path:
        told = door("GET", path)
        assert told.status == 200
        found += told.body.get("events", told.body.get("purchases"))
        path, count = told.body["next"], count + 1
    return found, count


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_pages_have_every_event_once(door, open_shop, limit):
    """In journal order, each once, whatever the size of a page; ids are places."""
    door.buys(f"pages-{limit}")
    found, count = pages_of(door, f"/v1/events?limit={limit}")
    places = [tuple(map(int, each["id"].split("."))) for each in found]
    rows = open_shop.ask("SELECT count(*) FROM ledger.events")
    assert places == sorted(set(places))
    assert len(found) == rows[0][0]
    assert count == -(-len(found) // limit)


def test_events_go_on_after_a_place(door):
    """After an event's id, after all of a position, and after an outcome's token."""
    events, _ = pages_of(door, "/v1/events")
    for number, each in enumerate(events[:-1]):
        told = door("GET", f"/v1/events?after={each['id']}&limit=1")
        assert told.body["events"] == [events[number + 1]]
    bought = door.buys("after-a-token").body
    later = door.buys("after-that").body
    told = door("GET", f"/v1/events?after={bought['token']}")
    assert [each["causationid"] for each in told.body["events"]] == ["after-that"]
    assert told.body["events"] == door("GET", f"/v1/events?after={bought['position']}").body["events"]
    assert told.headers["stockledger-position"] == told.body["token"] == later["token"]
    assert told.body["next"] is None


def test_the_events_of_an_item(door):
    """By version, page by page; none of goods that were never listed."""
    found, count = pages_of(door, "/v1/goods/tea/events?limit=4")
    assert [each["version"] for each in found] == [*range(1, len(found) + 1)]
    assert count > 2
    assert found[0]["type"] == "stockledger.GoodsListed.v1"
    assert door("GET", "/v1/goods/none/events").body["events"] == []


@pytest.mark.parametrize(
    "name",
    ["a/b", "/", "//", ".", "..", "a\nb", "\n", "\r\n", "\u2028", "\x0b", "?#%", "é", "日本", "\U0010ffff"],
)
def test_an_id_in_a_path_is_any_text(door, name):
    """Each endpoint with an id in its path is found, whatever the id has in it."""
    paths = [path for path in door("GET", "/openapi.json").body["paths"] if "{" in path]
    assert len(paths) >= 4
    for path in paths:
        told = door("GET", re.sub(r"\{\w+\}", lambda _: quote(name, safe=""), path))
        assert told.status == 200 or told.body["detail"] != "there is no such path", path


def test_what_a_user_bought(door, open_shop):
    """In order, with what was cancelled since; `lag` says how much the projection has yet to follow."""
    told = door("GET", "/v1/users/anna/purchases").body
    assert (told["purchases"], told["next"], told["lag"] > 0) == ([], None, True)
    cancel = {"type": "CancelPurchase", "id": "cancels", "goods_id": "tea", "purchase_id": "reads-3"}
    assert door("POST", "/v1/commands", cancel, {"Prefer": "wait=30"}).body["outcome"] == "applied"
    Projector(connector(open_shop.dsn), [find("user_events")], until_caught_up=True).run()
    found, count = pages_of(door, "/v1/users/anna/purchases?limit=5")
    mine = [each for each in found if each["id"].startswith("reads-")]
    assert [each["id"] for each in mine] == [f"reads-{number}" for number in range(12)]
    assert [each["unit_price_minor"] for each in mine] == [None, *range(1, 12)]
    assert [each["id"] for each in found if each["cancelled"]] == ["reads-3"]
    assert count > 2
    assert door("GET", "/v1/users/anna/purchases").body["lag"] == 0
    assert door("GET", f"/v1/users/{quote('no/body', safe='')}/purchases").body["purchases"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/events?after=x", "after"),
        ("/v1/events?after=1.2.3", "after"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=1001", "limit"),
        ("/v1/goods/tea/events?after=-1", "after"),
        ("/v1/goods/tea/events?after=99999999999999999999", "after"),
        ("/v1/users/anna/purchases?after=1", "after"),
        ("/v1/dead-letters?status=lost", "status"),
        ("/v1/dead-letters?code=a%00b", ""),
        ("/v1/goods/a%00b/events", ""),
        ("/v1/users/a%00b/purchases", ""),
        ("/v1/dead-letters/redrive?dry_run=perhaps", "dry_run"),
    ],
)
def test_what_cant_be_asked_is_named(door, path, field):
    """400 naming the parameter."""
    told = door("POST", path, {}) if "redrive" in path else door("GET", path)
    assert (told.status, told.body["field"]) == (400, field)


def test_a_token_of_another_history_is_refused(door):
    """409, before any event is told."""
    assert door("GET", f"/v1/events?after=1-{'0' * 16}").code == "SL-HIST-001"


def test_how_things_stand(door, open_shop):
    """What `status --json` says, of the ledger and of Kafka."""
    told = door("GET", "/v1/status").body
    shown = open_shop.cli("status")
    assert told["error"] is None
    for name in ("position", "token", "deliveries", "rejections", "letters"):
        assert told[name] == shown[name]
    assert [lane["log_end_offset"] for lane in told["lanes"]] == [
        lane["log_end_offset"] for lane in shown["lanes"]
    ]
    projections = door("GET", "/v1/projections").body["projections"]
    assert {each["name"] for each in projections} >= {"stock"}


def test_dead_letters_are_listed_and_sent_again(new_group, publisher):
    """A dry run changes nothing; what is still no command stays parked in any case."""
    group = new_group(partitions=2)
    sender = publisher(group)
    sender.send_raw(b"<b>no command</b>", partition=0)
    sender.send_raw(b"", [("ce_type", b"stockledger.Later.v1")], key=b"k", partition=1)
    sender.flush()
    group.catch_up()
    with gateway(group) as door:
        told = door("GET", "/v1/dead-letters").body
        assert [(each["partition"], each["status"]) for each in told["dead_letters"]] == [
            (0, "parked"),
            (1, "parked"),
        ]
        assert door("GET", "/v1/dead-letters?limit=1").body["more"]
        assert door("GET", "/v1/dead-letters?status=discarded").body["dead_letters"] == []
        for query in ("", "?dry_run=true"):
            told = door("POST", f"/v1/dead-letters/redrive{query}", {}).body
            assert (told["dry_run"], told["records"], told["redriven"]) == (True, 2, [])
        told = door("POST", "/v1/dead-letters/redrive?dry_run=false", {}).body
        assert (told["prospects"], told["redriven"], told["error"]) == ({"dead": 2}, [], None)
        assert door("POST", "/v1/dead-letters/redrive?dry_run=false").status == 415


def test_what_became_valid_is_sent(new_group):
    """A letter that this version can read is published again, applied once, and marked."""
    group = new_group(partitions=1)
    park(group.cli.environment, listing("late", "cup"))
    with gateway(group) as door:
        told = door("POST", "/v1/dead-letters/redrive", {}).body
        assert (told["prospects"], told["redriven"]) == ({"valid": 1}, [])
        told = door("POST", "/v1/dead-letters/redrive?dry_run=false", {}).body
        assert [each["status"] for each in told["redriven"]] == ["parked"]
        with group.running():
            wait_for("its outcome", lambda: door("GET", "/v1/commands/late?source=shop").status == 200)
        [letter] = door("GET", "/v1/dead-letters").body["dead_letters"]
        assert letter["status"] == "redriven"
