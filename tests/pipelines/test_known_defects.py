"""Defects found in other tools, and traps of the formats: which test here would catch each.

`COVERED` names them; a name that is no test any more fails. What had no test of its own has it below. Defects of crawlers
are the crawler's tests' matter, those of deduplication indexes dedup's.
"""

import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from corpora import Page, config, run, source, text_of, write_file

from pipelines import pii
from pipelines.contamination import Item, _probable, build_index
from pipelines.corpus import corpus_nodes, tokenizer_json, tokenizer_resource
from pipelines.digest import digest_file
from pipelines.encoding import Encoder
from pipelines.pii import DEFAULT_KINDS
from pipelines.refusal import site_finder
from pipelines.signals.keywords import keyword_counter
from pipelines.signals.language import identify
from pipelines.stage import Resource
from pipelines.store import Store

TESTS = Path(__file__).parent.parent
HERE = "pipelines/test_known_defects.py"
COVERED = {
    # Curation tools
    "datatrove: e-mail addresses glued to Chinese are missed": "pipelines/test_pii.py::test_finds",
    "datatrove: IPv4 addresses without boundaries": "pipelines/test_pii.py::test_leaves_alone",
    "datatrove: IPv4 addresses inside longer numbers": f"{HERE}::test_no_address_is_cut_out_of_a_longer_number",
    "datatrove: replacement of personal data depends on a counter": (
        "pipelines/test_pii.py::test_a_value_is_the_same_placeholder_everywhere"
    ),
    "datatrove: URL words in upper case escape": "pipelines/test_blocklists.py::test_a_url_stands_for_all_below_it",
    "datatrove: one language's allow list frees another's words": f"{HERE}::test_a_phrase_frees_nothing_but_itself",
    "datatrove: a Bloom filter with eight times the hashes": f"{HERE}::test_the_bit_table_passes_as_few_as_it_says",
    "datatrove: short documents have no signature": (
        "pipelines/signals/test_peer_defects.py::test_short_texts_have_signatures_that_match_only_where_they_are_equal"
    ),
    "datatrove: n-grams joined by spaces inflate Chinese": (
        "pipelines/signals/test_peer_defects.py"
        "::test_a_top_n_gram_of_chinese_is_not_inflated_by_spaces_that_are_not_there"
    ),
    "data-juicer: Chinese split at spaces": (
        "pipelines/signals/test_peer_defects.py::test_chinese_without_spaces_is_not_one_token"
    ),
    "data-juicer: survivors depend on the order of arrival": "pipelines/test_dedup.py::test_neither_order_nor_batches_matter",
    "data-juicer: an operator's error makes documents disappear": (
        "pipelines/test_materialize.py::test_a_failing_shard_is_named_and_the_rest_is_kept"
    ),
    "data-juicer: e-mail domains in lower case only": f"{HERE}::test_addresses_are_found_in_any_case_and_at_any_end",
    "dolma: e-mail addresses need white space behind them": (
        f"{HERE}::test_addresses_are_found_in_any_case_and_at_any_end"
    ),
    "MAP-NEO: a tuple tested for truth never drops": (
        "pipelines/signals/test_peer_defects.py::test_a_repetitive_page_fails_the_repetition_rules"
    ),
    "MAP-NEO: a filter that is defined and never called": (
        "pipelines/test_policy.py::test_each_numeric_rule_at_and_beyond_its_threshold"
    ),
    "ChineseWebText: distinct words counted for occurrences": f"{HERE}::test_occurrences_are_counted_and_not_words",
    "ChineseWebText: one traditional character drops a page": (
        "pipelines/signals/test_peer_defects.py::test_traditional_text_is_measured_as_simplified_is"
    ),
    "FineWeb-2: a stage reads the output of the wrong stage": f"{HERE}::test_each_stage_reads_what_comes_before_it",
    "marin: a changed recipe warns and serves what was cached": (
        "pipelines/test_materialize.py::test_what_shapes_the_output_changes_the_key"
    ),
    "marin: likeness verified by words between white space": (
        "pipelines/signals/test_peer_defects.py::test_chinese_without_spaces_is_not_one_token"
    ),
    "NeMo Curator: a file edited in place gives a stale result": f"{HERE}::test_a_file_edited_in_place_is_another_input",
    "NeMo Curator: language labels cut off": f"{HERE}::test_codes_of_three_letters_are_whole",
    "dolma: what is done is known by name": "pipelines/test_incremental.py::test_units_do_not_depend_on_order_or_names",
    "dolma: a wrong config key gives empty attributes": "flows/test_recipe.py::test_what_is_wrong_is_named_in_one_line",
    # Extraction
    "resiliparse: table cells of one Chinese character are lost": (
        "pipelines/extract/test_extract_html.py::test_no_cell_of_a_chinese_table_is_lost"
    ),
    "resiliparse: MathML and KaTeX twice, MathJax scripts lost": (
        "pipelines/extract/test_extract_html.py::test_a_formula_stands_once_as_tex"
    ),
    "jusText: no Chinese at all": "pipelines/extract/test_extract_html.py::test_boilerplate_goes_and_content_stays",
    "posts of a forum taken for comments": "pipelines/extract/test_extract_html.py::test_a_forum_thread_keeps_every_post",
    "code without its indentation": "pipelines/extract/test_extract_html.py::test_structure",
    "GBK that is called gb2312, wrong and missing charsets": (
        "pipelines/extract/test_extract_charset.py::test_charsets"
    ),
    "Chinese footers: ICP, editors, QR codes": "pipelines/extract/test_extract_article.py",
    # Rights
    "X-Robots-Tag: a prefix holds until the next": "pipelines/rights/test_rights.py::test_one_directive",
    "AIPREF: bare keys, strings, letter case": "pipelines/rights/test_rights.py::test_one_directive",
    "AIPREF: RFC 9651 dictionaries that fail as a whole": "pipelines/rights/test_rights.py::test_dictionary",
    "AIPREF: equal paths in conflict, Content-Signal with unknown keys": (
        "pipelines/rights/test_opt_outs.py::test_preferences_in_robots_txt"
    ),
    "TDMRep: the first match, values other than 0 and 1": "pipelines/rights/test_opt_outs.py::test_tdmrep_json",
    "TDMRep: file, header, page": "pipelines/rights/test_opt_outs.py::test_tdmrep_precedence",
    "RSL: prohibits beats permits": "pipelines/rights/test_opt_outs.py::test_rsl_terms",
    "RSL: servers and payments": "pipelines/rights/test_opt_outs.py::test_rsl_conditions_disallow",
    "RSL: entities": "pipelines/rights/test_opt_outs.py::test_a_broken_rsl_document_is_unread",
    "ai.txt: by file suffix": "pipelines/rights/test_opt_outs.py::test_ai_txt",
    "C4: a licence of an image taken for the page's": (
        "pipelines/extract/test_extract_rights.py::test_licences_of_a_page"
    ),
    "GB/T 45654: at most 135 of 4,000 may fail": "pipelines/test_review_sample.py::test_the_verdict_is_on_the_lower_bound",
    "GB/T 45654: sources above 5 %": "pipelines/test_refusal.py::test_a_source_above_the_ratio_goes_whole",
    "GB/T 45654: terms a risk, a week, 10,000 in all": (
        "pipelines/signals/test_library_report.py::test_one_term_less_of_a_risk_or_in_all_is_not_enough"
    ),
    "keywords: full width, traditional, invisible, dots": "pipelines/signals/test_folding.py::test_spellings_of_a_word_are_one",
    "keywords: 习惯, 性别, 成人高考": "pipelines/signals/test_keywords.py::test_keyword_hits",
    # Personal data
    r"\b between Chinese and digits": "pipelines/test_pii.py::test_finds",
    "matches in logs": "pipelines/test_pii.py::test_values_stay_out_of_reprs_and_logs",
    "personal data left in the final shards": f"{HERE}::test_no_personal_data_is_left_in_the_tokens",
    # Toxicity and bias
    "identity terms taken for abuse": "pipelines/bias/test_counterfactual.py::test_no_group_is_dropped_for_its_name",
    "Chinese insults not seen": "pipelines/signals/test_keywords.py::test_keyword_hits",
    "tldextract asks the network for its list": f"{HERE}::test_sites_are_told_apart_without_the_network",
    "filters that remove one group more": "pipelines/bias/test_disparity.py::test_a_rule_that_removes_a_group_is_found",
    "length and sites pose as identity": (
        "pipelines/bias/test_disparity.py::test_length_site_and_language_do_not_pose_as_identity"
    ),
}


