"""The page of a model: what it says is what was measured, nothing a stranger wrote runs, and a browser shows it."""

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from model_inputs import evaluation, event, figure, full_facts, step, suite, write_journal

from flows.jobs import Dataset, TrainingJob
from flows.model.facts import (
    Rung,
    application,
    best_baseline,
    event_doc_ids,
    flags,
    model_facts,
    part_seconds,
    read_progress,
    rungs_of,
    verdict,
)
from flows.model.page import render_page, write_page
from flows.model.page.page import Limits
from flows.model.page.scales import binned, bins, linear_axis, log_axis, number_text
from flows.results import write_result
from llm.config import TrainConfig, nano
from llm.journal import JOURNAL
from pipelines.stage import Resource

HOSTILE = (
    '<script>window.broken = 1</script><img src=x onerror="window.broken=1">',
    "</script><script>window.broken=1</script>",
    "</section></main><h1>mine</h1>",
    "{{script}} {{sections}} {{nothing}}",
    "\u202egnp.exe \u2066isolated\u2069 \u200fmark\ufeff \x1b[31m\x00",
    "a" + "\u0301" * 500,
    "汉字" * 2000,
    "' onclick='window.broken=1' \" style=\"position:fixed",
    "javascript:window.broken=1",
    "../../secret",
)


