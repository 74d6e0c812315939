"""Whatever comes down a socket: an answer that is no fault, or an end; and what is refused isn't published.

`STOCKLEDGER_TEST_REQUESTS=20000` sends so many requests made by chance; `--seed` makes the same ones again.
"""

import json
import os
import random

import pytest

from tests.support.doorstep import Log, gateway, records
from tests.support.raw import BODIES, Answered, answers, anything, exchange, framed

REQUESTS = int(os.environ.get("STOCKLEDGER_TEST_REQUESTS", "400"))
AT_ONCE = 400
TAKEN = ("Content-Type: application/json", "Prefer: wait=0")


@pytest.fixture(scope="module")
def log():
    return Log()


@pytest.fixture(scope="module")
def door(open_shop, log):
    """A gateway with little patience for whoever sends no whole request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.connections.HEAD_WAIT_S", 5.0)
        patch.setattr("gateway.connections.KEEP_ALIVE_S", 1)
        patch.setattr("gateway.guard.BODY_WAIT_S", 5.0)
        patch.setattr("gateway.streams.KEEP_ALIVE_S", 0.5)
        with gateway(open_shop, log=log, per_s=1e6, waiting_max=10_000) as client:
            yield client


def told(door, requests):
    """What is answered to each, which is never a fault; a refusal is problem+json."""
    found = [[*answers(each)] for each in exchange(door.address, requests)]
    for request, several in zip(requests, found, strict=True):
        for each in several:
            assert_sound(each, request)
    return found


def assert_sound(each: Answered, request: bytes) -> None:
    shown = request[:2_000], each
    assert each.status < 500, shown
    assert each.headers["x-content-type-options"] == "nosniff", shown
    refused = each.status >= 400
    assert (each.headers.get("content-type") == "application/problem+json") == refused, shown
    if refused and each.body:
        assert each.said["status"] == each.status, shown
        assert {"code", "detail", "remedy", "retryable"} <= each.said.keys(), shown


def published(found: list[list[Answered]]) -> int:
    """How many records the answers speak of: each key is sent once."""
    lines = [each.body.splitlines() for several in found for each in several if each.status in (200, 202)]
    return sum("offset" in json.loads(line) for each in lines for line in each)


@pytest.mark.parametrize("path", ["/v1/purchases", "/v1/commands", "/v1/commands of lines"])
def test_a_body_that_is_no_command(door, open_shop, path):
    """400 or 413 with its reason, whatever JSON or bytes it is, and nothing is published."""
    before = records(open_shop)
    lines = path.endswith("lines")
    media = "application/x-ndjson" if lines else "application/json"
    headers = [f"Content-Type: {media}", "Prefer: wait=0", "Connection: close"]
    requests = [
        framed("POST", path.split()[0], [*headers, f"Idempotency-Key: raw-{number}"], body)
        for number, body in enumerate(BODIES)
    ]
    for [each], request in zip(told(door, requests), requests, strict=True):
        assert each.status in (400, 413), (request[:2_000], each)
    assert records(open_shop) == before


PREFERRED = [
    "wait=-1",
    "wait=",
    "wait=1e9",
    "wait",
    "wait=0.5",
    "",
    ",",
    "\xff",
    "wait=0, wait=30",
    "x" * 9000,
]


@pytest.mark.parametrize("preferred", PREFERRED, ids=lambda text: ascii(text[:12]))
def test_a_preference_that_cant_be_read_is_none(door, preferred):
    """It is a preference: the purchase counts, and is answered."""
    body = b'{"user_id":"anna","goods_id":"tea","quantity":1}'
    headers = [
        TAKEN[0],
        f"Prefer: {preferred}",
        f"Idempotency-Key: preferred-{len(preferred)}{preferred[:3]!a}",
    ]
    headers[2] = headers[2].replace(" ", "_")
    [[each]] = told(door, [framed("POST", "/v1/purchases", [*headers, "Connection: close"], body)])
    assert each.status in (200, 202)


HEAD = b"POST /v1/purchases HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
BROKEN = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400]),
    "an endless line": (b"GET /" + b"a" * 200_000, [400]),
    "an endless head": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000, [400]),
    "a head that ends early": (b"GET /livez HTTP/1.1\r\nHost: loc", []),
    "nothing": (b"", []),
    "two lengths": (framed("POST", "/v1/purchases", ["Content-Length: 3"], b"{}"), [400]),
    "length and chunks": (HEAD + b"Content-Length: 4\r\n\r\n0\r\n\r\n", [400]),
    "a body that ends early": (framed("POST", "/v1/purchases", TAKEN, b"{" * 9)[:-1], [408]),
    "a chunk that ends early": (HEAD + b"\r\n9\r\n{", [408]),
    "a chunk of no size": (HEAD + b"\r\nzz\r\n{}\r\n", [400]),
    "two requests at once": (framed("GET", "/livez", [], b"") * 2, [200, 200]),
    "a good one and no HTTP": (framed("GET", "/livez", [], b"") + b"\x00\r\n\r\n", [200, 400]),
    "refused and no chunk": (HEAD + b"Host: x\r\n\r\nzz\r\n\r\n", [400]),
    "no UTF-8 in the path": (framed("GET", "/v1/stock/%ff", ["Connection: close"], b""), [400]),
    "no UTF-8 in a parameter": (
        framed("GET", "/v1/stock?goods_id=%c3%28", ["Connection: close"], b""),
        [400],
    ),
    "two hosts": (framed("GET", "/livez", ["Host: localhost", "Connection: close"], b""), [400]),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", [400]),
    "two keys": (
        framed("POST", "/v1/purchases", [*TAKEN, "Idempotency-Key: a", "Idempotency-Key: b"], b"{}"),
        [400],
    ),
}


def test_requests_that_are_none(door, open_shop):
    """Refused in the same way as all else, or ended; what isn't whole is cut in time."""
    before = records(open_shop)
    found = told(door, [request for request, _ in BROKEN.values()])
    statuses = {name: [each.status for each in several] for name, several in zip(BROKEN, found, strict=True)}
    assert statuses == {name: wanted for name, (_, wanted) in BROKEN.items()}
    assert records(open_shop) == before


@pytest.mark.slow
def test_requests_made_by_chance(door, open_shop, log, seed):
    """No fault, no end that doesn't come, and in the topic is what was answered for, no more."""
    choose = random.Random(seed)
    for first in range(0, REQUESTS, AT_ONCE):
        before = records(open_shop)
        requests = [anything(choose) for _ in range(min(AT_ONCE, REQUESTS - first))]
        found = told(door, requests)
        assert records(open_shop) - before == published(found)
    assert not log.lines
    assert door.buys(f"after-{seed}").status == 200
