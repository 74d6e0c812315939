"""Properties of the pages: complete, made from the program where they can be, readable, loading nothing."""

import hashlib
import re

import pytest

from ledger.domain.delivery import Request
from ledger.domain.envelope import decode, encode
from ledger.domain.outcome import Reason
from ledger.domain.shares import share_of
from ledger.domain.structs import PurchaseGoodsStruct, canonical
from producer import jsonl
from producer.lines import Line
from stockledger.settings import Settings
from tests.support import shapes
from tools import prose, reference, site

# What is made from the program


@pytest.mark.parametrize("file", sorted(reference.made()), ids=lambda file: file.name)
def test_what_is_made_from_the_program_is_as_it_would_be_made(file):
    """No verb, option, setting or floor changes without its page: `make reference` writes them anew."""
    assert file.read_text(encoding="utf-8") == reference.made()[file], "run: make reference"


def test_every_verb_and_option_says_what_it_is_for():
    """The page of the command line has something to say of each verb, argument and option."""
    silent = [f"{name} {p.opts[-1]}" for name, verb in reference.verbs() for p in verb.params if not p.help]
    assert silent == []
    assert all(verb.help for _, verb in reference.verbs())


def test_every_setting_says_what_it_is_for():
    """The page of the settings has something to say of each, and none is missing."""
    assert all(field.description for field in Settings.model_fields.values())


def test_the_drawing_of_the_floors_is_complete():
    """Each layer of the contracts and each module of `ledger` stands in the one drawing, once."""
    drawing = re.sub(
        r"([\w.]+)\.\{([^}]*)\}",
        lambda group: " ".join(f"{group[1]}.{name}" for name in group[2].split(", ")),
        reference.floors(),
    ).split()
    layers = [each for layer in reference.layers() for each in layer.split(" | ")]
    assert [each for each in layers if drawing.count(each) != 1] == []
    tops = {f"ledger.{path.name.removesuffix('.py')}" for path in (reference.ROOT / "ledger").glob("[a-z]*")}
    tops -= {"ledger.py.typed"}
    assert [top for top in tops if not any(f"{each}.".startswith(f"{top}.") for each in drawing)] == []


# Formats

FORMAT = reference.DOCS / "FORMAT.md"


def section(title):
    """The part of FORMAT under a heading of the second level."""
    return re.split(rf"^## {title}\n", FORMAT.read_text("utf-8"), flags=re.M)[1].split("\n## ")[0]


def held(name):
    """What stands between two marks of FORMAT."""
    begin, end = f"<!-- {name}: begin, held by tests/test_docs.py -->", f"<!-- {name}: end -->"
    return FORMAT.read_text("utf-8").split(begin)[1].split(end)[0]


def binary():
    """The record of the page, as Kafka would have it."""
    lines = [line.split(maxsplit=1) for line in held("binary").strip("`\n").splitlines()]
    (_, key), *headers, (_, value) = lines
    return key, [(name, text.encode()) for name, text in headers], value.encode()


def test_the_record_of_the_page_is_a_command():
    """What FORMAT shows is what the producer would write, and what a worker would take."""
    key, headers, value = binary()
    found = decode(headers, value)
    assert isinstance(found, Request), found
    assert isinstance(found.command, PurchaseGoodsStruct)
    assert key == found.command.goods_id
    assert (sorted(headers), value) == (sorted(encode(found.key, found.command)[0]), canonical(found.command))


def test_both_modes_of_the_page_are_the_same_command():
    """The event in structured mode repeats the record in binary mode."""
    event = held("structured").strip().removeprefix("```json").removesuffix("```").encode()
    found = decode([("content-type", b"application/cloudevents+json")], event)
    assert isinstance(found, Request), found
    assert found == decode(*binary()[1:])


def test_the_fingerprint_of_the_page_is_right():
    """The worked example is what the rule gives, and what the ledger gives."""
    [text] = re.findall(r"```\n(.*?)\n```", held("fingerprint"), re.DOTALL)
    [shown] = re.findall(r"`([0-9a-f]{32})`", held("fingerprint"))
    assert hashlib.sha256(text.encode()).digest()[:16].hex() == shown
    found = decode(*binary()[1:])
    assert isinstance(found, Request), found
    assert found.fingerprint.hex() == shown


