"""Scheduled refreshes of a site that changes, with random kills: `python tests/benchmarks/bench_soak.py [--refreshes 30]`.

`corpusmill up` runs on Postgres with a schedule of some seconds. After each refresh the site changes a little: pages get new
text, one comes, one goes. At random moments the worker, Prefect's server, MLflow's, the flow run's process or the database
is killed (SIGKILL); what `up` keeps running it starts again by itself, the database is started again here, as an operating
system does. At the end every page must stand in the corpus exactly as the site shows it, each version that was fetched must
be there once, no run may be left RUNNING in Prefect or MLflow, and no process after the stop. Memory and disk of the last
third are given beside those of the second one. Ends with one JSON line; exits 1 where something does not hold.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows" / "up"))

from flow_inputs import SMALL
from postgres_server import PASSWORD, USER, PostgresServer, postgres_server
from up_processes import belonging, environment

INTERVAL_SECONDS = 25.0
KILL_PROBABILITY = 0.7
MAX_REFRESH_SECONDS = 600.0
"""Until a refresh that saw the site's newest change must have ended, kills and all."""
KNOWN_SECONDS = 130.0
"""After which a run that says it writes the workspace, and does not, is known to be dead: see flows/deployed/turns.py."""
MAX_GROWTH = 1.15
"""Of memory, from the middle third to the last."""
MARKER = re.compile(r"edition (\d+) of page (\d+)\b")
VICTIMS = {
    "worker": "worker start",
    "prefect server": "server start",
    "mlflow server": "mlflow",
    "flow run": "prefect.engine",
    "database": "",
}
WORDS = [
    "harbour",
    "river",
    "garden",
    "winter",
    "market",
    "bridge",
    "window",
    "letter",
    "engine",
    "mountain",
    "kitchen",
    "school",
    "island",
    "station",
    "forest",
    "railway",
    "village",
    "captain",
    "shoulder",
    "basket",
    "lantern",
    "meadow",
    "orchard",
    "picture",
    "journey",
    "weather",
    "evening",
    "morning",
    "candle",
    "fisherman",
    "neighbour",
    "carpenter",
    "gardener",
    "musician",
    "traveller",
    "engineer",
]


