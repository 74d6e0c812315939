"""The dashboard: each screen, read without JavaScript, whatever ids are; and who may look and act."""

import json
import re
import urllib.request
from html import escape
from urllib.parse import urlencode

import pytest

from gateway.tokens import Right, add, revoke
from tests.support import publish
from tests.support.doorstep import SOURCE, Client, gateway
from tests.support.parked import listing, park
from tests.support.showcase import ALIKE, GOODS, MARKUP, SCRIPT_ID, TOLD_ONCE
from tests.support.visitor import SCREENS, Visitor, require_safe
from tests.support.workers import PATIENCE_S, wait_for


@pytest.fixture(scope="module")
def door(showcase):
    """A gateway of the ledger in which everything has happened."""
    with gateway(showcase) as client:
        yield client


@pytest.fixture
def look(door):
    return Visitor(door.address)


def of(screen, **query):
    return f"/ui/{screen}?{urlencode(query)}"


# Each screen


@pytest.mark.parametrize("screen", SCREENS)
def test_each_screen_is_whole_and_loads_nothing_from_elsewhere(look, screen):
    """A page with one heading, no script or style of its own in it, and only files of this gateway."""
    page = look(f"/ui/{screen}")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all(address.startswith("/ui/static/") for address in page.loads)
    assert all(link.startswith(("/ui/", "#")) for link in page.links)
    for tag, given in page.tags:
        assert tag != "style"
        assert tag != "script" or given.keys() == {"src", "defer"}
        assert not any(name == "style" or name.startswith("on") for name in given)


@pytest.mark.parametrize("name", GOODS)
def test_an_id_is_text_wherever_it_stands(look, name):
    """Markup, quotes, right-to-left, dots, slashes, the longest: shown as it is; each link leads to it."""
    item = look(of("item", id=name))
    assert item.status == 200
    assert name in item.text
    order = look(item.link(f"of-{GOODS.index(name)}"))
    assert order.status == 200
    bought = look(of("user", id=name))
    assert f"of-{GOODS.index(name)}" in bought.text
    assert name in bought.text
    for page in (item, order, bought, look("/ui/items"), look(of("find", q=name))):
        assert page.status == 200
        assert not [tag for tag, given in page.tags if tag == "img" or given.get("onerror")]
        assert [given for tag, given in page.tags if tag == "script"] == [
            {"src": "/ui/static/live.js", "defer": ""}
        ]


def test_a_command_with_markup_for_its_id(look):
    """What is a script elsewhere is the text of a heading here."""
    page = look(of("command", id=SCRIPT_ID))
    assert page.status == 200
    assert SCRIPT_ID in page.text
    assert escape(SCRIPT_ID, quote=False).replace("'", "&#39;").replace('"', "&#34;") in page.source


def test_in_three_clicks_from_the_customer_to_the_repeats(look):
    """He says he was charged twice: his id, his order, its deliveries. One counts, two changed nothing."""
    user = look(of("find", q="17850"))
    order = look(user.link(TOLD_ONCE))
    assert "counted once" in order.said
    assert "1 applied" not in order.said
    every = look(order.link("Find every delivery, repeats too"))
    rows = re.findall(r'class="badge (\w+)">', every.source.partition('id="deliveries"')[2])
    assert sorted(rows) == ["applied", "conflict", "duplicate", "duplicate"]
    assert "1 applied, 2 repeats that changed nothing." in every.said


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        (TOLD_ONCE, "/ui/find"),  # there is another one that begins so
        ("order-5", "/ui/command"),
        (ALIKE, "/ui/command"),
        ("17850", "/ui/user"),
        ("tea", "/ui/item"),
        ("later", "/ui/command"),
        ("", "/ui/find"),
        ("nothing-of-this-kind", "/ui/find"),
    ],
)
def test_one_box_finds_all(look, wanted, leads_to):
    """Where one thing alone can be meant, it is shown at once."""
    found = look(of("find", q=wanted), follows=False)
    at = found.headers.get("location", "/ui/find").partition("?")[0]
    assert at == leads_to
    assert look(of("find", q=wanted)).status == 200


