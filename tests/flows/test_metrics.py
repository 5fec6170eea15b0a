"""What monitors are told: valid to Prometheus' own parser, counters that only grow over runs and kills, little cost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import environment
from prometheus_client.parser import text_string_to_metric_families

from flows.takedown import add
from flows.watching.measures import MAX_SERIES, MEASURES, RATES
from flows.watching.metrics import gpu_metrics, serve_metrics, write_metrics
from flows.watching.run_state import Recorder, is_alive, read_state, recorded, recorder, state_path
from flows.workspace import Workspace, writing
from pipelines.errors import ConfigError, FetchError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "infra" / "prometheus" / "alerts.yaml"
NAME = re.compile(r"corpusmill_[a-z][a-z0-9_]*")
ORDER = ("flow", "recipe", "source", "stage", "result", "outcome", "reason", "kind", "gpu", "version")
BASE_UNITS = ("seconds", "bytes", "ratio", "nats", "watts")
OTHER_UNITS = re.compile(r"_(ms|millis\w*|minutes|hours|days|kb|kib|mb|mib|gb|gib|percent|percentage)(_|$)")


@pytest.fixture
def place(tmp_path) -> Workspace:
    made = Workspace(tmp_path / "workspace")
    with writing(made):
        pass
    return made


def exported(place: Workspace) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric and label values to the value, as Prometheus' own parser reads the file."""
    out = next(path for path in place.root.parents if path.is_dir()) / "corpusmill.prom"
    write_metrics(place.root, out)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(out.read_text(encoding="utf-8")):
        for sample in family.samples:
            labels = sorted(sample.labels, key=ORDER.index)
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in labels)] = sample.value
    return found


def run(place: Workspace, flow: str = "build_corpus", **more):
    return recorded(place, flow, "demo", recipe_path="demo.yaml", flow_run_id=None, **more)


def fill(record: Recorder) -> None:
    """Say something of every measure."""
    for name, measure in MEASURES.items():
        labels = dict.fromkeys(measure.labels, "x")
        if measure.kind == "counter":
            record.add(name, 3, **labels)
        else:
            record.set(name, 0.5, **labels)


# what is exported


def test_the_output_is_as_prometheus_wants_it(place):
    with run(place) as record:
        fill(record)
    out = place.root.parent / "a.prom"
    write_metrics(place.root, out)
    text = out.read_text(encoding="utf-8")
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "one block of each metric"
    assert text.count("# HELP") == text.count("# TYPE") == len(names)
    for family in families:
        assert NAME.fullmatch(family.name), family.name
        assert family.type in ("counter", "gauge"), family.name
        assert family.documentation.endswith("."), family.name
        assert not OTHER_UNITS.search(family.name), f"{family.name}: units are {', '.join(BASE_UNITS)}"
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert not {"le", "quantile", "instance", "job"} & set(sample.labels)
        assert len({tuple(sorted(sample.labels.items())) for sample in family.samples}) == len(family.samples)
    assert text.endswith("\n")


def test_every_measure_is_told_with_its_labels(place):
    with run(place) as record:
        fill(record)
    found = exported(place)
    for name, measure in MEASURES.items():
        series = found[name]
        assert all(len(labels) == len(measure.labels) for labels in series), name
        if name not in RATES and name != "corpusmill_runs_total":
            assert series[("x",) * len(measure.labels)] == (3 if measure.kind == "counter" else 0.5), name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")
