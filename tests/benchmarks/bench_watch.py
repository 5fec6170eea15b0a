"""What it costs a run to be watched: CPU time of its state file, full to its bounds, and of saying how far a stage is.

    python tests/benchmarks/bench_watch.py

Fails where the two seconds between two writes would lose over 1 % to one, with a hundred reports of progress beside it.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.watching.measures import MEASURES
from flows.watching.run_state import Recorder, recorded, state_path
from flows.workspace import Workspace, writing

BAR_SHARE = 0.01
_WRITE_EVERY_SECONDS = 2.0
_NUM_SERIES = 10
_NUM_RUNS = 90
_NUM_REPORTS = 100
"""Of progress, in that time."""


def fill(record: Recorder) -> None:
    """A workspace with many recipes, flows and failures."""
    for name, measure in MEASURES.items():
        for number in range(_NUM_SERIES):
            record.add(name, 1, **{label: f"{label}{number}" for label in measure.labels})
    run = {"flow": "build_corpus", "recipe": "r" * 20, "flow_run_id": "x" * 36, "started_at": 1.0, "again": "a" * 80}
    ended = {"outcome": "failed", "message": "m" * 300, "ended_at": 2.0, "succeeded_at": 1.0}
    record.state["runs"] |= {f"flow{number}": {**run, **ended} for number in range(_NUM_RUNS)}


def seconds_of(call: object, num: int) -> float:
    """CPU seconds of a call, by its number."""
    started = time.process_time()
    for number in range(num):
        call(number)  # type: ignore[operator]
    return (time.process_time() - started) / num


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        place = Workspace(Path(folder) / "workspace")
        with writing(place), recorded(place, "build_corpus", "r", recipe_path=None, flow_run_id=None) as record:
            fill(record)
            write = seconds_of(lambda _: record.write(), 200)

            def report(number: int) -> None:
                record.reach("corpusmill_stage_documents_total", number, recipe="r", stage="s")
                record.set("corpusmill_stage_documents_per_second", number, recipe="r", stage="s")
                record.progress("s", number, 5000, "note")

            progress = seconds_of(report, 5000)
            num_bytes = state_path(place).stat().st_size
    share = (write + _NUM_REPORTS * progress) / _WRITE_EVERY_SECONDS
    print(
        f"state of {num_bytes:,} bytes: {write * 1e3:.2f} ms a write; {progress * 1e6:.0f} us a report; {share:.3%} of a core"
    )
    if share > BAR_SHARE:
        sys.exit(f"got {share:.2%} of a core, wanted at most {BAR_SHARE:.0%}.")


if __name__ == "__main__":
    main()
