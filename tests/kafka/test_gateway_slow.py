"""Clients that take their time, or all the room: others are answered, and the slow ones are cut."""

import resource
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.support.doorstep import Served, gateway
from tests.support.raw import answers, framed, received
from tests.support.workers import PATIENCE_S, wait_for

HEAD = b"POST /v1/purchases HTTP/1.1\r\nHost: localhost\r\n"
BEGUN = {
    "a head": (HEAD, b"X: y\r\n"),
    "a body": (HEAD + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a second head": (framed("GET", "/livez", [], b"") + HEAD, b"X: y\r\n"),
    "questions, and takes no answer": (framed("GET", "/openapi.json", [], b"") * 200, b""),
}
EACH = 40
"""How many there are of each kind; 1,000 in all are the benchmark's."""
FILES, KEPT = 160, 100
GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
LIVE = framed("GET", "/livez", [], b"")


def connected(address):
    place = urlsplit(address)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.settimeout(PATIENCE_S)
    made.connect((place.hostname, place.port))
    return made


@contextmanager
def dripping(address):
    """Connections that have begun to send, a drop every 50 ms from then on; yields those that aren't cut."""
    made = [(connected(address), *each) for each in BEGUN.values() for _ in range(EACH)]
    stop, left = threading.Event(), [connection for connection, _, _ in made]

    def drip():
        while not stop.wait(0.05):
            for connection, _, drop in made:
                with suppress(OSError):
                    connection.send(drop)

    thread = threading.Thread(target=drip)
    try:
        for connection, begun, _ in made:
            connection.sendall(begun)
        thread.start()
        yield left
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        for connection, _, _ in made:
            connection.close()


def still_there(connections):
    """Those that the server hasn't ended."""
    looks = select.poll()
    for each in connections:
        looks.register(each, 0)
    gone = {number for number, event in looks.poll(0) if event & GONE}
    return [each for each in connections if each.fileno() not in gone]


@pytest.mark.slow
def test_whoever_drips_is_cut_and_keeps_nobody_waiting(open_shop, monkeypatch):
    """Heads, bodies and answers that take their time: others buy meanwhile, and in the end all slow ones are
    gone, with what they held."""
    for name, seconds in (("HEAD_WAIT_S", 2.0), ("TAKE_WAIT_S", 2.0), ("KEEP_ALIVE_S", 2)):
        monkeypatch.setattr(f"gateway.connections.{name}", seconds)
    monkeypatch.setattr("gateway.guard.BODY_WAIT_S", 2.0)
    with gateway(open_shop) as door, dripping(door.address) as slow, ThreadPoolExecutor(4) as pool:
        told = [*pool.map(door.buys, [f"beside-{number}" for number in range(20)])]
        assert {each.status for each in told} == {200}
        wait_for("the end of the slow ones", lambda: not still_there(slow))
        assert door.buys("after-the-slow").status == 200


def lives(connection):
    """Whether it is answered on this connection, which goes on, that the gateway lives."""
    connection.sendall(LIVE)
    said = b""
    while b'"live":true' not in said:
        if not (piece := connection.recv(10_000)):
            return False
        said += piece
    return True


def lets_in(address):
    with suppress(OSError), closing(connected(address)) as connection:
        return lives(connection)


@pytest.mark.slow
def test_more_clients_than_there_is_room_for(open_shop):
    """One more than the process can bear is told so; those that are there go on, and idle ones make room."""
    with Served(open_shop, "--source", "web", files=FILES) as served:
        address = served.ready()
        with closing(connected(address)) as first, ExitStack() as stack:
            assert lives(first)
            idle = [stack.enter_context(closing(connected(address))) for _ in range(FILES - KEPT + 5)]
            [told] = answers(received(idle[-1]))
            assert (told.status, told.said["code"]) == (503, "SL-HTTP-503")
            assert lives(first)
            wait_for("room", lambda: lets_in(address))


@pytest.mark.slow
def test_no_descriptor_is_left(open_shop):
    """Who can't even be accepted waits until he can, and those that are there are answered meanwhile."""
    with Served(open_shop, "--source", "web", files=FILES) as served:
        address = served.ready()
        with closing(connected(address)) as first:
            assert lives(first)
            _, most = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (4, most))
            with closing(connected(address)) as waits:  # in the backlog
                waits.sendall(LIVE)
                wait_for("a refusal to accept", lambda: any("accept" in line for line in served.said))
                assert lives(first)
                resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (most, most))
                assert waits.recv(10_000).startswith(b"HTTP/1.1 200")