class Parsed(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def words(page: str) -> str:
    """What a person reads."""
    return " ".join(" ".join(Parsed(page).texts).split())


def chart_of(page: str, title: str) -> dict:
    found = re.search(rf'<figure class="chart" data-(?:chart|shares)="([^"]*)"><figcaption>{title} ', page)
    assert found, title
    return json.loads(html.unescape(found[1]))


# The facts


def test_of_a_step_done_again_the_last_counts(tmp_path: Path) -> None:
    reports = [step(0), step(1, loss=5.0), step(2, loss=9.0), event("rolled_back", 1), step(2, loss=4.0), step(3)]
    progress = read_progress(write_journal(tmp_path, reports) / JOURNAL)
    assert progress.curves.steps.tolist() == [0, 1, 2, 3]
    assert progress.curves.figures["loss"].tolist()[1:3] == [5.0, 4.0]
    assert math.isnan(progress.curves.figures["loss"][0])
    assert [each.kind for each in progress.events] == ["rolled_back"]
    assert progress.how_ended == "finished"


def test_what_is_not_finite_is_told_from_what_was_not_measured(tmp_path: Path) -> None:
    reports = [step(1, loss=math.nan, mfu=None), step(2, loss=math.inf, mfu=None)]
    figures = read_progress(write_journal(tmp_path, reports) / JOURNAL).curves.figures
    assert np.isinf(figures["loss"]).all()
    assert np.isnan(figures["mfu"]).all()


def test_time_by_part_adds_up(tmp_path: Path) -> None:
    reports = [step(number) for number in range(11)]
    seconds = part_seconds(read_progress(write_journal(tmp_path, reports) / JOURNAL).curves)
    assert sum(seconds.values()) == pytest.approx(10.0)
    assert seconds["backward"] == pytest.approx(4.0)
    assert seconds["other"] == pytest.approx(1.0)


def test_events_name_pages_that_are_known(tmp_path: Path) -> None:
    path = write_journal(tmp_path, [step(1), event("step_skipped", 1, "x", ["b", "a", "b"])]) / JOURNAL
    assert event_doc_ids(path) == ["a", "b"]
    (found,) = read_progress(path, {"b": "http://b.test/"}).events
    assert (found.num_documents, found.urls) == (3, ("http://b.test/",))


def test_a_model_that_runs_is_not_finished(tmp_path: Path) -> None:
    facts = model_facts("x", folder=write_journal(tmp_path, [step(1)], how=None))
    assert flags(facts) == ["The training is not finished (it runs, or was left).", "It was not evaluated."]
    assert (facts.tokens_seen, facts.num_steps, facts.beats_ladder, facts.held_out) == (1024, 1, None, None)


def test_a_finished_training_is_known_by_its_job(tmp_path: Path) -> None:
    write_journal(tmp_path, [step(number) for number in range(4)])
    (tmp_path / "weights").write_text("x")
    result = {"steps": 3, "num_tokens": 3_000, "checkpoint": "step-00000003", "parameters_digest": "a" * 64}
    write_result(tmp_path / "training.json", "k" * 64, result | {"seconds": 7.0}, [tmp_path / "weights"])
    dataset = Dataset(
        shards=(),
        num_train_tokens={},
        digest="d" * 64,
        tokenizer=Resource("t" * 64, ""),
        vocab_size=2048,
        eot_token=0,
        outcomes_digest="o" * 64,
    )
    job = TrainingJob(model=nano(), training=TrainConfig(max_steps=3), dataset=dataset, folder=tmp_path, key="k" * 64)
    facts = model_facts("harbour", job=job, evaluation=evaluation())
    assert (facts.num_parameters, facts.tokens_seen, facts.num_steps) == (nano().num_parameters, 3_000, 3)
    assert facts.changed == {"vocab_size", "block_size", "n_layer", "n_head", "n_embd", "max_steps"}
    assert facts.identity == {
        "recipe": "harbour",
        "dataset and tokenizer": "d" * 64,
        "tokenizer digest": "t" * 64,
        "training key": "k" * 64,
        "model folder": tmp_path.name,
        "checkpoint": "step-00000003",
        "parameters digest": "a" * 64,
    }
    assert flags(facts) == []
    (tmp_path / "weights").write_text("damaged")
    assert "The training ended, and its result was not found whole." in flags(model_facts("harbour", job=job))


def test_the_unigram_baseline_is_a_ladder_of_two() -> None:
    facts = model_facts("x", evaluation=evaluation())
    assert [rung.name for rung in facts.rungs] == ["unigram", "this model"]
    assert facts.beats_ladder is True
    assert facts.held_out.low == pytest.approx(1.25 - 0.196, abs=1e-4)
    worse = model_facts("x", evaluation=evaluation() | {"gain": 0.1})  # two standard errors are 0.4
    assert worse.beats_ladder is False
    assert flags(worse) == ["This model does not beat unigram by more than noise."]


def test_a_ladder_is_beaten_only_with_its_best_rung() -> None:
    below = [
        Rung(name="n-gram", bits_per_byte=figure(1.5), beats_below=None),
        Rung(name="HMM", bits_per_byte=figure(3.0), beats_below=False),
    ]

    def facts(low: float, high: float):
        own = Rung(name="GPT-2", bits_per_byte=figure((low + high) / 2, low, high), beats_below=True)
        return model_facts("x", ladder=[*below, own])

    assert facts(1.3, 1.4).beats_ladder is True
    assert facts(1.3, 1.6).beats_ladder is False  # it beats the HMM below it, and not the n-gram


def test_rungs_are_compared_on_the_same_documents() -> None:
    def scored(name: str, per_document: float):
        items = [{"id": f"{idx}", "score": per_document * (idx + 1), "weight": 10.0} for idx in range(20)]
        return suite(name, {"bits_per_byte": figure(per_document)}, items=items, higher_is_better=False)

    rungs = rungs_of([scored("unigram", 2.0), scored("lstm", 1.0), scored("same", 1.0)], ["unigram", "LSTM", "GPT-2"])
    assert [rung.beats_below for rung in rungs] == [None, True, False]
    assert rungs[1].name == "LSTM"


@pytest.mark.parametrize(
    ("own", "baseline", "more_is_better", "better"),
    [
        (figure(0.7, 0.6, 0.8), 0.5, True, True),
        (figure(0.7, 0.45, 0.8), 0.5, True, False),
        (figure(0.509, 0.505, 0.512), 0.5, True, False),  # within the noise floor
        (figure(0.3, 0.2, 0.4), 0.5, False, True),
        (figure(0.7), 0.5, True, None),
    ],
)
def test_better_than_a_baseline(own, baseline, more_is_better, better) -> None:
    result = suite("s", {"acc": own, "baseline/random": figure(baseline)}, higher_is_better=more_is_better)
    assert verdict(result) is better
    assert best_baseline(result) == ("random", figure(baseline))


def test_an_application_is_a_suite_without_its_language() -> None:
    assert application(suite("question_answering_zh", {"f1": figure(0.1)}, language="zh-Hans")) == "question_answering"
    assert application(suite("held_out", {"x": figure(0.1)}, language=None)) == "held_out"


# Bins and axes


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)))
def test_bins_lose_no_value(values) -> None:
    into = bins(values.size, 20)
    found = binned(values, into)
    finite = np.isfinite(values)
    assert into.starts.size <= 20
    assert found.num_bad.sum() == np.isinf(values).sum()
    if finite.any():
        assert np.nanmin(found.lows) == values[finite].min()
        assert np.nanmax(found.highs) == values[finite].max()
    for start, end, mean in zip(into.starts, into.ends, found.means, strict=True):
        inside = values[start:end][finite[start:end]]
        assert mean == pytest.approx(inside.mean()) if inside.size else math.isnan(mean)