@dataclass
class Site:
    """Pages whose text says which page and edition it is, and what was served of them."""

    editions: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(40), 1))
    served: Counter[tuple[int, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, rng: random.Random) -> None:
        """Three pages are written anew, one comes, one goes."""
        with self.lock:
            for page in rng.sample(sorted(self.editions), 3):
                self.editions[page] += 1
            self.editions[max(self.editions) + 1] = 1
            del self.editions[rng.choice(sorted(self.editions)[:-1])]

    def body(self, path: str) -> str | None:
        """A page; None where there is none."""
        with self.lock:
            if path == "/robots.txt":
                return "User-agent: *\nAllow: /\n"
            if path == "/":
                links = "".join(f'<li><a href="/{page}.html">{page}</a></li>' for page in self.editions)
                return f"<html><title>All pages</title><body><ul>{links}</ul></body></html>"
            found = re.fullmatch(r"/(\d+)\.html", path)
            page = int(found[1]) if found else -1
            if page not in self.editions:
                return None
            self.served[page, self.editions[page]] += 1
            return article(page, self.editions[page])


def article(page: int, edition: int) -> str:
    """A page of some 250 words that are no other page's."""
    rng = random.Random(f"{page} {edition}")
    paragraphs = []
    for _ in range(6):
        sentences = [
            f"The {' and the '.join(rng.sample(WORDS, 3))} were near the {rng.choice(WORDS)} that day."
            for _ in range(4)
        ]
        paragraphs.append(f"<p>{' '.join(sentences)}</p>")
    head = f"<p>This is edition {edition} of page {page}, and it is the one that is to be read today.</p>"
    return f"<html lang=en><title>Page {page}</title><body><article><h1>Page {page}</h1>{head}{''.join(paragraphs)}</article></body></html>"


def serve(site: Site) -> ThreadingHTTPServer:
    """The site on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = site.body(self.path)
            content = (body or "gone").encode()
            self.send_response(404 if body is None else 200)
            kind = "text/plain" if self.path == "/robots.txt" else "text/html; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def recipe(port: int) -> dict[str, Any]:
    """Everything is asked for again by each refresh."""
    source = {
        "kind": "crawl",
        "name": "site",
        "seeds": [f"http://127.0.0.1:{port}/"],
        "allow_addresses": [f"127.0.0.1:{port}"],
        "delay_seconds": 0,
        "delay_factor": 0,
        "recrawl_after_hours": 0.0001,
        "min_recrawl_hours": 0.0001,
        "max_recrawl_hours": 0.0002,
    }
    return SMALL | {  # with it a training, which comes every few refreshes, takes seconds
        "name": "soak",
        "sources": [source],
        "language": "off",
        "quality": "off",
        "bias": "off",
        "pii": "off",
        "dedup": {"near": False, "max_line_repeats": None},
    }


class Api:
    """Prefect's API, as the one who soaks asks it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            content = answer.read()
            return json.loads(content) if content else None

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Those of a deployment that began, newest first; none while the server is away."""
        body = {"sort": "START_TIME_DESC", "limit": 200, "flow_runs": {"deployment_id": {"any_": [deployment]}}}
        try:
            return list(self("/flow_runs/filter", body))
        except OSError:
            return []


def kill(root: Path, name: str, database: PostgresServer) -> bool:
    """Kill one service with SIGKILL; the database is started again after a moment."""
    if name == "database":
        database.stop(signal.SIGKILL)
        time.sleep(1)  # as long as an init system waits
        database.start()
        return True
    pids = [pid for pid, command in belonging(root).items() if VICTIMS[name] in command]
    for pid in pids[:1]:
        os.kill(pid, signal.SIGKILL)
    return bool(pids)


def resident_bytes(root: Path) -> dict[str, int]:
    """Of the services that live through all refreshes."""
    found: dict[str, int] = {}
    for pid, command in belonging(root).items():
        name = next((name for name, part in VICTIMS.items() if part and part in command), None)
        if name in (None, "flow run"):
            continue
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        found[name] = found.get(name, 0) + pages * os.sysconf("SC_PAGE_SIZE")
    return found


def disk_bytes(root: Path) -> dict[str, int]:
    """By the folders of a workspace."""
    sizes: Counter[str] = Counter()
    for path in root.rglob("*"):
        try:
            sizes[path.relative_to(root).parts[0]] += path.lstat().st_blocks * 512
        except OSError:
            continue
    return dict(sizes)


def soak(
    root: Path, site: Site, api: Api, database: PostgresServer, num_refreshes: int, rng: random.Random
) -> dict[str, Any]:
    """The refreshes; gives what was killed, how long each change took to land, and sizes after each."""
    deployment = api("/deployments/name/refresh/soak")["id"]
    schedule = {"schedule": {"interval": INTERVAL_SECONDS, "timezone": "UTC"}, "active": True}
    api(f"/deployments/{deployment}/schedules", [schedule])
    kills: Counter[str] = Counter()
    seconds, memory, disk = [], [], []
    for number in range(num_refreshes):
        if number:
            site.change(rng)
        changed_at = time.time()
        name = rng.choice(sorted(VICTIMS)) if rng.random() < KILL_PROBABILITY else None
        kill_at = changed_at + rng.uniform(0, 0.8 * INTERVAL_SECONDS)
        while not landed(api, deployment, changed_at):
            if name is not None and time.time() > kill_at:
                kills[name] += kill(root, name, database)
                name = None
            if time.time() - changed_at > MAX_REFRESH_SECONDS:
                raise SystemExit(
                    f"got no refresh of change {number} in {MAX_REFRESH_SECONDS:.0f} s; killed so far: {dict(kills)}"
                )
            time.sleep(0.5)
        seconds.append(round(time.time() - changed_at, 1))
        memory.append(resident_bytes(root))
        disk.append(disk_bytes(root))
        print(f"{number + 1}: {seconds[-1]} s, killed {dict(kills)}", flush=True)
    return {"kills": dict(kills), "seconds": seconds, "memory": memory, "disk": disk}


def rest(api: Api) -> None:
    """The schedule goes on without kills until a refresh began that knows every process killed before as gone, and ended."""
    deployment = api("/deployments/name/refresh/soak")["id"]
    known_at = time.time() + KNOWN_SECONDS
    deadline = known_at + MAX_REFRESH_SECONDS
    while not landed(api, deployment, known_at) and time.time() < deadline:
        time.sleep(1)


def landed(api: Api, deployment: str, changed_at: float) -> bool:
    """Whether a refresh that began after the change completed, and did the work itself."""
    return any(
        run["state_type"] == "COMPLETED"
        and run["state_name"] == "Completed"
        and run["start_time"] is not None
        and _seconds(run["start_time"]) > changed_at
        for run in api.runs(deployment)
    )


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def left_running(api: Api, seconds: float) -> list[str]:
    """Runs that neither ended nor wait for their time, once they had so long to end."""
    deadline = time.monotonic() + seconds
    while True:
        body = {
            "limit": 200,
            "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING", "PAUSED"]}}},
        }
        left = [f"{run['name']} {run['state_name']}" for run in api("/flow_runs/filter", body)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(1)


def corpus(
    root: Path, folder: Path, recipe_file: Path
) -> tuple[dict[str, list[tuple[int, int]]], Counter[tuple[int, int]]]:
    """Kept editions by URL, and how often each edition stands among all documents."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "export",
        str(recipe_file),
        "--workspace",
        str(root),
        "--out",
        str(folder),
    ]
    subprocess.run([*command, "--dropped"], check=True, stdout=subprocess.DEVNULL, env=environment())
    kept: dict[str, list[tuple[int, int]]] = {}
    rows: Counter[tuple[int, int]] = Counter()
    for path in folder.glob("*.jsonl*"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found = MARKER.search(row["text"] or "")
            if found is None:
                continue
            edition = int(found[2]), int(found[1])
            rows[edition] += 1
            if row["decision"] == "keep":
                kept.setdefault(row["url"], []).append(edition)
    return kept, rows


def mlflow_running(url: str) -> list[str]:
    """Runs of MLflow that nobody ended."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    return [f"{run.info.run_name} {run.info.run_id} {run.data.tags.get('prefect.flow_run_id')}" for run in found]


def thirds(values: list[float]) -> tuple[float, float]:
    """Medians of the middle and the last third."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-2 * third : -third] or values), statistics.median(values[-third:])


def report(
    site: Site, found: dict[str, Any], kept: dict[str, list[tuple[int, int]]], rows: Counter[tuple[int, int]]
) -> dict[str, Any]:
    """What holds and what does not, as figures."""
    shown = dict(site.editions)
    standing = {page: edition for editions in kept.values() for page, edition in editions}
    memory = {
        name: tuple(round(value / 2**20) for value in thirds([float(each.get(name, 0)) for each in found["memory"]]))
        for name in sorted({name for each in found["memory"] for name in each})
    }
    disk = {
        name: tuple(round(each.get(name, 0) / 2**20, 1) for each in (found["disk"][0], found["disk"][-1]))
        for name in sorted(found["disk"][-1])
    }
    return {
        "refreshes": len(found["seconds"]),
        "kills": found["kills"],
        "seconds_to_land": {"median": statistics.median(found["seconds"]), "most": max(found["seconds"])},
        "pages": len(shown),
        "wrong": sorted({page for page in shown.keys() | standing.keys() if shown.get(page) != standing.get(page)}),
        "kept_twice": sorted(url for url, editions in kept.items() if len(editions) > 1),
        "rows_twice": sorted(str(edition) for edition, count in rows.items() if count > 1),
        "memory_mib_middle_and_last_third": memory,
        "disk_mib_first_and_last": disk,
        "memory_grew": sorted(name for name, (middle, last) in memory.items() if last > middle * MAX_GROWTH),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refreshes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    site, rng = Site(), random.Random(options.seed)
    server = serve(site)
    with tempfile.TemporaryDirectory(prefix="corpusmill-soak-") as name, postgres_server() as database:
        root, recipe_file = Path(name) / "workspace", Path(name) / "soak.yaml"
        recipe_file.write_text(yaml.safe_dump(recipe(server.server_port)))
        url = f"postgresql://{USER}@127.0.0.1:{database.port}/postgres"
        command = [sys.executable, "-m", "flows.cli", "up", str(recipe_file), "--workspace", str(root), "--json"]
        command += ["--postgres", url, "--prefect-port", "0", "--mlflow-port", "0"]
        up = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(PGPASSWORD=PASSWORD))
        try:
            assert up.stdout is not None
            facts = json.loads(up.stdout.readline() or "{}")
            if not facts:
                raise SystemExit("got no services from `corpusmill up`, wanted them: see what it said.")
            api = Api(facts["prefect_api"])
            found = soak(root, site, api, database, options.refreshes, rng)
            rest(api)
            for each in api(f"/deployments/{api('/deployments/name/refresh/soak')['id']}/schedules"):
                request = urllib.request.Request(
                    f"{api.url}/deployments/{each['deployment_id']}/schedules/{each['id']}", method="DELETE"
                )
                urllib.request.urlopen(request, timeout=20).close()
            left = left_running(api, 300)
            open_runs = mlflow_running(facts["mlflow"])
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(180)
        orphans = belonging(root)
        kept, rows = corpus(root, Path(name) / "export", recipe_file)
    found = report(site, found, kept, rows) | {
        "left_running": left,
        "left_running_in_mlflow": open_runs,
        "orphans": list(orphans.values()),
    }
    fails = [
        name
        for name in (
            "wrong",
            "kept_twice",
            "rows_twice",
            "left_running",
            "left_running_in_mlflow",
            "orphans",
            "memory_grew",
        )
        if found[name]
    ]
    print(json.dumps(found | {"holds": not fails}))
    sys.exit(bool(fails))


if __name__ == "__main__":
    main()
