"""The contract for other languages: its schemas take what the ledger takes, and its examples are real."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from jsonschema_rs import Draft7Validator
from pydantic import TypeAdapter, ValidationError

from ledger.domain.commands import COMMANDS, BusinessId, KeyPart, Text
from ledger.domain.delivery import Bad, Request
from ledger.domain.events import EVENTS, payload
from ledger.domain.structs import canonical
from ledger.domain.upcast import load
from stockledger import cli
from tests.support import contract
from tests.support.codecs import decode
from tests.support.pages import Reader
from tests.support.shapes import undocumented
from tests.unit.strategies import commands, quick

CORPUS = Path(__file__).parent / "corpus"
SPECIFICATION = "@asyncapi/specs@6.11.1"
FETCH_TIMEOUT_S = 90
DOCUMENT = contract.document()
CHANNELS, MESSAGES = DOCUMENT["channels"], DOCUMENT["components"]["messages"]
STRUCTURED = "StructuredCommand"
EXAMPLES = [(name, number) for name, each in MESSAGES.items() for number in range(len(each["examples"]))]


def part(schema: dict[str, Any]) -> Draft7Validator:
    """Of a schema of the document, whose references are the document's."""
    return Draft7Validator({**schema, "components": DOCUMENT["components"]})


def references(found: object) -> Iterator[str]:
    if isinstance(found, dict):
        yield from [found["$ref"]] if "$ref" in found else []
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from references(each)


def carried(channel):
    """The messages of a channel by name."""
    return {name: MESSAGES[name] for name in CHANNELS[channel].get("messages", {})}


def raw(headers):
    return [(name, text.encode()) for name, text in headers.items()]


# What the schemas take


@quick(60)
@given(commands)
def test_whatever_is_a_command_is_taken(command):
    """No schema is stricter than its model; `test_envelope.py` holds all its vectors to them, both ways."""
    assert contract.is_taken(command.NAME, canonical(command).decode())
    assert contract.is_taken(command.NAME, command.model_dump_json())


@pytest.mark.parametrize("hint", [BusinessId, KeyPart, Text], ids=["BusinessId", "KeyPart", "Text"])
def test_schema_and_model_agree_on_characters(hint):
    """Up to U+00FF schema and model agree on each character, within and at both ends. Beyond, the schema
    takes what the model takes, and more only where nothing but Unicode's tables knows better."""
    model = TypeAdapter(hint)
    schema = Draft7Validator(model.json_schema())
    texts = [text for c in map(chr, range(0x100)) for text in (c, f"a{c}", f"{c}a", f"a{c}a")]
    texts += [f"a{c}a" for c in map(chr, [*range(0x100, 0xD800), *range(0xE000, 0x10000), 0x1F375, 0xE0041])]
    for text in texts:
        if schema.is_valid(text) != is_valid(model, text):
            assert schema.is_valid(text), ascii(text)
            assert contract.is_unsayable(text), ascii(text)
            assert hint is BusinessId


def is_valid(model, text):
    try:
        model.validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", COMMANDS)
def test_required_headers_are_those_that_the_ledger_requires(name):
    """Without any one of them a record is dead, and its headers aren't what the schema says."""
    example = MESSAGES[name]["examples"][0]
    schema, value = part(MESSAGES[name]["headers"]), json.dumps(example["payload"]).encode()
    for header in example["headers"]:
        left = {each: text for each, text in example["headers"].items() if each != header}
        assert schema.is_valid(left) == isinstance(decode(raw(left), value), Request)
    for header, wrong in (("ce_id", "a b"), ("ce_source", ""), ("ce_specversion", "0.3"), ("ce_type", name)):
        headers = example["headers"] | {header: wrong}
        assert not schema.is_valid(headers)
        assert isinstance(decode(raw(headers), value), Bad)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"time": None, "x": 1},
        {"specversion": "0.3"},
        {"id": ""},
        {"source": 1},
        {"type": "stockledger.PurchaseGoods"},
        {"type": "stockledger.CloseUser.v1"},
        {"datacontenttype": None},
        {"datacontenttype": 1},
        {"data": None},
        {"data": {}},
        {"data_base64": "e30="},
    ],
    ids=str,
)
def test_structured_events_are_taken_as_the_ledger_takes_them(changes):
    """An event in structured mode is one by the schema if it is one to the ledger."""
    example = MESSAGES[STRUCTURED]["examples"][0]
    event = example["payload"] | changes
    found = decode(raw(example["headers"]), json.dumps(event).encode())
    assert part(MESSAGES[STRUCTURED]["payload"]).is_valid(event) == isinstance(found, Request)


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_events_of_every_release_are_taken(file):
    """What any release stored is relayed as the schema of its type says."""
    for line in map(json.loads, file.read_text("utf-8").splitlines()):
        happened = load(line["type"], line["payload"])
        contract.validator(f"stockledger.{happened.TYPE}.v1").validate(json.loads(payload(happened)))


# The document


