"""Who gets through the HTTP door, how often, and how much he may send; and that no secret gets out."""

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit

import pytest

from gateway.guard import OPEN_PATHS
from gateway.tokens import Right, add, revoke
from tests.support.doorstep import (
    DOCUMENT,
    PURCHASE,
    SOURCE,
    Client,
    Log,
    Served,
    gateway,
    records,
    template_of,
)
from tests.support.raw import exchange, framed
from tests.support.visitor import SCREENS, Visitor
from tests.support.workers import PATIENCE_S, wait_for

LINES = {"Content-Type": "application/x-ndjson"}
LISTING = {"type": "ListGoods", "id": "guard-listing", "goods_id": "guard"}
ENDPOINTS = {
    ("POST", "/v1/purchases", "PURCHASE"): {Right.BUY},
    ("POST", "/v1/commands", "COMMAND"): {Right.BUY},
    ("POST", "/v1/commands", "LISTING"): {Right.OPERATE},
    ("GET", "/v1/commands/guard-purchase", ""): {Right.BUY, Right.READ},
    ("GET", "/v1/commands/user-ben?source=shop", ""): {Right.READ},
    ("GET", "/v1/stock/tea", ""): {Right.READ},
    ("GET", "/v1/stock?goods_id=tea", ""): {Right.READ},
    ("GET", "/v1/events", ""): {Right.READ},
    ("GET", "/v1/goods/tea/events", ""): {Right.READ},
    ("GET", "/v1/users/anna/purchases", ""): {Right.READ},
    ("GET", "/v1/status", ""): {Right.READ},
    ("GET", "/v1/projections", ""): {Right.READ},
    ("GET", "/metrics", ""): {Right.READ},
    ("GET", "/v1/dead-letters", ""): {Right.READ},
    ("POST", "/v1/dead-letters/redrive", "NOTHING"): {Right.OPERATE},
}
HEADERS = (
    "Idempotency-Key", "Prefer", "Accept", "Last-Event-ID", "Stockledger-Min-Position", "User-Agent",
    "Cookie", "Referer", "X-Forwarded-For", "traceparent",
)  # fmt: skip
PARAMETERS = ("source", "as_of", "goods_id", "band", "after", "limit", "status", "code", "dry_run", "other")
NAMES = [" ".join(endpoint) for endpoint in ENDPOINTS]
BODIES = {
    "PURCHASE": PURCHASE,
    "COMMAND": {"type": "PurchaseGoods", "id": "guard-purchase", **PURCHASE},
    "LISTING": LISTING,
    "NOTHING": {},
    "": None,
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A tokens file, and a token for each right, which all send as `web`."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return path, {right: add(path, f"t-{right}", SOURCE, frozenset([right])) for right in Right}


@pytest.fixture(scope="module")
def log():
    return Log()


@pytest.fixture(scope="module")
def door(open_shop, tokens, log):
    """A gateway that wants a token."""
    with gateway(open_shop, tokens=tokens[0], log=log) as client:
        yield client


def with_token(door, token):
    return Client(door.address, token)


def test_each_endpoint_is_tried():
    """Whatever is documented stands above with its rights, or is open to all."""
    documented = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    } - {("GET", path) for path in OPEN_PATHS}
    assert {(method, template_of(path)) for method, path, _ in ENDPOINTS} == documented


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize(("endpoint", "needed"), ENDPOINTS.items(), ids=NAMES)
def test_each_right_at_each_endpoint(door, tokens, endpoint, needed, right):
    """A right opens what it is for, and 403 names the one that is missing for all else."""
    method, path, body = endpoint
    told = with_token(door, tokens[1][right])(method, path, BODIES[body], {"Idempotency-Key": "guard-1"})
    if right in needed:
        assert told.status in (200, 202, 404, 422), told
    else:
        assert (told.status, told.code) == (403, "SL-HTTP-403")
        assert "right" in told.body["detail"]


@pytest.mark.parametrize(("method", "path", "body"), ENDPOINTS, ids=NAMES)
@pytest.mark.parametrize(
    "token", ["", "wrong", "stockledger_", "\xff", "x" * 5000], ids=lambda text: text[:12]
)
def test_without_a_token_that_is_known(door, method, path, body, token):
    """401 at every endpoint, before anything of the body is looked at."""
    told = with_token(door, token)(method, path, "no json" if body else None)
    assert (told.status, told.code) == (401, "SL-HTTP-401")
    assert told.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/"])
