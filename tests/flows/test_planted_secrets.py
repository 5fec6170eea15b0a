"""Secrets planted wherever a recipe's files or the environment may hold one are in nothing that a run leaves; its log is JSON."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import run_command
from flow_inputs import OFF, article_records, write_recipe

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

PLANTED = {
    name: f"Planted4{name}Secret"
    for name in ("Url", "Prefect", "Proxy", "Aws", "Hub", "Tracker", "Database", "Serve", "Redirect")
}


@contextmanager
def file_server(warc: bytes) -> Iterator[str]:
    """A store that hands a file out to whoever has the signature, and sends others on to a signed address that is gone."""
    signature = PLANTED["Url"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", f"/gone.warc.gz?X-Amz-Signature={PLANTED['Redirect']}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            is_allowed = signature in self.path
            self.send_response(200 if is_allowed else 403)
            self.send_header("Content-Length", str(len(warc) if is_allowed else 0))
            self.end_headers()
            self.wfile.write(warc if is_allowed else b"")

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def environment_with_secrets() -> dict[str, str]:
    return {
        "PREFECT_API_AUTH_STRING": f"admin:{PLANTED['Prefect']}",
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{PLANTED['Prefect']}",
        "HTTPS_PROXY": f"http://me:{PLANTED['Proxy']}@127.0.0.1:9/",
        "AWS_SECRET_ACCESS_KEY": PLANTED["Aws"],
        "HF_TOKEN": PLANTED["Hub"],
        "MLFLOW_TRACKING_PASSWORD": PLANTED["Tracker"],
        "MLFLOW_TRACKING_USERNAME": "me",
        "POSTGRES_DSN": f"postgresql://me:{PLANTED['Database']}@127.0.0.1:9/prefect",
        "CORPUSMILL_SERVE_TOKEN": PLANTED["Serve"],
        "CORPUSMILL_LOG_FORMAT": "json",
    }


def leaks(workspace: Path, *texts: str) -> list[str]:
    """Every place where a planted secret is found: in the texts, and in every file below the workspace, packed ones unpacked."""
    needles = {name: value.encode() for name, value in PLANTED.items()}
    found = [f"{name} in what the command said" for text in texts for name, value in PLANTED.items() if value in text]
    for path in workspace.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            found += [f"{name} in {path.relative_to(workspace)}" for name, value in needles.items() if value in data]
    return found


@pytest.mark.parametrize("server", ["shared", pytest.param("own", marks=pytest.mark.slow)])
def test_no_planted_secret_is_in_anything_that_a_run_leaves(tmp_path, tmp_path_factory, request, server):
    """With a Prefect server that runs already; and with one of its own that knows the secrets, too, and tells more."""
    workspace = tmp_path / "workspace"
    variables = environment_with_secrets()
    if server == "shared":
        variables["PREFECT_API_URL"] = request.getfixturevalue("prefect_url")
    else:
        variables |= {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_SERVER_LOGGING_LEVEL": "INFO"}
    warc = b"".join(gzip.compress(each, mtime=0) for each in article_records())
    with file_server(warc) as address:
        listing = tmp_path / "warc.paths"
        listing.write_text(f"http://{address}/a.warc.gz?X-Amz-Credential=me&X-Amz-Signature={PLANTED['Url']}\n")
        source = {"kind": "warc", "paths": [str(listing)], "allow_addresses": [address]}
        recipe = write_recipe(tmp_path / "recipe.yaml", source, **OFF)
        built = run_command("build", recipe, "--workspace", workspace, "--workers", 1, "--json", **variables)
        assert built.code == 0, built.err
        listing.write_text(f"http://{address}/moved?X-Amz-Signature={PLANTED['Url']}\n")
        failed = run_command("build", recipe, "--workspace", workspace, "--workers", 1, "--json", **variables)
        assert failed.code == 1
        status = run_command("status", "--workspace", workspace, **variables)
        metrics = run_command(
            "metrics", "--out", tmp_path / "workspace" / "a.prom", "--workspace", workspace, **variables
        )
        assert metrics.code == 0
    assert "X-Amz-Signature=***" in failed.err, "what failed is told"
    assert "X-Amz-Signature=***" in status.out
    assert (workspace / "mlflow.db").stat().st_size > 0
    (server_folder,) = tmp_path_factory.getbasetemp().glob("prefect-server0") if server == "shared" else [workspace]
    assert (server_folder / "prefect" / "prefect.db").stat().st_size > 0
    texts = [each for done in (built, failed, status, metrics) for each in (done.out, done.err)]
    assert leaks(workspace, *texts) == []
    assert leaks(server_folder) == []
    check_log(built.err)
    assert json.loads(failed.err.splitlines()[-1])["level"] == "error"


def check_log(text: str) -> None:
    """Every line is a record with its context, and those of stages say whose they are, in the pool's workers as well."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(
        {"time", "level", "logger", "message", "flow_run_id", "recipe", "stage", "shard", "host", "pid"} <= line.keys()
        for line in lines
    )
    ours = [line for line in lines if line["logger"].startswith(("flows.watching.console", "pipelines.worker"))]
    assert ours
    assert all(re.fullmatch(r"[0-9a-f-]{36}", line["flow_run_id"]) for line in ours)
    assert {line["recipe"] for line in ours} == {"small"}
    assert all(line["stage"] for line in ours)
    of_workers = [line for line in lines if line["logger"] == "pipelines.worker"]
    assert {line["pid"] for line in of_workers}.isdisjoint(
        {line["pid"] for line in lines if line["logger"] == "flows.watching.console"}
    )
    assert any(line["shard"] for line in of_workers)
    assert len({line["flow_run_id"] for line in of_workers}) == 1


@pytest.mark.parametrize(("name", "value"), [("CORPUSMILL_LOG_FORMAT", "xml"), ("CORPUSMILL_LOG_LEVEL", "loud")])
def test_a_setting_of_the_log_that_is_none_is_refused(tmp_path, name, value):
    done = run_command("status", "--workspace", tmp_path, **{name: value})
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"corpusmill: {name}: got '{value}', wanted ")
