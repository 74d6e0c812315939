"""The alerts: each asks for what there is, fires on its fault alone, and leads to its heading."""

import re

import pytest
import yaml

from tests.support.promql import asked, promtool, series, unknown
from tests.test_architecture import anchors
from tools.reference import ROOT

FOLDER = ROOT / "deploy/prometheus"
PAGE = "docs/how-to/alerts.md"


def read(name):
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


ALERTS = [rule for group in read("alerts.yaml")["groups"] for rule in group["rules"]]
AT_WORK, *FAULTS = read("alerts_test.yaml")["tests"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_there_is(alert):
    """Metrics and labels that the program has: a misspelt one would never fire. It says what is felt."""
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    told = re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values()))
    assert asked(alert["expr"])
    assert list(unknown(alert["expr"], *told)) == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_heading(alert):
    """The page that it names has a heading of its name."""
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == (PAGE, alert["alert"].lower())
    assert anchor in anchors(ROOT / page)


def test_each_heading_is_an_alert():
    """The page explains none that is gone."""
    headings = re.findall(r"^## (Stockledger\w+)$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)
    assert headings == [alert["alert"] for alert in ALERTS]


def test_each_alert_is_tried_both_ways():
    """Once on its fault, and once on a ledger at work, which has every series that alerts ask for."""
    tried = [(case["name"], [each["alertname"] for each in case["alert_rule_test"]]) for case in FAULTS]
    assert tried == [(alert["alert"], [alert["alert"]]) for alert in ALERTS]
    assert all(each["exp_alerts"] for case in FAULTS for each in case["alert_rule_test"])
    assert [(each["alertname"], each["exp_alerts"]) for each in AT_WORK["alert_rule_test"]] == [
        (alert["alert"], []) for alert in ALERTS
    ]
    shown = set().union(*(asked(each["series"]) for each in AT_WORK["input_series"]))
    assert set().union(*(asked(alert["expr"]) for alert in ALERTS)) - shown == set()


def test_the_series_of_the_trials_are_as_they_would_be_stored():
    """With exactly the labels that the program and Prometheus give them."""
    for case in (AT_WORK, *FAULTS):
        for each in case["input_series"]:
            [name] = asked(each["series"])
            found = set(re.findall(r'(\w+)="', each["series"]))
            assert found == series()[name] | {"job", "instance"}, each["series"]


def test_prometheus_agrees():
    """promtool takes the rules and the example, and runs the trials."""
    promtool("check", "config", "--syntax-only", "prometheus.yaml", folder=FOLDER)
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yaml", folder=FOLDER)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml", folder=FOLDER)


def test_the_jobs_are_those_that_the_alerts_know():
    """All of them, whichever verb, begin with the same word; and the example takes the alerts."""
    told = read("prometheus.yaml")
    assert told["rule_files"] == ["alerts.yaml"]
    jobs = {each["job_name"] for each in told["scrape_configs"]}
    assert jobs == {f"stockledger-{verb}" for verb in ("run", "project", "cache", "relay", "serve")}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('rate(stockledger_commands_total{outcome="dead"}[5m])', []),
        ("stockledger_comands_total", ["stockledger_comands_total"]),
        ("stockledger_end_to_end_seconds", ["stockledger_end_to_end_seconds"]),
        ('sum by (le, kind) (stockledger_end_to_end_seconds_bucket{job="a"})', ["kind"]),
        ('up{job=~"stockledger.*", code="x"}', ["code"]),
    ],
)
def test_what_there_isnt_is_seen(query, found):
    """A misspelt metric, a histogram without its part, and a label that the metric doesn't have."""
    assert list(unknown(query)) == found