def test_what_was_rejected_and_what_is_dead(look):
    """A command's page says why; of a dead letter it shows where it is."""
    assert "insufficient_stock" in look(of("command", id="too-many")).said
    later = look(of("command", id="later"))
    assert "parked: unknown_type" in later.said
    assert look(of("command", id="never-sent")).status == 404


def test_a_dead_letter_is_shown_and_never_obeyed(look, showcase):
    """Markup, bytes and characters that turn a line around are shown as text."""
    rows = showcase.ask('SELECT topic, partition, "offset" FROM ledger.dead_letters')
    pages = [look(of("dead-letter", topic=topic, partition=p, offset=o)) for topic, p, o in rows]
    assert [page.status for page in pages] == [200] * 4
    said = " ".join(page.text for page in pages)
    assert f"<b>{MARKUP}</b>" in said
    assert "\\u202edrow\\u202c" in said
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", "".join(page.source for page in pages))
    assert "AP/+IGJpbmFyeQ==" in said
    assert look(of("dead-letter", topic="none", partition=0, offset=0)).status == 404


def test_the_overview_says_what_was_proved_last(showcase, tmp_path):
    """The anchor of `verify` is compared with the journal: another history's, or none, is told."""
    anchor = tmp_path / "anchor.json"
    with gateway(showcase, anchor=anchor) as client:
        look = Visitor(client.address)
        assert "the last proof doesn't hold" in look("/ui/").said
        position = showcase.cli("verify", "--anchor", anchor)["anchor"]["position"]
        wait_for("the proof", lambda: f"Proved up to position {position}" in look("/ui/").said)
        kept = json.loads(anchor.read_text())
        anchor.write_text(json.dumps(kept | {"hash": "00" * 32}))
        wait_for("doubt", lambda: "history was rewritten" in look("/ui/").said)


def test_the_overview_says_how_long_buyers_wait(showcase, tmp_path):
    """From the request to the outcome, as this gateway saw it; none of the others' purchases."""
    tokens = tmp_path / "tokens.json"
    token = add(tokens, "shop", publish.SOURCE, frozenset([Right.BUY, Right.READ]))
    with gateway(showcase, tokens=tokens) as client:
        look = Visitor(client.address, token)
        assert "Nobody bought over this gateway" in look("/ui/").said
        again = Client(client.address, token).buys(TOLD_ONCE, user_id="17850", goods_id="tea", quantity=2)
        assert (again.status, again.replayed) == (200, True)
        wait_for("its wait", lambda: "1 purchases over this gateway" in look("/ui/").said)


def test_an_items_stock_as_of_any_version(look, showcase):
    """The slider is a form; a token and a time mean a version, too."""
    now = look(of("item", id="tea"))
    assert now.fields("/ui/item").keys() == {"id", "version", "as_of"}
    [(version, position, hash)] = showcase.ask(
        "SELECT e.version, e.position, j.hash FROM ledger.events e "
        "JOIN ledger.journal_entries j USING (position) WHERE e.id = 'order-9'"
    )
    for query in ({"version": version}, {"as_of": f"{position}-{hash.hex()[:16]}"}):
        page = look(of("item", id="tea", **query))
        assert f"As of version {version}" in page.said
        assert "order-9" in page.said
        assert "order-10" not in page.said
    assert look(of("item", id="tea", version=0)).status == 200
    assert look(of("item", id="tea", version=10**15)).status == 200
    assert look(of("item", id="tea", as_of=f"1-{'0' * 16}")).status == 409
    assert [look(of("item", id="tea", as_of=each)).status for each in ("never", "-1")] == [400, 400]


