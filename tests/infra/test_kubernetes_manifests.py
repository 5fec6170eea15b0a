"""The manifests are valid, restricted, bounded and probed, and the network lets through what is needed and no more."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment_files import INFRA, compose, manifests, read_yaml

OBJECTS = manifests()
VERSION = "1.33"
BY_NAME = {(each["kind"], each["metadata"]["name"]): each for each in OBJECTS}
WORKLOADS = [each for each in OBJECTS if each["kind"] in ("Deployment", "StatefulSet", "Job")]
LASTING = [each for each in WORKLOADS if each["kind"] != "Job"]
COMPOSE = compose()["services"]
NAMES = [each["metadata"]["name"] for each in WORKLOADS]


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


def labels(workload: dict[str, Any]) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod(workload)["containers"], *pod(workload).get("initContainers", [])]


def policies(kind: str) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Selected labels and rule of every policy on one direction."""
    for each in OBJECTS:
        if each["kind"] == "NetworkPolicy" and kind in each["spec"]["policyTypes"]:
            for rule in each["spec"].get(kind.lower(), []):
                yield each["spec"]["podSelector"].get("matchLabels", {}), rule


@pytest.mark.parametrize("name", sorted({(each["kind"], each["metadata"]["name"]) for each in OBJECTS}), ids="/".join)
def test_an_object_is_valid(name: tuple[str, str]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs the development packages")
    validator.validate(BY_NAME[name], VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl; no cluster")
@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_kustomize_makes_the_same_objects_of_it(folder: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs the development packages")
    done = subprocess.run(
        ["kubectl", "kustomize", INFRA / "kubernetes" / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = read_yaml(done.stdout)
    for each in made:
        validator.validate(each, VERSION, strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "corpusmill"
    deployed = {each["metadata"]["name"] for each in made if each["kind"] in ("Deployment", "StatefulSet", "Job")}
    assert deployed == set(NAMES) - ({"worker-gpu"} if folder == "base" else set())


def test_kustomizations_name_every_file() -> None:
    for folder in ("base", "gpu"):
        path = INFRA / "kubernetes" / folder
        (body,) = read_yaml((path / "kustomization.yaml").read_text(encoding="utf-8"))
        named = {each for each in body["resources"] if each.endswith(".yaml")}
        generated = {file for each in body.get("configMapGenerator", []) for file in each["files"]}
        there = {file.name for file in path.iterdir()} - {"kustomization.yaml"}
        assert named | generated == there


@pytest.mark.parametrize("workload", WORKLOADS, ids=NAMES)
def test_a_pod_is_restricted(workload: dict[str, Any]) -> None:
    spec = pod(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not [each for each in spec["volumes"] if "hostPath" in each]
    for container in containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys()
        assert not [
            each
            for each in container.get("env", [])
            if re.search("PASSWORD$|SECRET|TOKEN", each["name"])
            and "value" in each
            and each["name"] != "CORPUSMILL_SECRETS"
        ]
    for volume in spec["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"], "bounded"


@pytest.mark.parametrize("workload", LASTING, ids=[each["metadata"]["name"] for each in LASTING])
def test_a_container_that_lasts_is_probed(workload: dict[str, Any]) -> None:
    for container in pod(workload)["containers"]:
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        ports = {each["name"] for each in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            for how in ("httpGet", "tcpSocket"):
                if how in container[kind]:
                    assert container[kind][how]["port"] in ports


def test_images_are_those_of_compose() -> None:
    ours = {service["image"] for service in COMPOSE.values()}
    for workload in WORKLOADS:
        for container in containers(workload):
            assert container["image"] in ours


@pytest.mark.parametrize("name", [name for name in NAMES if name in COMPOSE])
def test_commands_are_those_of_compose(name: str) -> None:
    """But for names of the outside world, and the way the health check comes."""

    def comparable(command: list[str]) -> list[str]:
        return [each for each in map(str, command) if not re.match(r"--allowed-hosts|--cors|/recipes/", each)]

    workload = next(each for each in WORKLOADS if each["metadata"]["name"] == name)
    assert comparable(pod(workload)["containers"][0]["args"]) == comparable(COMPOSE[name]["command"])


@pytest.mark.parametrize(
    ("config_map", "service"),
    [("prefect-settings", "prefect-server"), ("mlflow-settings", "mlflow"), ("worker-settings", "worker-cpu")],
)
def test_settings_are_those_of_compose(config_map: str, service: str) -> None:
    settings = BY_NAME["ConfigMap", config_map]["data"]
    environment = COMPOSE[service]["environment"]
    outside = {"PREFECT_SERVER_UI_API_URL", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"}
    shared = settings.keys() & environment.keys() - outside
    assert {name: settings[name] for name in shared} == {name: environment[name] for name in shared}
    assert settings.keys() <= environment.keys()
    needless = {"PREFECT_WORKER_WEBSERVER_HOST", "PREFECT_SERVER_METRICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY"}
    needless |= {"PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"}
    assert environment.keys() - settings.keys() <= needless


@pytest.mark.parametrize("workload", WORKLOADS, ids=NAMES)
def test_a_pod_sees_the_secrets_that_it_uses_and_no_others(workload: dict[str, Any]) -> None:
    spec = pod(workload)
    mounted = {
        item["key"] for each in spec["volumes"] if "secret" in each for item in each["secret"]["items"]
    }  # `items` is required: without it a pod would see all
    name = workload["metadata"]["name"]
    told = {each if isinstance(each, str) else each["source"] for each in COMPOSE[name].get("secrets", [])}
    assert mounted == told
    assert all(each["secret"]["defaultMode"] == 0o440 for each in spec["volumes"] if "secret" in each)


def test_nothing_is_let_through_but_what_is_named() -> None:
    nothing = BY_NAME["NetworkPolicy", "nothing"]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_each_way_is_open_at_both_ends() -> None:
    """A pod that carries `to-X` may leave for X, and X lets it in, at a port where X listens."""
    ways = {key for each in WORKLOADS for key in labels(each) if key.startswith("to-")} - {"to-web"}
    assert ways == {"to-postgres", "to-valkey", "to-object-store", "to-prefect", "to-mlflow"}
    for way in ways:
        (leaving,) = [rule for selected, rule in policies("Egress") if selected == {way: "true"}]
        target = leaving["to"][0]["podSelector"]["matchLabels"]
        entering = [
            rule
            for selected, rule in policies("Ingress")
            if selected == target and {"podSelector": {"matchLabels": {way: "true"}}} in rule["from"]
        ]
        assert entering[0]["ports"] == leaving["ports"]
        (workload,) = [each for each in WORKLOADS if labels(each).items() >= target.items()]
        listening = {port["containerPort"] for port in pod(workload)["containers"][0]["ports"]}
        assert {port["port"] for port in leaving["ports"]} <= listening


def test_pods_ask_for_the_ways_that_compose_has() -> None:
    """The same services reach each other on both; a way that a command or a setting names is there."""
    hosts = {
        "postgres": "to-postgres",
        "valkey": "to-valkey",
        "object-store": "to-object-store",
        "prefect-server": "to-prefect",
        "mlflow": "to-mlflow",
    }
    for workload in WORKLOADS:
        text = json.dumps(pod(workload)["containers"])
        for source in [each["configMapRef"]["name"] for each in pod(workload)["containers"][0].get("envFrom", [])]:
            text += json.dumps(BY_NAME["ConfigMap", source]["data"]) if source != "worker-settings" else ""
        for host, way in hosts.items():
            if re.search(rf"//{host}:\d+", text):
                assert way in labels(workload), (workload["metadata"]["name"], way)
        if "prefect_database_url" in json.dumps(pod(workload)):
            assert {"to-postgres", "to-valkey"} <= labels(workload).keys()
        if "mlflow_database_url" in json.dumps(pod(workload)):
            assert "to-postgres" in labels(workload)


def test_the_crawler_alone_reaches_the_web_and_no_inner_address() -> None:
    assert [each["metadata"]["name"] for each in WORKLOADS if "to-web" in labels(each)] == ["worker-cpu"]
    ((_, rule),) = [(s, r) for s, r in policies("Egress") if s == {"to-web": "true"}]
    inner = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8"}
    assert inner <= set(rule["to"][0]["ipBlock"]["except"])
    assert {port["port"] for port in rule["ports"]} == {80, 443}


def test_the_gpu_worker_lands_on_a_gpu_node() -> None:
    spec = pod(BY_NAME["Deployment", "worker-gpu"])
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    resources = spec["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 1
    others = [each for each in WORKLOADS if each["metadata"]["name"] != "worker-gpu"]
    assert not [each for each in others if "nvidia" in json.dumps(each)]


def test_services_and_ingress_lead_to_ports_that_are_there() -> None:
    for each in OBJECTS:
        if each["kind"] == "Service":
            (workload,) = [one for one in WORKLOADS if labels(one).items() >= each["spec"]["selector"].items()]
            listening = {port["containerPort"] for port in pod(workload)["containers"][0]["ports"]}
            assert {port["port"] for port in each["spec"]["ports"]} <= listening
    for rule in BY_NAME["Ingress", "corpusmill"]["spec"]["rules"]:
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in {
            port["name"] for port in BY_NAME["Service", backend["name"]]["spec"]["ports"]
        }
        assert rule["host"] in BY_NAME["Ingress", "corpusmill"]["spec"]["tls"][0]["hosts"]


def test_no_manifest_holds_a_secret() -> None:
    assert not [each for each in OBJECTS if each["kind"] == "Secret"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl; no cluster")
def test_the_secret_is_made_of_what_the_script_makes_but_not_of_the_authoritys_key(tmp_path: Path) -> None:
    subprocess.run([INFRA / "secrets.sh", tmp_path / "secrets"], check=True, capture_output=True)
    command = ["kubectl", "create", "secret", "generic", "corpusmill", "--dry-run=client", "--output=json"]
    done = subprocess.run(
        [*command, f"--from-file={tmp_path / 'secrets'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    keys = json.loads(done.stdout)["data"].keys()
    mounted = {
        item["key"]
        for workload in WORKLOADS
        for volume in pod(workload)["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
    assert mounted <= keys
    assert not {"ca.key", "ca"} & keys


@pytest.mark.parametrize(
    "path", ["kubernetes/base/kustomization.yaml", "operators-guide.md", "operators-guide.zh-CN.md"]
)
def test_the_certificate_is_made_for_the_names_of_the_ingress(path: str) -> None:
    text = (INFRA / path).read_text(encoding="utf-8")
    (names,) = re.findall(r"PREFECT_NAME=(\S+) MLFLOW_NAME=(\S+) infra/secrets\.sh", text)
    assert list(names) == BY_NAME["Ingress", "corpusmill"]["spec"]["tls"][0]["hosts"]
