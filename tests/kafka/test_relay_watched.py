"""`relay --http`: what a relay says of itself, also while what it needs is away, and while it ends."""

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.proxy import Proxy
from tests.support.watching import Watcher
from tests.support.workers import STOP_BUDGET_S, wait_for

pytestmark = pytest.mark.real_kafka
HTTP = "--http", "0"


def last_position(relayed):
    return relayed.group.ask("SELECT max(position) FROM ledger.journal_entries")[0][0]


def test_it_says_how_it_stands_until_it_ends(relayed):
    """Position, lag, and records by kind: as many as readers find. Asked while it ends, it answers
    whole or not at all, and ends in time."""
    relay = relayed.start(*HTTP)
    watcher = Watcher.of(relay)
    wait_for("readiness", lambda: watcher.ready)
    relayed.sell("second")
    watcher.shows("stockledger_relay_position", last_position(relayed))
    watcher.shows("stockledger_relay_lag_entries", 0)
    for kind in ("events", "outcomes", "stock"):
        published = len(relayed.records(getattr(relayed.outputs, kind)))
        watcher.shows("stockledger_relay_records_total", published, kind=kind)
    assert watcher.value("stockledger_relay_lag_seconds_count") >= 1
    assert watcher.live
    with watcher.scraped_without_pause():
        relay.terminates(STOP_BUDGET_S)


def test_while_the_database_is_away_it_is_live_and_not_ready(relayed):
    """It says which fault it waits for; and is ready again once the database answers."""
    parts = conninfo_to_dict(relayed.group.dsn)
    with Proxy(str(parts["host"]), int(str(parts["port"]))) as proxy:
        relay = relayed.start(*HTTP, dsn=make_conninfo(relayed.group.dsn, host="127.0.0.1", port=proxy.port))
        watcher = Watcher.of(relay)
        wait_for("readiness", lambda: watcher.ready)
        proxy.refuse()
        wait_for("no readiness", lambda: not watcher.ready)
        assert "SL-DB-001" in watcher.get("/readyz").body["detail"]
        assert watcher.live
        assert watcher.value("stockledger_waits_total", code="SL-DB-001") >= 1
        proxy.accept()
        wait_for("readiness", lambda: watcher.ready)
        relay.terminates()
    relayed.catches_up()
    relayed.proves()
