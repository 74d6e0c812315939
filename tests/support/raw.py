"""HTTP as bytes on sockets: what no client library would send, and what came back of it."""

import json
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.workers import PATIENCE_S

PIECE = 65_536
METHODS = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "BREW")
VERSIONS = (
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", "",
)  # fmt: skip
TARGETS = (
    "/v1/purchases", "/v1/commands", "/v1/commands/a", "/v1/stock/tea", "/v1/stock", "/v1/events", "/livez",
    "/v1/goods/tea/events", "/v1/users/anna/purchases", "/v1/status", "/v1/dead-letters", "/openapi.json",
    "/v1/dead-letters/redrive", "/v1/projections", "*", "//", "/../../etc/passwd",
    "http://evil.example/v1/status", "/v1/stock/%", "/v1/stock/%zz", "/v1/stock/%ff", "/v1/stock/%c3%28",
    "/v1/stock/%ed%a0%80", "/v1/stock/%00", "/v1/stock/%0d%0aX:y", "/v1/stock/tea?as_of=%ff",
    "/v1/stock?band=low&limit=-1", "/v1/events?after=1.99999999999", "/v1/events?after=-0",
    "/v1/events?limit=1e3", "/v1/commands/a?source=%ff", "/v1/commands/a?source=",
    "/v1/goods/tea/events?after=9223372036854775808", "/v1/dead-letters?status=none",
    "/v1/users//purchases?after=999999999999999999.0", "?", "/v1/stock/tea#fragment", "/v1/stock/a b", "",
    "/\x80", "/v1/stock/" + "a" * 9_000, "/v1/stock/tea?as_of=" + "9" * 99,
    "/v1/stock?goods_id=" + "&goods_id=" * 2_000,
)  # fmt: skip
HEADERS = (
    "Content-Type: application/json", "Content-Type: application/x-ndjson", "Content-Type: text/plain",
    "Content-Type: application/json; charset=utf-16", "Content-Type: APPLICATION/JSON;charset=UTF-8",
    "Idempotency-Key: a b", "Idempotency-Key: ", 'Idempotency-Key: "', 'Idempotency-Key: "a\\q"',
    "Idempotency-Key: " + "k" * 129, "Idempotency-Key: \xff", "Host: evil.example", "Prefer: wait=0",
    "Prefer: wait=-1", "Prefer: wait=", "Prefer: respond-async, wait=0", 'Prefer: wait="0"; x=y',
    "Prefer: wait=99999999999999999999", "Prefer: \xff", "Accept: \xff", "Accept: */*", "Last-Event-ID: x",
    "Last-Event-ID: 1.99999999999", "Last-Event-ID: 1.1", "Stockledger-Min-Position: 0",
    "Stockledger-Min-Position: -1", "Stockledger-Min-Position: 1-zz", "Expect: 100-continue",
    "Expect: nothing", "Upgrade: websocket", "Connection: upgrade", "Connection: close",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity",
    "Content-Length: 5", "Content-Length: -1", "Content-Length: 1e3",
    "Content-Length: 99999999999999999999", "Content-Length: +5", "Content-Length: 5, 5",
    "X: " + "y" * 20_000, "No colon", ": no name", " folded: line", "Bad\x00: x", "X: a\x00b", "X\t: y",
    "Range: 0", "Authorization: Bearer \xff", "Authorization: Basic eDp5", "Content-Encoding: gzip",
)  # fmt: skip
TEA = '"user_id":"anna","goods_id":"tea"'
QUANTITIES = (
    "0", "-0", "-1", "1.0", "1e0", "1e400", "-1e400", "NaN", "Infinity", "true", "null", '"1"', "[1]", "{}",
    "01", "1.", "0x1", "1_0",
)  # fmt: skip
LARGE = str(2**53), str(2**53 + 1), str(2**63), str(2**64), "9" * 4_000, "9" * 5_000
MEMBERS = (
    f'{TEA},"quantity":1,"quantity":1', f'{TEA},"quantity":1,"more":1',
    f'{TEA},"quantity":1,"unit_price_minor":-1', '"user_id":"\\ud800","goods_id":"tea","quantity":1',
    '"user_id":"\\u0000","goods_id":"tea","quantity":1', '"user_id":"\xff","goods_id":"tea","quantity":1',
    '"\\ud800":1', '"\\u0000":1', '"a\\nb":"\\u0000"', '"' + "k" * 60_000 + '":1',
    '"user_id":"' + "u" * 60_000 + '","goods_id":"tea","quantity":1', '"type":"PurchaseGoods"',
    '"type":null', '"type":"\\ud800","id":"x"', '"type":["PurchaseGoods"]',
    '"type":"ListGoods","id":"\\ud800","goods_id":"x"', '"type":"ListGoods","id":1,"goods_id":"x"',
    '"type":"ListGoods","id":"x","goods_id":"x","source":"\\ud800"',
    '"type":"ListGoods","id":"x","goods_id":"x","\\ud800":1',
    *(f'{TEA},"quantity":{number}' for number in (*QUANTITIES, *LARGE)),
)  # fmt: skip
BODIES = (
    b"", b"null", b"[]", b"1", b'"x"', b"{", b"}", b"{}", b"[" * 30_000, b'{"a":' * 10_000, b"NaN", b"-",
    b"\x00", b'\xef\xbb\xbf{"a":1}', b"\xff\xfe{\x00}\x00", b"\n\n\n", b"{}\n{}", b"\r\n", b"{}\r\n\r\n{}",
    b"\x00" * 70_000, b" " * 70_000, *(f"{{{each}}}".encode("latin-1") for each in MEMBERS),
)  # fmt: skip
"""None of them is a purchase or a command."""