def test_nothing_is_missing():
    """Each command, event, outcome and stock has a message and a file; there is no other file."""
    assert set(carried("commands")) == {*COMMANDS, STRUCTURED}
    assert set(carried("events")) == set(EVENTS)
    assert (set(carried("outcomes")), set(carried("stock"))) == ({"CommandDecided"}, {"RelayedStock"})
    names = {each["name"] for name, each in MESSAGES.items() if name != STRUCTURED}
    assert {file.name for file in contract.SCHEMAS.iterdir()} == {f"{name}.json" for name in names}


def test_every_reference_leads_somewhere():
    """Each `$ref` is of this document, and what it names is there."""
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


@pytest.mark.parametrize("file", sorted(contract.SCHEMAS.iterdir()), ids=lambda file: file.stem)
def test_every_file_is_a_schema(file):
    """Each is a JSON Schema of draft 7, and the same as in the document."""
    schema = json.loads(file.read_text("utf-8"))
    jsonschema_rs.meta.validate(schema)
    assert schema.pop("$schema") == "http://json-schema.org/draft-07/schema#"
    assert schema in DOCUMENT["components"]["schemas"].values()


@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_the_examples_are_what_the_document_says(name, number):
    """Headers and values of every example are taken by their own schemas, and say what the message is."""
    message, example = MESSAGES[name], MESSAGES[name]["examples"][number]
    part(message["headers"] | {"additionalProperties": False}).validate(example["headers"])
    part(message["payload"]).validate(example["payload"])
    assert example["headers"].get("ce_type", message["name"]) == message["name"]
    if name in CHANNELS["commands"]["messages"]:
        assert isinstance(decode(raw(example["headers"]), json.dumps(example["payload"]).encode()), Request)


def test_the_document_is_asyncapi(tmp_path):
    """The JSON Schema that AsyncAPI publishes for its version takes the document."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm on the PATH to fetch {SPECIFICATION}")
    fetch = [npm, "pack", "--silent", "--prefer-offline", SPECIFICATION]
    try:
        subprocess.run(fetch, cwd=tmp_path, capture_output=True, timeout=FETCH_TIMEOUT_S, check=True)
    except subprocess.SubprocessError as error:
        pytest.skip(f"npm can't fetch {SPECIFICATION}: {error}")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as packed:
        file = packed.extractfile(f"package/schemas/{DOCUMENT['asyncapi']}.json")
        assert file is not None
        schema = Draft7Validator(json.load(file))
    schema.validate(DOCUMENT)
    assert not schema.is_valid({**DOCUMENT, "channels": {"commands": {"address": 1}}})


# The verb


@pytest.fixture
def stockledger(capsys, monkeypatch):
    """`stockledger(...)`: exit code, stdout and stderr of a command line, with no settings of others."""
    for name in [name for name in os.environ if name.startswith("STOCKLEDGER_")]:
        monkeypatch.delenv(name)

    def run(*arguments):
        return cli.execute([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


def test_what_is_printed_is_what_is_committed(stockledger, tmp_path):
    """`asyncapi` prints the document of this folder; with --into it writes all files of it."""
    assert stockledger("asyncapi") == (0, (contract.DOCS / "asyncapi.json").read_text("utf-8"), "")
    code, out, _ = stockledger("asyncapi", "--into", tmp_path / "new", "--json")
    assert undocumented(["asyncapi"], json.loads(out)) == []
    written = json.loads(out)["files"]
    assert (code, len(written)) == (0, len(MESSAGES))
    for name in written:
        assert (tmp_path / "new" / name).read_bytes() == (contract.DOCS / name).read_bytes()


def test_the_page_takes_it_along(tmp_path):
    """The commands that `docs/how-to/publish.md` shows of it do what the page says."""
    page = (contract.DOCS / "how-to/publish.md").read_text("utf-8")
    with Reader(tmp_path, {}, {}) as reader:
        reader.follows(page.split("## Take the contract along\n")[1].split("\n## ")[0])
    schema = json.loads((tmp_path / "contract/schemas/stockledger.PurchaseGoods.v1.json").read_text("utf-8"))
    assert schema["title"] == "PurchaseGoods"


def test_topics_are_those_of_the_settings(stockledger):
    """The command topic is the settings'; the relay's are named after it, or after another PREFIX."""

    def addresses(*words):
        _, out, _ = stockledger("asyncapi", *words)
        return [channel["address"] for channel in json.loads(out)["channels"].values()]

    relayed = ("events", "outcomes", "stock", "relay")
    assert addresses("--topic", "orders") == ["orders", *(f"orders-{each}" for each in relayed)]
    assert addresses("--topic", "orders", "--to", "out") == ["orders", *(f"out-{each}" for each in relayed)]


def test_a_folder_that_cant_be_written_is_named(stockledger, tmp_path):
    """One line that names the place; and --json without a folder is a wrong command line."""
    (tmp_path / "file").touch()
    code, _, err = stockledger("asyncapi", "--into", tmp_path / "file")
    assert code == 4
    assert f"{tmp_path}/file" in err
    assert stockledger("asyncapi", "--json")[0] == 2
