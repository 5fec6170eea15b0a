"""The hook for a named-entity model: a real ONNX model, tiny, in both languages, from the folder to the token shards."""

import builtins
import json
import shutil
from dataclasses import replace

import corpora
import pyarrow.parquet as pq
import pytest
from corpora import computed, config, content, source
from entity_models import LABELS, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.recipe import parse_recipe
from pipelines.digest import digest_file
from pipelines.entities import EntityConfig, ModelFile, checked_kinds
from pipelines.errors import ConfigError
from pipelines.executor import open_executor
from pipelines.explain import stories
from pipelines.export import export_documents
from pipelines.pii import Finding, find_all, find_in_title, redact
from pipelines.pii.entities import joined, with_echoes
from pipelines.pii.entity_model import EntityModel, entity_type, labels_of
from pipelines.policy import PiiRules, PolicyConfig, QualityRules, evaluate
from pipelines.report import composition
from pipelines.review import review_facts
from pipelines.schemas import SIGNALS
from pipelines.stage import Resource
from pipelines.store import Store

KINDS = {"PER": "person", "ADDR": "address"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return EntityModel(folder, KINDS, 0.5)


def redacted(model, text):
    return redact(text, model.find(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("Nothing here.", "Nothing here."),
        ("Yesterday Jane Doe, of 221b Baker Street, met Mary Ann Lee.", "Yesterday <PERSON>, of <ADDRESS><ADDRESS>, met <PERSON>."),
        ("昨天张伟在北京见到了欧阳娜。", "昨天<PERSON>在北京见到了<PERSON>。"),
        ("张伟 and Jane Doe went to Paris", "<PERSON> and <PERSON> went to Paris"),
        ("Jane\nDoe", "<PERSON>"),
        ("Jane\n\nDoe", "<PERSON>\n\n<PERSON>"),
        ("🎉𝒜 Jane Doe 🎉", "🎉𝒜 <PERSON> 🎉"),
        ("（张伟）Ｊane", "（<PERSON>）Ｊane"),
    ],
)  # fmt: skip
def test_finds_in_both_languages(model, text, expected):
    # "221b" and "Baker" each begin an address: two placeholders, the space between them outside neither
    assert redacted(model, text).replace("<ADDRESS> <ADDRESS>", "<ADDRESS><ADDRESS>") == expected


@pytest.mark.parametrize("filler", ["and then the ", "然后我们"])
@pytest.mark.parametrize("name", ["Jane Doe ", "欧阳娜"])
def test_a_name_is_found_whole_wherever_a_window_ends(model, filler, name):
    for num_before in range(60):
        text = filler * num_before + name + filler * 20
        start = len(filler) * num_before
        assert model.find(text) == [Finding("person", start, start + len(name.strip()))], num_before


def test_a_long_text_in_many_segments(model):
    text = ("然后我们去了很远的地方。" * 40 + "\n") * 100 + "张伟"
    assert model.find(text) == [Finding("person", len(text) - 2, len(text))]
    assert model.find("x" * 50_000) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["Jane Doe", "张伟", " ", "\n", "。", "and ", "然后", "Mary Ann Lee", "🎉", "Paris", "é"]),
        max_size=60,
    ).map("".join)
)
def test_sorted_disjoint_and_the_same_again(model, text):
    found = model.find(text)
    ends = [0, *(each.end for each in found)]
    assert all(end <= each.start < each.end <= len(text) for end, each in zip(ends, found, strict=False))
    assert model.find(text) == found


@pytest.mark.parametrize(
    ("labels", "words", "text", "expected"),
    [
        (("O", "B-PER", "I-PER", "L-PER", "U-PER"), {"Jane": "B-PER", "Ann": "I-PER", "Doe": "L-PER", "Bob": "U-PER"}, "Jane Ann Doe Bob Bob", "<PERSON> <PERSON> <PERSON>"),
        (("O", "B-PER", "M-PER", "E-PER", "S-PER"), {"欧": "B-PER", "阳": "M-PER", "娜": "E-PER", "王": "S-PER"}, "欧阳娜王说", "<PERSON><PERSON>说"),
        (("O", "PER"), {"Jane": "PER", "Doe": "PER"}, "Jane Doe went", "<PERSON> went"),
        (("O", "I-PER", "B-ADDR"), {"Jane": "I-PER", "Oslo": "B-ADDR"}, "Jane Oslo", "<PERSON> <ADDRESS>"),
    ],
)  # fmt: skip
def test_every_scheme_of_labels(tmp_path, labels, words, text, expected):
    assert redacted(EntityModel(write_model(tmp_path, labels=labels, words=words), KINDS, 0.5), text) == expected


