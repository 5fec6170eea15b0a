"""Shell scripts: parsed, linted where a linter is there, and the one that makes secrets run for real."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from deployment_files import INFRA, compose

SCRIPTS = sorted([*INFRA.rglob("*.sh"), INFRA.parent / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_stops_at_errors(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    shell = re.match(r"#!(?:/usr/bin/env |/bin/)(bash|sh)\n# \S", text)
    assert shell is not None, "a shell and a head comment"
    assert subprocess.run([shell[1], "-n", script], check=False).returncode == 0
    assert re.search(r"^set -eu(o pipefail)?$", text, re.MULTILINE)
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="needs shellcheck, a tool of Debian's (GPL, so no dependency)"
)
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def make(folder: Path, **variables: str) -> dict[str, str]:
    subprocess.run([INFRA / "secrets.sh", folder], env=os.environ | variables, capture_output=True, check=True)
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_secrets_are_made_once_and_only_their_owner_reaches_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = make(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca").stat().st_mode) == 0o700
    assert {Path(each["file"]).name for each in compose()["secrets"].values()} <= first.keys()
    passwords = [text for name, text in first.items() if name.endswith(("password", "_key"))]
    assert len(set(passwords)) == len(passwords)
    assert make(folder) == first
    moved = make(folder, POSTGRES_ADDRESS="db.example:6000", PREFECT_NAME="p.example")
    assert "@db.example:6000/prefect" in moved["prefect_database_url"]
    changed = {name for name in first if moved[name] != first[name]}
    assert changed == {
        "prefect_database_url",
        "mlflow_database_url",
        "mlflow_auth_config",
        "proxy_certificate",
        "proxy_key",
    }


def test_the_certificate_is_for_the_names_and_by_our_authority(tmp_path: Path) -> None:
    make(tmp_path, PREFECT_NAME="p.example", MLFLOW_NAME="m.example")
    for name in ("p.example", "m.example", "localhost"):
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", "-verify_hostname", name, tmp_path / "proxy_certificate"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_a_certificate_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "other", PREFECT_NAME="p.example")
    make(tmp_path / "ours")
    for name in ("proxy_certificate", "proxy_key"):
        (tmp_path / "ours" / name).unlink()
        shutil.copy(tmp_path / "other" / name, tmp_path / "ours" / name)
    theirs = (tmp_path / "ours" / "proxy_certificate").read_text()
    assert make(tmp_path / "ours", PREFECT_NAME="q.example")["proxy_certificate"] == theirs


def test_a_backup_runs_in_the_worker_behind_the_entrypoint_that_brings_its_secrets(tmp_path: Path) -> None:
    """`docker compose exec` and `kubectl exec` start a command by itself, without the image's entrypoint."""
    commands = {"RUN_IN_POSTGRES": "echo", "RUN_IN_WORKER": "echo", "WAIT_MINUTES": "5"}
    done = subprocess.run(
        [INFRA / "backup.sh", tmp_path], env=os.environ | commands, capture_output=True, text=True, check=True
    )
    said = (Path(done.stdout.strip()) / "workspace.tar.gz").read_text()
    images = "/opt/corpusmill/infra/images"
    assert said == f"{images}/entrypoint.sh python {images}/workspace_copy.py archive 5\n"
    assert [path.name for path in tmp_path.iterdir()] == [Path(done.stdout.strip()).name]
