"""The demo's site with canaries beside it, built and trained as the demo is: what was planted often is found."""

from collections import Counter

import pytest
import yaml

from flows.canaries import CanaryPlan, canaries, count_in_texts, probes, write_canary_pages
from flows.jobs import Dataset, TrainingJob, train_job
from flows.recipe import DEMO, load_recipe
from flows.sources import collect, run_crawl
from flows.workspace import Workspace
from llm.data import TokenData
from llm.evaluate import load_model
from llm.evaluation.memorisation import exposure_suite, exposures
from pipelines.corpus import build, tokenizer_resource
from pipelines.encoding import Encoder
from pipelines.executor import InlineExecutor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

PLAN = CanaryPlan()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    """(planted counts in the training split, exposures) of the demo recipe with a source of canaries more."""
    folder = tmp_path_factory.mktemp("canaries")
    assert write_canary_pages(folder / "canaries.jsonl", PLAN) == 2 * sum(PLAN.counts)
    recipe = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    recipe["sources"].append({"kind": "text", "name": "canaries", "paths": ["canaries.jsonl"]})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    wanted, place = load_recipe(folder / "recipe.yaml"), Workspace(folder / "workspace")
    store = place.open_store()
    crawls = {"sample": run_crawl(wanted.sources[0], wanted, place, lambda _name, _seen: None)}
    config = wanted.corpus_config(store)
    files = collect(wanted, place, crawls).files
    done = {
        name: result.manifest for name, result in build(store, files, config, InlineExecutor(), lambda _: None).items()
    }
    dataset = Dataset.of(done["tokenize"], tokenizer_resource(config, done, store))
    job = TrainingJob.of(wanted, dataset, place)
    train_job(job, wanted, store, lambda _: None)
    data = TokenData.open(dataset.verified_paths(store), "train", digest=dataset.digest)
    encoder = Encoder.load((job.folder / "tokenizer.json").read_text(encoding="utf-8"))
    counts = count_in_texts(canaries(PLAN), (encoder.decode(each.tokens) for each in data.documents()))
    model = load_model(job.folder / job.finished()["checkpoint"])
    asked = probes(PLAN, counts)
    return counts, exposures(model, asked, lambda text: encoder.encode_batch([text])[0].tolist(), encoder.eot_token)


def test_planting_survives_the_build(measured) -> None:
    """Nothing but the held-out splits, a tenth, takes pages away."""
    counts, _ = measured
    for canary in canaries(PLAN):
        assert 0 <= counts[canary.name] <= canary.num_planned
        if canary.num_planned >= 16:
            assert counts[canary.name] >= 0.7 * canary.num_planned
    assert sum(counts.values()) >= 0.85 * 2 * sum(PLAN.counts)


def test_what_was_planted_64_times_is_found_and_once_is_not(measured) -> None:
    _, found = measured
    by_name = {each.name: each for each in found}
    for language in PLAN.languages:
        often, once = by_name[f"{language}-64-0"], by_name[f"{language}-1-0"]
        assert often.is_found, often
        assert often.rank == 1
        assert often.extrapolated > once.extrapolated
        assert not once.is_found, once
    result = exposure_suite(found, dataset_digest="0" * 64)
    assert result.figures["exposure/en/" + str(by_name["en-64-0"].num_planted)].value > 9
    assert Counter(each.language for each in found) == {"en": len(PLAN.counts), "zh": len(PLAN.counts)}