def test_nobody_learns_what_there_is(door, path):
    """Without a token even an unknown path is 401."""
    assert door("GET", path).status == 401


def test_what_needs_no_token(door):
    """Health and the document, as probes and generators ask for them."""
    assert [door("GET", path).status for path in ("/livez", "/readyz", "/openapi.json")] == [200, 200, 200]


def test_a_token_sends_as_its_source_alone(door, tokens):
    """A line of another source is refused, and the same key of another source is another command."""
    buy = with_token(door, tokens[1][Right.BUY])
    line = {"type": "PurchaseGoods", "id": "whose", "source": "shop", **PURCHASE}
    told = buy("POST", "/v1/commands", line)
    assert (told.status, told.body["line"]) == (403, 1)
    own = buy("POST", "/v1/commands", line | {"source": SOURCE})
    assert own.body["source"] == SOURCE
    other = with_token(door, add(tokens[0], "other", "app", frozenset([Right.BUY])))
    told = wait_for("the new token", lambda: _accepted(other.buys("whose", quantity=2)))
    assert (told.body["source"], told.body["outcome"], told.replayed) == ("app", "applied", False)


def _accepted(told):
    return told if told.status != 401 else None


def test_a_token_that_is_revoked_lets_nobody_in(door, tokens):
    """Within a second or so, without a restart."""
    token = add(tokens[0], "short", SOURCE, frozenset([Right.READ]))
    client = with_token(door, token)
    wait_for("the new token", lambda: client("GET", "/v1/commands/none").status == 404)
    assert revoke(tokens[0], "short")
    wait_for("its end", lambda: client("GET", "/v1/commands/none").status == 401)


def test_a_file_that_was_spoilt_changes_nothing(door, tokens, log):
    """Who edits it by hand and isn't finished locks nobody out; it is told."""
    text = tokens[0].read_text()
    tokens[0].write_text('{"tokens": [')
    try:
        reads = with_token(door, tokens[1][Right.READ])

        def told():
            assert reads("GET", "/v1/commands/none").status == 404
            return any("can't be read" in line for line in log.lines)

        wait_for("a word", told)
    finally:
        tokens[0].write_text(text)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("10.1.2.3", 200),
        ("shop.example:443", 200),
        ("shop.example.", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_a_name_of_somebody_elses_leads_nowhere(open_shop, host, status):
    """DNS rebinding: the address may be ours, but the name isn't; `--allow-host` names those that are."""
    with gateway(open_shop, hosts=("shop.example",)) as door:
        told = door("GET", "/livez", headers={"Host": host})
    assert told.status == status


@pytest.mark.parametrize("name", ["Host", "Authorization", "Idempotency-Key", "Content-Type"])
def test_what_is_said_twice_isnt_guessed(door, name, tokens):
    """A header that decides something and is there twice is refused."""
    place = urlsplit(door.address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE_S)
    connection.putrequest("GET", "/v1/commands/a", skip_host=True)
    connection.putheader("Host", "localhost")
    if name != "Authorization":
        connection.putheader("Authorization", f"Bearer {tokens[1][Right.READ]}")
    for value in ("a", "b"):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


# How much and how often


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(door, tokens, chunked):
    """413 by its announced length before it is sent, else as soon as it is beyond the limit."""
    place = urlsplit(door.address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {tokens[1][Right.BUY]}", "Content-Type": "application/json"}
    try:
        if chunked:
            body = iter([b" " * 1024] * 65)
            connection.request("POST", "/v1/purchases", body, headers, encode_chunked=True)
        else:
            connection.putrequest("POST", "/v1/purchases")
            for name, value in {**headers, "Content-Length": str(64 * 1024 + 1)}.items():
                connection.putheader(name, value)
            connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "SL-HTTP-413")
    finally:
        connection.close()


def test_the_largest_body_is_read(door, tokens):
    """64 KiB are taken."""
    buy = with_token(door, tokens[1][Right.BUY])
    body = json.dumps(PURCHASE).ljust(64 * 1024)
    assert buy("POST", "/v1/purchases", body, {"Idempotency-Key": "largest"}).status in (200, 202)


def test_who_asks_too_often_is_told_when_to_ask_again(open_shop, tokens):
    """429 with Retry-After, for that token alone."""
    with gateway(open_shop, tokens=tokens[0], per_s=0.5) as door:
        read, buy = (with_token(door, tokens[1][right]) for right in (Right.READ, Right.BUY))
        told = wait_for("a refusal", lambda: _refused(read("GET", "/v1/commands/none")))
        assert (told.code, told.headers["retry-after"]) == ("SL-HTTP-429", "1")
        assert buy("GET", "/v1/commands/none").status == 404
        wait_for("its turn", lambda: read("GET", "/v1/commands/none").status == 404)


def _refused(told):
    return told if told.status == 429 else None


def test_more_than_may_wait_are_sent_away(new_group):
    """503, and what is sent away isn't published; those that wait go on waiting."""
    group = new_group(partitions=2)
    with gateway(group, waiting_max=2) as door, ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(door.buys, f"waits-{n}", wait=30) for n in range(2)]
        wait_for("both", lambda: records(group) == 2)
        told = door.buys("too-many")
        assert (told.status, told.body["retryable"]) == (503, True)
        assert "nothing was published" in told.body["detail"]
        group.catch_up()
        assert [each.result(PATIENCE_S).status for each in waits] == [200, 200]
        assert door("GET", "/v1/commands/too-many").status == 404


