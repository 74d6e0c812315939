"""What a support desk asks: ids by their beginning, times, an id as it was shown, a typo."""

import json
import shlex

import pytest

from ledger.api import Ledger
from ledger.domain.commands import ListGoods, ReceiveStock, RegisterUser
from ledger.domain.delivery import Record
from ledger.store.connection import database
from stockledger import cli
from stockledger.verb.output import instant
from tests.support.batches import TOPIC, says
from tests.support.environment import unset
from tests.support.history import CAFE, buys, history


@pytest.fixture
def lanes(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield history(conn)


@pytest.fixture
def ledger(ledger_dsn, lanes):
    with Ledger(ledger_dsn) as ledger:
        yield ledger


@pytest.fixture
def stockledger(ledger_dsn, monkeypatch, capsys):
    """`stockledger("outcome", "p1")` -> (code, the object, what people see)."""
    unset(monkeypatch)
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)

    def run(*words):
        code = cli.execute([str(word) for word in words])
        shown = "".join(capsys.readouterr())
        assert cli.execute([*words, "--json"]) == code
        return code, json.loads(capsys.readouterr().out), shown

    return run


def keys(found):
    return [(each.source, each.id) for each in found]


def test_ids_that_begin_alike(ledger, lanes):
    """All of them, by id, whatever the source; a prefix is a prefix, byte for byte."""
    lanes.apply(
        1, *(buys(id, "anna", 1) for id in ("ORDER-42-2", "ORDER-42-1", "ORDER-420", "order-42", "ORDER-4~"))
    )
    assert keys(ledger.search(like="ORDER-42")) == [
        ("shop", "ORDER-42-1"), ("shop", "ORDER-42-2"), ("shop", "ORDER-420")
    ]  # fmt: skip
    assert keys(ledger.search(like="ORDER-4", limit=2)) == [("shop", "ORDER-42-1"), ("shop", "ORDER-42-2")]
    assert keys(ledger.search(like="ORDER-4~")) == [("shop", "ORDER-4~")]
    assert keys(ledger.search(like="p1", source="web")) == [("web", "p1")]
    assert ledger.search(like="%") == ledger.search(like="ORDER_42") == []
    assert keys(ledger.search(like="", limit=10_000)) == sorted(
        keys(ledger.search(limit=10_000)), key=lambda k: k[::-1]
    )


def test_what_was_recorded_then(ledger, stockledger):
    """Between two times or positions, in journal order, rejections included; times as they are printed."""
    everything = ledger.search(limit=10_000)
    assert [each.position for each in everything] == sorted(each.position for each in everything)
    assert {each.outcome.value for each in everything} == {"applied", "rejected"}
    first, last = everything[3], everything[-3]
    expected = [e for e in everything if first.recorded_at <= e.recorded_at < last.recorded_at]
    assert ledger.search(since=first.recorded_at, until=last.recorded_at, limit=10_000) == expected
    assert ledger.search(since=2, until=3) == [each for each in everything if each.position == 3]
    code, answer, _ = stockledger(
        "outcome", "--since", instant(first.recorded_at), "--until", instant(last.recorded_at)
    )
    assert code == 0
    assert [o["id"] for o in answer["outcomes"]] == [each.id for each in expected]
    code, answer, shown = stockledger("outcome", "--since", "2000-01-01", "--limit", 2)
    assert (code, answer["more"], len(answer["outcomes"])) == (0, True, 2)
    assert "--limit 4" in shown
    assert stockledger("outcome", "--since", 999)[0] == 4