def test_promtool_has_nothing_against_the_output_and_the_alerts(place):
    with run(place) as record:
        fill(record)
    out = place.root.parent / "a.prom"
    write_metrics(place.root, out)
    told = subprocess.run(
        ["promtool", "check", "metrics"], stdin=out.open("rb"), capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    told = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_a_workspace_that_is_not_there_has_metrics_of_the_machine(tmp_path):
    found = exported(Workspace(tmp_path / "none" / "yet"))
    assert found["corpusmill_disk_free_bytes"][()] > 0
    assert found["corpusmill_takedowns_waiting"][()] == 0
    assert "corpusmill_run_in_progress" not in found
    assert not (tmp_path / "none").exists(), "to look makes nothing"


def test_take_downs_that_wait_are_counted(place):
    assert exported(place)["corpusmill_takedowns_waiting"][()] == 0
    add(place.root, "domain", "a.test", by="me", reason="asked")
    add(place.root, "domain", "b.test", by="me", reason="asked")
    assert exported(place)["corpusmill_takedowns_waiting"][()] == 2


def test_the_alerts_ask_for_what_is_exported_and_say_what_to_do(place):
    with run(place) as record:
        fill(record)
    known = set(exported(place))
    rules = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 6
    for rule in rules:
        asked = set(NAME.findall(rule["expr"]))
        assert asked
        assert asked <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert "Run `" in rule["annotations"]["description"] or re.match(
            "(Compare|Look|Start)", rule["annotations"]["description"]
        )


RULE_TESTS = """
rule_files: [{alerts}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'corpusmill_run_last_failed{{flow="train",recipe="r"}}', values: '0x5 1x5'}}
      - {{series: 'corpusmill_run_last_success_timestamp_seconds{{flow="build_corpus",recipe="r"}}', values: '0x2000'}}
      - {{series: 'corpusmill_corpus_kept_ratio{{recipe="r"}}', values: '0.5x2000'}}
      - {{series: 'corpusmill_corpus_kept_ratio_before{{recipe="r"}}', values: '0.55x10 0.7x2000'}}
      - {{series: 'corpusmill_crawl_pages_per_second{{recipe="r",source="s"}}', values: '0.1x100'}}
      - {{series: 'corpusmill_crawl_queued_urls{{recipe="r",source="s"}}', values: '500x100'}}
      - {{series: 'corpusmill_run_in_progress{{flow="crawl",recipe="r"}}', values: '1x100'}}
      - {{series: 'corpusmill_disk_free_bytes', values: '1000000000x100'}}
      - {{series: 'corpusmill_disk_size_bytes', values: '100000000000x100'}}
      - {{series: 'corpusmill_takedowns_waiting', values: '1x2000'}}
      - {{series: 'corpusmill_build_info{{version="1"}}', values: '1x2000'}}
    promql_expr_test:
      - {{expr: 'count(ALERTS{{alertname="CorpusmillRunFailed"}}) or vector(0)', eval_time: 3m, exp_samples: [{{value: 0, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillRunFailed"}})', eval_time: 7m, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillFunnelMoved"}}) or vector(0)', eval_time: 5m, exp_samples: [{{value: 0, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillFunnelMoved"}})', eval_time: 20m, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillNoSuccess"}}) or vector(0)', eval_time: 25h, exp_samples: [{{value: 0, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillNoSuccess"}})', eval_time: 27h, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillCrawlSlow",alertstate="firing"}})', eval_time: 20m, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillDiskLow",alertstate="firing"}})', eval_time: 20m, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
      - {{expr: 'count(ALERTS{{alertname="CorpusmillTakedownWaiting",alertstate="firing"}})', eval_time: 27h, exp_samples: [{{value: 1, labels: '{{}}'}}]}}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")
def test_the_alerts_fire_when_they_should_and_not_before(tmp_path):
    path = tmp_path / "tests.yaml"
    path.write_text(RULE_TESTS.format(alerts=ALERTS))
    told = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


# counters over runs


def test_counters_grow_over_runs_and_kills(place):
    name = "corpusmill_crawl_requests_total"
    labels = {"recipe": "demo", "source": "a"}
    seen = []
    for total in (5, 3, 0):  # each run counts from 0
        with run(place, "crawl") as record:
            record.reach(name, 1, **labels)
            record.reach(name, total, **labels)
            record.reach(name, total, **labels)
        seen.append(exported(place)[name]["demo", "a"])
    assert seen == [5, 8, 9]
    script = f"""
import os, sys
from pathlib import Path
from flows.watching.run_state import recorded
from flows.workspace import Workspace, writing
place = Workspace(Path({str(place.root)!r}))
with writing(place), recorded(place, "crawl", "demo", recipe_path=None, flow_run_id=None) as record:
    record.reach({name!r}, 4, **{labels!r})
    record.write()
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    found = exported(place)
    assert found[name]["demo", "a"] == 13
    assert found["corpusmill_run_in_progress"]["crawl", "demo"] == 0, "its process is gone"
    with run(place, "crawl"):
        assert exported(place)["corpusmill_run_in_progress"]["crawl", "demo"] == 1
    runs = exported(place)["corpusmill_runs_total"]
    assert {labels[2]: value for labels, value in runs.items() if labels[0] == "crawl"} == {
        "finished": 4,
        "failed": 0,
        "stopped": 0,
        "killed": 1,
    }


def test_errors_are_counted_by_kind_and_success_keeps_its_time(place):
    with run(place):
        pass
    first = exported(place)["corpusmill_run_last_success_timestamp_seconds"]["build_corpus", "demo"]
    for _ in range(2):
        with pytest.raises(FetchError), run(place):
            raise FetchError("got nothing from https://me:hunter2@host.test/, wanted a page: try again.")
    found = exported(place)
    assert found["corpusmill_errors_total"]["build_corpus", "demo", "FetchError"] == 2
    assert found["corpusmill_run_last_failed"]["build_corpus", "demo"] == 1
    assert found["corpusmill_run_last_success_timestamp_seconds"]["build_corpus", "demo"] == first
    assert "hunter2" not in state_path(place).read_text(encoding="utf-8")


def test_rates_are_nothing_once_the_run_is_over(place):
    with run(place) as record:
        record.set("corpusmill_training_tokens_per_second", 100.0, recipe="demo")
    assert exported(place)["corpusmill_training_tokens_per_second"]["demo",] == 0


def test_a_flow_within_another_shares_its_state(place):
    with run(place, "pipeline") as outer:
        with run(place, "train") as inner:
            assert inner is outer
            assert [each["flow"] for each in read_state(place)["running"]] == [
                "pipeline",
                "train",
            ] or outer.write() is None
        assert recorder() is outer
    assert recorder() is None
    assert set(read_state(place)["runs"]) == {"pipeline demo", "train demo"}


def test_the_state_stays_small(place):
    with run(place) as record:
        for number in range(3 * MAX_SERIES):
            record.add("corpusmill_crawl_errors_total", 1, recipe="demo", source="a", kind=f"kind{number}")
    for number in range(150):
        with recorded(place, "crawl", f"recipe{number}", recipe_path=None, flow_run_id=None):
            pass
    state = read_state(place)
    assert len(state["series"]["corpusmill_crawl_errors_total"]) == MAX_SERIES
    assert len(state["runs"]) == 100
    assert state_path(place).stat().st_size < 200_000


def test_who_reads_while_it_is_written_reads_a_whole_state(place):
    """By two threads at once, as the one that writes every two seconds and the end of a flow do."""
    with run(place) as record:
        fill(record)
        writers = [threading.Thread(target=lambda: [record.write() for _ in range(200)]) for _ in range(2)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            state = json.loads(state_path(place).read_bytes())
            assert len(state["series"]) == len(MEASURES)
        for writer in writers:
            writer.join()


def test_a_damaged_state_is_an_empty_one(place):
    for text in ("", "[]", "{", '{"version": 99}', "\x00"):
        state_path(place).write_text(text)
        assert read_state(place)["runs"] == {}
        with run(place):
            pass
        assert list(read_state(place)["runs"]) == ["build_corpus demo"]


def test_a_run_goes_on_where_its_state_cannot_be_written(place):
    state_path(place).mkdir()
    with run(place) as record:
        record.add("corpusmill_training_steps_total", 1, recipe="demo")


def test_a_process_of_another_host_is_alive_as_long_as_it_writes(place):
    with run(place):
        state = read_state(place)
    assert state["process"]["pid"] == os.getpid()
    assert is_alive(state)
    other = {**state, "process": {**state["process"], "host": "elsewhere"}}
    assert is_alive(other, state["updated_at"] + 30)
    assert not is_alive(other, state["updated_at"] + 120)
    reused = {**state, "process": {**state["process"], "started": 1}}
    assert not is_alive(reused), "another process has its id"


# the two ways out


def test_the_file_is_replaced_whole(place):
    out = place.root.parent / "a.prom"
    write_metrics(place.root, out)
    first = out.stat()
    with out.open() as reader:
        write_metrics(place.root, out)
        assert reader.read().startswith("# HELP"), "who has it open reads on in the old one"
    assert out.stat().st_ino != first.st_ino
    assert [path.name for path in out.parent.iterdir() if path.is_file()] == ["a.prom"]
    with pytest.raises(ConfigError, match="folder that is there"):
        write_metrics(place.root, place.root / "none" / "a.prom")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.0.0.0:0", "--expose"),
        (":x", "HOST:PORT"),
        ("127.0.0.1", "HOST:PORT"),
        ("[::]:9000", "--expose"),
        (":70000", "HOST:PORT"),
    ],
)
def test_an_address_that_others_reach_is_refused(place, address, message):
    with pytest.raises(ConfigError, match=message):
        serve_metrics(place.root, address, is_exposed=False, tell=print)


