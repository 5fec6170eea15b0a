"""Small corpora for testing whole builds: short English and Chinese pages in WARC and JSONL files.

Everything is a function of the numbers in a `Page`, so two tests, or two processes, write the same bytes.
"""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.corpus import CorpusConfig, PerplexityConfig, build, corpus_nodes, last_manifests
from pipelines.dedup import DedupConfig
from pipelines.digest import digest_file
from pipelines.executor import Executor, InlineExecutor
from pipelines.extract import ExtractConfig
from pipelines.materialize import OnProgress, StageResult
from pipelines.perplexity.language_models import LanguageModelsConfig
from pipelines.policy import PolicyConfig, QualityRules
from pipelines.sample import SampleConfig
from pipelines.signals.measure import SignalsConfig
from pipelines.sources.text import TextOptions
from pipelines.sources.warc import WarcOptions
from pipelines.store import Entry, Store
from pipelines.tokenizer import TokenizerConfig
from pipelines.work import SourceFile

SMALL_MODELS = PerplexityConfig(models=LanguageModelsConfig(order=3, vocab_size=280, min_bytes=1))
"""Models of languages that a few pages are enough for."""

_ENGLISH = """
harbour village teacher engine garden market winter journey library doctor forest kitchen letter
found carried repaired painted remembered followed measured opened answered crossed visited described
quiet narrow ancient broken yellow distant careful heavy modern silent generous famous wooden
"""
_CHINESE = """
老师 船长 医生 邻居 学生 工程师 作家 司机 农民 画家 店主 记者
昨天清晨 去年冬天 会议结束以后 暴雨来临之前 每个星期天 很久以前 上个月 天黑以后
修好了 找到了 带走了 记录了 打开了 画出了 买下了 整理了 参观了 描述了
一座旧桥 几封长信 村里的图书馆 花园里的水井 蓝色的木船 山后的小路 那台机器 市场上的种子
"""
_THINGS, _DEEDS, _KINDS = (line.split() for line in _ENGLISH.strip().splitlines())
_WHO, _WHEN, _DID, _WHAT = (line.split() for line in _CHINESE.strip().splitlines())
# Sentences of one mould repeat themselves more than prose does.
_REPETITION_OFF = dict.fromkeys(f"max_dup_{n}_gram_char_ratio" for n in range(5, 11))


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page in numbers. Odd texts are Chinese."""

    text: int
    url: int
    day: int = 0
    """Days after 2024-01-01 on which it was fetched."""
    variant: int = 0
    """Another variant of a text is a near-duplicate of it."""
    fate: str = "ok"
    """ok, gone (a 404), failed (a 503), opt_out (a header), shut_out (robots.txt names an AI crawler) or reserved (withdrawn
    after it was archived); files of text rows hold only what is ok."""


def text_of(number: int, variant: int = 0) -> str:
    """8 to 16 sentences of prose, in Chinese for odd numbers, that share little with those of another number."""
    pick = random.Random(number).choice
    num_sentences = 8 + number * 5 % 9
    if number % 2:
        sentences = [
            f"{pick(_WHEN)}，{pick(_WHO)}{pick(_DID)}{pick(_WHAT)}，{pick(_WHO)}和{pick(_WHO)}都说这很有意思。"
            for _ in range(num_sentences)
        ]
        return "\n".join(sentences) + f"\n编辑的邮箱是reader{number}@gazette-mail.net。" + "谢谢。" * variant
    sentences = [
        f"The {pick(_KINDS)} {pick(_THINGS)} and the {pick(_THINGS)} {pick(_DEEDS)} the {pick(_KINDS)} {pick(_THINGS)} "
        f"near the {pick(_KINDS)} {pick(_THINGS)}."
        for _ in range(num_sentences)
    ]
    return "\n".join(sentences) + f"\nPlease write to reader{number}@gazette-mail.net." + " Thanks." * variant


def write_file(path: Path, pages: Sequence[Page]) -> Path:
    """Write the pages as the kind of file that the name's ending says: .warc.gz or .jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".warc.gz"):
        path.write_bytes(b"".join(gzip.compress(_record(page), mtime=0) for page in pages))
    else:
        path.write_text("".join(json.dumps(_row(page)) + "\n" for page in pages if page.fate == "ok"), encoding="utf-8")
    return path