def test_what_a_user_did(ledger, ledger_dsn, stockledger, lanes):
    """Registration, purchases, cancellations in journal order, nobody else's; and how much isn't followed."""
    code, answer, shown = stockledger("outcome", "--user", "anna")
    assert (code, answer["outcomes"], answer["lag"]) == (0, [], ledger.moment().position)
    assert answer["next"] == "stockledger project user_events --until-caught-up"
    assert "aren't followed yet" in shown
    assert stockledger(*shlex.split(answer["next"])[1:])[0] == 0
    with database.connect(ledger_dsn, purpose="test") as conn:
        events = conn.execute(
            """SELECT source, id FROM ledger.event JOIN ledger.journal USING (entry) WHERE user_id = 'anna'
            ORDER BY position, ordinal"""
        ).fetchall()
    assert len(events) > 3
    assert keys(ledger.search(user="anna")) == events
    assert keys(ledger.search(user="anna", limit=2)) == events[:2]
    assert keys(ledger.search(user="anna", source="web")) == [key for key in events if key[0] == "web"]
    half = ledger.search(user="anna")[len(events) // 2].position
    before, after = ledger.search(user="anna", until=half), ledger.search(user="anna", since=half)
    assert keys(before) + keys(after) == events
    code, answer, shown = stockledger("outcome", "--user", "anna")
    assert (code, len(answer["outcomes"]), answer["lag"]) == (0, len(events), 0)
    assert "followed" not in shown
    assert ledger.search(user="ann") == ledger.search(user="Anna") == []
    assert stockledger("outcome", "--user", "anna", "--like", "p")[0] == 2


def test_what_is_shown_can_be_asked(stockledger, lanes):
    """`SOURCE/ID`, also where both have slashes; an id that has one itself comes first."""
    lanes.apply(
        2,
        says("a/b", RegisterUser(user_id="carl"), source="x/y"),
        says("b", RegisterUser(user_id="dora"), source="x/y/a"),
    )
    for shown in ("shop/p4", "web/p1", "x/y/a/b"):
        code, answer, text = stockledger("outcome", shown)
        assert code == 0
        assert {f"{o['source']}/{o['id']}" for o in answer["outcomes"]} == {shown}
        assert shown in text
    assert [o["source"] for o in stockledger("outcome", "a/b")[1]["outcomes"]] == ["x/y"]
    assert stockledger("outcome", "nobody/p4")[0] == 4
    _, _, text = stockledger("why", "tea")
    assert stockledger("outcome", next(w for w in text.split() if w.endswith("/p4")))[0] == 0


def test_a_dead_letters_id_is_found(stockledger, lanes):
    """However wrong the record is: in a header, in a structured event, in a line; and what it is not."""
    headers = [("ce_specversion", b"1.0"), ("ce_type", b"stockledger.Nope.v1"), ("ce_source", b"shop")]
    lanes.apply(
        2,
        Record(None, b"{}", [*headers, ("ce_id", b"lost-1")]),
        Record(None, b"{}", [("CE_id", b"lost-2")]),
        Record(None, json.dumps({"id": "lost-3", "source": "shop", "quantity": 1.5}).encode(), None),
        Record(None, json.dumps({"id": "lost-5", "note": "lost-4"}).encode(), None),
    )
    for number in (1, 2, 3):
        code, answer, text = stockledger("outcome", f"lost-{number}")
        assert (code, answer["outcomes"], len(answer["dead_letters"])) == (0, [], 1)
        assert f"dlq show '{TOPIC}[2]@" in answer["next"]
        assert "parked" in text
    assert stockledger("outcome", "lost-4")[0] == 4
    lanes.apply(
        2, says("lost-1", RegisterUser(user_id="emil")), says("lost-3", RegisterUser(user_id="fritz"))
    )
    code, answer, text = stockledger("outcome", "lost-1", "--deliveries")
    assert code == 2, "no broker is named"
    assert [d["became"] for d in answer["history"]] == ["dead", "applied"]
    assert "repaired" in answer["history"][0]["detail"]
    listed = stockledger("dlq", "list", "--status", "all")
    assert {d["offset"]: d["status"] for d in listed[1]["dead_letters"] if d["partition"] == 2} == {
        7: "repaired", 8: "parked", 9: "parked", 10: "parked"
    }  # fmt: skip
    assert stockledger("dlq", "show", "2@7")[1]["status"] == "repaired"


@pytest.mark.parametrize(
    ("meant", "typed"),
    [("tea", "taa"), ("tea", "TEA"), (CAFE, "Cafe  №\\5"), ("85123A", "85123a"), ("85123A", "85132A")],
)
@pytest.mark.parametrize("verb", ["stock", "why"])
def test_a_typo_is_asked_back(stockledger, lanes, verb, meant, typed):
    """The goods that are meant, as a command to paste."""
    lanes.apply(1, says("g-85", ListGoods(goods_id="85123A")))
    code, answer, _ = stockledger(verb, typed)
    assert code == 4
    assert f"did you mean {meant}?" in answer["error"]["message"]
    assert stockledger(*shlex.split(answer["error"]["remedy"])[1:])[1]["goods_id"] == meant


def test_nothing_alike_is_no_riddle(stockledger, lanes):
    """Then the table of all goods is the next step."""
    code, answer, _ = stockledger("stock", "something else entirely")
    assert (code, answer["error"]["remedy"]) == (4, "stockledger stock")
    assert stockledger("stock")[0] == 0


def test_as_of_a_printed_time_includes_it(ledger_dsn, stockledger, lanes):
    """The time in the table is that of the entry, to the microsecond."""
    for number in range(5):
        lanes.apply(1, says(f"more-{number}", ReceiveStock(goods_id="tea", quantity=1)))
    _, answer, text = stockledger("why", "tea")
    for change in answer["changes"]:
        assert change["recorded_at"] in text
        later = [c for c in answer["changes"] if c["position"] == change["position"]][-1]
        then = stockledger("stock", "tea", "--as-of", change["recorded_at"])[1]
        assert (then["on_hand"], then["as_of"]["position"]) == (later["on_hand"], change["position"])
