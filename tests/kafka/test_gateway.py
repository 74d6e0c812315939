"""The HTTP door, line by line of its contract: real Kafka, real Postgres, a real server, a real worker."""

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gateway.bodies import OutcomeBody, PendingBody, ProblemBody
from gateway.shop import Shop
from ledger.api import Ledger
from tests.support import shapes
from tests.support.doorstep import PURCHASE, SOURCE, Client, Served, gateway, records
from tests.support.proxy import Proxy
from tests.support.workers import PATIENCE_S, wait_for

LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def door(open_shop):
    """A gateway that anybody on this machine may use."""
    with gateway(open_shop) as client:
        yield client


@pytest.fixture
def still(new_group):
    """A ledger that nobody applies anything to."""
    return new_group(partitions=2)


def command(id, type="PurchaseGoods", **fields):
    return {"type": type, "id": id, **(PURCHASE if type == "PurchaseGoods" else {}), **fields}


# POST /v1/purchases


def test_a_purchase_is_answered_with_its_outcome(door, open_shop):
    """200 with what the ledger has: applied, and where its event stands."""
    told = door.buys("applied-1", unit_price_minor=255)
    assert told.status == 200
    OutcomeBody.model_validate(told.body)
    with Ledger(open_shop.dsn) as ledger:
        [found] = ledger.outcome("applied-1", SOURCE)
    assert (told.body["outcome"], told.body["reason"]) == ("applied", None)
    assert (told.body["token"], told.body["stream"]) == (found.token, found.stream)
    assert told.body["fingerprint"] == found.fingerprint.hex()
    assert not told.replayed


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"quantity": 1_000_000}, "insufficient_stock"),
        ({"user_id": "nobody"}, "user_not_found"),
        ({"user_id": "ben"}, "user_closed"),
        ({"goods_id": "none"}, "goods_not_found"),
    ],
)
def test_a_no_is_an_answer(door, fields, reason):
    """200 with the reason; it is no error of the client or of the server."""
    told = door.buys(f"no-{reason}", **fields)
    assert (told.status, told.body["outcome"], told.body["reason"]) == (200, "rejected", reason)
    assert door.buys(f"no-{reason}", **fields).body == told.body


def test_a_repeat_has_the_same_answer(door, open_shop):
    """The same status and body, and it says that it is a repeat; nothing is published."""
    first = door.buys("repeat-1")
    published = records(open_shop)
    for key in ("repeat-1", '"repeat-1"', "  repeat-1 "):
        again = door.buys(key)
        assert (again.status, again.body, again.replayed) == (first.status, first.body, True)
    assert records(open_shop) == published
    odd = door.buys(r'"odd\"\\"')
    assert odd.body["id"] == 'odd"\\'


def test_a_key_that_was_used_for_another_payload(door):
    """422 with both fingerprints, before and after: the first outcome stands."""
    first = door.buys("conflict-1")
    told = door.buys("conflict-1", quantity=2)
    assert (told.status, told.code) == (422, "SL-HTTP-422")
    assert told.body["first_fingerprint"] == first.body["fingerprint"][:8]
    assert told.body["fingerprint"] in told.body["detail"]
    assert told.body["fingerprint"] != told.body["first_fingerprint"]
    assert door.buys("conflict-1").body == first.body


def test_what_isnt_decided_in_time(still):
    """202 once it is in the topic, with where to ask; asking says 404 until a worker has decided it."""
    with gateway(still) as door:
        told = door.buys("slow/1", wait=0)
        assert (told.status, told.headers["location"]) == (202, "/v1/commands/slow%2F1")
        assert told.headers["retry-after"] == "1"
        PendingBody.model_validate(told.body)
        later = door("GET", told.headers["location"])
        assert (later.status, later.code) == (404, "SL-HTTP-404")
        still.catch_up()
        found = door("GET", told.headers["location"])
        assert (found.status, found.body["reason"]) == (200, "user_not_found")
        again = door.buys("slow/1")
        assert (again.status, again.body, again.replayed) == (200, found.body, True)


