"""`from stockledger import ...`: what programs may rely on, and no more than that."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stockledger

ROOT = Path(__file__).parents[2]
PACKAGES = ["ledger", "consumer", "producer", "gateway", "stockledger"]
PUBLIC = """
    AdjustStock AsyncShop BadSettings BrokerUnavailable CacheStatus CancelPurchase CloseUser Connection EVENTS
    HistoryChanged HostCache IN_RANGE Lane Ledger LedgerError LedgerStatus LetterStatus ListGoods MessageKey
    Outcome Projection Publisher PurchaseGoods Range Reason Receipt ReceiveStock RecordedOutcome
    RegisterUser Retry SchemaMismatch Shop Snapshot Stale StockCache StockLevel Stop Tally TopicUnfit
    Unavailable
"""


def test_the_public_names():
    """None goes away unnoticed, each is there, and type checkers read the same from the same modules."""
    assert sorted(stockledger.__all__) == sorted(PUBLIC.split())
    assert all(getattr(stockledger, name) is not None for name in stockledger.__all__)
    tree = ast.parse(Path(stockledger.__file__).read_text())
    typed = {
        node.names[0].asname: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert typed == stockledger._HOME_OF


def test_an_unknown_name_is_an_attribute_error():
    """As any module has it."""
    with pytest.raises(AttributeError, match="no attribute 'Leger'"):
        stockledger.Leger  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Leger'"):
        exec("from stockledger import Leger")


def test_importing_the_package_loads_no_client():
    """Neither Kafka's client nor Postgres' before a name that needs it is asked for."""
    heavy = ["pydantic", "psycopg", "confluent_kafka", "typer"]
    script = f"import sys, stockledger; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package):
    """PEP 561: without the marker a user's type checker ignores our annotations."""
    assert (ROOT / package / "py.typed").is_file()