def test_goods_come_a_page_at_a_time(look, monkeypatch):
    """Each once, by id, whatever the size of a page; and those of a band."""
    monkeypatch.setattr("gateway.ui.items.ITEMS_MAX", 4)
    for path in ("/ui/items", "/ui/items?band=low"):
        seen, page = [], look(path)
        while True:
            seen += [given["href"] for tag, given in page.tags if tag == "a" and "/ui/item?" in given["href"]]
            if "Next" not in page.said:
                break
            page = look(page.link("Next"))
        assert len(seen) == len(GOODS) + (path == "/ui/items")
        assert len(seen) == len({*seen})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/nothing", 404),
        ("/ui/static/nothing.css", 404),
        ("/ui/static/../pages.py", 404),
        ("/ui/item?id=never-listed", 404),
        ("/ui/item", 400),
        ("/ui/item?id=tea&version=x", 400),
        ("/ui/items?band=none", 400),
        ("/ui/user?id=a&before=x", 400),
        ("/ui/dead-letters?after=x", 400),
        ("/ui/item?id=a%00b", 400),
        ("/ui/redrive?record=x", 400),
    ],
)
def test_a_refusal_is_a_page(look, path, status):
    """With what is wrong and the next step, for people."""
    page = look(path)
    assert page.status == status
    assert page.headers["content-type"].startswith("text/html")
    assert "Next:" in page.said


def test_the_overview_is_renewed_by_a_stream(door):
    """Server-sent events, each the part of the page that moves, as text that a browser may put there."""
    with urllib.request.urlopen(f"{door.address}/ui/live", timeout=PATIENCE_S) as stream:
        require_safe({name.lower(): value for name, value in stream.headers.items()})
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = b"".join(iter(stream.readline, b"\n")).decode()
    assert told.startswith("event: glance\ndata: ")
    assert "Waiting" in told
    assert "<script" not in told


def test_nothing_has_happened_yet(new_group):
    """Each screen of an empty ledger is a page, too."""
    with gateway(new_group()) as client:
        look = Visitor(client.address)
        for screen in SCREENS:
            assert look(f"/ui/{screen}").status == 200, screen
        assert look("/ui/user?id=anna").status == 200
        assert "There is nothing to send" in look("/ui/redrive").said


# Who may


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A tokens file, and a token for each right."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return path, {right: add(path, f"t-{right}", SOURCE, frozenset([right])) for right in Right}


@pytest.fixture(scope="module")
def locked(showcase, tokens):
    """A gateway that wants a token."""
    with gateway(showcase, tokens=tokens[0]) as client:
        yield client


@pytest.mark.parametrize("screen", [*SCREENS, "live", "nothing", "redrive", "item?id=tea"])
def test_who_isnt_known_is_asked_to_sign_in(locked, screen):
    """401 with the form, whatever is asked for; where he wanted to go is kept."""
    page = Visitor(locked.address)(f"/ui/{screen}")
    assert page.status == 401
    assert page.fields("/ui/sign-in") == {"next": f"/ui/{screen}", "token": ""}
    assert "tea" not in page.text


def test_signing_in_and_out(locked, tokens):
    """The cookie is for /ui/ alone, out of scripts' reach, and sent by our own pages only."""
    look = Visitor(locked.address)
    page = look("/ui/sign-in", look("/ui/item?id=tea").fields("/ui/sign-in") | {"token": "wrong"})
    assert (page.status, look.cookies) == (401, {})
    assert "isn't known" in page.said
    page = look("/ui/sign-in", page.fields("/ui/sign-in") | {"token": tokens[1][Right.READ]})
    assert (page.status, "tea" in page.text) == (200, True)
    parts = {part.strip().lower() for part in look.set_cookie.split(";")[1:]}
    assert {"httponly", "path=/ui/", "samesite=strict", "max-age=43200"} <= parts
    assert "Sign out" in page.said
    kept = dict(look.cookies)
    assert look("/ui/sign-out", {}).status == 200
    assert (look.cookies, look("/ui/").status) == ({}, 401)
    other = Client(locked.address)
    told = other("GET", "/v1/status", headers={"Cookie": f"stockledger={kept['stockledger']}"})
    assert told.status == 401  # the API knows no cookies


def test_a_browser_by_https_gets_a_cookie_for_https_alone(locked, tokens):
    """After a proxy, too: the browser's own word for where it is says so."""
    look = Visitor(locked.address)
    host = locked.address.removeprefix("http://")
    given = {"next": "/ui/", "token": tokens[1][Right.READ]}
    look("/ui/sign-in", given, {"Origin": f"https://{host}"})
    assert look.cookies.keys() == {"__Secure-stockledger"}
    assert "secure" in look.set_cookie.lower().split("; ")