@pytest.mark.parametrize(
    ("headers", "wait"), [({"Prefer": "respond-async, wait=0"}, 0), ({"Prefer": 'foo="1,2", wait="0"'}, 0)]
)
def test_how_long_to_wait_is_preferred(still, headers, wait):
    """`Prefer: wait=N` among other preferences, with and without quotes."""
    with gateway(still) as door:
        assert door.buys("prefer", headers=headers).status == 202


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**PURCHASE, "quantity": 0}, "quantity"),
        ({**PURCHASE, "quantity": "1"}, "quantity"),
        ({**PURCHASE, "quantity": 1.5}, ""),
        ({**PURCHASE, "quantity": True}, "quantity"),
        ({**PURCHASE, "colour": "red"}, "colour"),
        ({**PURCHASE, "unit_price_minor": -1}, "unit_price_minor"),
        ({**PURCHASE, "user_id": ""}, "user_id"),
        ({**PURCHASE, "goods_id": "a\0b"}, "goods_id"),
        ({"user_id": "anna", "quantity": 1}, "goods_id"),
        ([PURCHASE], ""),
        ("{", ""),
        ("", ""),
        ('{"quantity":1,"quantity":2}', ""),
        ('{"quantity":NaN}', ""),
        (b"\xff", ""),
        ("[" * 50_000, ""),
        ('{"quantity":' + "9" * 5000 + "}", ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_body_is_named(door, body, field):
    """400 naming the field: judged as strictly as a record of the topic."""
    told = door("POST", "/v1/purchases", body, {"Idempotency-Key": "bad-1"})
    assert (told.status, told.code) == (400, "SL-HTTP-400")
    assert told.body["field"] == field
    ProblemBody.model_validate(told.body)
    assert door("GET", "/v1/commands/bad-1").status == 404


@pytest.mark.parametrize("key", [None, "", '""', "two words", '"unfinished', 'a"b"' + "x" * 128, "é"])
def test_a_bad_key_is_named(door, key):
    """400 without a key, or with one that can't be a command's id."""
    headers = {} if key is None else {"Idempotency-Key": key.encode("utf-8").decode("latin-1")}
    told = door("POST", "/v1/purchases", PURCHASE, headers)
    assert (told.status, told.body["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"]
)
def test_a_form_of_a_web_page_buys_nothing(door, media):
    """415 unless the body says that it is JSON: what a browser may send to a stranger isn't."""
    told = door("POST", "/v1/purchases", PURCHASE, {"Idempotency-Key": "form", "Content-Type": media})
    assert (told.status, told.code) == (415, "SL-HTTP-415")
    assert door("GET", "/v1/commands/form").status == 404


def test_the_method_and_the_path(door):
    """404 and 405 are problems, too, and nothing is redirected."""
    assert door("GET", "/v1/nothing").status == 404
    assert door("POST", "/v1/purchases/", PURCHASE).status == 404
    told = door("DELETE", "/v1/purchases")
    assert (told.status, told.code, told.headers["allow"]) == (405, "SL-HTTP-405", "POST")


# POST /v1/commands, GET /v1/commands/{id}


def test_any_command_is_sent_as_its_json_line(door):
    """One of the seven, as `publish` takes it; the outcome is that of a purchase."""
    told = door("POST", "/v1/commands", command("listing-1", "ListGoods", goods_id="cup"))
    assert (told.status, told.body["outcome"]) == (200, "applied")
    again = door("POST", "/v1/commands", command("listing-1", "ListGoods", goods_id="cup"))
    assert (again.body, again.replayed) == (told.body, True)
    other = door("POST", "/v1/commands", command("listing-1", "ListGoods", goods_id="pot"))
    assert other.status == 422
    assert door.buys("by-purchases").body["fingerprint"] == _repeated(door, "by-purchases")


def _repeated(door, id):
    told = door("POST", "/v1/commands", command(id))
    assert told.replayed
    return told.body["fingerprint"]


def test_many_lines_are_answered_line_by_line(door):
    """One answer a line, in their order: outcomes, a repeat within the body, and a conflict."""
    lines = [
        command("many-1", "ListGoods", goods_id="jug"),
        command("many-2", "ReceiveStock", goods_id="jug", quantity=2),
        command("many-3", goods_id="jug"),
        command("many-3", goods_id="jug"),
        command("many-4", goods_id="jug", quantity=2),
        command("many-3", goods_id="jug", quantity=2),
    ]
    body = "\n".join(map(json.dumps, lines)) + "\r\n\n"
    told = door("POST", "/v1/commands", body, {**LINES, "Prefer": "wait=30"})
    assert told.status == 200
    assert [each["id"] for each in told.body] == [each["id"] for each in lines]
    assert [each["status"] for each in told.body] == [200, 200, 200, 200, 200, 422]
    outcomes = [each.get("outcome") for each in told.body]
    assert outcomes == ["applied", "applied", "applied", "applied", "rejected", None]
    assert [each.get("replayed") for each in told.body[:4]] == [None, None, None, True]
    again = door("POST", "/v1/commands", body, LINES)
    assert [each.get("replayed") for each in again.body[:5]] == [True] * 5


@pytest.mark.parametrize(
    ("line", "field", "word"),
    [
        ('{"type":"PurchaseGoods"', "", "JSON"),
        (json.dumps({"type": "PurchaseGood", "id": "b", **PURCHASE}), "type", "no command"),
        (json.dumps({"type": "PurchaseGoods", **PURCHASE}), "id", "missing"),
        (json.dumps(command("two words")), "id", "ASCII"),
        (json.dumps(command("bad-2", quantity=0)), "quantity", "greater"),
    ],
)
def test_of_many_lines_none_is_published_if_one_is_bad(door, line, field, word):
    """400 naming line, column and field; the good ones aren't published either."""
    body = json.dumps(command("good-before-bad")) + "\n" + line
    told = door("POST", "/v1/commands", body, LINES)
    assert (told.status, told.body["field"], told.body["line"]) == (400, field, 2)
    assert word in told.body["detail"]
    assert door("GET", "/v1/commands/good-before-bad").status == 404


def test_a_body_without_a_line(door):
    """400: nothing was meant."""
    assert door("POST", "/v1/commands", "\n\n", LINES).status == 400
    assert door("POST", "/v1/commands", "", {"Content-Type": "application/json"}).status == 400


def test_what_became_of_a_command(door, open_shop):
    """By its id, of one's own source or another; 404 says that it isn't decided yet or was never sent."""
    first = door.buys("asked/é?#%".replace("é", "e"))
    path = "/v1/commands/" + quote("asked/e?#%", safe="")
    assert door("GET", path).body == first.body
    assert door("GET", f"{path}?source={SOURCE}").body == first.body
    other = door("GET", f"{path}?source=shop")
    assert (other.status, other.body["source"]) == (404, "shop")
    assert door("GET", "/v1/commands/user-ben?source=shop").body["outcome"] == "applied"
    assert door("GET", "/v1/commands/%C3%BF%0A").status == 404
    assert door("GET", "/v1/commands/%FF%0A").status == 400  # no text, so no id


def test_the_same_answer_however_it_was_sent(door, open_shop):
    """By HTTP, by Python, and by Kafka itself: one register, one answer."""
    servers = {"bootstrap.servers": open_shop.kafka["bootstrap.servers"]}
    with Shop(servers, open_shop.topic, SOURCE, open_shop.dsn) as web:
        found = web.buy_goods("anna", "tea", 1, "by-python", timeout_s=PATIENCE_S)
        told = door.buys("by-python")
        assert (told.body["token"], told.replayed) == (found.token, True)
        by_http = door.buys("by-http")
        assert web.buy_goods("anna", "tea", 1, "by-http").token == by_http.body["token"]


# Health, and what is away


def test_it_is_alive_and_ready(door):
    """Both answer without a token, and the document is what is committed."""
    assert door("GET", "/livez").body == {"live": True}
    assert door("GET", "/readyz").body == {"ready": True}
    assert door("GET", "/openapi.json").body["openapi"].startswith("3.1")


def test_the_database_is_away(open_shop):
    """503, and nothing was published; not ready, yet alive; afterwards the same is answered."""
    server = conninfo_to_dict(open_shop.dsn)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        dsn = make_conninfo(open_shop.dsn, host="127.0.0.1", port=proxy.port)
        with gateway(open_shop, dsn=dsn) as door:
            proxy.stall()
            told = door.buys("away-1", wait=0)
            assert (told.status, told.body["retryable"]) == (503, True)
            assert "not published" in told.body["detail"]
            assert "counts once" in told.body["remedy"]
            assert door("GET", "/readyz").status == 503
            assert door("GET", "/livez").status == 200
            proxy.cut()
            wait_for("its readiness", lambda: door("GET", "/readyz").status == 200)
            told = door.buys("away-1")
            assert (told.status, told.replayed) == (200, False)


@pytest.mark.real_kafka
def test_the_topic_is_gone(services, still):
    """503 saying that it isn't published, and what to do; never a hang."""
    services.kafka.delete_topic(still.topic)
    with Served(still, "--source", SOURCE) as served:
        address = wait_for("an address", lambda: next((line for line in served.said if "ready" in line), ""))
        door = Client(json.loads(address)["address"])
        told = wait_for("a refusal", lambda: _refused(door))
        assert "not published" in told.body["detail"]
        assert door("GET", "/readyz").status == 503
    services.kafka.create_topic(still.topic, 1)  # the fixture deletes it


def _refused(door):
    told = door.buys("gone-1", wait=2)
    return told if told.status == 503 and told.code == "SL-KAFKA-005" else None


def test_many_who_wait_hold_no_thread_and_no_connection(still):
    """Three hundred at once: one thread that sends, one that asks on one connection; each has its answer."""
    number = 300
    with gateway(still, waiting_max=number) as door, ExitStack() as open_ones:
        place = urlsplit(door.address)
        door("GET", "/livez")
        before = threading.active_count()
        waiting = [
            open_ones.enter_context(socket.create_connection((place.hostname, place.port)))
            for _ in range(number)
        ]
        body = json.dumps(PURCHASE).encode()
        for each, client in enumerate(waiting):
            head = f"POST /v1/purchases HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: many-{each}\r\n"
            head += (
                f"Prefer: wait=30\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            client.sendall(head.encode() + body)
        wait_for("all records", lambda: records(still) == number)
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stockledger/shop'"
        assert still.ask(f"{sessions} AND datname = current_database()") == [(1,)]
        assert threading.active_count() <= before + 1
        still.catch_up()
        for client in waiting:
            client.settimeout(PATIENCE_S)
            assert client.recv(12) == b"HTTP/1.1 200"


# Its end


def is_ending(door):
    """Whether it says so; or has closed its port by now, on a machine that is too busy to ask in time."""
    try:
        return door("GET", "/readyz").status == 503
    except OSError:
        return True


def test_asked_to_end_it_answers_whoever_waits(still):
    """At SIGTERM it isn't ready any more; a request in hand is told what is known; exit 0, in time."""
    with Served(still, "--source", SOURCE) as served, ThreadPoolExecutor(1) as pool:
        door = Client(served.ready())
        waits = pool.submit(door.buys, "in-hand", wait=30)
        wait_for("the record", lambda: records(still))
        served.process.send_signal(signal.SIGTERM)
        wait_for("no readiness", lambda: is_ending(door))
        assert waits.result(PATIENCE_S).status == 202
        assert served.ends() == 0, served.said
        [answer] = [json.loads(line) for line in served.said if '"ok"' in line]
        assert answer == {"ok": True, "address": door.address}
    assert shapes.undocumented(["serve"], answer) == []
    still.catch_up()
    with gateway(still) as other:
        assert other.buys("in-hand").replayed


def test_ctrl_c_ends_it_as_interrupted(still):
    """Exit 130, as for every verb."""
    with Served(still, "--source", SOURCE) as served:
        served.ready()
        assert served.ends(signal.SIGINT) == 130