def test_the_lines_of_the_page_are_commands():
    """`publish` takes the lines that FORMAT shows."""
    lines = held("lines").strip().removeprefix("```json").removesuffix("```").strip().splitlines()
    for number, text in enumerate(lines, 1):
        item = jsonl.parse("page", Line(number, text.encode(), 0, 0), "")
        assert not isinstance(item, jsonl.BadLine), item


def test_the_shares_of_the_page_are_right():
    """Other producers can hold theirs to the page: ids of one byte a character, and of more."""
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|$", held("shares"), re.M)
    assert {key: [*map(int, shares)] for key, *shares in rows} == {
        key: [share_of(key, partitions) for partitions in (4, 12, 16)] for key, *_ in rows
    }
    assert any(not key.isascii() for key, *_ in rows)


def test_the_reasons_of_the_page_are_all():
    """Every reason of a rejection is in FORMAT, and no other."""
    assert re.findall(r"^\| `(\w+)` \| [^|`]+ \| `", section("Commands"), re.M) == [*Reason]


def test_the_views_of_the_page_are_all():
    """Every view is in FORMAT with all its columns and their types, and no other."""
    shown = {}
    for part in section("Views").split("\n### ledger.")[1:]:
        name, _, rest = part.partition("\n")
        rows = [line.split("|")[1:3] for line in rest.splitlines() if line.startswith("| `")]
        columns = [re.findall(r"`(\w+)`", names) for names, _ in rows]
        types = [[each.strip() for each in kinds.split(",")] for _, kinds in rows]
        pairs = [pair for row in zip(columns, types, strict=True) for pair in zip(*row, strict=True)]
        shown[name] = sorted(pairs)
    assert shown == {name: sorted(columns) for name, columns in reference.views().items()}


def test_the_answers_of_the_page_are_those_of_all_verbs():
    """FORMAT has the members of `--json` for each verb; the tests that run verbs hold them (`shapes`)."""
    assert shapes.documented().keys() - {""} == {name for name, _ in reference.verbs()}


def test_every_answer_of_the_page_is_made_somewhere():
    """No member of `--json` in FORMAT is one that the code doesn't know."""
    code = "".join(
        path.read_text("utf-8")
        for package in ("stockledger", "ledger", "consumer", "producer", "gateway")
        for path in (reference.ROOT / package).rglob("*.py")
    )
    words = {
        word
        for paths in shapes.documented().values()
        for path in paths
        for word in re.findall(r"[a-z][a-z0-9_]*", path)
    }
    assert (
        sorted(word for word in words if not re.search(rf'"{word}"|^    {word}: |\b{word}=', code, re.M))
        == []
    )


def test_what_isnt_in_the_page_is_seen():
    """A member that FORMAT lacks is named, whether in a list, in an object or by a varying name."""
    answer = {
        "ok": True,
        "deliveries": {"applied": 3},
        "lanes": [{"topic": "t", "size": 1}],
        "more": {"a": 1},
    }
    assert shapes.undocumented(["status", "--watch"], answer) == ["lanes[].size", "more.a"]
    assert shapes.undocumented(["dlq", "show", "1@2"], {"key": None, "headers": []}) == []


# Prose

