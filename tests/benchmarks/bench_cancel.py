"""How long a training takes to be gone after it is cancelled: `python tests/benchmarks/bench_cancel.py [--rounds 5] [--processes 1] [--kill-worker]`.

A Prefect server, two process workers and a small recipe, as `corpusmill deploy` sets them up. The training is cancelled at
random moments as Prefect's UI does it (state Cancelling), and gone on with by the next run. Prints a row for each round:
seconds until no process of the run was left and until Prefect said Cancelled, the step of the newest checkpoint and of the
journal, and whether the same MLflow run goes on. Exits 1 where a round took longer than 15 s or lost something. With
`--kill-worker` the training's worker is killed (SIGKILL) before each cancel, so that the run must find out by itself.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))  # before it: folders of tests are named like the packages
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from deadline import wait_for
from flow_inputs import OFF, SMALL, article_records, write_recipe, write_warc
from prefect_workers import start_run, wait_for_state, worker

from flows.control_plane import prefect_server
from flows.deployed import deployment
from flows.settings import Settings
from flows.workspace import Workspace
from llm import checkpoint
from llm.journal import JOURNAL, read

MAX_SECONDS = 15.0
TRAINING = {
    **SMALL["training"],
    "max_steps": 10_000_000,
    "eval_every_steps": 1000,
    "checkpoint_every_steps": 1000,
    "spike_sigmas": None,  # it would go back past bad data, and the journal's newest step not be the training's
}


def newest_step(folder: Path) -> int:
    """The newest step in a training's journal."""
    return max((each.facts["step"] for each in read(folder / JOURNAL) if each.kind == "step"), default=-1)


def measure(base: Path, api_url: str, options: argparse.Namespace) -> bool:
    """All rounds; whether each was quick and lost nothing."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    write_warc(base / "pages" / "a.warc.gz", article_records()[:20])
    source = {"kind": "warc", "paths": ["pages/*.warc.gz"]}
    recipe = write_recipe(base / "recipe.yaml", source, name="bench", training=TRAINING, **OFF)
    place = Workspace(base / "w")
    deployment.deploy(recipe, place.root, paused=True)
    draw, is_good, run_ids = random.Random(options.seed), True, set()
    with get_client(sync_client=True) as client, ExitStack() as workers:
        workers.enter_context(worker(api_url, "cpu", base / "cpu"))
        gpu = workers.enter_context(worker(api_url, "gpu", base / "gpu"))
        (follow_up,) = client.read_automations_by_name("corpusmill bench: train after a corpus that changed enough")
        client.pause_automation(follow_up.id)
        wait_for_state(client, start_run(client, "refresh/bench"), "Completed")
        stopped_at, seconds = -1, []
        for number in range(options.rounds):
            run_id = start_run(client, "train/bench", {"processes": options.processes})
            wait_for_state(client, run_id, "Running")
            wait_for("steps", lambda after=stopped_at + 50: _step(place) > after, 240)
            time.sleep(draw.uniform(0.0, 5.0))  # a random moment, of a step, a validation, a checkpoint
            if options.kill_worker:
                gpu.kill()
            began = time.monotonic()
            client.set_flow_run_state(run_id, Cancelling())
            wait_for("end of all processes", lambda gpu=gpu: not gpu.started(), 60)
            gone = time.monotonic() - began
            wait_for_state(client, run_id, "Cancelled")
            told = time.monotonic() - began
            if options.kill_worker:
                gpu = workers.enter_context(worker(api_url, "gpu", base / f"gpu-{number}"))
            (folder,) = place.root.glob("models/*")
            stopped_at, newest = newest_step(folder), checkpoint.newest_valid(folder)
            step = -1 if newest is None else checkpoint.step_of(newest)
            run_ids.add((folder / "mlflow_run_id").read_text())
            seconds.append(gone)
            is_whole = step == stopped_at and len(run_ids) == 1
            is_good = is_good and is_whole and gone <= MAX_SECONDS
            print(
                f"round {number + 1}: gone after {gone:.1f} s, Cancelled after {told:.1f} s, checkpoint of step {step:,}, "
                f"journal to step {stopped_at:,}, MLflow runs {len(run_ids)}",
                flush=True,
            )
    print(
        f"processes gone after {max(seconds):.1f} s at most, {sorted(seconds)[len(seconds) // 2]:.1f} s in the middle"
    )
    return is_good


def _step(place: Workspace) -> int:
    return max((newest_step(path.parent) for path in place.root.glob(f"models/*/{JOURNAL}")), default=-1)


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill-worker", action="store_true", help="end the training's worker before each cancel")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "CORPUSMILL_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        settings = Settings(workspace=base, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=None)
        with prefect_server(settings, Workspace(base / "server")) as wait_until_up:
            wait_until_up()
            is_good = measure(base, os.environ["PREFECT_API_URL"], options)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
