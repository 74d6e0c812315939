"""`compose.yaml` without an engine: its profile for watching, and that its files name each other rightly."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.e2e.test_compose import compose_command
from tests.support.command_line import is_setting
from tests.support.promql import promtool
from tools.reference import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
WATCHING = ("prometheus", "grafana")
PROMETHEUS = ROOT / "compose/prometheus/prometheus.yaml"


def read(path):
    return yaml.safe_load(path.read_text("utf-8"))


def mounts(service):
    """What is where in the container, of this folder's files."""
    parts = [each.split(":") for each in SERVICES[service].get("volumes", ())]
    return {target: ROOT / source for source, target, *_ in parts if source.startswith("./")}


def test_compose_takes_it_with_its_profile():
    """Both services are there with it; nothing else has a profile, so they are what it adds."""
    command = [*compose_command(), "--profile", "observability", "config", "--services"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(WATCHING) <= set(done.stdout.split())
    assert {name for name, each in SERVICES.items() if each.get("profiles")} == set(WATCHING)


def test_every_file_that_a_container_sees_is_there():
    """Docker would make an empty folder of one that isn't."""
    seen = [path for name in SERVICES for path in mounts(name).values()]
    assert len(seen) > len(WATCHING)
    assert [path for path in seen if not path.exists()] == []


def test_the_settings_are_the_programs():
    """Each variable of a container of ours is one that the program takes."""
    ours = [each for each in SERVICES.values() if each.get("image") == "stockledger"]
    assert {name for each in ours for name in each["environment"] if not is_setting(name)} == set()


def test_what_is_watched_says_how_it_stands():
    """Each job asks a service at the port where it listens, and is called as the alerts know it."""
    told = read(PROMETHEUS)
    example = read(ROOT / "deploy/prometheus/prometheus.yaml")
    asked = {}
    for job in told["scrape_configs"]:
        [found] = job["dns_sd_configs"]
        [service] = found["names"]
        asked[job["job_name"]] = SERVICES[service]["command"][0]
        http = SERVICES[service]["environment"].get("STOCKLEDGER_HTTP", "0.0.0.0:8080")
        assert http == f"0.0.0.0:{found['port']}"
    assert asked == {name: name.removeprefix("stockledger-") for name in asked}
    assert asked.keys() <= {each["job_name"] for each in example["scrape_configs"]}
    [rules] = told["rule_files"]
    assert mounts("prometheus")[rules] == ROOT / "deploy/prometheus/alerts.yaml"
    [config] = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    assert mounts("prometheus")[str(Path(config.partition("=")[2]).parent)] / PROMETHEUS.name == PROMETHEUS
    promtool("check", "config", "--syntax-only", PROMETHEUS.name, folder=PROMETHEUS.parent)


def test_grafana_finds_its_board_and_prometheus():
    """The board is in the folder that is looked into, and the address is the service's."""
    [source] = read(ROOT / "compose/grafana/datasources.yaml")["datasources"]
    [service] = re.findall(r"^http://(\w+):9090$", source["url"])
    assert service in SERVICES
    [provider] = read(ROOT / "compose/grafana/dashboards.yaml")["providers"]
    [board] = [target for target, path in mounts("grafana").items() if path.suffix == ".json"]
    assert str(Path(board).parent) == provider["options"]["path"]
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == board
