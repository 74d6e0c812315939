"""The verbs against real services: what they answer, how they fail, and that each one can be asked twice."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg import sql

from consumer import records
from ledger.domain.delivery import Lane, Record
from stockledger import cli
from stockledger.reports import standstill
from tests.support import shapes
from tests.support.environment import unset
from tests.support.parked import listing, park

CANARY = "canary-55e1"
NOWHERE = "127.0.0.1:1"
COMMANDS = [
    {"type": "RegisterUser", "id": "u1", "user_id": "anna"},
    {"type": "ListGoods", "id": "g1", "goods_id": "cup"},
    {"type": "ReceiveStock", "id": "s1", "goods_id": "cup", "quantity": 10},
    {"type": "PurchaseGoods", "id": "p1", "user_id": "anna", "goods_id": "cup", "quantity": 4},
    {"type": "PurchaseGoods", "id": "p2", "user_id": "anna", "goods_id": "cup", "quantity": 40},
]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def object(self):
        """The one JSON object on stdout."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def error(self):
        return self.object["error"]


@pytest.fixture
def environment(services, topic):
    """The settings of one test: its own topic, and the broker; no database yet."""
    return {
        "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": services.kafka.bootstrap_servers,
        "STOCKLEDGER_TOPIC": topic(1),
        "STOCKLEDGER_SOURCE": "shop",
    }


@pytest.fixture
def stockledger(environment, ledger_dsn, monkeypatch, capsys):
    """`stockledger("status")` -> Result, in this process, on a migrated ledger and an empty topic."""
    unset(monkeypatch)
    environment["STOCKLEDGER_DSN"] = ledger_dsn
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        code = cli.execute([str(argument) for argument in arguments])
        result = Result(code, *capsys.readouterr())
        assert "--json" not in arguments or shapes.undocumented(arguments, result.object) == []
        return result

    return run


@pytest.fixture
def empty_dsn(services):
    """A database without a ledger."""
    name = f"stockledger_cli_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield services.postgres.dsn(name)
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def orders(tmp_path):
    """A file with five commands: four to be applied, one to be rejected."""
    file = tmp_path / "orders.jsonl"
    file.write_text("".join(json.dumps(command) + "\n" for command in COMMANDS))
    return file


@pytest.fixture
def applied(stockledger, orders):
    """The ledger after those commands."""
    assert stockledger("publish", orders).code == 0
    assert stockledger("run", "--until-caught-up").code == 0
    return stockledger


# Setting up


def test_migrate_twice(stockledger, empty_dsn):
    """The second time there is nothing to do; --check is 1 before and 0 after."""
    assert stockledger("migrate", "--check", "--dsn", empty_dsn).code == 1
    first = stockledger("migrate", "--dsn", empty_dsn, "--json").object
    assert first["schema"] == len(first["applied"]) > 0
    assert stockledger("migrate", "--dsn", empty_dsn, "--json").object["applied"] == []
    assert "up to date" in stockledger("migrate", "--check", "--dsn", empty_dsn).out


def test_the_printed_script_is_the_migration(stockledger, empty_dsn):
    """What `migrate --print` prints brings the schema up to date, as `migrate` sees it."""
    script = stockledger("migrate", "--print").out
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(script.encode())
    assert stockledger("migrate", "--check", "--dsn", empty_dsn).code == 0


@pytest.mark.real_kafka
def test_migrate_makes_the_topic(stockledger, services):
    """--topic NAME --partitions N makes it; one that exists is left alone, and that is said."""
    name = f"commands-{uuid.uuid4().hex[:12]}"
    try:
        [made] = stockledger("migrate", "--topic", name, "--partitions", 3, "--json").object["topics"]
        assert (made["name"], made["partitions"]) == (name, 3)
        again = stockledger("migrate", "--topic", name, "--partitions", 5)
        assert again.code == 0
        assert "left alone" in again.err
    finally:
        services.kafka.delete_topic(name)