def test_few_rows_are_their_own_bins() -> None:
    values = np.array([3.0, 1.0, 2.0])
    assert binned(values, bins(3, 600)).means.tolist() == [3.0, 1.0, 2.0]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_an_axis_has_room_and_even_ticks(values: list[float]) -> None:
    axis = linear_axis(values)
    assert axis.low <= min(values) + 1e-6 * (axis.high - axis.low)
    assert 2 <= len(axis.ticks) <= 8
    gaps = np.diff(axis.ticks)
    assert gaps.max() <= gaps.min() * 1.001 + 1e-12 * max(map(abs, axis.ticks))
    assert 0 <= axis.place(min(values)) <= axis.place(max(values)) <= 1


def test_known_axes() -> None:
    assert linear_axis([2.9, 7.6]).ticks == (2.0, 4.0, 6.0, 8.0)
    assert linear_axis([0.2, 0.41], from_zero=True).ticks == (0.0, 0.2, 0.4, 0.6)
    assert linear_axis([*[1.0] * 500, 900.0], from_zero=True).high == 1.0  # one spike leaves the rest in sight
    assert log_axis([1.0, 1000.0]).ticks == (1.0, 10.0, 100.0, 1000.0)
    assert log_axis([2.1, 7.6]).ticks == (3.0, 5.0, 7.0)
    assert log_axis([600_000, 800_000]).ticks == (600_000.0, 650_000.0, 700_000.0, 750_000.0, 800_000.0)
    assert log_axis([0.0, -1.0]) is None
    assert log_axis([1.0, 100.0]).place(10.0) == pytest.approx(0.5)
    assert [number_text(each) for each in (0.0, 0.003, 6e-4, 1.2e-5, 25_000, 1_500_000, 7.5)] == [
        "0", "0.003", "6e-4", "1.2e-5", "25,000", "1.5e6", "7.5",
    ]  # fmt: skip


# The page


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    page = render_page(full_facts(tmp_path, "harbour"))
    read = words(page)
    for wanted in (
        "Parameters 1,071,872",
        "Tokens seen 61,440",
        "Held-out bits per byte 1.25 95 % interval [1.054, 1.446], 5 documents",
        "The loss of 1 step is not finite.",
        "1 update skipped",
        "It was trained on documents of 1 take-down: harbour.",
        "0.7 [0.6, 0.8]",
        "better than random",
        "no better than random",
        "skipped: harbour",
        "does not beat uniform",
        "http://harbour.test/harbour",
        "corpusmill run harbour",
    ):
        assert wanted in read, wanted
    titles = re.findall(r"<h2>([^<]*)</h2>", page)
    assert titles == [
        "How it was trained", "Curves and events", "Suites", "Ladder", "Samples", "Data", "How to make it again",
    ]  # fmt: skip
    loss = chart_of(page, "Loss")
    assert loss["series"][0]["mean"][20] is None
    assert loss["series"][0]["bad"][20] == 1
    assert loss["points"][0]["steps"] == [0, 10, 20, 30, 40, 50, 60]
    assert loss["points"][1] == {
        "name": "evaluation (held-out text)", "joined": False, "x": [1000.0], "steps": [60], "values": [2.4],
    }  # fmt: skip
    shares = chart_of(page, "Time by part")
    assert [each["mean"][5] for each in shares["series"]] == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.05, 0.05, 0.1])