@pytest.mark.parametrize(
    "place",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "/v1/status", "", "/ui/\r\nX: y", "ui/"],
)
def test_signing_in_leads_nowhere_else(locked, tokens, place):
    """Whatever the form says, the way leads to a page of this dashboard."""
    given = {"next": place, "token": tokens[1][Right.READ]}
    told = Visitor(locked.address)("/ui/sign-in", given, follows=False)
    assert (told.status, told.headers["location"]) == (303, "/ui/")


@pytest.mark.parametrize("right", [Right.BUY, Right.OPERATE])
def test_looking_takes_the_right_read(locked, tokens, right):
    """403 as a page for who may do something else only."""
    page = Visitor(locked.address, tokens[1][right])("/ui/lanes")
    assert (page.status, "it takes the right read" in page.said) == (403, True)


def test_a_token_that_is_revoked_looks_at_nothing(locked, tokens):
    """Its cookie lets nobody in after a second or so."""
    look = Visitor(locked.address)
    token = add(tokens[0], "leaves", SOURCE, frozenset([Right.READ]))
    wait_for("the new token", lambda: look("/ui/sign-in", {"next": "/ui/", "token": token}).status == 200)
    assert revoke(tokens[0], "leaves")
    wait_for("its end", lambda: look("/ui/settings").status == 401)


def test_sending_again_takes_the_right_operate(locked, tokens):
    """Who may only read sees no way to it, and there is none."""
    look = Visitor(locked.address, tokens[1][Right.READ])
    page = look("/ui/dead-letters")
    assert "takes the right operate" in page.said
    assert not [link for link in page.links if "/ui/redrive" in link]
    assert look("/ui/redrive").status == 403
    assert look("/ui/redrive", {"code": "", "record": "", "seen": ""}).status == 403


ELSEWHERE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
@pytest.mark.parametrize("path", ["/ui/redrive", "/ui/sign-in", "/ui/sign-out"])
def test_a_form_of_another_site_changes_nothing(door, path, headers):
    """403 for every POST that no page of this host sent, before it is looked at."""
    page = Visitor(door.address)(path, {"token": "", "seen": ""}, headers)
    assert (page.status, "page of this dashboard" in page.said) == (403, True)


# Sending again


def test_dead_letters_are_sent_again_after_a_look(new_group):
    """The preview says what would become of them; what is sent is what was looked at."""
    group = new_group(partitions=1)
    park(group.cli.environment, listing("late", "cup"), listing("later", "jug"))
    with gateway(group) as client, group.running():
        look = Visitor(client.address)
        preview = look(look("/ui/dead-letters").link("Preview sending the parked ones again"))
        assert "Send 2 again" in preview.said
        one = look(look("/ui/dead-letters").link(f"{group.topic}[0]@1"))
        alone = look(one.link("Preview sending it again"))
        assert "Send 1 again" in alone.said
        assert letters(group) == ["parked", "parked"]
        sent = look("/ui/redrive", alone.fields("/ui/redrive"))
        assert (sent.status, "Sent, and marked as redriven 1" in sent.said) == (200, True)
        wait_for("its outcome", lambda: look("/ui/command?id=later").said.count("counted once"))
        assert letters(group) == ["parked", "redriven"]
        again = look("/ui/redrive", preview.fields("/ui/redrive"))
        assert (again.status, "Nothing was sent." in again.said) == (409, True)
        assert letters(group) == ["parked", "redriven"]
        look("/ui/redrive", again.fields("/ui/redrive"))
        wait_for("its outcome", lambda: look("/ui/command?id=late").said.count("counted once"))
        assert letters(group) == ["redriven", "redriven"]


def letters(group):
    """The dead letters' statuses, by offset."""
    return [status for (status,) in group.ask('SELECT status FROM ledger.dead_letters ORDER BY "offset"')]
