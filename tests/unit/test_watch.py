"""What a watched process serves: the pages, the server under rude clients, and the names of the metrics."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledger.telemetry import names
from ledger.telemetry.board import Board
from ledger.telemetry.exposition import written
from ledger.telemetry.numbers import Numbers, Said
from ledger.telemetry.pages import pages
from ledger.telemetry.server import CONNECTIONS_MAX, REQUEST_MAX_S, WatchServer
from tests.support.workers import PATIENCE_S, wait_for
from tools.reference import DOCS

UNITS = (
    *("_total", "_seconds", "_info", "_records", "_requests", "_streams", "_letters", "_workers", "_entries"),
    *("_position", "_lag", "_ready", "_bytes"),
)
LABELS = {
    *("outcome", "step", "kind", "code", "status", "consumergroup", "topic", "partition", "projection"),
    *("method", "route", "version", "python", "slot", "codec"),
}
"""Each has few values, whatever is bought: none is the id of anything."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def board():
    board = Board()
    board.expect(0)
    return board


@pytest.fixture
def server(board):
    server = WatchServer("127.0.0.1", 0, pages(board, "1.2.3"))
    yield server
    server.close()


def asks(server, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE_S)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


# The names


@pytest.mark.parametrize("family", names.FAMILIES.values(), ids=lambda family: family.name)
def test_every_metric_has_a_unit_a_meaning_and_no_id(family):
    """And is in the reference; a counter ends in `_total`, and nothing else does."""
    assert family.name.startswith(("stockledger_", "kafka_consumergroup_"))
    assert family.name.endswith(UNITS)
    assert family.help.endswith(".")
    assert set(family.labels) <= LABELS
    assert not (family.buckets and not family.name.endswith("_seconds"))
    assert [*family.buckets] == sorted(set(family.buckets))
    assert f"`{family.name}`" in (DOCS / "METRICS.md").read_text()


def test_prometheus_reads_every_metric_with_its_kind_and_help():
    """All of them at once, each with labels that need escaping."""
    numbers, odd = Numbers(), 'a "b"\n\\'
    for family in names.FAMILIES.values():
        labels = [odd for _ in family.labels]
        if family.buckets:
            numbers.observe(family, 0.3, *labels)
        elif family.name.endswith("_total"):
            numbers.count(family, *labels)
        elif family is not names.BUILD:
            numbers.put(family, 2, *labels)
    text, media_type = written(numbers, "1.2.3")
    assert media_type.startswith("text/plain")
    found = {each.name: each for each in text_string_to_metric_families(text.decode())}
    for name, family in names.FAMILIES.items():
        told = found[name.removesuffix("_total")]
        assert told.documentation == family.help
        kind = "histogram" if family.buckets else "counter" if name.endswith("_total") else "gauge"
        assert told.type == kind
        assert all(set(sample.labels) - {"le"} == set(family.labels) for sample in told.samples)
    assert b"# EOF" in written(numbers, "1.2.3", "application/openmetrics-text; version=1.0.0")[0]


def test_a_histogram_counts_each_value_up_to_its_limit():
    """A value that is a limit falls below it; one beyond all limits counts in the sum alone."""
    numbers = Numbers()
    for value, times in ((0.001, 1), (0.002, 2), (99.0, 1)):
        numbers.observe(names.APPLY, value, times=times)
    text = written(numbers, "0")[0].decode()
    told = dict(re.findall(r'apply_duration_seconds_bucket{le="([^"]+)"} (\S+)', text))
    assert (told["0.001"], told["0.0025"], told["30.0"], told["+Inf"]) == ("1.0", "3.0", "3.0", "4.0")
    assert "stockledger_apply_duration_seconds_sum 99.005" in text


# The board


def said(count=0, trouble="", **levels):
    numbers = Numbers()
    numbers.count(names.COMMANDS, "applied", by=count)
    numbers.observe(names.APPLY, 0.1, times=count)
    for name, value in levels.items():
        numbers.put(names.FAMILIES[f"stockledger_{name}"], value)
    return Said(numbers, trouble)


def test_the_sum_keeps_what_ended_ones_had_counted():
    """Counters and histograms stay; what stood somewhere is gone with it."""
    board = Board()
    for who in (1, 2):
        board.hear(who, said(10, queued_records=5))
    assert board.sum().levels == {("stockledger_queued_records",): 10}
    board.forget(1)
    board.expect(1)
    board.hear(1, said(1, queued_records=1))
    total = board.sum()
    assert total.counts["stockledger_commands_total", "applied"] == 21
    assert total.spreads["stockledger_apply_duration_seconds",][:-1] == [0] * 6 + [21] + [0] * 8
    assert total.levels == {("stockledger_queued_records",): 6}


