"""The pool templates are what Prefect takes: variables fill them, and a job of each is valid where its worker is installed."""

import json
from typing import Any

import jsonschema
import pytest
from deployment_files import INFRA, manifests
from prefect.utilities.templating import find_placeholders

NAMES = ("docker", "kubernetes")


def template(name: str) -> dict[str, Any]:
    return json.loads((INFRA / "work-pools" / f"{name}.json").read_text(encoding="utf-8"))


def placeholders(value: Any) -> set[str]:
    return {each.name for each in find_placeholders(value)}


@pytest.mark.parametrize("name", NAMES)
def test_variables_and_placeholders_are_the_same(name: str) -> None:
    body = template(name)
    assert body.keys() == {"variables", "job_configuration"}
    assert placeholders(body["job_configuration"]) == body["variables"]["properties"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_variables_are_a_schema_that_its_defaults_obey(name: str) -> None:
    schema = template(name)["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for variable, each in schema["properties"].items():
        assert each["title"], variable
        if "default" in each:
            jsonschema.validate(each["default"], each)


@pytest.mark.parametrize("name", NAMES)
def test_prefects_server_takes_it(name: str) -> None:
    from prefect.server.schemas.core import WorkPool

    pool = WorkPool(
        name=name, type=name, base_job_template=template(name), default_queue_id="00000000-0000-0000-0000-000000000001"
    )
    assert pool.base_job_template == template(name)


def test_dockers_client_takes_what_a_container_is_created_with() -> None:
    from docker.types import HostConfig

    body = template("docker")
    defaults = {name: each.get("default") for name, each in body["variables"]["properties"].items()}
    defaults["device_requests"] = [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]
    given = body["job_configuration"]["container_create_kwargs"]
    filled = {
        key: defaults[next(iter(placeholders(value)))] if placeholders(value) else value for key, value in given.items()
    }
    del filled["user"]  # of the container, not of its host
    host = HostConfig("1.44", mem_limit=defaults["mem_limit"], **filled)
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["NanoCpus"]) == (True, ["ALL"], 2_000_000_000)
    assert host["DeviceRequests"][0]["Capabilities"] == [["gpu"]]


def test_a_job_of_docker_is_hardened() -> None:
    docker = pytest.importorskip("prefect_docker.worker", reason="needs prefect-docker")
    body = template("docker")
    assert body["job_configuration"].keys() <= docker.DockerWorkerJobConfiguration.model_fields.keys()
    configuration = _configured(docker.DockerWorkerJobConfiguration, body)
    assert configuration.container_create_kwargs["cap_drop"] == ["ALL"]
    assert configuration.container_create_kwargs["user"] == "10001:10001"
    assert configuration.privileged is False
    assert configuration.env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_a_job_of_kubernetes_is_valid_and_like_the_worker() -> None:
    kubernetes = pytest.importorskip("prefect_kubernetes.worker", reason="needs prefect-kubernetes")
    validator = pytest.importorskip("kubernetes_validate", reason="needs the development packages")
    configuration = _configured(kubernetes.KubernetesWorkerJobConfiguration, template("kubernetes"), name="run", gpus=1)
    configuration.prepare_for_flow_run(_flow_run())
    job = configuration.job_manifest
    for name in (
        "parallelism",
        "completions",
    ):  # prefect-kubernetes 0.8.0 insists on them here, where Kubernetes drops them
        del job["spec"]["template"]["spec"][name]
    validator.validate(job, "1.33", strict=True)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    (worker,) = [each for each in manifests() if each["metadata"]["name"] == "worker-cpu"]
    like = worker["spec"]["template"]["spec"]
    assert pod["securityContext"] == like["securityContext"]
    assert pod["containers"][0]["securityContext"] == like["containers"][0]["securityContext"]


def _configured(configuration: Any, body: dict[str, Any], **values: Any) -> Any:
    import asyncio

    return asyncio.run(configuration.from_template_and_values(base_job_template=body, values=values, client=object()))


def _flow_run() -> Any:
    from prefect.client.schemas.objects import FlowRun

    return FlowRun(name="run", flow_id="00000000-0000-0000-0000-000000000001")
