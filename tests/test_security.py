"""What the threat model says holds, where a reading of the code can show it: no pickle, no code out of data."""

import ast
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.inspection import doctor
from flows.recipe import parse_recipe
from flows.workspace import Workspace, writing
from pipelines.corpus import corpus_nodes
from pipelines.errors import ConfigError, InputError
from pipelines.fingerprint import import_closure
from pipelines.sources import READERS
from pipelines.sources.hub import fetch_dataset
from pipelines.store import Place, Store

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipelines", "llm", "flows", "infra")
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "copyreg"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
OWN_PROCESSES = {"pipelines/executor.py", "pipelines/worker.py"}
"""They send objects to each other over pipes that nobody else has an end of."""
TEXT = "name: r\nsources:\n- {kind: text, paths: [a.jsonl]}\nquality: {perplexity: on}\nbias: {toxicity: on}\n"


def trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call, by the dotted name that it is made under."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def has(call: ast.Call, name: str, value: object) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value == value
        for word in call.keywords
    )


def test_nothing_is_pickled():
    assert not [path for path, tree in trees() if PICKLES & set(imports(tree))]


def test_objects_are_sent_only_between_our_own_processes():
    assert {path for path, tree in trees() if "multiprocessing" in imports(tree)} == OWN_PROCESSES


def test_no_data_is_run_as_code():
    """A compiled regular expression is none: it is `re.compile`."""
    assert not [path for path, tree in trees() for name, _ in calls(tree) if name in RUNS_CODE]


def test_what_could_unpickle_is_told_not_to():
    wrong = []
    for path, tree in trees():
        for name, call in calls(tree):
            last = name.rpartition(".")[2]
            if name == "torch.load" and not has(call, "weights_only", value=True):
                wrong.append(f"{path}:{call.lineno}: torch.load without weights_only=True")
            if has(call, "allow_pickle", value=True) or has(call, "trust_remote_code", value=True):
                wrong.append(f"{path}:{call.lineno}: {name}")
            if name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
                wrong.append(f"{path}:{call.lineno}: {name} in place of yaml.safe_load")
            if has(call, "shell", value=True) or name in ("os.system", "os.popen"):
                wrong.append(f"{path}:{call.lineno}: a shell")
            if last == "extractall" and not has(call, "filter", value="data"):
                wrong.append(f"{path}:{call.lineno}: an archive is unpacked whole")
    assert not wrong, "\n".join(wrong)


def test_what_hides_secrets_enters_no_key(tmp_path):
    """A new kind of secret must not make anybody's corpus anew."""
    modules = {
        node.stage.transform.__module__
        for node in corpus_nodes(parse_recipe(TEXT, tmp_path).corpus_config(Store(Place(root=tmp_path))))
    }
    modules |= {reader.__module__ for reader in READERS.values()}
    assert not {"pipelines.redaction", "pipelines.log_lines"} & import_closure(modules)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"]
)
def test_a_recipe_runs_no_code(tmp_path, tag):
    with pytest.raises(ConfigError, match="not YAML"):
        parse_recipe(f"name: r\nsources: {tag}\n", tmp_path)


def test_a_dataset_runs_no_code_and_reads_no_pickle(tmp_path):
    """`datasets` had loading scripts once, and a reader of pickles."""
    mark = tmp_path / "ran"
    script = tmp_path / "evil"
    script.mkdir()
    (script / "evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    call = f"cposix\nsystem\n(S'touch {mark}'\ntR."
    (pickled / "train.pkl").write_bytes(call.encode())
    for folder in (script, pickled):
        with pytest.raises(InputError, match="cannot be opened"):
            fetch_dataset(str(folder), tmp_path / f"of-{folder.name}")
    assert not mark.exists()


def test_a_recipe_that_swells_is_refused_or_bounded(tmp_path):
    """Aliases of aliases: a thousand million texts in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    for text, message in (
        ("\n".join(lines), "got .* values"),
        ("sources: &a [*a]", "without end"),
        ("sources: " + "[" * 5000, "without end|not YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_recipe(f"name: r\n{text}", tmp_path)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"kind": "crawl", "seeds": ["https://me:hunter2word@host.test/"]}, "a URL with a user name"),
        (
            {"kind": "warc", "paths": ["https://host.test/a.warc.gz?X-Amz-Signature=hunter2word"]},
            "a URL with X-Amz-Signature",
        ),
        ({"kind": "warc", "paths": ["s3://key:hunter2word@bucket/a.warc.gz"]}, "AWS_ACCESS_KEY_ID"),
        ({"kind": "text", "dataset": "https://host.test/d?token=hunter2word"}, "a URL with token"),
        ({"kind": "text", "dataset": "hf_hunter2wordhunter2wordhunter2"}, "HF_TOKEN"),
        ({"kind": "text", "paths": ["a"], "header": "Authorization: Bearer hunter2word"}, "an Authorization header"),
        (
            {"kind": "warc", "paths": ["a.warc.gz"], "endpoint_url": "https://me:hunter2word@s3.test"},
            "a URL with a user name",
        ),
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(tmp_path, source, wanted):
    import yaml

    with pytest.raises(ConfigError, match=wanted) as caught:
        parse_recipe(yaml.safe_dump({"name": "r", "sources": [source]}), tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value) or "set AWS" in str(caught.value)


def test_a_new_workspace_is_its_owners_alone(tmp_path):
    place = Workspace(tmp_path / "new")
    with writing(place):
        pass
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
    shared = Workspace(tmp_path / "shared")
    shared.root.mkdir(mode=0o770)
    shared.root.chmod(0o770)
    with writing(shared):
        pass
    assert stat.S_IMODE(shared.root.stat().st_mode) == 0o770, "one that is there stays as it was made"


def test_the_doctor_tells_of_a_workspace_that_is_open(tmp_path):
    place = Workspace(tmp_path / "w")
    with writing(place):
        pass

    def permissions() -> SimpleNamespace:
        found = {check["name"]: check for check in doctor(place.root)["checks"]}
        return SimpleNamespace(**found["permissions"])

    assert permissions().ok
    place.root.chmod(0o777)
    assert not permissions().ok
    assert "writable by all" in permissions().found
    place.root.chmod(0o700)
    (place.root / "auth").mkdir()
    secret = place.root / "auth" / "secrets.env"
    secret.touch(0o644)
    assert "secrets.env is readable by others" in permissions().found
    secret.chmod(0o600)
    assert permissions().ok
