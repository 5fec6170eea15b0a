"""The image: pinned, without root, built in an order in which a changed line of code fetches nothing again."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from deployment_files import INFRA, compose, manifests

ROOT = INFRA.parent
DOCKERFILE = INFRA / "images" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PINNED = {normalised(line.split("==")[0]): line.split("==")[1] for line in LOCK.splitlines() if "==" in line}


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined, comments left out."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in instructions():
        if instruction == "FROM":
            found[arguments.split(" AS ")[1]] = []
        elif found:
            found[list(found)[-1]].append((instruction, arguments))
    return found


def test_every_base_is_pinned_by_tag_and_digest() -> None:
    defaults = dict(arguments.split("=", 1) for name, arguments in instructions() if name == "ARG" and "=" in arguments)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", defaults["PYTHON_IMAGE"])
    bases = [arguments.split(" AS ")[0] for name, arguments in instructions() if name == "FROM"]
    earlier = {"${PYTHON_IMAGE}", "torch-${VARIANT}", *stages()}
    assert set(bases) <= earlier


def test_the_last_stage_runs_as_nobody_special() -> None:
    last = list(stages().values())[-1]
    users = [arguments for name, arguments in last if name == "USER"]
    assert users == ["10001:10001"]
    after = [name for name, _ in last[last.index(("USER", users[0])) + 1 :]]
    assert set(after) <= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}, "nothing is built as that user, nothing changes it back"
    assert {"HEALTHCHECK", "ENTRYPOINT"} <= set(after)


def test_a_changed_line_of_code_fetches_nothing_again() -> None:
    last = list(stages().values())[-1]
    places = {
        text: next(i for i, (_, arguments) in enumerate(last) if text in arguments)
        for text in ("from=torch", "from=libraries")
    }
    code = last.index(("COPY", ". ."))
    assert places["from=torch"] < places["from=libraries"] < code
    assert [arguments for name, arguments in stages()["libraries"] if name == "COPY"] == [
        "requirements.lock pyproject.toml infra/images/wanted.py ./"
    ]
    for name in ("torch-cpu", "torch-cuda", "wheels"):
        assert "COPY" not in [instruction for instruction, _ in stages()[name]], "torch does not depend on our files"
    installs = [arguments for _, arguments in last if "pip install" in arguments]
    assert len(installs) == 3
    assert all("--no-index" in arguments and "--no-deps" in arguments for arguments in installs)


def test_the_torch_of_the_image_is_that_of_the_lock() -> None:
    versions = {arguments for _, arguments in instructions() if arguments.startswith("TORCH_VERSION")}
    assert versions == {f"TORCH_VERSION={PINNED['torch']}"}


def test_a_build_knows_no_secret_and_no_index_by_name() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert not re.search(r"--mount=type=secret|PASSWORD|TOKEN|https?://(?!127\.0\.0\.1)", text)
    assert not [name for name, _ in instructions() if name == "ADD"]
    assert ":latest" not in text


def test_the_image_for_gpus_can_compile_kernels_and_keep_them() -> None:
    """Triton calls a C compiler while a model trains, and loads what that makes: not from a tmpfs that Docker mounts noexec."""
    last = list(stages().values())[-1]
    (install,) = [arguments for name, arguments in last if name == "RUN" and "apt-get" in arguments]
    assert re.match(
        r'if \[ "\$VARIANT" = cuda \]; then .* install --yes --no-install-recommends gcc libc6-dev ', install
    )
    assert ("ARG", "VARIANT") in last[: last.index(("RUN", install))], "an argument from before FROM is empty after it"
    told = dict(pair.split("=", 1) for name, arguments in last if name == "ENV" for pair in arguments.split())
    (settings,) = [each["data"] for each in manifests() if each["metadata"]["name"] == "worker-settings"]
    for environment in (told, settings, compose()["services"]["worker-gpu"]["environment"]):
        for variable in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR"):
            assert environment[variable].startswith("/workspace/")


def test_what_is_copied_is_let_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "nothing that is not named: no secrets, no workspace, no history"
    allowed = [line[1:] for line in rules if line.startswith("!")]
    assert {"requirements.lock", "pyproject.toml", "infra/images", "pipelines", "llm", "flows"} <= set(allowed)
    assert not {path for path in allowed if path in ("infra", "infra/secrets", "tests", ".git")}


def wanted(*torch_wheels: str) -> dict[str, str]:
    namespace: dict[str, object] = {"__name__": "wanted"}
    exec(compile((INFRA / "images" / "wanted.py").read_text(encoding="utf-8"), "wanted.py", "exec"), namespace)
    lines = namespace["wanted"](PROJECT, LOCK, list(torch_wheels), ["services", "broker"])  # type: ignore[operator]
    return {normalised(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_an_image_has_what_the_pipeline_needs_at_the_locks_versions() -> None:
    found = wanted("sympy-1.0-py3-none-any.whl", "nvidia_cublas-13.0-py3-none-any.whl")
    assert {"prefect", "mlflow", "pyarrow", "boto3", "prefect-redis", "sympy"} <= found.keys()
    assert not {"torch", "pytest", "moto", "mypy", "nvidia-cublas"} & found.keys()
    assert all(PINNED[name] == version for name, version in found.items())


def test_all_below_the_dependencies_is_in_the_lock() -> None:
    """Otherwise an image would take what the index has that day."""
    from packaging.requirements import Requirement

    waiting, seen = [(name, frozenset()) for name in wanted()], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        assert name in PINNED, name
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((normalised(need.name), frozenset(need.extras)))


def start(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INFRA / "images" / "entrypoint.sh", *command],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entrypoint_brings_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("with 'quotes' $and spaces")
    (tmp_path / "b").write_text("two\n")
    done = start(
        sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))",
        CORPUSMILL_SECRETS=f"FIRST={tmp_path / 'a'} SECOND={tmp_path / 'b'}",
    )  # fmt: skip
    environment = json.loads(done.stdout)
    assert (environment["FIRST"], environment["SECOND"]) == ("with 'quotes' $and spaces", "two")
    assert "CORPUSMILL_SECRETS" not in environment
    assert start("echo", "none", "needed").stdout == "none needed\n"


def test_the_entrypoint_starts_nothing_without_its_secrets(tmp_path: Path) -> None:
    done = start("echo", "started", CORPUSMILL_SECRETS=f"FIRST={tmp_path / 'missing'}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"FIRST: got no file to read at .*missing, wanted a secret: run infra/secrets.sh", done.stderr)


@pytest.mark.parametrize("script", sorted((INFRA / "images").glob("*.py")), ids=lambda path: path.name)
def test_scripts_say_what_they_are(script: Path) -> None:
    assert script.read_text(encoding="utf-8").startswith('"""')
