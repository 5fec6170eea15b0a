"""What `corpusmill up` prints: one screen, and no secret."""

from pathlib import Path
from typing import Any

from flows.up.options import Options


def facts(options: Options, root: Path, credentials: Path | None, pid: int) -> dict[str, Any]:
    """Where everything is, as one JSON document has it."""
    return {
        "prefect": options.shown_url(options.prefect_port),
        "prefect_api": f"{options.url(options.prefect_port)}/api",
        "mlflow": options.shown_url(options.mlflow_port),
        "metrics": f"http://127.0.0.1:{options.metrics_port}/metrics",
        "workspace": str(root),
        "logs": str(root / "logs"),
        "secrets": None if credentials is None else str(credentials),
        "postgres": None if options.postgres is None else options.postgres.shown,
        "artifacts": options.artifacts,
        "pid": pid,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for a person."""
    rows = {
        "Prefect": f"{found['prefect']}   runs, schedules, deployments; start one: Deployments, refresh, Run",
        "MLflow": f"{found['mlflow']}   experiments, curves, models: choose 'Model training' at its top left",
        "Metrics": found["metrics"],
        "Workers": "cpu, gpu",
        "Workspace": found["workspace"],
        "Database": found["postgres"],
        "Artifacts": found["artifacts"],
        "Logs": found["logs"],
        "Secrets": None if found["secrets"] is None else f"{found['secrets']}   user and password of both servers",
        "Stop": f"Ctrl-C here, or kill {found['pid']}; runs are asked to write down where they stand and go on later",
    }
    shown = [f"  {name:<10} {value}" for name, value in rows.items() if value]
    if found["secrets"] is not None:
        shown += [
            "",
            "  Others reach the servers by plain HTTP: put a proxy with TLS before them where the network is not yours.",
        ]
    return ["corpusmill is up.", "", *shown, ""]