PAGES = {
    path.relative_to(reference.ROOT).as_posix(): path
    for path in (
        *sorted(reference.DOCS.rglob("*.md")),
        *(reference.ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    )
}
WORDS_MEAN, WORDS_MAX = 20, 25


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_easily(page):
    """The mean sentence of a page has fewer than 20 words, the longest one 25."""
    text = PAGES[page].read_text("utf-8")
    assert prose.mean(text) < WORDS_MEAN
    assert [each for each in prose.sentences(text) if len(prose.words(each)) > WORDS_MAX] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/PERFORMANCE.md"])
def test_figures_stand_in_one_page(page):
    """What was measured stands in PERFORMANCE alone: its tables in benchmarks/README.md, one in README."""
    text = PAGES[page].read_text("utf-8")
    if page == "README.md":
        text = re.sub(r"^## How fast\n.*?^## ", "", text, flags=re.DOTALL | re.MULTILINE)
    assert prose.figures(text) == []


def test_every_example_is_named():
    """The page of the examples says of each file what it is."""
    folder = reference.ROOT / "examples"
    text = (folder / "README.md").read_text("utf-8")
    assert [
        file.name for file in folder.glob("*.*") if file.suffix != ".md" and f"`{file.name}`" not in text
    ] == []


def test_the_counting_of_sentences():
    """Code, tables, headings and addresses count for nothing; items and paragraphs end a sentence."""
    text = (
        "# Not this one. Nor this\nOne `a b. C` two, v1.2 three. Next: it goes\non here; all of it! See\n"
        "[x y](z.md).\n\n| no | table. Here |\n|-|-|\n\n* an item\n  that goes on\n* another one\n\n"
        "```\nNo. Code\n```\n<!-- No. -->\n"
    )
    counted = [(len(prose.words(each)), each) for each in prose.sentences(text)]
    assert counted == [
        (5, "One Code two, v1.2 three."),
        (8, "Next: it goes on here; all of it!"),
        (3, "See x y."),
        (5, "an item that goes on"),
        (2, "another one"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it takes 3.8 ms", ["3.8 ms"]),
        ("8 % of a batch", ["8 %"]),
        ("59 times as fast", ["59 times as"]),
        ("2,000 commands a second, 90/s", ["2,000 commands a second", "90/s"]),
        ("0.41 of the limit, p99", ["0.41", "p99"]),
        ("version 0.1.0, 1 to 1,000,000,000, in `5 ms`, 3 s at most, for 50 ms at most, Python 3.11", []),
    ],
)
def test_the_finding_of_figures(text, found):
    """Times, shares, rates and ratios are figures; limits, versions and code are none."""
    assert prose.figures(text) == found


# The site


def test_the_pages_of_the_site_link_within_it(tmp_path, monkeypatch):
    """Whatever a page links to is copied with it: no link of the site leads out of it or nowhere."""
    monkeypatch.setattr(site, "PAGES", tmp_path)
    site.stage()
    pages = sorted(tmp_path.rglob("*.md"))
    assert len(pages) > len(site.BEGIN)
    lost = [
        f"{page.relative_to(tmp_path)}: {target}"
        for page in pages
        for part in site.CODE.split(page.read_text(encoding="utf-8"))[::2]
        for _, target, _ in [*site.LINK.findall(part), *site.DEFINITION.findall(part)]
        if not site.ELSEWHERE.match(target) and not (page.parent / target).exists()
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("as follows:\n* one\n* two\n", "as follows:\n\n* one\n* two\n"),
        ("as follows:\n| a |\n|-|\n", "as follows:\n\n| a |\n|-|\n"),
        ("run\n```\nx\n* y\n```\nthen\n", "run\n\n```\nx\n* y\n```\n\nthen\n"),
        ("* one\n  goes on\n* two\n", "* one\n  goes on\n* two\n"),
    ],
)
def test_lists_tables_and_code_stand_by_themselves(text, made):
    """What GitHub reads as a list, a table or code is one on the site too."""
    assert site.spaced(text) == made


@pytest.mark.parametrize(
    ("page", "loads"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', True),
        ('<img src="http://example/a.png">', True),
        ('<p style="background: url(https://example/a.png)">', True),
        ('<pre class="mermaid">', True),
        ('<a href="https://example/">there</a><img src="a.png"><link rel="stylesheet" href="a.css">', False),
        ('<link rel="canonical" href="https://example/"><img src="data:image/png;base64,">', False),
    ],
)
def test_what_comes_from_elsewhere_is_seen(tmp_path, page, loads):
    """Scripts, styles, fonts and images of another site fail the build; links that people follow don't."""
    (tmp_path / "page.html").write_text(page)
    assert bool(list(site.foreign(tmp_path))) == loads


@pytest.mark.parametrize("style", ["@import 'https://example/a.css'", "a { src: url( 'https://example/f') }"])
def test_what_a_style_loads_from_elsewhere_is_seen(tmp_path, style):
    """A font that a style loads from another site fails the build too."""
    (tmp_path / "page.css").write_text(style)
    assert list(site.foreign(tmp_path))
