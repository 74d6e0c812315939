"""Every error's one next step: a table of situations, each carried out, and each step as it is printed."""

import json
import os
import re
import shlex

import psycopg
import pytest
import typer.main

from ledger.domain.commands import ListGoods
from ledger.store.connection import database
from ledger.store.rules import audit
from stockledger import cli
from tests.support.batches import says
from tests.support.environment import unset
from tests.support.history import history

ODD = "a; touch /tmp/pwned #"
BLANK = re.compile(r"\b(NAME|ID|N|HOST|PORT|USER|FILE|TOPIC|PARTITION|this role|VERB)\b|\.\.\.|<\w+>|`")
STEPS = re.compile(r"; (?!SELECT)|\bor, if\b|, then ")
"""What a single step doesn't have."""
WORDS_THAT_ARE_MEANT = re.compile(r"https?://\S+")


@pytest.fixture
def stockledger(services, ledger_dsn, monkeypatch, capsys, tmp_path):
    """`stockledger("stock", "x")` -> (code, its error), in this process, in an empty folder."""
    unset(monkeypatch)
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = cli.execute([str(word) for word in (*words, "--json")])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def filled(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = history(conn)
        lanes.apply(1, says("g-odd", ListGoods(goods_id=ODD)))
        yield conn


def parsed(line):
    """The command line as the program itself takes it apart, down to the verb; nothing is run."""
    words = shlex.split(line)
    assert words[0] == "stockledger"
    command, context = typer.main.get_command(cli.app), None
    rest = words[1:]
    while rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        name, rest = rest[0], rest[1:]
        command = command.commands[name]
    if "--help" not in rest:
        context = command.make_context(words[1], rest)
    return context


SITUATIONS = [
    (["stock", "nope"], "SL-CLI-002", 4),
    (["stock", "TEA"], "SL-CLI-002", 4),
    (["stock", ODD + "x"], "SL-CLI-002", 4),
    (["stock", "tea", "--as-of", "99"], "SL-CLI-002", 4),
    (["stock", "late", "--as-of", "1"], "SL-CLI-002", 4),
    (["stock", ODD, "--as-of", "1"], "SL-CLI-002", 4),
    (["stock", "--", "-x", "--as-of", "1"], "SL-CLI-001", 2),
    (["stock", "tea", "--as-of", "yesterday"], "SL-CLI-001", 2),
    (["why", "nope"], "SL-CLI-002", 4),
    (["why", "tea", "--limit", "99999999999999999999"], "SL-CLI-001", 2),
    (["outcome", "nope"], "SL-CLI-002", 4),
    (["outcome", ODD], "SL-CLI-002", 4),
    (["outcome"], "SL-CLI-001", 2),
    (["outcome", "p1", "--like", "p"], "SL-CLI-001", 2),
    (["outcome", "--since", "99"], "SL-CLI-002", 4),
    (["dlq", "show", "9@9"], "SL-CLI-002", 4),
    (["dlq", "show", ODD], "SL-CLI-001", 2),
    (["dlq", "discard"], "SL-CLI-001", 2),
    (["gap", "accept", "0"], "SL-CONF-001", 2),
    (["gap", "accept", "0", "--topic", "a,b"], "SL-CONF-001", 2),
    (["rebuild", "nope"], "SL-PRJ-004", 4),
    (["rebuild", "stock", "--rollback"], "SL-PRJ-005", 4),
    (["rebuild", "stock", "--rollback", "--cancel"], "SL-CLI-001", 2),
    (["project", "nope"], "SL-PRJ-004", 4),
    (["replay", "--check"], "SL-CLI-001", 2),
    (["replay", "--goods", "tea", "--stream", "goods-tea", "--into", "x"], "SL-CLI-001", 2),
    (["replay"], "SL-CLI-001", 2),
    (["replay", "--into", "/dev/null/x"], "SL-CLI-008", 4),
    (["verify", "--seed", "1"], "SL-CLI-001", 2),
    (["verify", "--since", "99"], "SL-CLI-001", 2),
    (["verify", "--against", "gone.json"], "SL-VER-003", 4),
    (["verify", "--anchor", "/proc/x.json"], "SL-VER-003", 4),
    (["migrate", "--topic", "t"], "SL-CLI-001", 2),
    (["migrate", "--partitions", "1"], "SL-CONF-001", 2),
    (["status"], "SL-CONF-001", 2),
    (["run"], "SL-CONF-001", 2),
    (["run", "-X", "acks.typo=1"], "SL-CONF-001", 2),
    (["run", "-X", "group.id=1"], "SL-CONF-001", 2),
    (["run", "-X", "x"], "SL-CONF-001", 2),
    (["publish", "gone.jsonl"], "SL-CONF-001", 2),
    (["publish", "gone.jsonl", "--topic", "a", "--topic", "b"], "SL-CONF-001", 2),
    (["dlq", "show", "9@9", "--topic", "a", "--topic", "b"], "SL-CLI-001", 2),
    (["run", "--topic", "a", "--topic", "a"], "SL-CONF-001", 2),
    (["publish", "gone.jsonl", "--dry-run"], "SL-IN-001", 4),
    (["config", "--dsn", "postgresql+psycopg://u:p@h/d"], "SL-CONF-001", 2),
    (["status", "--dsn", "postgresql://127.0.0.1:1/x"], "SL-DB-001", 3),
    (["nope"], "SL-CLI-001", 2),
    (["status", "--nope"], "SL-CLI-001", 2),
    (["status", "postgresql://u:secret-1@h/d"], "SL-CLI-001", 2),
]


@pytest.mark.parametrize(("words", "code", "exits"), SITUATIONS, ids=lambda value: str(value)[:60])
def test_the_next_step_can_be_done_as_printed(stockledger, filled, words, code, exits):
    """One step, without a blank; a command line is one that the program takes."""
    ended, answer = stockledger(*words)
    error = answer["error"]
    assert (error["code"], ended) == (code, exits), error
    remedy = error["remedy"]
    assert remedy
    assert "secret-1" not in str(answer)
    assert not BLANK.search(remedy), remedy
    if remedy.startswith("stockledger "):
        parsed(remedy)
        assert shlex.split(remedy)[1:] != [str(word) for word in words]
        if ODD in remedy:
            assert shlex.quote(ODD) in remedy
    else:
        assert not STEPS.search(remedy), remedy


def test_a_projection_that_nobody_began_is_told_with_its_cure(stockledger, filled, monkeypatch):
    """Nothing of it can be judged: red, but with a code of its own, and what helps. Beside another difference
    that one counts. A projection that lags is no fault, nor is one that had no time to begin."""
    assert stockledger("verify")[0] == 0
    at_once = tuple(
        rule._replace(statement=rule.statement.replace("'1 hour'", "'0 hours'")) for rule in audit.RULES
    )
    monkeypatch.setattr(audit, "RULES", at_once)
    ended, answer = stockledger("verify")
    assert (ended, answer["error"]["code"]) == (4, "SL-VER-004")
    assert "purchases_by_user has applied none of the 8 entries" in answer["error"]["message"]
    assert answer["error"]["remedy"] == "stockledger project"
    filled.execute("UPDATE ledger.stock SET on_hand = on_hand + 1")
    assert stockledger("verify")[1]["error"]["code"] == "SL-VER-001"
    filled.execute("UPDATE ledger.stock SET on_hand = on_hand - 1")
    assert stockledger("project", "--until-caught-up")[0] == 0
    filled.execute("UPDATE ledger.projection SET position = 7 WHERE name = 'sales_by_day'")  # 8 sold nothing
    assert stockledger("verify")[0] == 0


NOT_MIGRATED = [
    ["status"], ["stock", "x"], ["outcome", "x"], ["why", "x"], ["verify"], ["replay", "--into", "x"],
    ["project", "--until-caught-up"], ["rebuild", "stock"], ["dlq", "list"],
]  # fmt: skip


@pytest.mark.parametrize("words", NOT_MIGRATED, ids=" ".join)
def test_an_empty_database_leads_to_migrate_and_from_there_on(stockledger, services, monkeypatch, words):
    """No circle: each verb says `migrate`, and that is what helps."""
    name = f"stockledger_test_{os.getpid()}_empty"
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        try:
            monkeypatch.setenv("STOCKLEDGER_DSN", services.postgres.dsn(name))
            code, answer = stockledger(*words)
            assert (code, answer["error"]["code"]) == (4, "SL-DB-003")
            assert answer["error"]["remedy"] == "stockledger migrate"
            assert stockledger("migrate")[0] == 0
            answer = stockledger(*words)[1]
            assert answer.get("error", {}).get("code") != "SL-DB-003"
        finally:
            drop = psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)")
            admin.execute(drop.format(psycopg.sql.Identifier(name)))