def test_the_page_needs_nothing_and_is_a_function_of_its_facts(tmp_path: Path) -> None:
    facts = full_facts(tmp_path / "training", "harbour")
    page = render_page(facts)
    assert page == render_page(full_facts(tmp_path / "training", "harbour"))
    assert not re.search(r"(?:src|href)=[\"'](?!#|data_card|harbour)|url\(|@import| style=", page)
    assert "default-src 'none'" in page
    assert 'lang="zh"' in page
    path = write_page(tmp_path / "out", facts)
    assert path.read_text("utf-8") == page
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_is_text(tmp_path: Path, text: str) -> None:
    page = render_page(full_facts(tmp_path / "a", text))
    parsed, harmless = Parsed(page), Parsed(render_page(full_facts(tmp_path / "b", "harm less")))
    assert set(parsed.tags) - {"span"} == set(harmless.tags) - {"span"}
    for tag in ("script", "h1", "section", "blockquote", "style", "a"):
        assert parsed.tags.count(tag) == harmless.tags.count(tag), tag
    names = {(tag, name) for tag, name, _ in parsed.attributes}
    assert names <= {(tag, name) for tag, name, _ in harmless.attributes}
    assert not {name for _, name in names if name.startswith("on") or name in ("src", "style")}
    assert all(re.match(r"#|data_card", value) for _, name, value in parsed.attributes if name == "href" and value)
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\ufeff\x00-\x08\x0b-\x1f]", page)


def test_links_lead_to_the_web_or_to_a_file_beside_the_page() -> None:
    links = {"run": "http://127.0.0.1:5000/#/runs/1", "card": "cards/data_card.md", "bad": "javascript:x", "up": "../x"}
    page = render_page(model_facts("x", links=links))
    assert re.findall(r'<a href="([^"#][^"]*)"', page) == ["http://127.0.0.1:5000/#/runs/1", "cards/data_card.md"]


def test_a_rung_without_a_figure_is_no_bar() -> None:
    rungs = [
        Rung(name="n-gram", bits_per_byte=figure(math.nan, math.nan, math.nan), beats_below=None),
        Rung(name="LSTM", bits_per_byte=figure(2.0, 1.9, 2.1), beats_below=None),
        Rung(name="GPT-2", bits_per_byte=figure(1.0, 0.9, 1.1), beats_below=True),
    ]
    page = render_page(model_facts("x", ladder=rungs))
    assert re.findall(r'<rect width="([^"]*)"', page) == ["0.0", "952.4", "476.2"]
    assert "the best rung below is LSTM" in page


@pytest.mark.parametrize("has_begun", [False, True])
def test_what_is_not_there_is_absent(tmp_path: Path, *, has_begun: bool) -> None:
    if has_begun:
        write_journal(tmp_path, [], how=None)
    page = render_page(model_facts("港口", folder=tmp_path))
    assert "not measured" in page
    assert page.count("<figure") == 0
    assert ("No step was reported." in page) is has_begun


def test_one_step_is_drawn(tmp_path: Path) -> None:
    page = render_page(model_facts("x", folder=write_journal(tmp_path, [step(7)])))
    assert chart_of(page, "Loss")["series"][0]["mean"] == [pytest.approx(2 + 6 * math.exp(-7 / 40), abs=1e-5)]
    assert "NaN" not in page
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+", "", page)


