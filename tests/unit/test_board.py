"""The board for Grafana: whole, in plain words, on any data source, and it asks for what there is."""

import json
import re
from itertools import combinations

import pytest
import yaml

from ledger.telemetry import names
from tests.support.promql import asked, promtool, unknown
from tools.reference import ROOT

BOARD = json.loads((ROOT / "deploy/grafana/stockledger.json").read_text("utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
UNITS = {"bytes", "cps", "reqps", "s", "short"}
"""Grafana's ids of what is shown: bytes, counts and requests a second, seconds, plain numbers."""
IN_NO_PANEL = {
    "stockledger_apply_duration_seconds",
    "stockledger_build_info",
    "stockledger_cache_position",
    "stockledger_codec_info",
    "stockledger_projection_events_total",
    "stockledger_projection_last_applied_timestamp_seconds",
    "stockledger_projection_position",
    "stockledger_queued_records",
    "stockledger_relay_position",
    "stockledger_workers",
}
"""Another series says it better, or only a person with a question of their own needs it."""


def query(expression):
    """As Prometheus gets it."""
    return expression.replace("$__rate_interval", "5m")


def test_it_tells_the_story_in_order():
    """From what is felt to what is wrong, each row a question."""
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is money moving?",
        "Is anything stuck?",
        "What is wrong?",
        "Are customers served?",
        "Do others hear of it?",
    ]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_is_complete(panel):
    """It has a unit, says what it shows, and takes the data source that was chosen above."""
    assert panel["type"] in ("stat", "timeseries")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{t} {each['refId']}" for t, each in TARGETS])
def test_a_query_asks_for_what_there_is(title, target):
    """Metrics and labels that the program has, in the legend too: a misspelt one would be an empty chart."""
    assert target["datasource"] == SOURCE
    assert asked(target["expr"])
    shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    assert list(unknown(query(target["expr"]), *shown)) == []
    grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
    assert all(set(shown) <= set(re.findall(r"\w+", labels)) for labels in grouped)


def test_no_metric_is_forgotten():
    """Each is on the board, or it is known why not."""
    on_it = set().union(*(asked(target["expr"]) for _, target in TARGETS))
    on_it |= {re.sub("_(bucket|sum|count)$", "", name) for name in on_it}
    assert names.FAMILIES.keys() - on_it == IN_NO_PANEL


def test_it_fits_together():
    """Ids are unique, nothing overlaps or is too wide, and the only variable is the data source."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    [variable] = BOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert not {"id", "iteration", "__inputs"} & BOARD.keys()  # of one Grafana, or of one that exported it


def overlap(one, other):
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in ("xw", "yh")
    )


def test_prometheus_reads_every_query(tmp_path):
    """promtool takes each as the expression of a rule."""
    rules = [
        {"record": f"query:{number}", "expr": query(target["expr"])}
        for number, (_, target) in enumerate(TARGETS)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(TARGETS)} rules found" in promtool("check", "rules", "rules.yaml", folder=tmp_path)