# From the file to the answer


def test_publish_run_ask(stockledger, orders):
    """Each verb's answer once the commands are applied; published twice, they count once."""
    published = stockledger("publish", orders, "--json").object
    assert (published["lines"], published["published"]) == (5, 5)
    stockledger("publish", orders)
    ran = stockledger("run", "--until-caught-up", "--json").object
    assert ran["deliveries"] == {"applied": 4, "rejected": 1, "duplicate": 5, "conflict": 0, "dead": 0}
    assert stockledger("stock", "cup", "--json").object["on_hand"] == 6
    (outcome,) = stockledger("outcome", "p2", "--source", "shop", "--json").object["outcomes"]
    assert (outcome["outcome"], outcome["reason"]) == ("rejected", "insufficient_stock")
    assert stockledger("outcome", "p1").out.startswith("applied  shop/p1  goods-cup version 3")


def test_status(applied, environment):
    """Lanes with what is stored and what Kafka has; the lag of a caught-up ledger is 0, not unknown."""
    status = applied("status", "--json").object
    assert status["lag"] == 0
    assert sum(lane["next_offset"] for lane in status["lanes"]) == 5
    assert status["deliveries"]["applied"] == 4
    text = applied("status").out
    assert f"{environment['STOCKLEDGER_TOPIC']}[0]" in text
    assert "lag 0" in text