def test_a_long_training_makes_a_small_page(tmp_path: Path) -> None:
    """Many steps, skipped updates and long messages: a page stays below its bound, and shows fewer of everything."""
    reports = []
    for number in range(3_000):
        reports.append(step(number, loss=math.nan if number % 97 == 0 else 3 + math.sin(number)))
        if number % 5 == 0:
            reports.append(event("step_skipped", number, "很长的说明" * 100, ["a"]))
    facts = model_facts("x", folder=write_journal(tmp_path, reports), urls={"a": "http://a.test/" + "x" * 2_000})
    whole = render_page(facts)
    small = write_page(tmp_path / "out", facts, max_bytes=200_000).read_bytes()
    assert len(small) <= 200_000 < len(whole.encode())
    mean = chart_of(whole, "Loss")["series"][0]["mean"]
    assert len(mean) == 600
    assert "And 400 before them: events.jsonl has all." in whole
    limits = [Limits()]
    while limits[-1] != limits[-1].halved():
        limits.append(limits[-1].halved())
    pages = [render_page(facts, each) for each in limits]
    assert small.decode() == next(page for page in pages if len(page.encode()) <= 200_000)
    assert render_page(facts, Limits()) == whole


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """
<script>
window.errors = [];
addEventListener("error", (event) => window.errors.push(String(event.message)));
addEventListener("load", () => {
  const [where, smoothing, log] = document.querySelectorAll(".controls input");
  const plot = document.querySelector(".plot"), loss = document.querySelector("figure.chart");
  const firstLine = () => loss.querySelector(".plot > .line").getAttribute("d");
  const redrawn = () => { smoothing.dispatchEvent(new Event("input")); return firstLine(); };
  const pieces = (path) => path.match(/[A-Za-z]|-?[0-9.]+/g);
  const drawn = firstLine(), again = redrawn();
  const labels = () => [...loss.querySelectorAll(".y-axis text")].map((each) => each.textContent);
  const linear = labels();
  where.value = 9; where.dispatchEvent(new Event("input"));
  const said = loss.querySelector("output").textContent, at = document.querySelector(".controls output").textContent;
  where.value = 20; where.dispatchEvent(new Event("input"));
  const eventful = document.querySelector(".controls output").textContent;
  const area = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: area.left + area.width * 0.5, clientY: area.top + 5, bubbles: true }));
  const pointed = document.querySelector(".controls output").textContent;
  const cursor = loss.querySelector(".cursor");
  log.checked = true; log.dispatchEvent(new Event("input"));
  const logged = labels(), moved = firstLine() !== drawn;
  smoothing.value = 0.9; smoothing.dispatchEvent(new Event("input"));
  const boxes = (selector) => [...document.querySelectorAll(selector)].map((each) => each.getBoundingClientRect()).filter((box) => box.width);
  const overlapping = [];
  for (const axis of document.querySelectorAll(".x-axis, .y-axis")) {
    const texts = [...axis.querySelectorAll("text")].map((each) => each.getBoundingClientRect()).filter((box) => box.width);
    texts.forEach((one, idx) => texts.slice(idx + 1).forEach((other) => {
      if (one.left < other.right && other.left < one.right && one.top + 2 < other.bottom && other.top + 2 < one.bottom) overlapping.push(axis.parentElement.parentElement.textContent.slice(0, 40));
    }));
  }
  const found = {
    same: pieces(drawn).length === pieces(again).length && pieces(drawn).every((each, idx) => each === pieces(again)[idx] || Math.abs(each - pieces(again)[idx]) < 0.11), linear, logged, moved, said, at, eventful, pointed, overlapping, errors: window.errors, broken: typeof window.broken,
    cursor: [cursor.getAttribute("x1"), getComputedStyle(cursor).visibility],
    smooth: loss.querySelector(".smooth").getAttribute("d").length > 10,
    shown: !document.querySelector(".controls").hidden,
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    small: [...document.querySelectorAll("td, .frame text, output, .legend, li, small")].filter((each) => parseFloat(getComputedStyle(each).fontSize) < 12).length,
    plots: boxes(".plot").map((box) => [Math.round(box.width), Math.round(box.height)]),
    wide: document.documentElement.clientWidth,
    colours: [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector(".frame text")).fill],
  };
  document.title = "found " + JSON.stringify(found);
  if (window.parent !== window) window.parent.postMessage(document.title, "*");
});
</script>
"""