def test_a_tokenizer_that_takes_a_chinese_line_for_a_word(tmp_path):
    model = EntityModel(write_model(tmp_path, splits_at_spaces=True), KINDS, 0.5)
    assert redacted(model, "昨天张伟见到欧阳娜Jane Doe，") == "昨天<PERSON>见到<PERSON><PERSON>，"


@pytest.mark.parametrize(
    ("label", "expected"),
    [("O", ("O", "")), ("B-PER", ("B", "PER")), ("I_LOC", ("I", "LOC")), ("PER", ("I", "PER")), ("B-date-of-birth", ("B", "date-of-birth")), ("X-Y", ("I", "X-Y"))],
)  # fmt: skip
def test_labels_are_split(label, expected):
    assert entity_type(label) == expected


def test_what_the_model_is_unsure_of_is_left_alone(tmp_path):
    folder = write_model(tmp_path, sure=1.0)  # a probability of 0.35 over six labels
    assert redacted(EntityModel(folder, KINDS, 0.3), "Jane Doe") == "<PERSON>"
    assert redacted(EntityModel(folder, KINDS, 0.5), "Jane Doe") == "Jane Doe"


# joined with what the detectors find


def test_a_name_found_once_is_a_placeholder_throughout():
    text = "Jane Doe spoke. Jane Doe's dog; xJane Doe. 张伟说张伟。王说王"
    found = [
        Finding("person", 0, 8),
        Finding("person", text.index("张伟"), text.index("张伟") + 2),
        Finding("person", text.index("王"), text.index("王") + 1),
    ]
    assert (
        redact(text, with_echoes(text, found))
        == "<PERSON> spoke. <PERSON>'s dog; xJane Doe. <PERSON>说<PERSON>。<PERSON>说王"
    )


def test_detectors_go_first_and_nothing_is_left_between():
    text = "Jane jane.doe@site.org Doe, +1 212 555 0100"
    entities = [{"kind": "person", "start": 0, "end": 26}, {"kind": "person", "start": 5, "end": 9}]
    found = find_all(text, "en", None, entities)
    assert redact(text, found) == "<PERSON><EMAIL><PERSON>, <PHONE>" or redact(text, found).startswith(
        "<PERSON><EMAIL><PERSON>"
    )
    assert redact(text, find_all(text, "en", frozenset({"person"}), entities[:1])) == "<PERSON>, +1 212 555 0100"
    assert find_all(text, "en", None, None) == find_all(text, "en", None, [])


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6),
)
def test_joined_findings_never_overlap_and_cover_all_that_either_did(strict, entities):
    def disjoint(spans, kind):
        kept = []
        for start, length in sorted(spans):
            if not kept or start >= kept[-1].end:
                kept.append(Finding(kind, start, start + length))
        return kept

    strict, entities = disjoint(strict, "email"), disjoint(entities, "person")
    found = joined(strict, entities)
    covered = [place for each in found for place in range(each.start, each.end)]
    assert len(covered) == len(set(covered))
    assert set(covered) == {place for each in (*strict, *entities) for place in range(each.start, each.end)}
    assert [each for each in found if each.kind == "email"] == strict


def test_a_title_hides_the_names_of_its_text():
    text, title = "Jane Doe wrote to us.", "A letter by Jane Doe, jane@site.org"
    entities = [{"kind": "person", "start": 0, "end": 8}]
    assert redact(title, find_in_title(title, "en", text, entities)) == "A letter by <PERSON>, <EMAIL>"


# in a build


def entity_config(folder, **changes):
    files = tuple(ModelFile(path.name, Resource(digest_file(path), str(path))) for path in sorted(folder.iterdir()))
    return EntityConfig(files=files, kinds=tuple(sorted(KINDS.items())), **changes)


NUM_NAMED = 4


def texts():
    for number in range(8):
        name = "张伟" if number % 2 else "Jane Doe"
        text = corpora.text_of(number)
        yield f"{text}\n{name}，reader{number}@gazette-mail.net" if number in (0, 1, 3, 5) else text