@pytest.mark.parametrize("defect", COVERED)
def test_the_test_that_is_named_exists(defect: str) -> None:
    file, _, name = COVERED[defect].partition("::")
    assert re.search(rf"def {name}\(" if name else "def test_", (TESTS / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["1234.5.6.7.8", "编号1234.5.6.7.8。", "8.8.8.8.8", "v8.8.8.8-rc1", "0.8.8.8.8"])
def test_no_address_is_cut_out_of_a_longer_number(text: str) -> None:
    assert [found.kind for found in pii.find(text, None)] == []


@pytest.mark.parametrize(
    "text",
    [
        "Jane.Doe@Hillside.CO.UK",
        "JANE@HILLSIDE.ORG.",
        "jane@hillside.org,",
        "邮箱Jane@Hillside.Org谢谢",
        "(jane@hillside.org)",
    ],
)
def test_addresses_are_found_in_any_case_and_at_any_end(text: str) -> None:
    assert [found.kind for found in pii.find(text, None)] == ["email"]


def test_a_phrase_frees_nothing_but_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# category: own\n性\nsex\n", encoding="utf-8")
    count = keyword_counter((Resource(digest_file(path), str(path)),))
    assert count("性别 习性 sex education") == {}
    assert count("性别不是性") == {"own": 1}
    assert count("sex education is no sex, 性。") == {"own": 2}


def test_occurrences_are_counted_and_not_words() -> None:
    assert keyword_counter()("脑残！脑残！脑残！\n别的一行\n又一行") == {"abuse": 3}


def test_the_bit_table_passes_as_few_as_it_says() -> None:
    words = [f"word{number}" for number in range(40_000)]
    index = build_index([Item(suite="s", item_id="1", passages=(" ".join(words),))])
    assert _probable(index.hashes, index.bits).size == index.hashes.size  # and none that is there is missed
    others = np.random.default_rng(3).integers(0, 1 << 64, 100_000, dtype=np.uint64)
    assert _probable(others, index.bits).size <= others.size / 16


def test_each_stage_reads_what_comes_before_it() -> None:
    nodes = corpus_nodes(config())
    done: set[str] = set()
    for node in nodes:
        assert set(node.upstream) | set(node.needs) <= done, node.name
        done.add(node.name)
    reads = {node.name: node.upstream for node in nodes}
    assert reads["sources"][-1] == "policy"  # each verdict goes on from the one before
    assert reads["dedup"][1] == "sources"
    assert reads["tokenize"][-1] == reads["sample"][-1] == "dedup"


def test_a_file_edited_in_place_is_another_input(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "pages.jsonl"
    before = run(store, [source(write_file(path, [Page(text=2, url=2), Page(text=4, url=4)]))], config())
    status = path.stat()
    content = path.read_bytes()
    edited = content.replace(b"quiet", b"loud!") if b"quiet" in content else content.replace(b"The ", b"Teh ")
    assert len(edited) == len(content)
    assert edited != content
    path.write_bytes(edited)

    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = run(store, [source(path)], config())
    assert after["extract"].num_computed == 1
    assert after["extract"].manifest.digest != before["extract"].manifest.digest


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Ang panahon karon nindot kaayo, maglakaw kita sa parke uban sa mga higala ug pamilya.", "ceb"),
        ("佢哋今日去咗公園玩，好開心㗎，聽日仲會再去。", "yue"),
    ],
)
def test_codes_of_three_letters_are_whole(text: str, code: str) -> None:
    assert identify(text, None).code == code