def _url(page: Page) -> str:
    return f"https://site{page.url % 3}.example/页/{page.url}"


def _moment(page: Page) -> str:
    return f"2024-{1 + page.day // 28:02d}-{1 + page.day % 28:02d}T12:00:00Z"


def _row(page: Page) -> dict[str, Any]:
    return {"text": text_of(page.text, page.variant), "url": _url(page), "fetched_at": _moment(page)}


RECIPE = "recipe"
_STATUS = {"gone": "404 Not Found", "failed": "503 Service Unavailable"}


def _record(page: Page) -> bytes:
    if page.fate == "reserved":
        kind, content_type = "metadata", "application/warc-fields"
        fields = 'Corpusmill-Outcome: reserved\r\nCorpusmill-Directives: ["tdmrep.json: 1 /"]\r\n'
        block = f"outcome: reserved\r\ndate: {_moment(page)}\r\n".encode()
    else:
        kind, content_type = "response", "application/http;msgtype=response"
        fields = 'Corpusmill-Directives: ["robots.txt ai-agents: GPTBot"]\r\n' if page.fate == "shut_out" else ""
        block = _http(page)
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {_url(page)}\r\nWARC-Date: {_moment(page)}\r\n"
        f"Content-Type: {content_type}\r\n{fields}Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def _http(page: Page) -> bytes:
    paragraphs = "".join(f"<p>{line}</p>" for line in text_of(page.text, page.variant).split("\n"))
    body = f"<html><head><title>{page.text}</title></head><body><main>{paragraphs}</main></body></html>".encode()
    rights = "X-Robots-Tag: noai\r\n" if page.fate == "opt_out" else ""
    status = _STATUS.get(page.fate, "200 OK")
    return f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n{rights}\r\n".encode() + body


def source(path: Path) -> SourceFile:
    """A file as a source, told by its name."""
    is_warc = ".warc" in path.name
    options = WarcOptions() if is_warc else TextOptions()
    return SourceFile(digest=digest_file(path), path=str(path), kind="warc" if is_warc else "text", options=options)


def config(
    *, min_words: float = 30, vocab_size: int = 300, redact: tuple[str, ...] | None = ("email",), **changes: Any
) -> CorpusConfig:
    """A config under which these short pages are kept; `changes` replaces whole parts."""
    english, chinese = ({"min_words": least, **_REPETITION_OFF} for least in (min_words, 2 * min_words))
    whole = CorpusConfig(
        extract=ExtractConfig(),
        signals=SignalsConfig(),
        policy=PolicyConfig(quality=QualityRules(per_language={"en": english, "zh": chinese})),
        dedup=DedupConfig(validation_ratio=0.2),
        sample=SampleConfig(redact=redact),
        tokenizer=TokenizerConfig(vocab_size=vocab_size),
        redact=redact,
    )
    return replace(whole, **changes)


def run(
    store: Store,
    sources: Sequence[SourceFile],
    wanted: CorpusConfig,
    executor: Executor | None = None,
    on_progress: OnProgress = lambda _progress: None,
) -> dict[str, StageResult]:
    """Build a corpus, in this process unless told otherwise; what the last one left may save work."""
    last = last_manifests(store, RECIPE, corpus_nodes(wanted))
    results = build(store, sources, wanted, executor or InlineExecutor(), on_progress, last)
    for result in results.values():
        store.set_ref(RECIPE, result.manifest)
    return results


def content(store: Store, results: Mapping[str, StageResult]) -> dict[str, list[tuple[Entry, bytes]]]:
    """What a build left, by stage: unit, key, digest and counts of each shard, and its bytes as they are on the disk."""
    return {
        name: [(entry, store.shard_path(entry.shard.digest).read_bytes()) for entry in result.manifest.entries]
        for name, result in results.items()
    }


def computed(results: Mapping[str, StageResult]) -> dict[str, int]:
    """How many shards each stage computed."""
    return {name: result.num_computed for name, result in results.items()}
