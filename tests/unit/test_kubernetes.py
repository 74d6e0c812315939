"""The files for Kubernetes: whole, in step with the program, and with the least rights."""

import re
import shutil
import subprocess
from textwrap import dedent

import pytest
import yaml

from stockledger import version
from tests.support.command_line import is_setting, understood
from tools.reference import ROOT

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.parent.name for path in FOLDER.glob("*/kustomization.yaml"))
NAME = "app.kubernetes.io/component"


def documents(overlay):
    return [
        (path.name, each)
        for path in sorted((FOLDER / overlay).glob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def of_kind(kind, overlay="base"):
    return [each for _, each in documents(overlay) if each["kind"] == kind]


DEPLOYMENTS = of_kind("Deployment")
[BASE] = of_kind("Kustomization")
SETTINGS = dict(literal.split("=", 1) for made in BASE["configMapGenerator"] for literal in made["literals"])


def pod(deployment):
    return deployment["spec"]["template"]["spec"]


def container(deployment):
    [only] = pod(deployment)["containers"]
    return only


def environment(deployment):
    return {each["name"]: each["value"] for each in container(deployment)["env"]}


def component(deployment):
    return deployment["spec"]["template"]["metadata"]["labels"][NAME]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_left_out(overlay):
    """Each file is listed, and each that is listed is there."""
    [listing] = of_kind("Kustomization", overlay)
    files = {name for name, each in documents(overlay) if each["kind"] != "Kustomization"}
    assert files == {name for name in listing["resources"] if name != "../base"}


def test_each_process_is_there():
    """Workers, projector and door, each with a budget for those that may be away at once."""
    assert [component(each) for each in DEPLOYMENTS] == ["project", "run", "serve"]
    budgets = {
        each["spec"]["selector"]["matchLabels"][NAME]: each["spec"] for each in of_kind("PodDisruptionBudget")
    }
    for deployment in DEPLOYMENTS:
        assert budgets[component(deployment)]["maxUnavailable"] < deployment["spec"]["replicas"]
        assert deployment["spec"]["selector"]["matchLabels"] == {NAME: component(deployment)}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=component)
def test_the_program_takes_what_a_container_starts(deployment):
    """Its verb, its options and the names of its settings are the program's; probes ask where it listens."""
    args = container(deployment)["args"]
    given = understood(args)
    assert args[0] == component(deployment)
    names = {**environment(deployment), **SETTINGS}
    assert [name for name in names if not is_setting(name)] == []
    [port] = container(deployment)["ports"]
    listens = given.get("port") or int(environment(deployment)["STOCKLEDGER_HTTP"].rpartition(":")[2])
    assert port == {"name": "http", "containerPort": listens}
    for probe, path in (
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
        ("startupProbe", "/livez"),
    ):
        assert container(deployment)[probe]["httpGet"] == {"path": path, "port": "http"}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=component)
def test_a_container_may_do_little(deployment):
    """It is the image's user, writes nothing but its /tmp, and has no right of root or of the cluster's."""
    [uid] = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    assert pod(deployment)["securityContext"]["runAsUser"] == int(uid)
    assert pod(deployment)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(deployment)["automountServiceAccountToken"] is False
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container(deployment)["resources"]["requests"].keys()
    volumes = {each["name"]: each for each in pod(deployment)["volumes"]}
    for mount in container(deployment)["volumeMounts"]:
        assert mount.get("readOnly") or "emptyDir" in volumes[mount["name"]]


def test_the_door_is_called_by_its_name():
    """Who asks for the service's name is let in: another host's name would be refused."""
    [service] = of_kind("Service")
    [door] = [each for each in DEPLOYMENTS if component(each) == service["spec"]["selector"][NAME]]
    assert service["metadata"]["name"] in understood(container(door)["args"])["allow_host"]


def test_the_image_is_this_version():
    """A release that forgot it would start the one before."""
    assert BASE["images"] == [{"name": container(DEPLOYMENTS[0])["image"], "newTag": version()}]


def test_the_scaler_asks_for_the_lag_of_these_workers():
    """The same brokers, group and topic, and the deployment that there is."""
    [scaler] = of_kind("ScaledObject", "keda")
    assert scaler["spec"]["scaleTargetRef"]["name"] in [each["metadata"]["name"] for each in DEPLOYMENTS]
    [trigger] = scaler["spec"]["triggers"]
    asks = trigger["metadata"]
    assert (asks["bootstrapServers"], asks["consumerGroup"], asks["topic"]) == (
        SETTINGS["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"],
        SETTINGS["STOCKLEDGER_GROUP"],
        SETTINGS["STOCKLEDGER_TOPIC"],
    )
    assert all(isinstance(value, str) for value in asks.values())


@pytest.fixture
def built():
    """What would be applied: `built(folder)`, by the kustomize in kubectl."""
    if not (kubectl := shutil.which("kubectl")):
        pytest.skip("no kubectl: kustomize is in it")

    def build(folder):
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [*yaml.safe_load_all(done.stdout)]

    return build


def test_kustomize_builds_it(built):
    """With the image's version and the settings' map; the scaler alone says how many workers there are."""
    base = {(each["kind"], each["metadata"]["name"]): each for each in built(FOLDER / "base")}
    scaled = {(each["kind"], each["metadata"]["name"]): each for each in built(FOLDER / "keda")}
    assert scaled.keys() - base.keys() == {("ScaledObject", "stockledger-run")}
    run = ("Deployment", "stockledger-run")
    assert container(base[run])["image"] == f"stockledger:{version()}"
    assert ("ConfigMap", container(base[run])["envFrom"][0]["configMapRef"]["name"]) in base
    assert "replicas" in base[run]["spec"]
    assert "replicas" not in scaled[run]["spec"]


def test_the_overlay_of_the_page_builds(built, tmp_path):
    """With the image, the namespace and the broker that it names, and the other settings as they were."""
    page = (ROOT / "docs/how-to/services.md").read_text("utf-8")
    [text] = re.findall(r'^ *```yaml title="kustomization.yaml"\n(.*?)^ *```', page, re.MULTILINE | re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(dedent(text))
    shutil.copytree(FOLDER, tmp_path / "stockledger/deploy/kubernetes")
    made = built(tmp_path)
    assert {each["metadata"]["namespace"] for each in made} == {"shop"}
    [settings] = [each["data"] for each in made if each["kind"] == "ConfigMap"]
    assert settings == SETTINGS | {"STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": "kafka.shop:9092"}
    images = {container(each)["image"] for each in made if each["kind"] == "Deployment"}
    assert images == {f"images.example/stockledger:{version()}"}


def test_kubernetes_would_take_it(built):
    """By the schemas of Kubernetes itself, strictly; KEDA's kind isn't among them."""
    schemas = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate: pip install it")
    for each in built(FOLDER / "base"):
        schemas.validate(each, schemas.latest_version(), strict=True)
