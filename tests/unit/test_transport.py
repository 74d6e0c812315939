"""What doctor says of the way to the servers: TLS, TLS that verifies nobody, none; and of secrets in view."""

from types import SimpleNamespace
from typing import Any

import pytest

import stockledger.doctor.kafka
from stockledger.doctor import examination, postgres
from stockledger.doctor.finding import OK, WARN
from stockledger.settings import load

CANARY = "canary-7711"


@pytest.mark.parametrize(
    ("kafka", "level", "words"),
    [
        ({"bootstrap.servers": "127.0.0.1:9092"}, OK, "on this machine"),
        ({"bootstrap.servers": "localhost:9092,10.0.0.7:9092"}, WARN, "plaintext to 10.0.0.7:9092"),
        (
            {"bootstrap.servers": "10.0.0.7:1", "security.protocol": "SASL_PLAINTEXT"},
            WARN,
            "sasl_plaintext to",
        ),
        ({"bootstrap.servers": "b:1", "security.protocol": "ssl"}, OK, "are verified"),
        (
            {"security.protocol": "sasl_ssl", "enable.ssl.certificate.verification": "False"},
            WARN,
            "enable.ssl.certificate.verification=false",
        ),
        (
            {"security.protocol": "ssl", "ssl.endpoint.identification.algorithm": "none"},
            WARN,
            "to anybody who says",
        ),
        (
            {"bootstrap.servers": f"ssl://app:{CANARY}@10.0.0.7:1"},
            WARN,
            "plaintext to",
        ),
    ],
)
def test_the_way_to_the_broker(kafka, level, words):
    """TLS that verifies nobody hides what is said from those who only listen: a warning, as no TLS is."""
    found = stockledger.doctor.kafka._transport(kafka)
    assert (found.level, words in found.found) == (level, True)
    assert (found.fix != "") == (level == WARN)
    assert CANARY not in str(found)


@pytest.mark.parametrize(
    ("host", "tls", "sslmode", "level"),
    [
        ("127.0.0.1", False, None, None),
        ("/run/postgresql", False, None, None),
        ("db.example", False, None, WARN),
        ("db.example", True, None, WARN),
        ("db.example", True, "require", WARN),
        ("db.example", True, "verify-ca", WARN),
        ("db.example", True, "verify-full", OK),
    ],
)
def test_the_way_to_postgres(host, tls, sslmode, level):
    """`sslmode=prefer`, libpq's default, takes whatever it is offered."""
    parameters = {"sslmode": sslmode} if sslmode else {}
    conn: Any = SimpleNamespace(
        info=SimpleNamespace(host=host, get_parameters=lambda: parameters),
        pgconn=SimpleNamespace(ssl_in_use=tls),
    )
    found = postgres._transport(conn)
    assert (found and found.level) == level
    if found and level == WARN:
        assert (sslmode or "prefer") in found.found
        assert found.fix == "set sslmode=verify-full"


def test_a_secret_on_the_command_line_is_in_view(monkeypatch):
    """`ps` shows it to everybody; the variable to put it into is named."""
    monkeypatch.setenv("STOCKLEDGER_KAFKA_SSL_KEY_PASSWORD", CANARY)
    given = [f"sasl.password={CANARY}", f"sasl.oauthbearer.extensions=token={CANARY}", "client.id=x"]
    settings = load({"dsn": f"postgresql://app:{CANARY}@db/x"}, given)
    found = list(examination._on_the_command_line(settings))
    assert {f.fix for f in found} == {
        "put it into STOCKLEDGER_DSN",
        "put it into STOCKLEDGER_KAFKA_SASL_PASSWORD",
        "put it into STOCKLEDGER_KAFKA_SASL_OAUTHBEARER_EXTENSIONS",
    }
    assert CANARY not in str(found) + repr(settings)


def test_user_parts_of_urls_are_masked():
    """A token endpoint's URL, a proxy's: whoever it is, his secret isn't shown."""
    url = f"https://client:{CANARY}@idp.example/token"
    settings = load({}, [f"sasl.oauthbearer.token.endpoint.url={url}"])
    assert CANARY not in repr(settings)
    assert "idp.example/token" in repr(settings)