@pytest.fixture
def sources(tmp_path):
    paths = []
    for part, numbers in (("a", range(5)), ("b", range(5, 8))):
        rows = [
            {"text": text, "url": f"https://site.example/{number}", "fetched_at": f"2024-01-0{number + 1}T00:00:00Z"}
            for number, text in enumerate(texts())
            if number in numbers
        ]
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        paths.append(path)
    return [source(path) for path in paths]


def wanted(folder, *, drop=(), redacts=("email", "person"), **changes):
    plain = config()
    quality = plain.policy.quality
    assert isinstance(quality, QualityRules)
    policy = PolicyConfig(quality=quality, pii=PiiRules(drop=drop))
    return replace(
        config(redact=redacts), policy=policy, entities=entity_config(folder, **changes) if folder is not None else None
    )


def done_of(results):
    return {name: result.manifest for name, result in results.items()}


def test_names_are_counted_redacted_and_shown_nowhere(tmp_path, folder, sources):
    store = Store(tmp_path / "store")
    corpus = wanted(folder)
    done = done_of(corpora.run(store, sources, corpus))
    assert list(done)[:3] == ["extract", "entities", "signals"]
    signals = [
        row for entry in done["signals"].entries for batch in store.read(entry.shard) for row in batch.to_pylist()
    ]
    assert (
        sum(count["count"] for row in signals for count in row["pii_counts"] if count["kind"] == "person") == NUM_NAMED
    )
    assert composition(store, done)["personal_data_found"]["person"] == NUM_NAMED

    path, _ = export_documents(
        store, done, tmp_path / "out", file_format="parquet", with_dropped=True, redact=corpus.redact
    )
    exported = {row["doc_id"]: row["text"] for row in pq.read_table(path).to_pylist()}
    sampled = {
        row["doc_id"]: row["text"]
        for entry in done["sample"].entries
        for batch in store.read(entry.shard)
        for row in batch.to_pylist()
    }
    assert sum("<PERSON>，<EMAIL>" in text for text in exported.values()) == NUM_NAMED
    assert sampled
    cut = max(sampled, key=lambda doc_id: list(sampled).index(doc_id))  # to the budget
    assert all(text == exported[doc_id] for doc_id, text in sampled.items() if doc_id != cut)
    tokens = {
        row["doc_id"]: row["num_bytes"]
        for entry in done["tokenize"].entries
        for batch in store.read(entry.shard)
        for row in batch.to_pylist()
    }
    assert all(num_bytes == len(exported[doc_id].encode()) for doc_id, num_bytes in tokens.items())

    shown = json.dumps(review_facts(store, done, corpus, num_per_rule=5, seed=1), ensure_ascii=False, default=str)
    told = json.dumps(
        [story for doc_id in exported for story in stories(store, done, corpus.policy, doc_id)],
        ensure_ascii=False,
        default=str,
    )
    for output in (*exported.values(), *sampled.values(), shown, told):
        assert not any(secret in output for secret in ("Jane Doe", "张伟", "gazette-mail.net"))


def test_the_same_bytes_in_any_pool_and_again(tmp_path, folder, sources):
    contents = []
    for num_workers in (0, 2):
        store = Store(tmp_path / str(num_workers))
        with open_executor(num_workers) as executor:
            results = corpora.run(store, sources, wanted(folder), executor)
            assert not any(computed(corpora.run(store, sources, wanted(folder), executor)).values())
        contents.append(content(store, results))
    assert contents[0] == contents[1]


def test_the_model_runs_once_whatever_else_changes_and_again_when_it_changes(tmp_path, folder, sources):
    store = Store(tmp_path / "store")
    corpora.run(store, sources, wanted(folder))
    for changed in (wanted(folder, drop=("person",)), wanted(folder, redacts=("email",))):
        assert computed(corpora.run(store, sources, changed))["entities"] == 0
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert computed(corpora.run(store, sources, wanted(moved)))["entities"] == 0
    (moved / "notes.txt").write_text("another file is another model")
    assert computed(corpora.run(store, sources, wanted(moved)))["entities"] == 2
    assert computed(corpora.run(store, sources, wanted(folder, min_score=0.9)))["entities"] == 2
    assert "entities" not in corpora.run(store, sources, wanted(None))


