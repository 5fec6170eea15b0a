"""The Compose file is valid, and keeps what it promises: hardened, bounded, nothing open but the proxy, secrets apart."""

import json
import re
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
from deployment_files import COMPOSE, INFRA, compose, read_yaml, secret_pairs

FILE = compose()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONCE = ("buckets", "mlflow-users", "deployments")
LASTING = [name for name in SERVICES if name not in ONCE]
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|KEY$|KEY_ID|_URL$|_URI$")


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        read_yaml("a: {b: 1, b: 2}")
    assert read_yaml("x: &x {a: 1}\ny: {<<: *x, a: 2}") == [{"x": {"a": 1}, "y": {"a": 2}}]


def test_it_is_valid_by_the_specification() -> None:
    """By the schema of the specification, which check-jsonschema brings; an unknown key of a service is refused, too."""
    from check_jsonschema.builtin_schemas import get_builtin_schema

    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)  # a newer draft than its `definitions` of old
    validator.validate(FILE)
    with pytest.raises(jsonschema.ValidationError, match="stop_grace_perid"):
        validator.validate({"services": {"one": {"image": "x", "stop_grace_perid": "60s"}}})


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="needs docker's client with compose; no engine",
)
def test_dockers_own_client_reads_it() -> None:
    done = subprocess.run(
        ["docker", "compose", "--file", COMPOSE, "--profile", "gpu", "config", "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "env_file"} & service.keys()
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert not [each for each in service.get("volumes", []) if "docker.sock" in each]


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_lasts_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_only_the_proxy_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:8443:8443"]}
    assert not [name for name, service in SERVICES.items() if "expose" in service]
    assert compose(BIND_ADDRESS="192.0.2.1", HTTPS_PORT="443")["services"]["proxy"]["ports"] == ["192.0.2.1:443:443"]


def test_only_the_proxy_and_the_crawler_have_a_way_out() -> None:
    outer = {name for name, options in FILE["networks"].items() if not (options or {}).get("internal")}
    assert outer == {"outside"}
    assert {name for name, service in SERVICES.items() if outer & set(service["networks"])} == {"proxy", "worker-cpu"}


def test_a_service_reaches_what_it_depends_on() -> None:
    """A dependency that only waits for work that is done needs no network; any other one does."""
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            if other in ONCE or (name, other) == ("prefect-services", "prefect-server"):
                continue
            if service["depends_on"][other]["condition"] == "service_healthy" and other != "prefect-services":
                assert set(service["networks"]) & set(SERVICES[other]["networks"]), (name, other)


def test_hosts_in_addresses_are_services_that_the_network_leads_to() -> None:
    for name, service in SERVICES.items():
        texts = [*map(str, service.get("environment", {}).values()), *map(str, service["command"])]
        for host in {host for text in texts for host in re.findall(r"(?:https?://|^)([a-z][a-z-]*):\d+", text)}:
            assert set(SERVICES[host]["networks"]) & set(service["networks"]), (name, host)


def test_no_secret_stands_in_an_environment_or_a_command() -> None:
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        for variable, value in environment.items():
            if SECRET_NAME.search(variable) and variable != "CORPUSMILL_SECRETS":
                is_file = variable.endswith("_FILE") or value.startswith("/run/secrets/")
                assert is_file or re.fullmatch(r"https?://[a-z.-]+:\d+(/api)?", value), (name, variable)
        assert not re.search(r"://[^/ ]*:[^/ ]*@", json.dumps(service)), name


def test_a_service_sees_the_secrets_that_it_uses_and_no_others() -> None:
    for name, service in SERVICES.items():
        mounted = {each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])}
        told = json.dumps([service["command"], service.get("environment", {})])
        used = set(re.findall(r"/run/secrets/(\w+)", told))
        for each in service.get("secrets", []):
            if isinstance(each, dict):
                used.add(each["source"])
        if name == "postgres":
            used |= {"prefect_database_password", "mlflow_database_password"}  # its first start makes the roles
        if name == "prometheus":
            used |= set(re.findall(r"/run/secrets/(\w+)", (INFRA / "prometheus" / "prometheus.yml").read_text()))
        assert mounted == used, name
    assert {each for service in SERVICES.values() for each in service.get("secrets", []) if isinstance(each, str)} | {
        "object_store_security"
    } == set(FILE["secrets"])


def test_secrets_of_one_part_are_not_in_another() -> None:
    def users(secret: str) -> set[str]:
        return {name for name, service in SERVICES.items() if secret in service.get("secrets", [])}

    assert users("postgres_password") == {"postgres"}
    assert users("mlflow_admin_password") == {"mlflow-users"}
    assert users("object_store_secret_key") == {"buckets"}
    assert users("artifacts_secret_key") == {"mlflow"}
    assert users("prefect_database_url") == users("valkey_url") == {"prefect-server", "prefect-services"}
    assert users("proxy_key") == {"proxy"}


def test_every_image_is_pinned() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z./]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"]), name
        else:
            assert re.fullmatch(r"corpusmill:\d+\.\d+\.\d+-(cpu|cuda)", service["image"]), name


def test_the_gpu_worker_asks_for_gpus_and_is_left_out_by_default() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["worker-gpu"]
    worker = SERVICES["worker-gpu"]
    assert worker["image"].endswith("-cuda")
    assert worker["build"]["args"]["VARIANT"] == "cuda"
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_example_of_an_environment_names_every_variable_with_its_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert set(re.findall(r"\$\{(\w+)", text)) == defaults.keys(), "each has a default"
    lines = (INFRA / ".env.example").read_text(encoding="utf-8").splitlines()
    assert dict(line.split("=", 1) for line in lines if line and not line.startswith("#")) == defaults


def test_what_is_mounted_is_in_the_repository() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in FILE["volumes"] or (COMPOSE.parent / source).exists(), volume


def test_prometheus_asks_what_is_there() -> None:
    (config,) = read_yaml((INFRA / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            host = target.split(":")[0]
            if host != "127.0.0.1":
                assert set(SERVICES[host]["networks"]) & set(SERVICES["prometheus"]["networks"]), target
    (rules,) = read_yaml((INFRA / "prometheus" / "services.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "action"}
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    assert set(re.findall(r'job="([\w-]+)"', json.dumps(rules).replace('\\"', '"'))) <= jobs


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_promtool_takes_the_configuration(tmp_path: Any) -> None:
    text = (INFRA / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "password").write_text("x")
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/run/secrets/prefect_password", str(tmp_path / "password")).replace(
            "/etc/prometheus/", f"{INFRA / 'prometheus'}/"
        )
    )
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_worker_and_the_pool_template_say_the_same() -> None:
    pool = json.loads((INFRA / "work-pools" / "docker.json").read_text(encoding="utf-8"))
    default = pool["variables"]["properties"]["env"]["default"]
    worker = SERVICES["worker-cpu"]["environment"]
    assert {name: worker[name] for name in default} == default
    assert secret_pairs(default) == secret_pairs(worker)
