"""docs/how-to/publish.md: each of its programs is run, and what it publishes is applied.

Python always; the others where the machine has their tool chain, and can get their client's package.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import java_kafka, pages
from tests.support.cli import Cli
from tests.support.pages import Reader
from tests.support.publish import says

PAGE = (Path(__file__).parents[2] / "docs/how-to/publish.md").read_text(encoding="utf-8")
SETUP = [
    says("RegisterUser", "user-17850", user_id="17850"),
    says("ListGoods", "goods-85123A", goods_id="85123A"),
    says("ReceiveStock", "stock-85123A", goods_id="85123A", quantity=10),
]
TIMEOUT_S = 400
pytestmark = [pytest.mark.slow, pytest.mark.real_kafka, pytest.mark.timeout(2 * TIMEOUT_S)]


@pytest.fixture
def stockledger(services, ledger_dsn, topic, tmp_path):
    """The command line on a ledger in which the page's user is registered and its goods are in stock."""
    made = Cli(ledger_dsn, services.kafka.bootstrap_servers, topic())
    setup = tmp_path / "setup.jsonl"
    setup.write_text("\n".join(map(json.dumps, SETUP)), encoding="utf-8")
    made("publish", setup)
    made("run", "--until-caught-up")
    return made


@pytest.fixture
def reader(stockledger, tmp_path):
    """Somebody who has that environment."""
    settings = {n: v for n, v in stockledger.environment.items() if n.startswith("STOCKLEDGER_")}
    instead = {
        "localhost:9092": settings["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"],
        "purchase-commands": settings["STOCKLEDGER_TOPIC"],
    }
    with Reader(tmp_path, settings, instead) as made:
        yield made


def test_the_page_from_top_to_bottom(reader, stockledger):
    """Every file and command of the page; what Python and `publish` sent is bought."""
    reader.follows(PAGE)
    assert stockledger("stock", "85123A")["on_hand"] == 10 - 2


@pytest.mark.parametrize("language", ["java", "go", "node", "kcat"])
def test_the_program_of_a_language(reader, stockledger, language):
    """The page's program ends well, and its order is applied, not dead."""
    command = {"java": java, "go": go, "node": node, "kcat": kcat}[language](reader)
    reader.follows("\n".join(f'```{b.language} title="{b.title}"\n{b.text}```' for b in files()))
    done = attempt(reader.folder, command)
    assert done.returncode == 0, done.stderr
    stockledger("run", "--until-caught-up")
    [recorded] = stockledger("outcome", f"order-{language}", "--source", "shop-uk")["outcomes"]
    assert recorded["outcome"] == "applied"


def files():
    return [block for block in pages.blocks(PAGE) if block.title]


def attempt(folder, command):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def tool(name):
    found = shutil.which(name)
    return found or pytest.skip(f"no {name} on this machine")


def fetched(folder, *command):
    """A package, or the reason why it can't be had."""
    done = attempt(folder, command)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-200:]}")


def java(reader):
    try:
        program, jars = java_kafka.java(), java_kafka.jars()
    except java_kafka.NotUsable as reason:
        pytest.skip(str(reason))
    return [program, "-cp", f"{jars}/*", "Publish.java"]


def go(reader):
    program = tool("go")
    (reader.folder / "publish.go").write_text(next(b.text for b in files() if b.language == "go"))
    fetched(reader.folder, program, "mod", "init", "shop")
    fetched(reader.folder, program, "mod", "tidy")
    return [program, "run", "publish.go"]


def node(reader):
    program = tool("node")
    fetched(reader.folder, tool("npm"), "install", "--no-save", "--no-audit", "--no-fund", "kafkajs")
    return [program, "publish.js"]


def kcat(reader):
    tool("kcat")
    return ["sh", "publish.sh"]
