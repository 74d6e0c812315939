"""Server-sent events: everything once, in order, over connections that are cut, and an end in time."""

import http.client
import json
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.support.doorstep import gateway
from tests.support.proxy import Proxy
from tests.support.publish import buys, shop
from tests.support.workers import PATIENCE_S

STREAM = "text/event-stream"


@pytest.fixture(scope="module")
def door(open_shop):
    with gateway(open_shop) as client:
        yield client


class Stream:
    """What is read of a stream; a context manager."""

    def __init__(self, address, path="/v1/events", last=None):
        place = urlsplit(address)
        self._connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE_S)
        resumes = {"Last-Event-ID": last} if last else {}
        self._connection.request("GET", path, headers={"Accept": STREAM, **resumes})
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.media = self._answer.getheader("content-type", "")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def next(self):
        """The next event's id and what it says; raises where the stream ends."""
        id = ""
        while line := self._answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                id = value
            elif name == "data":
                return id, json.loads(value)
        raise ConnectionError("it ended")

    def drain(self):
        """Read until it ends, which raises."""
        while True:
            self.next()


def told(door, path="/v1/events"):
    """All events, by pages."""
    found = []
    while path:
        body = door("GET", path).body
        found += body["events"]
        path = body["next"]
    return found


def test_a_stream_tells_all_and_goes_on_with_what_comes(door):
    """From the beginning, then each event as it is committed; the same as the pages have."""
    before = told(door)
    with Stream(door.address) as stream:
        assert (stream.status, stream.media.partition(";")[0]) == (200, STREAM)
        assert [stream.next()[1] for _ in before] == before
        for number in range(3):
            bought = door.buys(f"stream-{number}").body
            id, event = stream.next()
            assert event["causationid"] == f"stream-{number}"
            assert id == event["id"] == f"{bought['position']}.{event['ordinal']}"


def test_a_stream_that_is_cut_goes_on_where_it_broke(door):
    """Cut after every few events: nothing comes twice, nothing is left out."""
    place = urlsplit(door.address)
    for number in range(10):
        door.buys(f"cut-{number}")
    wanted = [each["id"] for each in told(door)]
    found: list[str] = []
    last = None
    with Proxy(str(place.hostname), int(place.port or 0)) as proxy:
        while len(found) < len(wanted):
            address = f"http://127.0.0.1:{proxy.port}"
            with Stream(address, last=last) as stream, suppress(OSError, http.client.HTTPException):
                for _ in range(4):
                    id, event = stream.next()
                    assert id == event["id"]
                    found.append(id)
                    last = id
                    if len(found) == len(wanted):
                        break
                proxy.cut()
    assert found == wanted


def test_an_items_stream_goes_on_by_place(door):
    """By the id of any event, of this item or of something else: after all that came up to there."""
    path = "/v1/goods/tea/events"
    for last in [each["id"] for each in told(door)][::3]:
        after = tuple(map(int, last.split(".")))
        rest = [each for each in told(door, path) if tuple(map(int, each["id"].split("."))) > after]
        with Stream(door.address, path, last) as stream:
            assert [stream.next()[1] for _ in rest] == rest
            door.buys(f"item-{last}")
            assert stream.next()[1]["causationid"] == f"item-{last}"
        page = door("GET", path, None, {"Last-Event-ID": last}).body["events"]
        assert page[: len(rest)] == rest


@pytest.mark.parametrize(
    ("path", "last", "status"),
    [
        (f"/v1/events?after=1-{'0' * 16}", None, 409),
        ("/v1/events", "first", 400),
        ("/v1/goods/tea/events", "1", 400),
    ],
)
def test_what_is_wrong_is_told_before_it_begins(door, path, last, status):
    """A token of another history, and what is no event's id."""
    with Stream(door.address, path, last) as stream:
        assert (stream.status, stream.media) == (status, "application/problem+json")


def test_streams_are_bounded_and_end_with_the_gateway(open_shop):
    """More than may wait are refused; a gateway that is to end ends them, and says so by closing."""
    with gateway(open_shop, waiting_max=2) as door:
        streams = [Stream(door.address) for _ in range(2)]
        for each in streams:
            each.next()
        with Stream(door.address) as refused:
            assert refused.status == 503
        assert door.buys("beside-streams").status == 200
        for each in streams:
            while each.next()[1]["causationid"] != "beside-streams":
                pass
    for each in streams:
        with each, pytest.raises((OSError, http.client.HTTPException)):
            each.drain()


@contextmanager
def saved(services, group):
    """The group's database as it is now; the function that is yielded puts that in its place."""
    name = str(conninfo_to_dict(group.dsn)["dbname"])
    original, backup, lost = (sql.Identifier(f"{name}{suffix}") for suffix in ("", "_backup", "_lost"))
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(backup, original))

        def restore():
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(original))
            ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
            admin.execute(ended, (name,))
            admin.execute(rename.format(original, lost))
            admin.execute(rename.format(backup, original))

        try:
            yield restore
        finally:
            for gone in (backup, lost):
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(gone))


def test_a_stream_doesnt_go_on_in_another_history(new_group, publisher, services, monkeypatch):
    """A restore takes the ledger's place: the stream says so and ends, and nothing of it is told."""
    monkeypatch.setattr("gateway.streams.KEEP_ALIVE_S", 0.2)
    group = new_group(partitions=1)
    sender = publisher(group)
    sender.send(*shop())
    sender.flush()
    group.catch_up()
    with saved(services, group) as restore:
        sender.send(buys("lost"))
        sender.flush()
        group.catch_up()
        with gateway(group) as door, Stream(door.address) as stream:
            while stream.next()[1]["causationid"] != "lost":
                pass
            restore()
            id, told = stream.next()
            assert (id, told["code"], told["status"]) == ("", "SL-HIST-001", 409)
            with pytest.raises(ConnectionError):
                stream.next()
