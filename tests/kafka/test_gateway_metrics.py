"""`/metrics` of the gateway: how long it takes, by endpoint; nothing in it that a client has sent."""

import pytest

from gateway.tokens import Right, add
from tests.support.doorstep import SOURCE, Client, gateway
from tests.support.watching import Watcher

CANARY = "canary-7f3a"
REQUESTS = "stockledger_http_request_duration_seconds_count"


@pytest.fixture(scope="module")
def door(open_shop):
    """A gateway that anybody on this machine may use."""
    with gateway(open_shop) as client:
        yield client


def test_each_answer_counts_by_its_endpoint_and_status(door):
    """An endpoint is named by its path as it is documented; what has none counts as such."""
    watcher = Watcher(door.address)
    asked = {
        ("POST", "/v1/purchases", "200"): lambda: door.buys("metrics-1"),
        ("GET", "/v1/stock/{goods_id}", "404"): lambda: door("GET", f"/v1/stock/{CANARY}"),
        ("GET", "/v1/commands/{id}", "404"): lambda: door("GET", f"/v1/commands/{CANARY}"),
        ("GET", "none", "404"): lambda: door("GET", f"/{CANARY}"),
        ("GET", "/readyz", "200"): lambda: door("GET", "/readyz"),
    }

    def counts():
        seen = watcher.metrics()
        return {
            which: seen.get((REQUESTS, frozenset(zip(("method", "route", "status"), which, strict=True))), 0)
            for which in asked
        }

    before = counts()
    for ask in asked.values():
        ask()
        ask()
    assert counts() == {which: count + 2 for which, count in before.items()}
    assert watcher.value("stockledger_http_in_hand_requests") == 1  # this one
    assert watcher.value("stockledger_http_streams") == 0
    assert watcher.value("stockledger_cache_loads_total") == 1
    assert watcher.value("stockledger_cache_position") >= 1
    assert watcher.value("stockledger_cache_age_seconds_count") >= 1


def test_nothing_that_a_client_sends_is_in_it(door):
    """Neither ids nor methods nor headers: each would be a series more."""
    door("GET", f"/v1/users/{CANARY}/purchases")
    door("GET", f"/v1/events?after={CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    Watcher(door.address).get("/v1/events", CANARY.upper())
    seen = Watcher(door.address).get("/metrics").text
    assert CANARY not in seen.lower()
    assert 'method="other"' in seen


def test_a_token_with_read_reads_it(open_shop, tmp_path):
    """No other one, and nobody without; live and ready are for all."""
    path = tmp_path / "tokens.json"
    held = {right: add(path, f"t-{right}", SOURCE, frozenset([right])) for right in Right}
    with gateway(open_shop, tokens=path) as nobody:
        assert Client(nobody.address, held[Right.READ])("GET", "/metrics").status == 200
        assert Client(nobody.address, held[Right.BUY])("GET", "/metrics").status == 403
        assert nobody("GET", "/metrics").status == 401
        assert [nobody("GET", path).status for path in ("/livez", "/readyz")] == [200, 200]
        seen = Watcher(nobody.address, held[Right.READ]).get("/metrics").text
        assert not any(token in seen for token in held.values())
