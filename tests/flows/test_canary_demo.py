"""The demo's site with canaries beside it, built and trained as the demo is: what was planted often is found."""

from collections import Counter
from dataclasses import dataclass

import pytest
import yaml

from flows.canaries import CanaryPlan, canaries, count_in_texts, probes, write_canary_pages
from flows.jobs import Dataset, TrainingJob, train_job
from flows.recipe import DEMO, Recipe, load_recipe
from flows.sources import collect, run_crawl
from flows.workspace import Workspace
from llm.data import TokenData
from llm.evaluate import load_model
from llm.evaluation.memorisation import exposure_suite, exposures
from pipelines.corpus import build, tokenizer_json, tokenizer_resource
from pipelines.encoding import Encoder
from pipelines.executor import InlineExecutor
from pipelines.store import Store

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

PLAN = CanaryPlan()


@dataclass(frozen=True)
class Built:
    """The demo's corpus with a source of canaries more."""

    recipe: Recipe
    workspace: Workspace
    store: Store
    dataset: Dataset
    encoder: Encoder
    counts: dict[str, int]
    """Of each canary in the training split."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("canaries")
    assert write_canary_pages(folder / "canaries.jsonl", PLAN) == 2 * sum(PLAN.counts)
    raw = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    raw["sources"].append({"kind": "text", "name": "canaries", "paths": ["canaries.jsonl"]})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    recipe, place = load_recipe(folder / "recipe.yaml"), Workspace(folder / "workspace")
    store = place.open_store()
    crawls = {"sample": run_crawl(recipe.sources[0], recipe, place, lambda _name, _seen: None)}
    config, files = recipe.corpus_config(store), collect(recipe, place, crawls).files
    results = build(store, files, config, InlineExecutor(), lambda _: None)
    done = {name: result.manifest for name, result in results.items()}
    resource = tokenizer_resource(config, done, store)
    dataset, encoder = Dataset.of(done["tokenize"], resource), Encoder.load(tokenizer_json(resource))
    data = TokenData.open(dataset.verified_paths(store), "train", digest=dataset.digest)
    counts = count_in_texts(canaries(PLAN), (encoder.decode(each.tokens) for each in data.documents()))
    return Built(recipe=recipe, workspace=place, store=store, dataset=dataset, encoder=encoder, counts=counts)


def test_planting_survives_the_build(built: Built) -> None:
    """Nothing but the held-out splits, a tenth, takes pages away."""
    for canary in canaries(PLAN):
        assert 0 <= built.counts[canary.name] <= canary.num_planned
        if canary.num_planned >= 16:
            assert built.counts[canary.name] >= 0.7 * canary.num_planned
    assert sum(built.counts.values()) >= 0.85 * 2 * sum(PLAN.counts)


@pytest.mark.slow
def test_what_was_planted_64_times_is_found_and_once_is_not(built: Built) -> None:
    job = TrainingJob.of(built.recipe, built.dataset, built.workspace)
    train_job(job, built.recipe, built.store, lambda _: None)
    model, encoder = load_model(job.folder / job.finished()["checkpoint"]), built.encoder
    asked = probes(PLAN, built.counts)
    found = exposures(model, asked, lambda text: encoder.encode_batch([text])[0].tolist(), encoder.eot_token)
    by_name = {each.name: each for each in found}
    for language in PLAN.languages:
        often, once = by_name[f"{language}-64-0"], by_name[f"{language}-1-0"]
        assert often.is_found, often
        assert often.rank == 1
        assert often.extrapolated > once.extrapolated
        assert not once.is_found, once
    result = exposure_suite(found, dataset_digest=built.dataset.digest)
    assert result.figures[f"exposure/en/{by_name['en-64-0'].num_planted}"].value > 9
    assert Counter(each.language for each in found) == {"en": len(PLAN.counts), "zh": len(PLAN.counts)}