def dump(path: Path, folder: Path, width: int, *options: str) -> str:
    assert CHROMIUM is not None
    command = (
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=3000", *options,
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom", path.as_uri(),
    )  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def probed(page: str, folder: Path, width: int, *options: str) -> dict:
    """What a script finds in a page. The page's own policy would not let it run, so it is let in here, and only here."""
    digests = re.search(r"script-src [^;]+", page)
    assert digests
    inner = folder / "probed.html"
    inner.write_text(
        page.replace(digests[0], "script-src 'unsafe-inline'").replace("</head>", f"{PROBE}</head>"), encoding="utf-8"
    )
    outer = folder / "outer.html"  # a window is 500 pixels wide at least; a frame is as wide as it is told
    outer.write_text(
        '<!doctype html><script>addEventListener("message", (event) => { document.title = event.data; });</script>'
        f'<body style="margin:0"><iframe src="probed.html" width="{width}" height="900" style="border:0"></iframe>'
    )
    title = re.search(r"<title>found (.*?)</title>", dump(outer, folder, max(500, width), *options))
    assert title
    return json.loads(html.unescape(title[1]))


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("text", ["harbour", *HOSTILE[:1], HOSTILE[6]])
def test_in_a_browser(tmp_path: Path, width: int, text: str) -> None:
    found = probed(render_page(full_facts(tmp_path / "training", text)), tmp_path, width)
    assert (found["errors"], found["broken"], found["overlapping"]) == ([], "undefined", [])
    assert found["shown"]
    assert found["same"]  # the script draws what Python drew
    assert found["linear"] == ["2", "4", "6", "8"]
    assert found["moved"]
    assert found["logged"] == ["3", "5", "7"]
    assert found["smooth"]
    assert found["at"] == "At step 9, 9,216 tokens"
    assert found["eventful"] == "At step 20, 20,480 tokens: update skipped"
    assert found["said"].startswith(f"training {2 + 6 * math.exp(-9 / 40):.4f}; validation 2.5 (step 0)")
    assert found["pointed"] == "At step 30, 30,720 tokens"
    assert found["cursor"] == ["500", "visible"]
    assert found["over"] <= 0  # nothing makes the page wider than the window
    assert found["small"] == 0
    assert all(wide > width / 3 and height >= 150 for wide, height in found["plots"])
    assert width - 20 <= found["wide"] <= width  # less a scroll bar


@pytest.mark.browser
@needs_browser
def test_in_the_dark(tmp_path: Path) -> None:
    page = render_page(full_facts(tmp_path / "training"))
    dark = probed(page, tmp_path, 1000, "--blink-settings=preferredColorScheme=0")
    light = probed(page, tmp_path, 1000, "--blink-settings=preferredColorScheme=1")
    assert dark["colours"][0] == "rgb(20, 24, 28)"
    assert light["colours"][0] == "rgb(252, 252, 250)"
    assert dark["colours"][1] != light["colours"][1]


@pytest.mark.browser
@needs_browser
def test_a_browser_lets_no_other_script_run(tmp_path: Path) -> None:
    page = render_page(full_facts(tmp_path / "training")).replace(
        "</main>", "<script>document.title='ran'</script></main>"
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown = dump(tmp_path / "page.html", tmp_path, 1000)
    assert "<title>Model of plain</title>" in shown
    assert '<div class="controls">' in shown.replace('hidden=""', "hidden")  # our own script ran