def test_a_lane_that_stands_still_is_named_with_its_owner(applied, orders, environment, monkeypatch):
    """Records wait and nobody applies them, whether the worker is frozen or gone: `status` and `doctor` say
    since when and who had the lane last, and the way on is another worker, not the dead letters."""
    owner = f"{socket.gethostname()}:{os.getpid()}"
    orders.write_text('{"type": "ListGoods", "id": "g2", "goods_id": "pot"}\n')
    kafka = Producer({"bootstrap.servers": environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"]})
    kafka.produce(environment["STOCKLEDGER_TOPIC"], b"no command")
    assert kafka.flush(60) == 0
    assert applied("run", "--until-caught-up").code == 0
    [lane] = applied("status", "--json").object["lanes"]
    assert datetime.fromisoformat(lane["last_moved_at"]) <= datetime.now(UTC)
    assert applied("publish", orders).code == 0
    assert lane["last_moved_at"] in applied("status").out
    assert "last owner" not in applied("status").out, "a minute isn't over"
    monkeypatch.setattr(standstill, "STILL_S", 0)
    name = f"{environment['STOCKLEDGER_TOPIC']}[0]"
    told = f"{name} hasn't moved since {lane['last_moved_at']}, and 1 record can be applied; its last owner"
    assert f"warn  {told} is the process {owner}" in applied("status").out
    assert applied("status", "--json").object["next"] == "stockledger run"
    [found] = [each for each in applied("doctor", "--json").object["findings"] if each["what"] == "lanes"]
    assert (found["level"], found["fix"]) == (
        "warn",
        f"stockledger run --topic {environment['STOCKLEDGER_TOPIC']}",
    )
    assert found["found"].startswith(told)
    assert applied("run", "--until-caught-up").code == 0
    assert "warn" not in applied("status").out
    assert levels(applied("doctor", "--json"))["lanes"] == "ok"


def test_status_before_the_first_run(stockledger, orders):
    """Lanes that the ledger hasn't met are shown as unknown, with what waits in them."""
    stockledger("publish", orders)
    status = stockledger("status", "--json").object
    assert {lane["last_moved_at"] for lane in status["lanes"]} == {None}
    assert status["lag"] == 5
    assert {lane["next_offset"] for lane in status["lanes"]} == {None}
    assert status["next"] == "stockledger run"


@pytest.mark.parametrize("options", [[], ["--topic"]], ids=str)
def test_verify(applied, options):
    """Every check is shown; with --topic the records themselves are compared."""
    result = applied("verify", "--json", *options)
    assert result.code == 0
    names = [check["name"] for check in result.object["checks"]]
    assert ("topic" in names) == bool(options)
    assert all(line.startswith("ok") for line in applied("verify", *options).out.splitlines())


def test_verify_finds_a_difference(applied, environment):
    """A row that was changed behind the ledger's back: exit 4, and the first difference."""
    with psycopg.connect(environment["STOCKLEDGER_DSN"], autocommit=True) as conn:
        conn.execute("UPDATE ledger.stock SET on_hand = on_hand + 1")
    result = applied("verify")
    assert result.code == 4
    assert "SL-VER-001" in result.err
    assert "fail  stock" in result.out


def test_verify_shows_the_differing_row(applied, environment):
    """The row as it is stored and the one that should be there, as a diff, and under --json by column."""
    with psycopg.connect(environment["STOCKLEDGER_DSN"], autocommit=True) as conn:
        [(goods_id, on_hand, version)] = conn.execute(
            "UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE goods_id = 'cup'"
            " RETURNING goods_id, on_hand, version"
        ).fetchall()
    lines = applied("verify").out.splitlines()
    at = lines.index(f"      - goods_id {goods_id}  on_hand {on_hand}  version {version}")
    assert lines[at + 1] == f"      + goods_id {goods_id}  on_hand {on_hand - 1}  version {version}"
    (bad,) = (check for check in applied("verify", "--json").object["checks"] if not check["ok"])
    assert (bad["stored"]["on_hand"], bad["expected"]["on_hand"]) == (on_hand, on_hand - 1)


def test_verify_a_part(applied):
    """A run over a part says which one, and how to look at the same again."""
    position = applied("verify", "--json").object["position"]
    part = applied("verify", "--since", position, "--json")
    assert (part.code, part.object["since"]) == (0, position)
    sampled = applied("verify", "--sample", "50%", "--seed", 7, "--jobs", 2)
    assert sampled.code == 0
    assert "--seed 7 chooses the same" in sampled.err
    chosen = applied("verify", "--sample", 1, "--json").object
    assert chosen["sample"] == 1
    assert chosen["pages"] >= 1
    assert isinstance(chosen["seed"], int)


@pytest.mark.parametrize(
    "options",
    [
        ["--since", "1000"], ["--since", "-1"], ["--since", "x"], ["--sample", "0"], ["--sample", "101"],
        ["--sample", "some"], ["--seed", "7"], ["--sample", "5", "--topic"], ["--jobs", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_verify_of_a_part_that_there_is_not(applied, options):
    """A position that the journal doesn't have, or no percentage, is a usage error, exit 2."""
    result = applied("verify", *options, "--json")
    assert (result.code, result.error["code"]) == (2, "SL-CLI-001")


def test_verify_anchors(applied, environment, tmp_path):
    """An anchor is written where all is well, proved by the next run, and moved on by it."""
    file = tmp_path / "anchor.json"
    first = applied("verify", "--anchor", file, "--json").object
    assert first["anchor"]["position"] == first["position"]
    assert applied("verify", "--against", file).code == 0
    result = applied("verify", "--since", first["position"], "--anchor", file)
    assert (result.code, result.out.splitlines()[0].split()[:2]) == (0, ["ok", "anchor"])
    kept = file.read_text()
    with psycopg.connect(environment["STOCKLEDGER_DSN"], autocommit=True) as conn:
        conn.execute("UPDATE ledger.stock SET on_hand = on_hand + 1")
    result = applied("verify", "--anchor", file, "--json")
    assert (result.code, result.object["anchor"]) == (4, None)
    assert file.read_text() == kept
    assert not list(tmp_path.glob(".*"))


def test_verify_against_another_history(applied, tmp_path):
    """A ledger that isn't the anchor's fails by name, exit 4, and doesn't take the anchor's place."""
    file = tmp_path / "anchor.json"
    applied("verify", "--anchor", file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hash": "00" * 32}))
    kept = file.read_text()
    for option in ("--against", "--anchor"):
        result = applied("verify", option, file, "--json")
        assert (result.code, result.error["code"]) == (4, "SL-VER-001")
        assert [check["name"] for check in result.object["checks"] if not check["ok"]] == ["anchor"]
    assert file.read_text() == kept


def test_verify_without_its_anchor(applied, tmp_path):
    """A file that is missing or broken is named before anything is looked at, exit 4; it stays as it is."""
    file = tmp_path / "anchor.json"
    assert applied("verify", "--against", file, "--json").error["code"] == "SL-VER-003"
    file.write_text("{")
    for option in ("--against", "--anchor"):
        result = applied("verify", option, file)
        assert (result.code, result.out) == (4, "")
        assert "anchor.json holds no anchor" in result.err
        assert "  next: " in result.err
    assert file.read_text() == "{"


@pytest.mark.parametrize(
    "arguments", [("outcome", "nope"), ("outcome", "p1", "--source", "other"), ("stock", "nope")]
)
def test_unknown_is_exit_4(applied, arguments):
    """What isn't there is an error with a next step, not an empty answer."""
    result = applied(*arguments, "--json")
    assert result.code == 4
    assert result.error["code"] == "SL-CLI-002"
    assert result.error["remedy"]


# Dead letters


def test_dlq_redrive(stockledger, environment):
    """First a dry run with counts; then the record is in the topic again, byte for byte, and applied once."""
    park(environment, listing("late-1", "cup"), Record(b"k", b"no json", None), listing("late-2", "pot"))
    dry = stockledger("dlq", "redrive", "--all", "--json").object
    assert dry["dry_run"] is True
    assert dry["prospects"] == {"valid": 2, "dead": 1}
    assert dry["next"] == "stockledger dlq redrive --all --yes"
    assert stockledger("status", "--json").object["lag"] == 0, "nothing was published"

    done = stockledger("dlq", "redrive", "--all", "--yes", "--json")
    assert done.code == 1, "one record stays"
    assert [letter["offset"] for letter in done.object["redriven"]] == [0, 2]
    kafka = {"bootstrap.servers": environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"]}
    again = records.deliveries(kafka, Lane(environment["STOCKLEDGER_TOPIC"], 0), 3, 5)
    assert [delivery.record for delivery in again] == [listing("late-1", "cup"), listing("late-2", "pot")]

    assert stockledger("run", "--until-caught-up", "--json").object["deliveries"]["applied"] == 2
    assert stockledger("outcome", "late-2").out.startswith("applied")
    assert stockledger("verify", "--topic").code == 0
    listed = stockledger("dlq", "list", "--status", "all", "--json").object["dead_letters"]
    assert [letter["status"] for letter in listed] == ["redriven", "parked", "redriven"]


def test_dlq_redrive_of_a_known_id(stockledger, environment, orders):
    """Where a repaired command with the same id came meanwhile, the dry run says so."""
    park(environment, listing("g1", "cup"))
    stockledger("publish", orders)
    stockledger("run", "--until-caught-up")
    assert stockledger("dlq", "redrive", "0@0", "--json").object["prospects"] == {"known": 1}


def test_dlq_redrive_refuses_another_log(stockledger, environment):
    """Where the topic isn't the one that the record came from, nothing is sent and nothing is marked."""
    park(environment, listing("late-1", "cup"))
    with psycopg.connect(environment["STOCKLEDGER_DSN"], autocommit=True) as conn:
        conn.execute("UPDATE ledger.lane SET topic_id = 'another'")
    result = stockledger("dlq", "redrive", "--all", "--yes", "--json")
    assert (result.code, result.error["code"]) == (4, "SL-GRP-004")
    assert stockledger("dlq", "list", "--json").object["dead_letters"][0]["status"] == "parked"


def test_dlq_redrive_without_a_broker(stockledger, environment):
    """Nothing is marked that wasn't acknowledged."""
    park(environment, listing("late-1", "cup"))
    result = stockledger("dlq", "redrive", "--all", "--yes", "-X", f"bootstrap.servers={NOWHERE}", "--json")
    assert result.code == 3
    assert stockledger("dlq", "list", "--json").object["dead_letters"][0]["status"] == "parked"


def test_dlq_list_and_show(stockledger, environment):
    """The list names each record as `show` takes it; strangers' bytes are harmless on a terminal."""
    park(environment, Record(b"\x1b[31m", b"no json", [("ce_id", b"x")]))
    listed = stockledger("dlq", "list")
    assert "0@0" in listed.out
    assert "\x1b" not in listed.out
    assert "stockledger dlq show 0@0" in listed.err
    shown = stockledger("dlq", "show", f"{environment['STOCKLEDGER_TOPIC']}[0]@0", "--json").object
    assert shown["value"]["text"] == "no json"
    assert shown["headers"][0]["name"] == "ce_id"
    assert stockledger("dlq", "show", "0@99").code == 4


def test_dlq_discard(stockledger, environment):
    """A dry run, then the mark; the record is kept, and what isn't parked any more can't be chosen again."""
    park(environment, Record(b"k", b"no json", None))
    assert stockledger("dlq", "discard", "0@0", "--json").object["codes"] == {"unknown_type": 1}
    assert len(stockledger("dlq", "list", "--json").object["dead_letters"]) == 1
    assert stockledger("dlq", "discard", "0@0", "--yes").out == "discarded  0@0  unknown_type\n"
    assert stockledger("dlq", "list", "--json").object["dead_letters"] == []
    assert "discarded" in stockledger("dlq", "show", "0@0").out
    assert stockledger("dlq", "discard", "0@0", "--yes").code == 4


# Gaps


def test_no_gap(applied):
    """An empty list is no error; accepting a gap that isn't there is."""
    result = applied("gap", "list", "--json")
    assert (result.code, result.object["gaps"], result.object["waiting"]) == (0, [], [])
    assert applied("gap", "accept", 0, "--yes").code == 4


@pytest.mark.real_kafka
def test_gap_accept(applied, environment, services):
    """Records deleted before they were read stop the worker; only a person's yes goes on without them."""
    producer = Producer({"bootstrap.servers": services.kafka.bootstrap_servers})
    for _ in range(3):
        producer.produce(environment["STOCKLEDGER_TOPIC"], b"x", partition=0)
    producer.flush()
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers})
    kept = TopicPartition(environment["STOCKLEDGER_TOPIC"], 0, 7)
    admin.delete_records([kept])[kept].result(30)

    stopped = applied("run", "--until-caught-up", "--json")
    assert (stopped.code, stopped.error["code"]) == (4, "SL-GRP-002")
    assert levels(applied("doctor", "--json"))["lanes"] == "fail"
    (waiting,) = applied("gap", "list", "--json").object["waiting"]
    assert (waiting["first_offset"], waiting["next_offset"]) == (5, 7)
    dry = applied("gap", "accept", 0, "--by", "me", "--json").object
    assert (dry["dry_run"], dry["next"]) == (True, "stockledger gap accept --yes 0")
    assert applied("run", "--until-caught-up").code == 4, "a dry run changes nothing"

    assert applied("gap", "accept", 0, "--by", "me", "--yes").code == 0
    assert applied("run", "--until-caught-up", "--json").object["deliveries"]["dead"] == 1
    (gap,) = applied("gap", "list", "--json").object["gaps"]
    assert (gap["first_offset"], gap["next_offset"], gap["accepted_by"]) == (5, 7, "me")
    assert applied("verify", "--topic").code == 0


# Failures


DATABASE_VERBS = [
    ["migrate"], ["migrate", "--check"], ["status"], ["outcome", "x"], ["stock", "x"], ["verify"],
    ["dlq", "list"], ["dlq", "show", "0@0"], ["dlq", "redrive", "--all"], ["dlq", "discard", "--all"],
    ["gap", "list"], ["gap", "accept", "0"], ["doctor"],
]  # fmt: skip


@pytest.mark.parametrize("verb", DATABASE_VERBS, ids=" ".join)
def test_database_down_is_exit_3(stockledger, verb):
    """Unreachable is 3, worth another try, and never shows a password; not even with --debug."""
    dsn = f"postgresql://app:{CANARY}@{NOWHERE}/x"
    result = stockledger(*verb, "--dsn", dsn, "--json", "--debug")
    assert result.code == 3
    assert result.error["retryable"] is True
    assert CANARY not in result.out + result.err
    assert "Traceback" not in stockledger(*verb, "--dsn", dsn).err


@pytest.mark.parametrize(
    "verb",
    [["status"], ["gap", "list"], ["publish", "ORDERS"], ["verify", "--topic"], ["doctor"]],
    ids=" ".join,
)
def test_broker_down_is_exit_3(applied, orders, verb):
    """Unreachable is 3; what the database knows is shown all the same."""
    slow = ["-X", f"bootstrap.servers={NOWHERE}", "-X", "message.timeout.ms=1000"]
    result = applied(*(str(orders) if word == "ORDERS" else word for word in verb), *slow, "--json")
    assert result.code == 3
    assert result.error["retryable"] is True
    if verb == ["status"]:
        assert result.object["position"] > 0
        assert {lane["log_end_offset"] for lane in result.object["lanes"]} == {None}


@pytest.mark.parametrize(
    "verb", [["status"], ["outcome", "x"], ["stock", "x"], ["verify"], ["dlq", "list"], ["run"]], ids=" ".join
)
def test_no_schema_is_exit_4(stockledger, empty_dsn, verb):
    """A database without a ledger: the remedy is the command to run."""
    result = stockledger(*verb, "--dsn", empty_dsn, "--json")
    assert (result.code, result.error["code"]) == (4, "SL-DB-003")
    assert result.error["remedy"] == "stockledger migrate"


# Doctor


def levels(result):
    return {finding["what"]: finding["level"] for finding in result.object["findings"]}


def test_doctor_on_a_healthy_ledger(applied):
    """Nothing fails; exit 0."""
    result = applied("doctor", "--json")
    assert result.code == 0
    assert "fail" not in levels(result).values()
    assert {
        "versions",
        "broker",
        "cluster",
        "topic",
        "postgres",
        "schema",
        "identity",
        "lanes",
        "clock",
    } <= set(levels(result))


def test_doctor_names_what_is_broken(applied, empty_dsn, services):
    """Every finding that isn't ok says what to do; the others are made all the same."""
    result = applied(
        "doctor",
        "-X",
        f"bootstrap.servers={NOWHERE}",
        "-X",
        "socket.connection.setup.timeout.ms=1000",
        "--json",
    )
    assert result.code == 3
    assert levels(result)["broker"] == "fail"
    assert levels(result)["schema"] == "ok"
    fixes = {f["what"]: f["fix"] for f in applied("doctor", "--dsn", empty_dsn, "--json").object["findings"]}
    assert fixes["schema"] == "stockledger migrate"


def test_doctor_knows_whose_ledger_it_is(applied, monkeypatch):
    """Another group than the one that began the ledger is found before a worker is started."""
    monkeypatch.setenv("STOCKLEDGER_GROUP", "another")
    result = applied("doctor", "--json")
    assert result.code == 1
    assert levels(result)["identity"] == "fail"


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_run_ends_on_a_signal(stockledger, environment, number, code):
    """Ctrl-C is 130, an orchestrator's SIGTERM a success; one object on stdout either way."""
    command = [sys.executable, "-m", "stockledger", "run", "--json"]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "assigned" in line:
                break
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert json.loads(out)["ok"] is (code == 0)