def test_a_document_is_dropped_for_a_name_where_the_recipe_says_so(tmp_path, folder, sources):
    store = Store(tmp_path / "store")
    done = done_of(corpora.run(store, sources, wanted(folder, drop=("person",))))
    assert done["dedup"].counts()["drop:pii_dropped_kind"] == NUM_NAMED
    assert done["dedup"].counts()["keep"] == 8 - NUM_NAMED


def test_many_names_are_not_too_much_personal_data():
    counts = [{"kind": "person", "count": 500}, {"kind": "email", "count": 2}]
    signals = SIGNALS.empty_table().to_pydict() | dict.fromkeys(SIGNALS.names)
    signals |= {
        "pii_counts": counts,
        "keyword_counts": [],
        "identity_counts": [],
        "rights_evidence": [],
        "num_words": 9,
    }
    checked = {rule.name: rule.value for rule in evaluate(signals, PolicyConfig())}
    assert checked["pii_findings"] == 2


# the recipe

HEAD = "name: x\nsources: [{kind: text, paths: [a.jsonl]}]\n"


def recipe(tmp_path, pii, store=None):
    return parse_recipe(f"{HEAD}pii: {pii}\n", tmp_path).corpus_config(store or Store(tmp_path / "store"))


def test_a_recipe_names_the_folder_and_what_labels_mean(tmp_path):
    write_model(tmp_path / "ner")
    corpus = recipe(tmp_path, "{entity_model: ner}")
    assert corpus.entities.kinds == (("PER", "person"),)
    assert {file.name for file in corpus.entities.files} == {"model.onnx", "config.json", "tokenizer.json"}
    assert "person" in corpus.redact
    assert corpus.sample.redact == corpus.redact
    mapped = recipe(
        tmp_path,
        "{entity_model: ner, entity_kinds: {LOC: location, PER: person}, redact: [email, location], entity_min_score: 0.9}",
    )
    assert mapped.entities.kinds == (("LOC", "location"), ("PER", "person"))
    assert mapped.redact == ("email", "location")
    assert mapped.entities.min_score == 0.9


@pytest.mark.parametrize(
    ("pii", "message"),
    [
        ("{entity_model: nowhere}", r"pii.entity_model: got .*nowhere without model.onnx, wanted a folder"),
        ("{entity_model: ner, entity_kinds: {DATE: birth_date}}", r"pii.entity_kinds: got DATE, wanted some of the model's types \(ADDR, LOC, PER\)"),
        ("{entity_model: ner, entity_kinds: {PER: email}}", r"pii.entity_kinds: got 'email' for 'PER', wanted one of person, address"),
        ("{entity_model: ner, entity_min_score: 2}", "pii.entity_min_score: got 2.0, wanted a probability"),
        ("{entity_kinds: {PER: person}}", "pii.entity_kinds: got it without pii.entity_model"),
        ("{redact: [person]}", "pii: got kind 'person', which only a model finds, wanted pii.entity_model"),
        ("{drop: [address]}", "pii: got kind 'address', which only a model finds"),
        ("{entity_modell: ner}", "pii.entity_modell: got an unknown key.*entity_model"),
        ("{entity_model: 3}", "pii.entity_model: got 3, wanted a valid string"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_sentence(tmp_path, pii, message):
    write_model(tmp_path / "ner")
    with pytest.raises(ConfigError, match=message) as raised:
        recipe(tmp_path, pii)
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    write_model(tmp_path / "ner")
    monkeypatch.setattr("pipelines.pii.entity_model.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"got no package onnxruntime, .*pip install 'corpusmill\[entities\]'"):
        recipe(tmp_path, "{entity_model: ner}")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_folder_is_one_sentence(tmp_path, name):
    folder = write_model(tmp_path)
    (folder / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"pii.entity_model: got .* wanted"):
        EntityModel(folder, KINDS, 0.5)


def test_a_model_without_people_needs_a_mapping(tmp_path):
    folder = write_model(tmp_path, labels=("O", "B-CHEM"), words={})
    assert labels_of(folder) == ["O", "B-CHEM"]
    with pytest.raises(ConfigError, match="got no label that is known to be personal"):
        checked_kinds(folder, None)


def test_without_a_model_nothing_is_imported(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        assert not name.startswith("onnxruntime")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert find_all("Jane Doe", "en", None, None) == []
    assert LABELS[0] == "O"