def test_it_serves_on_loopback_until_it_is_stopped(place):
    command = [sys.executable, "-m", "flows.cli", "metrics", "--serve", "127.0.0.1:0", "--workspace", str(place.root)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+/metrics", line)
            assert url, line
            with urllib.request.urlopen(url[0], timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain")
                text = answer.read().decode()
            assert any(family.name == "corpusmill_build_info" for family in text_string_to_metric_families(text))
            with run(place), urllib.request.urlopen(url[0], timeout=10) as answer:
                assert 'corpusmill_run_in_progress{flow="build_corpus",recipe="demo"} 1.0' in answer.read().decode()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url[0], timeout=5)


def test_without_a_gpu_nothing_is_told_of_one():
    if shutil.which("nvidia-smi") is not None:
        pytest.skip("there is one")
    assert list(gpu_metrics()) == []


def test_gpus_are_told_by_number_as_nvidias_library_counts_them(monkeypatch):
    """With a stand-in for it, since this machine has none: shares and bytes, and what it does not know is left out."""

    def unknown(_handle: int) -> float:
        raise library.NVMLError("not supported")

    library = SimpleNamespace(
        NVMLError=type("NVMLError", (Exception,), {}),
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=1 << 30, total=(handle + 1) << 34),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=25 * (handle + 1), memory=0),
        nvmlDeviceGetPowerUsage=unknown,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = {
        sample.name: sample for metric in gpu_metrics() for sample in metric.samples if sample.labels["gpu"] == "1"
    }
    assert found["corpusmill_gpu_utilization_ratio"].value == 0.5
    assert found["corpusmill_gpu_memory_used_bytes"].value == 1 << 30
    assert found["corpusmill_gpu_memory_size_bytes"].value == 2 << 34
    assert "corpusmill_gpu_power_watts" not in found