def test_no_personal_data_is_left_in_the_tokens(tmp_path: Path) -> None:
    """Both languages, encoded and decoded again: nothing that a detector knows stands in what is trained on."""
    store = Store(tmp_path / "store")
    wanted = config(redact=tuple(sorted(DEFAULT_KINDS)))
    secrets = "Card 4111 1111 1111 1111, call (415) 555-0132。身份证11010519491231002X，手机13812345678，IP是8.8.8.8。"
    path = tmp_path / "pages.jsonl"

    rows = [{"text": f"{text_of(number)}\n{secrets}", "url": f"https://a.example/{number}"} for number in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results = run(store, [source(path)], wanted)
    done = {name: result.manifest for name, result in results.items()}
    encoder = Encoder.load(tokenizer_json(tokenizer_resource(wanted, done, store)))
    texts = [
        encoder.decode(tokens)
        for entry in done["tokenize"].entries
        for batch in store.read(entry.shard)
        for tokens in batch["tokens"].to_pylist()
    ]
    assert len(texts) == 6
    for text in texts:
        assert [found.kind for found in pii.find(text, None)] == []
        assert "<CARD>" in text
        assert "<CN_ID>" in text
        for left in ("4111", "555-0132", "19491231", "13812345678", "8.8.8.8", "gazette-mail"):
            assert left not in text


def test_sites_are_told_apart_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    site = site_finder()
    assert [site(f"https://{host}/x") for host in ("a.b.co.uk", "me.github.io", "例子.中国")] == [
        "b.co.uk",
        "me.github.io",
        "例子.中国",
    ]