class Answered(NamedTuple):
    """An answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """What its JSON says."""
        return json.loads(self.body)


def exchange(address: str, requests: Sequence[bytes]) -> list[bytes]:
    """Send each on a connection of its own, all at once; all that came back until the server ended each.

    Nothing is ended here: a connection that the server never ends fails by its patience.
    """
    place = urlsplit(address)
    opened = [socket.create_connection((place.hostname, place.port), PATIENCE_S) for _ in requests]
    try:
        for each, request in zip(opened, requests, strict=True):
            _send(each, request)
        return [received(each) for each in opened]
    finally:
        for each in opened:
            each.close()


def _send(connection: socket.socket, request: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it was refused meanwhile
        connection.sendall(request)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server ends it."""
    found = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(PIECE):
            found += piece
    return found


def answers(found: bytes) -> Iterator[Answered]:
    """The answers, one after the other; a last one that was cut off is left out."""
    while found:
        head, separator, rest = found.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = first.split(" ")[:2]
        assert version in ("HTTP/1.1", "HTTP/1.0"), found
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if status == "100":
            found = rest
            continue
        if headers.get("transfer-encoding") == "chunked":  # a stream, which has no end
            yield Answered(int(status), headers, b"")
            return
        length = int(headers["content-length"])
        if not rest or rest.startswith(b"HTTP/1."):  # after HEAD: a length and no body
            length = 0
        if len(rest) < length:
            return
        yield Answered(int(status), headers, rest[:length])
        found = rest[length:]


def framed(method: str, target: str, headers: Sequence[str], body: bytes, version: str = "HTTP/1.1") -> bytes:
    """A request whose length is right."""
    lines = [f"{method} {target} {version}", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes, choose: random.Random) -> bytes:
    """The body in chunks, with one thing wrong or nothing."""
    cut = choose.randrange(len(body) + 1)
    parts = [part for part in (body[:cut], body[cut:]) if part]
    pieces = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"
    wrong = choose.choice(("", "", "size", "cut", "trailer", "endless"))
    if wrong == "size":
        return pieces.replace(b"\r\n", b"zz\r\n", 1)
    if wrong == "trailer":
        return pieces[:-2] + b"X-Trailer: y\r\n\r\n"
    if wrong == "endless":
        return b"f" * 30 + b"\r\n"
    return pieces[: choose.randrange(len(pieces))] if wrong == "cut" else pieces


def anything(choose: random.Random) -> bytes:
    """A request that is wrong in some way, in several, or in none; and perhaps another one after it."""
    method, target = choose.choice(METHODS), choose.choice(TARGETS)
    if choose.random() < 0.6:
        method, target = "POST", choose.choice(TARGETS[:2])
    headers = choose.sample(HEADERS, choose.randrange(5))
    if choose.random() < 0.6:
        headers += ["Content-Type: application/json", "Prefer: wait=0", f"Idempotency-Key: {choose.random()}"]
    choose.shuffle(headers)
    body = choose.choice(BODIES)
    if choose.random() < 0.2:
        lines = [
            f"{method} {target} HTTP/1.1",
            "Host: localhost",
            "Transfer-Encoding: chunked",
            *headers,
            "",
            "",
        ]
        text = "\r\n".join(lines).encode("latin-1") + chunked(body, choose)
    else:
        text = framed(method, target, headers, body, choose.choice(VERSIONS))
    match choose.randrange(10):
        case 0:
            text = text[: choose.randrange(len(text))]
        case 1:
            at = choose.randrange(len(text))
            text = text[:at] + bytes([choose.randrange(256)]) + text[at + 1 :]
        case 2:
            text = text.replace(b"\r\n", b"\n")
        case 3:
            text += anything(choose)
    return text