def test_what_all_say_alike_isnt_added():
    """The dead letters of the ledger are as many as one worker says, however many workers there are."""
    board = Board()
    for who, letters in ((1, 3), (2, 4)):
        numbers = Numbers()
        numbers.put(names.DEAD_LETTERS, letters, "parked")
        board.hear(who, Said(numbers))
    assert board.sum().levels == {("stockledger_dead_letters", "parked"): 4}


def test_live_is_who_was_heard_in_time():
    """Each has the same time, from when it began; one that is stuck is enough."""
    clock = Clock()
    board = Board(300, clock)
    board.expect(0)
    board.expect(1)
    clock.now = 300
    assert board.stuck_s() == 0
    board.hear(0, Said(Numbers()))
    clock.now = 301
    assert board.stuck_s() == 301
    board.hear(1, Said(Numbers(), "SL-DB-001: no answer"))
    assert board.stuck_s() == 0
    board.forget(1)
    clock.now = 600
    assert board.stuck_s() == 0


def test_ready_are_all_or_none():
    """Nobody is ready before it said so; each trouble is told once."""
    board = Board()
    assert board.trouble()
    for who in (1, 2, 3):
        board.hear(who, Said(Numbers(), "SL-DB-001: no answer"))
    assert board.trouble() == "SL-DB-001: no answer"
    for who in (1, 2, 3):
        board.hear(who, Said(Numbers()))
    assert board.trouble() == ""


# The server


def test_the_pages(server, board):
    """200 or 503 with the cause; HEAD has no body; any other path is 404."""
    assert asks(server, "/livez") == (200, b'{"live":true}\n')
    assert asks(server, "/readyz")[0] == 503
    assert b"stockledger_ready 0.0" in asks(server, "/metrics")[1]
    board.hear(0, said(3))
    assert asks(server, "/readyz?verbose") == (200, b'{"ready":true}\n')
    status, text = asks(server, "/metrics")
    assert status == 200
    assert b'stockledger_commands_total{outcome="applied"} 3.0' in text
    assert b"stockledger_ready 1.0" in text
    assert b'version="1.2.3"' in text
    assert asks(server, "/metrics", "HEAD") == (200, b"")
    for path in ("/", "/metrics/", "/../etc/passwd", "/%2e"):
        status, text = asks(server, path)
        assert (status, "/metrics" in json.loads(text)["detail"]) == (404, True)
    assert asks(server, "/metrics", "POST")[0] == 501


def test_clients_that_say_nothing_keep_nobody_out_and_cost_few_threads(server):
    """Far more than there are places: the oldest are cut off, and whoever asks is answered."""
    before = threading.active_count()
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.server_address[1]), PATIENCE_S))
            for _ in range(5 * CONNECTIONS_MAX)
        ]
        for _ in range(3):
            assert asks(server, "/livez")[0] == 200
            assert threading.active_count() <= before + CONNECTIONS_MAX
        assert silent[0].recv(1) == b""


def test_a_client_that_is_slow_is_cut_off(server):
    """A byte now and then doesn't buy more time than there is for a request."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.server_address[1]), PATIENCE_S) as slow:

        def dribbles():
            try:
                slow.sendall(b"G")
                slow.settimeout(0.2)
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for("an end", dribbles)
    assert time.monotonic() - begun >= REQUEST_MAX_S / 2
    assert asks(server, "/livez")[0] == 200


def test_the_end_waits_for_nobody(board):
    """A client that says nothing is cut off, and the port is free at once."""
    server = WatchServer("127.0.0.1", 0, pages(board, "0"))
    with socket.create_connection(("127.0.0.1", server.server_address[1]), PATIENCE_S) as silent:
        assert asks(server, "/livez")[0] == 200
        server.close()
        assert silent.recv(1) == b""
    WatchServer("127.0.0.1", server.server_address[1], pages(board, "0")).close()


OFF = """
import sys
import consumer.supervisor, ledger.rebuilding.projector, ledger.cache.host_feeder, stockledger.meters
from stockledger.settings import load
from stockledger.watched import watched
with watched(load(), "json") as board:
    assert board is None
print([name for name in ("prometheus_client", "http.server", "socketserver") if name in sys.modules])
"""


def test_off_it_imports_and_serves_nothing():
    """A worker, a projector and a feeder without `--http` have none of it."""
    environment = {"PATH": "", "STOCKLEDGER_HTTP": ""}
    told = subprocess.run(
        [sys.executable, "-c", OFF], capture_output=True, text=True, env=environment, check=True
    )
    assert told.stdout == "[]\n"
