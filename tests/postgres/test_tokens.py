"""Tokens: everywhere a position is told or taken, and refused by every ledger with another history."""

import json
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ledger.api import Ledger
from ledger.domain.commands import MessageKey
from ledger.domain.token import Token
from ledger.errors import HistoryChanged, Unavailable
from ledger.history.events import Window, replay
from ledger.store.connection import database
from ledger.store.reads.history import Wanted
from ledger.store.schema.migrate import migrate
from ledger.store.tables import journal
from stockledger import cli
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.conftest import database as fresh_database
from tests.postgres.test_replay_long import TIMEOUT_S, running
from tests.support.batches import Lanes
from tests.support.environment import inherited, unset
from tests.support.history import buys, history
from tests.support.standby import become_standby, cut_off

SHARED = 7
"""The last position that both histories have."""
FROM_VIEW = """
SELECT position || '-' || left(encode(hash, 'hex'), 16) FROM ledger.journal_entries ORDER BY position
"""
GENESIS = str(Token.at(0, journal.GENESIS))


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def tokens(conn):
    """The tokens of a small ledger, as anyone can make them of the view."""
    history(conn)
    return [token for (token,) in conn.execute(FROM_VIEW)]


@pytest.fixture
def stockledger(monkeypatch, capsys):
    """`stockledger(dsn, "stock", ...)` -> (exit code, the object)."""
    unset(monkeypatch)

    def run(dsn, *arguments):
        monkeypatch.setenv("STOCKLEDGER_DSN", dsn)
        code = cli.execute([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def restored(services, ledger_dsn, conn):
    """Two ledgers: one that has gone on by three entries, and one from a copy before these, with others.

    Gives the DSNs of both, and the three tokens that only the first one has.
    """
    history(conn)
    conn.close()
    with fresh_database(services, "restored", conninfo_to_dict(ledger_dsn)["dbname"]) as name:
        dsn = services.postgres.dsn(name)
        lost = go_on(ledger_dsn, "before")
        go_on(dsn, "after")
        yield ledger_dsn, dsn, lost


def go_on(dsn, ids):
    """Three more entries; returns their tokens."""
    with database.connect(dsn, purpose="test") as conn:
        lanes = Lanes(conn)
        for number in range(3):
            lanes.apply(1, buys(f"{ids}-{number}", "anna", 1))
        return [token for (token,) in conn.execute(FROM_VIEW)][-3:]


def test_every_answer_that_has_a_position_has_its_token(ledger_dsn, conn, tokens):
    """Outcome, status, moment and stock tell the place in this one history, as the views give it."""
    with Ledger(ledger_dsn) as ledger:
        for found in [*ledger.search(), *ledger.outcome("p4")]:
            assert found.token == tokens[found.position - 1]
        assert (ledger.status().position, ledger.status().token) == (7, tokens[-1])
        assert [ledger.moment(position).token for position in range(8)] == [GENESIS, *tokens]
        assert ledger.moment().token == ledger.moment(7).token
        now = ledger.stock_now(["tea", "Tea"])
        assert (now.moment, now.levels) == (ledger.moment(), {"tea": ledger.stock("tea")})


def test_an_empty_ledger_has_a_token(ledger_dsn):
    """Position 0 has the hash that every chain begins with."""
    with Ledger(ledger_dsn) as ledger:
        assert ledger.status().token == ledger.moment().token == ledger.moment(GENESIS).token == GENESIS
        assert ledger.moment().recorded_at is ledger.stock_now([]).moment.recorded_at is None
        assert ledger.wait_for_position(GENESIS, 0) == 0
        with pytest.raises(HistoryChanged):
            ledger.moment("0-0000000000000000")


def test_wherever_a_position_is_taken_a_token_is(ledger_dsn, conn, tokens):
    """Python: `as_of`, `since`, `until`, `wait_for_position`, `Window`; the answers are the position's."""
    with Ledger(ledger_dsn) as ledger:
        for position, token in enumerate([GENESIS, *tokens]):
            assert ledger.moment(token) == ledger.moment(position)
            assert ledger.stock("tea", as_of=token) == ledger.stock("tea", as_of=position)
            assert ledger.stock_levels(as_of=token) == ledger.stock_levels(as_of=position)
            assert ledger.search(since=token) == ledger.search(since=position)
            assert ledger.search(until=token) == ledger.search(until=position)
            assert ledger.wait_for_position(token, 0) == 7
        assert list(replay(conn, Window(tokens=tuple(tokens)), Wanted())) == list(
            replay(conn, Window(), Wanted())
        )
        for text in ("7", "7-", f"{tokens[-1]}0"):
            for ask in (ledger.moment, lambda text: ledger.wait_for_position(text, 0)):
                with pytest.raises(ValueError, match="is no token"):
                    ask(text)


def test_the_command_line_has_and_takes_tokens(stockledger, ledger_dsn, tokens):
    """`--json` has them in outcome, stock and status; every option that takes a position takes one."""
    _, answer = stockledger(ledger_dsn, "outcome", "p4")
    assert answer["outcomes"][0]["token"] == tokens[2]
    assert stockledger(ledger_dsn, "status", "-X", "bootstrap.servers=127.0.0.1:1")[1]["token"] == tokens[-1]
    for arguments in (["stock"], ["stock", "tea"], ["stock", "tea", "--as-of", 7]):
        _, answer = stockledger(ledger_dsn, *arguments)
        assert (answer["token"], answer["as_of"]["position"]) == (tokens[-1], 7)
    for verb, option, at in [
        (["stock", "tea"], "--as-of", 3),
        (["stock", "tea"], "--min-position", 3),
        (["outcome", "p4"], "--min-position", 3),
        (["outcome"], "--since", 3),
        (["outcome"], "--until", 3),
    ]:
        by_position = stockledger(ledger_dsn, *verb, option, at)
        assert by_position[0] == 0
        assert stockledger(ledger_dsn, *verb, option, tokens[at - 1]) == by_position
    for wrong in ("-1", "3-", "tomorrow", tokens[2].upper() + "F", "9" * 19):
        assert stockledger(ledger_dsn, "stock", "tea", "--min-position", wrong)[0] == 2
        assert stockledger(ledger_dsn, "stock", "tea", "--as-of", wrong)[0] == 2


def test_replay_takes_tokens(stockledger, ledger_dsn, tokens, tmp_path):
    """`--from`, `--to` and `--since` take tokens as positions; those of another history write nothing."""

    def written(*options):
        into = tmp_path / "events"
        code, answer = stockledger(ledger_dsn, "replay", "--into", into, *options)
        lines = into.read_text() if into.exists() else ""
        into.unlink(missing_ok=True)
        return code, answer.get("next_position"), lines

    assert written("--from", tokens[2], "--to", tokens[6]) == written("--from", 3, "--to", 7)
    assert written("--since", tokens[2]) == written("--since", 3)
    for option in ("--from", "--to", "--since"):
        assert written(option, f"3-{'0' * 16}") == (4, None, "")


def test_a_restored_ledger_refuses_exactly_the_lost_tokens(restored, stockledger):
    """After a restore to an older state the same positions have other content: no token of the lost past is
    believed anywhere, each of the shared one still is, and the refusal names both hashes."""
    before, after, lost = restored
    with Ledger(before) as old, Ledger(after) as new:
        shared = [old.moment(position).token for position in range(SHARED + 1)]
        for token in shared:
            assert new.moment(token) == old.moment(token)
            assert new.wait_for_position(token, 0)
        for token in lost:
            there = new.moment(Token.parse(token).position).token
            for ask in (
                new.moment,
                lambda token: new.stock("tea", as_of=token),
                lambda token: new.stock_levels(as_of=token),
                lambda token: new.search(since=token),
                lambda token: new.search(until=token),
                lambda token: new.wait_for_position(token, 5),
                lambda token: new.wait_for_position(token, 5, "user_events"),
            ):
                with pytest.raises(HistoryChanged) as refused:
                    ask(token)
                assert refused.value.expected == token.split("-")[1]
                assert refused.value.actual == there.split("-")[1]
                assert old.wait_for_position(token, 0)
    for arguments in (
        ["stock", "tea", "--min-position"], ["stock", "tea", "--as-of"], ["stock", "--as-of"],
        ["outcome", "p4", "--min-position"], ["outcome", "--since"], ["outcome", "--until"],
        ["verify", "--since"],
    ):  # fmt: skip
        code, answer = stockledger(after, *arguments, lost[0])
        assert (code, answer["error"]["code"]) == (4, "SL-HIST-001"), arguments


def test_a_token_beyond_the_head_is_of_a_lost_past(ledger_dsn, tokens):
    """On a server that isn't a standby a position that has a token was committed: refused at once."""
    beyond = f"{SHARED + 1}-{'0' * 16}"
    with Ledger(ledger_dsn) as ledger:
        for ask in (ledger.moment, lambda token: ledger.wait_for_position(token, 3600)):
            with pytest.raises(HistoryChanged, match="no such position"):
                ask(beyond)


@pytest.fixture
def primary_and_standby():
    """A server with a small ledger, and its standby."""
    folders = [Path(tempfile.mkdtemp(prefix="stockledger-test-")) for _ in range(2)]
    primary, standby = map(EmbeddedPostgres, folders)
    try:
        primary.start()
        with database.connect(primary.dsn(), purpose="test") as conn:
            migrate(conn)
            history(conn)
        become_standby(standby, folders[1], primary, folders[0])
        yield primary, standby
    finally:
        for server, folder in ((standby, folders[1]), (primary, folders[0])):
            server.stop()
            shutil.rmtree(folder)


def test_a_standby_that_is_promoted_behind_refuses_what_it_never_had(primary_and_standby):
    """While it is a standby a token that it hasn't heard of is waited for; once it is promoted three entries
    behind, exactly those three are refused: beyond its head, and after others took their positions."""
    primary, standby = primary_and_standby
    with Ledger(primary.dsn()) as old, Ledger(standby.dsn()) as new:
        heard = go_on(primary.dsn(), "heard")
        assert new.wait_for_position(heard[-1], 60) == SHARED + 3
        cut_off(standby)
        lost = go_on(primary.dsn(), "lost")
        with pytest.raises(TimeoutError, match="not yet at 11"):
            new.wait_for_position(lost[0], 0.05)
        with pytest.raises(ValueError, match="the journal ends at 10"):
            new.moment(lost[0])
        with pytest.raises(Unavailable, match="as far as this standby has heard"):
            follows(standby.dsn(), lost[2])
        refused: list[str | None] = []
        waits = threading.Thread(target=lambda: refused.append(refusal(new, lost[2])))
        waits.start()
        with psycopg.connect(standby.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        waits.join(60)
        assert refused == [None]  # beyond the head of a server that takes writes
        others = go_on(standby.dsn(), "others")
        for token in heard:
            assert old.moment(token) == new.moment(token)
        for token, there in zip(lost, others, strict=True):
            assert refusal(new, token) == there.split("-")[1]
            assert new.moment(there).token == there
            assert refusal(old, there) == token.split("-")[1]
        with pytest.raises(HistoryChanged):
            follows(standby.dsn(), lost[2])


def follows(dsn, token):
    """Go on with the events, as one who was told that the journal ends there."""
    with database.connect(dsn, purpose="test") as conn:
        list(replay(conn, Window(Token.parse(token).position + 1, tokens=(token,)), Wanted()))


def refusal(ledger, token):
    """The hash that the ledger has there instead; raises if it believes the token."""
    try:
        ledger.wait_for_position(token, 60)
    except HistoryChanged as error:
        return error.actual
    raise AssertionError(token)


def test_who_waits_learns_of_a_restore(restored):
    """The outcome that somebody waited for is there or isn't, but its token tells the two histories apart."""
    before, after, lost = restored
    with Ledger(before) as old, Ledger(after) as new:
        found = old.wait(MessageKey("shop", "before-0"), 5)
        assert found.token == lost[0]
        assert new.outcome("before-0") == []
        assert new.wait(MessageKey("shop", "after-0"), 5).token != lost[0]


RENAME = sql.SQL("ALTER DATABASE {} RENAME TO {}")


@contextmanager
def in_the_place_of(services, original, copy):
    """Whoever connects to the original gets the copy, and those who were connected aren't any more."""
    one, other = (str(conninfo_to_dict(dsn)["dbname"]) for dsn in (original, copy))
    old, new, aside = map(sql.Identifier, (one, other, f"{one}_aside"))
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(old))
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (one,)
        )
        admin.execute(RENAME.format(old, aside))
        admin.execute(RENAME.format(new, old))
        try:
            yield
        finally:
            admin.execute(RENAME.format(old, new))
            admin.execute(RENAME.format(aside, old))


def test_who_follows_does_not_go_on_in_another_history(restored, services):
    """A restore takes the original's place under `replay --follow`: nothing of it is written after the lost
    past, whose end is refused as its token is."""
    before, after, lost = restored
    with running(inherited() | {"STOCKLEDGER_DSN": before}, "replay", "--follow") as process:
        seen = [json.loads(process.stdout.readline())["causationid"] for _ in range(17)]
        with in_the_place_of(services, before, after):
            rest, said = process.communicate(timeout=TIMEOUT_S)
    assert seen[-3:] == ["before-0", "before-1", "before-2"]
    assert (rest, process.returncode) == ("", 4)
    assert "SL-HIST-001" in said
    assert f"the token {lost[-1]} is of another history" in said


FORGET = """
ALTER TABLE ledger.journal DISABLE TRIGGER ALL;
DELETE FROM ledger.journal WHERE position = 7;
UPDATE ledger.head SET (position, hash, recorded_at) =
    (SELECT position, hash, recorded_at FROM ledger.journal WHERE position = 6)
"""


@pytest.mark.parametrize("others", [False, True], ids=["shorter", "with other entries"])
def test_each_pause_proves_the_history_again(ledger_dsn, conn, tokens, others):
    """The tables are restored under a connection that stays: who follows over it is told, too."""

    def restore(_):
        with psycopg.connect(ledger_dsn) as admin:
            admin.execute(FORGET)
        if others:
            go_on(ledger_dsn, "after")
        return True

    following = replay(conn, Window(7), Wanted(), restore)
    assert next(following).end == tokens[-1]
    with pytest.raises(HistoryChanged, match=f"the token {tokens[-1]} is of another history"):
        list(following)