def test_a_whole_run_is_told(demo):
    """The demo: crawled, built, trained and evaluated by the command."""
    found = exported(Workspace(demo.workspace))
    recipe = demo.summary["recipe"]
    sources = [labels for labels in found["corpusmill_crawl_pages_total"] if labels[0] == recipe]
    assert sum(found["corpusmill_crawl_pages_total"][labels] for labels in sources) > 100
    assert found["corpusmill_crawl_requests_total"][sources[0]] >= found["corpusmill_crawl_pages_total"][sources[0]]
    assert found["corpusmill_crawl_queued_urls"][sources[0]] == 0
    documents = demo.summary["documents"]
    assert found["corpusmill_corpus_documents"][recipe, "in"] == documents["in"]
    assert found["corpusmill_corpus_documents"][recipe, "kept"] == documents["kept"]
    dropped = {
        labels[1]: count
        for labels, count in found["corpusmill_corpus_dropped_documents"].items()
        if labels[0] == recipe
    }
    assert dropped == documents["dropped"]
    assert found["corpusmill_corpus_tokens"][recipe,] == demo.summary["tokens"]
    shards = {stage["name"]: stage for stage in demo.summary["stages"]}
    assert found["corpusmill_stage_shards_total"][recipe, "extract", "computed"] == shards["extract"]["computed"]
    assert found["corpusmill_stage_documents_total"][recipe, "signals"] >= documents["in"] - 1
    assert found["corpusmill_training_steps_total"][recipe,] == demo.summary["training"]["steps"]
    assert found["corpusmill_training_tokens_total"][recipe,] > 0
    assert found["corpusmill_training_loss_nats"][recipe,] > 0
    for flow in ("pipeline", "crawl", "build_corpus", "train", "evaluate"):
        assert found["corpusmill_runs_total"][flow, recipe, "finished"] == 1
        assert found["corpusmill_run_last_failed"][flow, recipe] == 0


def test_what_a_run_says_costs_it_next_to_nothing(place):
    """A stage says how far it is some times a second; a hundred times as often is still nothing."""
    with run(place) as record:
        started = time.process_time()
        for number in range(1000):
            record.reach("corpusmill_stage_documents_total", number, recipe="demo", stage="extract")
            record.progress("extract", number, 1000, "x")
        record.write()
        assert (time.process_time() - started) / 1000 < 0.0005
    assert json.loads(state_path(place).read_text(encoding="utf-8"))["process"] is None