def test_a_slow_client_holds_up_nobody(open_shop, monkeypatch):
    """Who sends a header, or a body, and no more, is waited for by no thread; and not for ever."""
    monkeypatch.setattr("gateway.guard.BODY_WAIT_S", 0.5)
    with gateway(open_shop) as door:
        place = urlsplit(door.address)
        begun = [socket.create_connection((place.hostname, place.port)) for _ in range(100)]
        try:
            for number, each in enumerate(begun):
                head = b"POST /v1/purchases HTTP/1.1\r\nHost: localhost\r\n"
                body = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
                each.sendall(head + (body if number % 2 else b""))
            assert door.buys("beside-the-slow").status == 200
            begun[1].settimeout(PATIENCE_S)
            assert b" 408 " in begun[1].recv(1000)
        finally:
            for each in begun:
                each.close()


# Secrets


def test_no_secret_gets_out(open_shop, tmp_path):
    """Neither a token, a body, a key nor a header stands in a log, metric, page, or another's answer."""
    path = tmp_path / "tokens.json"
    token = add(path, "shop", SOURCE, frozenset(Right))
    canary = "canary-7f3a"
    with Served(open_shop, "--tokens", str(path)) as served:
        address = served.ready()
        answers = []
        for key in (token, f"{token}x", canary):
            door = Client(address, key)
            for body in (PURCHASE | {"user_id": canary}, f'{{"{canary}', [canary]):
                answers.append(
                    door("POST", "/v1/purchases", body, {"Idempotency-Key": "c", "X-Other": canary})
                )
            answers.append(door("GET", f"/v1/{canary}"))
            answers.append(door("GET", f"/{canary}?{canary}", headers={"Host": canary}))
        query = urlencode(dict.fromkeys(PARAMETERS, canary))
        for template, methods in DOCUMENT["paths"].items():
            filled = re.sub(r"{\w+}", canary, template)
            for method in methods:
                exchange(address, [_with_canary(method, f"{filled}?{query}", token, canary)])
        exchange(address, [f"GET / HTTP/1.1\r\n{canary}\r\n\r\n".encode()])
        pages = [Visitor(address, token)(f"/ui/{screen}") for screen in SCREENS]
        assert {page.status for page in pages} == {200}
        metrics = Client(address, token)("GET", "/metrics").body
        assert served.ends(signal.SIGTERM) == 0
    said = "".join([*served.said, *(page.source for page in pages), metrics])
    told = json.dumps([[each.headers, each.body] for each in answers], default=dict)
    for secret in (token, token.removeprefix("stockledger_"), canary):
        assert secret not in said
        assert secret not in told
    assert token not in path.read_text()


def _with_canary(method, path, token, canary):
    lines = [f"{name}: {canary}" for name in HEADERS]
    lines += [f"Authorization: Bearer {token}", "Content-Type: application/json", "Connection: close"]
    return framed(method.upper(), path, lines, json.dumps({canary: canary}).encode())


def test_it_serves_tls(open_shop, tmp_path):
    """With a certificate and its key it speaks HTTPS, and nothing else."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    with gateway(open_shop, certificate=certificate, key=key) as door:
        trust = ssl.create_default_context(cafile=str(certificate))
        client = Client(door.address, trust=trust)
        assert door.address.startswith("https://")
        assert client.buys("by-tls").status == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            Client(door.address.replace("https", "http"))("GET", "/livez")
