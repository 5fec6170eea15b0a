"""The review page: nothing a stranger wrote runs or reads as something else, and a browser shows it as it should."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, record, write_recipe, write_warc

from flows import cli
from flows.recipe import load_recipe
from flows.review import render_page, write_page
from flows.sources import collect
from flows.workspace import Workspace, writing
from pipelines.corpus import build
from pipelines.executor import InlineExecutor

HOSTILE = (
    '<script>window.broken = 1</script><img src=x onerror="window.broken=1">',
    "</script><script>window.broken=1</script>",
    "</blockquote></details></main><h1>mine</h1>",
    "{{script}} {{rules}} {{nothing}}",
    "\u202egnp.exe \u2066isolated\u2069 \u200fmark\ufeff \x1b[31m\x00",
    "a" + "\u0301" * 500,
    "-" * 5000,
    "汉字" * 2000,
    "' onclick='window.broken=1' \" style=\"position:fixed",
    "javascript:window.broken=1",
    "\U000e0001\U000e0041\u2028\u2029",
)


def document(text: str, **changes: Any) -> dict[str, Any]:
    """A document all of whose texts are the one given."""
    return {
        "doc_id": "0" * 32,
        "url": text,
        "title": text,
        "language": "zh",
        "script": "Hans",
        "num_chars": len(text),
        "decision": "drop",
        "reason": text,
        "failed_rules": ["dup", text],
        "value": 0.5,
        "threshold": 0.3,
        "notes": [text],
        "num_spans": 1,
        "excerpts": [{"pieces": [(text, None), (text, text), ("<EMAIL>", "pii")], "is_start": False, "is_end": True}],
        "rules": [{"rule": text, "value": text, "threshold": (text, text), "passed": False}],
        **changes,
    }


def facts_of(*texts: str, **changes: Any) -> dict[str, Any]:
    panel = {
        "threshold": 0.3,
        "threshold_idx": 1,
        "languages": ["en", *texts[:1]],
        "num_more_languages": 2,
        "num_missing": 1,
        "grid": [0.0, 0.3, 0.6],
        "kept": [3, 40, 0, 0],
        "dropped": [0, 1, 5, 2],
        "would_keep": [3, 43, 47],
        "num_failing_others": 3,
    }
    rule = {
        "name": "gopher_dup_line_frac",
        "group": "quality",
        "signal": "dup_line_ratio",
        "comparison": "at_most",
        "accepted": None,
        "num_failed": 7,
        "num_alone": 4,
        "panels": [panel],
        "dropped": [document(text) for text in texts],
        "kept": [document(text, decision="keep", reason=None, failed_rules=[]) for text in texts],
    }
    other = {
        **rule,
        "name": texts[0] if texts else "http_404",
        "group": "other",
        "signal": None,
        "comparison": None,
        "panels": [],
    }
    return {
        "seed": 3,
        "num_per_rule": 5,
        "dataset_digest": "f" * 64,
        "documents": {"in": 51, "kept": 43, "dropped": 8},
        "rules": [rule, other, *changes.get("more", ())],
    }


class Parsed(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_is_text(text: str) -> None:
    page = render_page(text, facts_of(text))
    harmless = Parsed(render_page("x", facts_of("harmless")))
    parsed = Parsed(page)
    assert sorted(set(parsed.tags)) == sorted(set(harmless.tags))
    for tag in ("script", "h1", "blockquote", "details", "style"):
        assert parsed.tags.count(tag) == harmless.tags.count(tag)
    names = {(tag, name) for tag, name, _ in parsed.attributes}
    assert names == {(tag, name) for tag, name, _ in harmless.attributes}
    assert not {name for _, name in names if name.startswith("on") or name in ("src", "style")}
    assert all(value.startswith("#") for _, name, value in parsed.attributes if name == "href" and value)
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\ufeff\x00-\x08\x0b-\x1f]", page)


def test_hidden_characters_are_spelled_out_but_not_without_end() -> None:
    page = render_page("x", facts_of("safe\u202eevil" + "\u200b" * 10_000))
    assert "U+202E" in page
    assert page.count("U+200B") < 3000


def test_the_page_needs_nothing_and_is_a_function_of_its_facts(tmp_path: Path) -> None:
    facts = facts_of("港口的渔船。", "plain text")
    page = render_page("harbour", facts)
    assert page == render_page("harbour", json.loads(json.dumps(facts)))
    assert not re.search(r"(?:src|href)=[\"'](?!#)|url\(|@import|https?://", page)
    assert "default-src 'none'" in page
    assert 'lang="zh-Hans"' in page
    path = write_page(tmp_path / "out", "harbour", facts)
    assert path.read_text("utf-8") == page
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]


def test_a_page_that_would_be_too_large_shows_fewer_documents(tmp_path: Path) -> None:
    facts = facts_of(*(f"text {number} " * 900 for number in range(8)))
    facts["num_per_rule"] = 8
    whole = len(write_page(tmp_path / "whole", "x", facts).read_bytes())
    path = write_page(tmp_path / "part", "x", facts, max_bytes=whole // 2)
    assert len(path.read_bytes()) <= whole // 2
    fewer = [{**rule, "dropped": rule["dropped"][:2], "kept": rule["kept"][:2]} for rule in facts["rules"]]
    assert path.read_text("utf-8") == render_page("x", {**facts, "num_per_rule": 2, "rules": fewer})
    assert write_page(tmp_path / "part", "x", facts, max_bytes=10).read_text("utf-8").count("<article") == 0


def test_each_threshold_is_there_with_its_counts() -> None:
    page = render_page("harbour", facts_of("text"))
    (data,) = re.findall(r'data-panel="([^"]*)"', page)
    assert json.loads(html.unescape(data)) == {
        "grid": ["0", "0.3", "0.6"],
        "keep": [3, 43, 47],
        "now": 1,
        "sign": "≤",
        "width": 12,
    }
    assert "≤ 0.3: the policy keeps 43, as the recipe says" in page
    assert "0 to 0.3: 40 kept" in page
    assert "over 0.6: 2 dropped" in page


# The command


def test_the_command_writes_the_page_of_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": [str(tmp_path / "a.warc.gz")]})
    write_warc(tmp_path / "a.warc.gz", [*article_records()[:30], record(HOSTILE[0].encode() * 40, "http://a.test/")])
    arguments = ["sample", str(recipe), "--workspace", str(tmp_path / "ws"), "--out", str(tmp_path / "out"), "--json"]

    def call(*more: str) -> None:
        monkeypatch.setattr("sys.argv", ["corpusmill", *arguments, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, capsys.readouterr().err

    monkeypatch.setattr("sys.argv", ["corpusmill", *arguments])
    with pytest.raises(SystemExit) as unbuilt:
        cli.main()
    assert unbuilt.value.code == 2
    assert "run `corpusmill build` first" in capsys.readouterr().err

    place, read = Workspace(tmp_path / "ws"), load_recipe(recipe)
    with writing(place) as store:
        done = build(
            store, collect(read, place, {}).files, read.corpus_config(store), InlineExecutor(), lambda _progress: None
        )
        for result in done.values():
            store.set_ref(read.name, result.manifest)
    capsys.readouterr()
    call("--per-rule", "2", "--seed", "7")
    found = json.loads(capsys.readouterr().out)
    assert found["documents"]["in"] == 31
    assert found["documents"]["kept"] > 10
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert found["bytes"] == len(page.encode())
    assert {rule["name"] for rule in found["rules"]} >= {"gopher_short_doc", "rights_disallow"}
    call("--per-rule", "2", "--seed", "7")
    assert (tmp_path / "out" / "index.html").read_text("utf-8") == page
    call("--per-rule", "2", "--seed", "8")
    assert (tmp_path / "out" / "index.html").read_text("utf-8") != page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """
<script>
addEventListener("load", () => {
  const input = document.querySelector("input[data-panel]");
  const before = document.querySelector("output").textContent;
  input.value = 2; input.dispatchEvent(new Event("input"));
  const moved = document.querySelector("output").textContent;
  const line = document.querySelector("line.moved");
  const found = {
    before, moved, broken: typeof window.broken, at: line.getAttribute("x1"), visible: getComputedStyle(line).visibility,
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    marked: getComputedStyle(document.querySelector("mark")).backgroundColor,
    articles: document.querySelectorAll("article").length,
    sides: [...document.querySelectorAll(".sides section")].slice(0, 2).map((each) => {
      const box = each.getBoundingClientRect(); return [Math.round(box.left), Math.round(box.top), Math.round(box.width)];
    }),
    bars: [...document.querySelectorAll("svg rect")].map((each) => Math.round(each.getBoundingClientRect().height)),
    threshold: document.querySelector("line.now").getBoundingClientRect().left,
    thumb: input.getBoundingClientRect().left + 8 + (input.getBoundingClientRect().width - 16) / 2,
    chinese: getComputedStyle(document.querySelector("blockquote[lang]")).lineBreak,
    small: [...document.querySelectorAll("blockquote, output, .measured, .meta, td")].filter((each) => parseFloat(getComputedStyle(each).fontSize) < 12).length,
  };
  document.title = "found " + JSON.stringify(found);
});
</script>
"""


def dump(path: Path, folder: Path, width: int) -> str:
    assert CHROMIUM is not None
    command = (
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=3000",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom", path.as_uri(),
    )  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [500, 1400])
def test_in_a_browser(tmp_path: Path, width: int) -> None:
    page = render_page("harbour", facts_of(*HOSTILE))
    untouched = tmp_path / "page.html"
    untouched.write_text(page, encoding="utf-8")
    assert "as the recipe says" in dump(untouched, tmp_path, width)
    # The probe is a script the page's own policy would not let run, so it is let in here, and only here.
    probed = tmp_path / "probed.html"
    digests = re.search(r"script-src [^;]+", page)
    assert digests
    probed.write_text(
        page.replace(digests[0], "script-src 'unsafe-inline'").replace("</body>", f"{PROBE}</body>"), encoding="utf-8"
    )
    title = re.search(r"<title>found (.*?)</title>", dump(probed, tmp_path, width))
    assert title
    found = json.loads(html.unescape(title[1]))
    assert found["broken"] == "undefined"
    assert found["moved"] == "≤ 0.6: the policy keeps 47, 4 more kept"
    assert (found["at"], found["visible"]) == ("36", "visible")
    assert found["over"] <= 0  # nothing makes the page wider than the window
    assert found["articles"] == 4 * len(HOSTILE)
    # What the rule drops stands beside what is kept, on a narrow window above it.
    (left, top, wide), (right, other_top, other_wide) = found["sides"]
    assert abs(wide - other_wide) <= 1
    assert (right > left and top == other_top) if width > 1000 else (right == left and other_top > top)
    assert all(height > 0 for height in found["bars"])
    assert abs(found["threshold"] - found["thumb"]) <= 2  # the slider's thumb stands below the line
    assert found["marked"] not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    assert (found["chinese"], found["small"]) == ("strict", 0)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_lets_no_other_script_run(tmp_path: Path) -> None:
    page = render_page("harbour", facts_of("text")).replace("</main>", "<script>document.title='ran'</script></main>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown = dump(tmp_path / "page.html", tmp_path, 1000)
    assert "<title>Review of harbour</title>" in shown
