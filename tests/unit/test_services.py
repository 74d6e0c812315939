"""The ladder to Kafka and Postgres: which rung is taken, and what is said of the others."""

import pytest

from ledger.errors import Unavailable
from tests.support.java_kafka import NotUsable
from tests.support.services import Kafka, Postgres, Services, Unsupported, climb, given


def works(rung):
    return lambda: Services(rung, Kafka("localhost:1", "a broker"), Postgres(""), [])


def fails(error):
    def start():
        raise error

    return start


def test_the_first_rung_that_works_is_taken():
    """Lower rungs aren't started, and nothing is held against them."""
    services = climb({"docker": works("docker"), "java": fails(AssertionError("started"))})
    assert (services.rung, services.refused) == ("docker", [])


def test_every_rung_that_was_passed_says_why():
    """One line a rung, in the order they were tried."""
    rungs = {"docker": fails(NotUsable("no engine")), "java": fails(Unavailable("no wheel"))}
    services = climb(rungs | {"embedded": works("embedded")})
    assert (services.rung, services.refused) == ("embedded", ["docker: no engine", "java: no wheel"])


def test_a_forced_rung_is_the_only_one_tried():
    """STOCKLEDGER_TEST_RUNG: no other rung stands in for it, neither a better nor a worse one."""
    assert climb({"docker": works("docker"), "java": works("java")}, forced="java").rung == "java"
    with pytest.raises(match="java: no mvn"):
        climb({"java": fails(NotUsable("no mvn")), "embedded": works("embedded")}, forced="java")
    with pytest.raises(match="'jvm', not one of java"):
        climb({"java": works("java")}, forced="jvm")


def test_a_bug_is_no_reason_to_go_on():
    """Only "can't be used here" moves on to the next rung."""
    with pytest.raises(ZeroDivisionError):
        climb({"docker": fails(ZeroDivisionError()), "embedded": works("embedded")})


def test_given_services_need_both_addresses(monkeypatch):
    """Half of them given is said, not guessed at."""
    for name in ("STOCKLEDGER_DSN", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        given()
    monkeypatch.setenv("STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS", "localhost:1")
    with pytest.raises(match="STOCKLEDGER_DSN"):
        given()


@pytest.mark.parametrize("control", ["kill", "start", "pause", "resume"])
def test_what_was_given_is_not_controlled(control):
    """A test that needs to crash someone else's broker is told that it can't."""
    with pytest.raises(Unsupported, match="a broker can't be"):
        getattr(Kafka("localhost:1", "a broker"), control)()


def test_a_database_name_replaces_the_given_one():
    """The rest of the connection string stays."""
    dsn = Postgres("postgresql://anna:secret@db:5433/main").dsn("other")
    assert sorted(dsn.split()) == ["dbname=other", "host=db", "password=secret", "port=5433", "user=anna"]
