"""The `corpusmill` command: a command is one call; results go to stdout, words on the way to stderr.

Exit 0: done. 1: failed. 2: bad usage or recipe, one line with the field and the reason. 130: asked to stop.
"""

import json
import os
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pipelines.errors import ConfigError, CorpusmillError

if TYPE_CHECKING:
    from flows.workspace import Workspace
    from pipelines.takedown.ledger import Scope

EXIT_FAILED = 1
EXIT_BAD_USAGE = 2
EXIT_STOPPED = 130

app = typer.Typer(
    name="corpusmill",
    help="From web pages to a trained, evaluated and documented GPT-2. Each command computes only what changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

crawl_app = typer.Typer(
    help="The crawl of a recipe by itself: run it, or see how it stands.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(crawl_app, name="crawl")

keywords_app = typer.Typer(help="Keyword libraries: what they cover.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keywords_app, name="keywords")

takedown_app = typer.Typer(
    help="Take pages out again: by URL, domain, document or quoted text. The next build of each recipe obeys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(takedown_app, name="takedown")

RecipePath = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="Recipe (YAML); the embedded demo if left out.")
]
AlertBlock = Annotated[
    str | None,
    typer.Option(
        "--alert-block", metavar="TYPE/NAME", help="Prefect block that alerts leave by, or `none`. It holds the secret."
    ),
]
WorkspacePath = Annotated[
    Path | None,
    typer.Option(
        "--workspace", help="Folder for everything that is made. Default: $CORPUSMILL_WORKSPACE or ./workspace."
    ),
]
By = Annotated[str | None, typer.Option("--by", help="Who asks. Default: your user name.")]
ModelRecipe = Annotated[
    Path | None, typer.Option("--recipe", help="Recipe whose model is asked; the newest model if left out.")
]
ModelFolder = Annotated[
    Path | None,
    typer.Option("--model", help="Folder of a model in its place: exported, published GPT-2, or a training's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; words go to stderr.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes for CPU-bound stages; 0: none besides this one. Default: all cores."
    ),
]
Runner = Annotated[
    Literal["pool", "ray"] | None,
    typer.Option(
        "--task-runner",
        help="Who runs CPU-bound stages: this machine's processes, or Ray. Default: $CORPUSMILL_TASK_RUNNER or pool.",
    ),
]


@app.command()
def run(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    workers: Workers = None,
    task_runner: Runner = None,
    as_json: AsJson = False,
) -> None:
    """Crawl, build, train and evaluate: the whole recipe, only as far as something changed."""
    _run_flow(recipe, workspace, workers, "evaluate", task_runner=task_runner, as_json=as_json)


@app.command()
def build(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    workers: Workers = None,
    task_runner: Runner = None,
    as_json: AsJson = False,
) -> None:
    """Crawl and build: from seeds or files to token shards and a data card."""
    _run_flow(recipe, workspace, workers, "build", task_runner=task_runner, as_json=as_json)


@app.command()
def train(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    workers: Workers = None,
    task_runner: Runner = None,
    as_json: AsJson = False,
    prove_resume: Annotated[
        int | None,
        typer.Option(
            "--prove-resume",
            metavar="N",
            help="Train N steps aside, kill and resume them on as many processes and on others, and compare every bit.",
        ),
    ] = None,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest", help="Suggest batch size, learning rate and length for what is built; train nothing."
        ),
    ] = False,
) -> None:
    """Build what is missing, then train, or go on from the newest checkpoint."""
    if suggest:
        from flows.model import suggestion

        _emit(suggestion.suggest(recipe, workspace), suggestion.suggestion_lines, as_json=as_json)
        return
    if prove_resume is not None:
        from flows.model.proof import proof_lines, prove

        found = prove(recipe, workspace, prove_resume, partial(print, file=sys.stderr))
        _emit(found, proof_lines, as_json=as_json)
        raise typer.Exit(0 if found["holds"] else 1)
    _run_flow(recipe, workspace, workers, "train", task_runner=task_runner, as_json=as_json)


@app.command()
def evaluate(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    workers: Workers = None,
    task_runner: Runner = None,
    as_json: AsJson = False,
) -> None:
    """Build and train what is missing, then measure the model on held-out text."""
    _run_flow(recipe, workspace, workers, "evaluate", task_runner=task_runner, as_json=as_json)


@crawl_app.command("run")
def crawl_run(recipe: RecipePath = None, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Crawl only: fetch what is new and visit again what is due, as far as the recipe's limits allow."""
    _run_flow(recipe, workspace, None, "crawl", as_json=as_json)


@crawl_app.command("status")
def crawl_status(recipe: RecipePath = None, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Say how each crawl stands, beside a running one too: counts, rate, errors, slowest hosts, what is next."""
    from flows import inspection, summary

    found = inspection.crawl_status(recipe, workspace)
    _emit(found, summary.crawl_status_lines, as_json=as_json)
    if any("problem" in each for each in found["crawls"]):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def schedule(
    recipe: RecipePath = None,
    cron: Annotated[
        str, typer.Option("--cron", help="When to run, as in cron: minute hour day month weekday.")
    ] = "0 3 * * *",
    timezone: Annotated[str, typer.Option("--timezone", help="Time zone of the schedule.")] = "UTC",
    workspace: WorkspacePath = None,
    workers: Workers = None,
    task_runner: Runner = None,
) -> None:
    """Run a recipe on a schedule, as a Prefect deployment, until stopped. Needs PREFECT_API_URL: `prefect server start`."""
    from flows.recipe import load_recipe
    from flows.settings import read_settings

    name = load_recipe(recipe).name
    settings = read_settings(workspace, workers, task_runner)
    if settings.prefect_api_url is None:
        raise ConfigError(
            "PREFECT_API_URL: got none, wanted the address of a Prefect server that stays up: "
            "start one with `prefect server start` and export PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    os.environ["DO_NOT_TRACK"] = "1"
    from prefect.schedules import Cron

    from flows.pipeline import pipeline

    parameters = {
        "recipe": str(recipe.absolute()) if recipe else None,
        "workspace": str(settings.workspace),
        "workers": settings.ray_num_workers if settings.task_runner == "ray" else settings.num_workers,
        "task_runner": settings.task_runner,
    }
    # One run at a time: a second one would only wait for the workspace.
    pipeline.serve(name=name, schedule=Cron(cron, timezone=timezone), parameters=parameters, limit=1)


@app.command()
def status(workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Say what runs, what is due, what failed and what to do next. Waits for nothing. Exit 1 if something failed or is overdue."""
    from flows.watching import status as look

    found = look.status(workspace)
    _emit(found, look.status_lines, as_json=as_json)
    if not found["ok"]:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def metrics(
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write, for a textfile collector: name it *.prom.")
    ] = None,
    serve_at: Annotated[
        str | None, typer.Option("--serve", metavar="HOST:PORT", help="Answer scrapes there, until stopped.")
    ] = None,
    expose: Annotated[
        bool, typer.Option("--expose", help="Let --serve listen beyond loopback. Nobody is asked for a password.")
    ] = False,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Tell Prometheus of the workspace: runs, errors, crawl, stages, training, disk, GPUs, take-downs."""
    from flows.watching.metrics import serve_metrics, write_metrics

    if (out is None) == (serve_at is None):
        raise ConfigError(
            "--out, --serve: got both or neither, wanted one: a file to write, or an address to serve at."
        )
    if serve_at is not None:
        serve_metrics(workspace, serve_at, is_exposed=expose, tell=partial(print, flush=True))
    elif out is not None:
        _emit(write_metrics(workspace, out), lambda found: [f"metrics in {found['path']}"], as_json=as_json)


@app.command()
def deploy(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    cron: Annotated[
        str | None, typer.Option("--cron", help="When to refresh, as in cron; left out: at 3 each night.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="Time zone of the schedules. Default: UTC.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create the schedules switched off.")] = False,
    alert_block: AlertBlock = None,
    as_json: AsJson = False,
) -> None:
    """Create or update work pools, deployments and automations for a recipe on the server at PREFECT_API_URL.

    Deployments: refresh (nightly), train, evaluate, takedown, maintenance (weekly); each is called FLOW/RECIPE.
    """
    from flows.deployed import deployment

    found = deployment.deploy(recipe, workspace, cron=cron, timezone=timezone, paused=paused, alert_block=alert_block)
    _emit(found, deployment.deployment_lines, as_json=as_json)


@app.command()
def plan(recipe: RecipePath = None, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Say what a run would compute, and why, without doing it."""
    from flows import inspection, summary

    _emit(inspection.plan(recipe, workspace), summary.plan_lines, as_json=as_json)


@app.command()
def explain(
    url_or_doc_id: Annotated[str, typer.Argument(metavar="URL_OR_DOC_ID")],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe whose newest build is asked; the demo if left out.")
    ] = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story of a page: fetch, signals, rules, duplicates, tokens, models."""
    from flows import inspection, summary

    _emit(inspection.explain(url_or_doc_id, recipe, workspace), summary.explain_lines, as_json=as_json)


@app.command()
def trace(
    step: Annotated[int | None, typer.Option("--step", min=1, help="A training step: every page in its batch.")] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0, help="A token's place: its page.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Whose stream --offset counts in: train (default), validation, test.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Count --offset in this token shard (digest, or its beginning).")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A training's folder. Default for --step: the newest training.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe whose newest build or training is asked.")
    ] = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Tell which pages a training step saw, or which page a token comes from."""
    from flows import inspection, summary

    found = inspection.trace(recipe, workspace, step=step, offset=offset, split=split, shard=shard, model=model)
    _emit(found, summary.trace_lines, as_json=as_json)


@app.command()
def lineage(
    recipe: RecipePath = None,
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")] = Path("lineage.parquet"),
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Write a Parquet table from each page to its record, signals, rules, cluster, tokens and training steps."""
    from flows import inspection

    result = inspection.write_lineage_table(recipe, workspace, out)
    _emit(result, lambda found: [f"{found['rows']:,} pages in {found['path']}"], as_json=as_json)


@app.command()
def export(
    recipe: RecipePath = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("export"),
    file_format: Annotated[Literal["jsonl", "parquet"], typer.Option("--format")] = "jsonl",
    dropped: Annotated[bool, typer.Option("--dropped", help="Add the documents that were dropped.")] = False,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Write the corpus, one row a document, personal data redacted."""
    from flows import inspection

    result = inspection.export(recipe, workspace, out, file_format, with_dropped=dropped)
    _emit(result, lambda found: [f"{found['rows']:,} documents in {found['path']}"], as_json=as_json)


@app.command()
def sample(
    recipe: RecipePath = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the page into.")] = Path("review"),
    per_rule: Annotated[
        int, typer.Option("--per-rule", min=1, help="Documents shown of those that fail a rule, and of those kept.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed draws other documents.")] = 0,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Write a page to review the rules by: what each drops and keeps, why, and what another threshold would do."""
    from flows import inspection, summary

    found = inspection.sample(recipe, workspace, out, num_per_rule=per_rule, seed=seed)
    _emit(found, summary.sample_lines, as_json=as_json)


@keywords_app.command("coverage")
def keywords_coverage(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE...|RECIPE", help="Keyword libraries, or one recipe that names some.")
    ],
    schema: Annotated[
        Path | None, typer.Option("--schema", help="Categories to be covered; left out: the 31 risks of GB/T 45654.")
    ] = None,
    max_age_days: Annotated[
        int, typer.Option("--max-age-days", min=0, help="Age that the newest term may have; GB/T 45654: a week.")
    ] = 7,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Say how far keyword libraries cover the risks of GB/T 45654: terms, their age, repeats, innocent words.

    Exit 1 if terms are missing or the newest is too old.
    """
    from flows import inspection, summary

    found = inspection.keyword_coverage(paths, workspace, schema_path=schema, max_age_days=max_age_days)
    _emit(found, summary.coverage_lines, as_json=as_json)
    if not (found["is_met"] and found["is_fresh"]):
        raise typer.Exit(EXIT_FAILED)


@app.command("review-sample")
def review_sample(
    recipe: RecipePath = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the two sheets.")] = Path("review-sample"),
    items: Annotated[int, typer.Option("--items", min=1, help="Documents to draw; GB/T 45654 asks for 4,000.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Draw kept documents for two reviewers to judge: a CSV file for each."""
    from flows import inspection

    result = inspection.review_sample(recipe, workspace, out, num_items=items, seed=seed)
    _emit(result, lambda found: [f"{found['items']:,} documents in {' and '.join(found['paths'])}"], as_json=as_json)


@app.command("review-score")
def review_score(
    first: Annotated[Path, typer.Argument(help="Sheet of one reviewer.")],
    second: Annotated[Path, typer.Argument(help="Sheet of the other.")],
    min_pass_rate: Annotated[float, typer.Option("--min-pass-rate", min=0.0, max=1.0)] = 0.96,
    as_json: AsJson = False,
) -> None:
    """Pass rate with its interval, agreement and verdict of two filled sheets."""
    from flows import inspection, summary

    _emit(inspection.review_score(first, second, min_pass_rate=min_pass_rate), summary.score_lines, as_json=as_json)


WhichCheckpoint = Annotated[
    Literal["last", "best"],
    typer.Option("--checkpoint", help="Of the training: the last, or the one with the least validation loss."),
]


@app.command("export-model")
def export_model(
    recipe: RecipePath = None,
    out: Annotated[Path, typer.Option("--out", help="New folder, in the Hugging Face layout.")] = Path("model"),
    checkpoint: WhichCheckpoint = "last",
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Write the trained model as a folder that transformers loads: config, safetensors, tokenizer.

    It is loaded and compared with the checkpoint before it gets its name. `modern_*` presets are no GPT-2: theirs is
    for `generate --model` and `training.start_from`.
    """
    from flows.model import commands as models

    _emit(models.export_trained_model(recipe, workspace, out, which=checkpoint), models.export_lines, as_json=as_json)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Text that the model goes on from.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=0)] = 60,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Draw from the k likeliest tokens.")] = 50,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Draw from the fewest likeliest tokens with this probability together."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="End before this text; may be given again for others.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    recipe: ModelRecipe = None,
    model: ModelFolder = None,
    checkpoint: WhichCheckpoint = "last",
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Let a trained model go on from a prompt. On a terminal the text appears as it is written."""
    from flows.model import commands as models
    from llm.sample import Sampling

    streams = sys.stdout.isatty() and not as_json
    found = models.generate(
        prompt,
        recipe,
        workspace,
        Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed),
        model=model,
        which=checkpoint,
        stop=stop or (),
        on_text=_show if streams else lambda _: None,
    )
    _emit(found, lambda found: [""] if streams else [found["text"]], as_json=as_json)


@app.command()
def inspect(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the model reads.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the page into.")] = Path("inspection"),
    recipe: ModelRecipe = None,
    model: ModelFolder = None,
    checkpoint: WhichCheckpoint = "last",
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Write a page of a text as a model reads it: surprise of each token, attention, logit lens, nearest documents."""
    from flows import reading

    found = reading.inspect_text(text, recipe, workspace, out, model=model, which=checkpoint)
    _emit(found, reading.inspection_lines, as_json=as_json)


@app.command()
def nearest(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is looked for in the training documents.")],
    generate_after: Annotated[
        bool, typer.Option("--generate", help="Let the model go on from TEXT, and look for what it writes.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="With --generate.")] = 60,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="With --generate.")] = 0.8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="With --generate.")] = 0,
    min_tokens: Annotated[int, typer.Option("--min-tokens", min=1, help="Shorter stretches are shared by chance.")] = 8,
    num: Annotated[int, typer.Option("--num", min=1, help="Documents named, at most.")] = 5,
    recipe: ModelRecipe = None,
    model: ModelFolder = None,
    checkpoint: WhichCheckpoint = "last",
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Say which training documents a text stands in, word for word, with their URLs; the longest stretch first."""
    from flows import reading
    from llm.sample import Sampling

    found = reading.nearest_to(
        text,
        recipe,
        workspace,
        model=model,
        which=checkpoint,
        sampling=Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed) if generate_after else None,
        min_tokens=min_tokens,
        num_nearest=num,
    )
    _emit(found, reading.nearest_lines, as_json=as_json)


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN", help="MLflow run id, or the beginning of a model folder's name.")
    ],
    second: Annotated[str, typer.Argument(metavar="RUN", help="What it is compared with, likewise.")],
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluated models on the same items, with intervals, and say what differs in data, config and code."""
    from flows.tracker import comparison

    _emit(comparison.compare_runs(workspace, first, second), comparison.comparison_lines, as_json=as_json)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered model: registry.name of its recipe.")],
    version: Annotated[
        str | None, typer.Option("--version", help="Version to promote; the challenger if left out.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the version.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it though it is worse or marked; wants --reason.")
    ] = False,
    by: By = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Make a registered model the champion, unless it is worse than the one before or a take-down marks it."""
    from flows import takedown
    from flows.tracker import registry

    who = by or takedown.user()
    found = registry.promote(workspace, name, version, by=who, reason=reason, force=force)
    _emit(found, registry.promotion_lines, as_json=as_json)


@app.command()
def up(
    recipe: RecipePath = None,
    workspace: WorkspacePath = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="URL",
            envvar="CORPUSMILL_POSTGRES",
            help="postgresql://USER@HOST:PORT/NAME for both servers, in databases NAME_prefect and NAME_mlflow; the "
            "password in $PGPASSWORD, or the whole URL in $CORPUSMILL_POSTGRES. Default: SQLite in the workspace.",
        ),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            metavar="s3://BUCKET/PREFIX",
            help="Where MLflow's server keeps artifacts; endpoint and credentials from AWS_*. Default: the workspace.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", help="Address that both servers listen on; beyond loopback they ask for a password."),
    ] = "127.0.0.1",
    prefect_port: Annotated[
        int | None, typer.Option("--prefect-port", min=0, max=65535, help="0: any. Default: 4200, or any if in use.")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option("--mlflow-port", min=0, max=65535, help="0: any. Default: 5000, or any if in use.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="0: any. Default: 9464, or any if in use.")
    ] = None,
    run_now: Annotated[bool, typer.Option("--run-now", help="Run `refresh` once as soon as everything is up.")] = False,
    cron: Annotated[
        str | None, typer.Option("--cron", help="When to refresh, as in cron; the deployment's own if left out.")
    ] = None,
    timezone: Annotated[str | None, typer.Option("--timezone", help="Time zone of --cron.")] = None,
    alert_block: AlertBlock = None,
    as_json: AsJson = False,
) -> None:
    """Run everything on this machine until stopped: Prefect, MLflow, a worker for each pool, the recipe's deployments.

    Commands in the same workspace use these servers while they run.
    """
    from flows.up.options import options_of
    from flows.up.postgres import take_from_command_line
    from flows.up.run import up as run_services

    take_from_command_line(postgres)
    options = options_of(
        recipe,
        host=host,
        ports=(prefect_port, mlflow_port, metrics_port),
        postgres=postgres,
        artifacts=artifacts,
        run_now=run_now,
        cron=cron,
        timezone=timezone,
        alert_block=alert_block,
    )
    run_services(options, _place(workspace), as_json=as_json)


@app.command()
def serve(
    recipe: ModelRecipe = None,
    model: ModelFolder = None,
    checkpoint: WhichCheckpoint = "last",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; beyond loopback it needs $CORPUSMILL_SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8080,
    workspace: WorkspacePath = None,
) -> None:
    """Serve a model: OpenAI-compatible completions, and a page to try it. Until stopped."""
    from flows.model import commands as models
    from flows.serving.serve import serve as serve_model

    folder = models.chosen_folder(recipe, workspace, model)
    serve_model(folder, checkpoint, host=host, port=port, tell=partial(print, flush=True))


def _place(workspace: Path | None) -> "Workspace":
    from flows.settings import read_settings
    from flows.workspace import Workspace

    return Workspace.of(read_settings(workspace))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def report(
    recipe: RecipePath = None,
    eu_summary: Annotated[
        bool,
        typer.Option("--eu-summary", help="The public summary of training content that the EU AI Act asks for."),
    ] = False,
    sme: Annotated[
        bool,
        typer.Option("--sme", help="In that summary: the top 5 % of domains or 1,000, whichever is fewer, not 10 %."),
    ] = False,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Print the data card of the newest build, or its summary for the public."""
    from flows import inspection

    if sme and not eu_summary:
        raise ConfigError("--sme: got it alone, wanted it with --eu-summary: add that, or leave --sme out.")
    if eu_summary:
        found = inspection.public_summary(recipe, workspace, is_sme=sme)
        _emit(found["facts"] if as_json else found, lambda found: [found["markdown"]], as_json=as_json)
        return
    _emit(inspection.report(recipe, workspace), lambda found: [found["markdown"]], as_json=as_json)


Reason = Annotated[str, typer.Option("--reason", help="Why; it stays in the ledger.")]


@takedown_app.command("add")
def takedown_add(
    reason: Reason,
    url: Annotated[str | None, typer.Argument(metavar="URL", help="All versions of this URL.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="A host and all below it.")] = None,
    doc_id: Annotated[str | None, typer.Option("--doc-id", help="One version of a page, by document id.")] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Every document with this quotation. It is not kept, only digests of it."),
    ] = None,
    text_file: Annotated[Path | None, typer.Option("--text-file", help="Likewise, the quotation in a file.")] = None,
    by: By = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Take down a URL, a domain, a document or every document with a quotation; the crawl does not fetch it again.

    Duplicates at other URLs come back in its place: --text takes them down too.
    """
    from flows import summary, takedown

    named: dict[Scope, str | None] = {"url": url, "domain": domain, "doc_id": doc_id, "text": text}
    given = [(scope, value) for scope, value in named.items() if value is not None]
    if len(given) + (text_file is not None) != 1:
        raise ConfigError(
            f"got {len(given) + (text_file is not None)} of URL, --domain, --doc-id, --text and --text-file, wanted one: "
            "name what to take down."
        )
    scope, value = given[0] if text_file is None else ("text", _read_quotation(text_file))
    found = takedown.add(workspace, scope, value, by=by, reason=reason)
    _emit(found, summary.takedown_lines, as_json=as_json)


@takedown_app.command("lift")
def takedown_lift(
    request: Annotated[str, typer.Argument(metavar="ID", help="As `takedown list` shows it.")],
    reason: Reason,
    by: By = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """End a take-down: the next build has again what it took out. The ledger keeps both."""
    from flows import summary, takedown

    _emit(takedown.lift(workspace, request, by=by, reason=reason), summary.takedown_lines, as_json=as_json)


@takedown_app.command("list")
def takedown_list(workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Show the ledger: what was taken down, by whom, when and why, and which builds certified it."""
    from flows import summary, takedown

    _emit(takedown.listed(workspace), summary.takedown_list_lines, as_json=as_json)


@takedown_app.command("certificate")
def takedown_certificate(
    request: Annotated[str, typer.Argument(metavar="ID", help="As `takedown list` shows it.")],
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Print what a take-down took out, and the proof that it is gone."""
    from flows import takedown

    found = takedown.certificate(workspace, request)
    _emit(found["certificate"] if as_json else found, lambda found: [found["markdown"]], as_json=as_json)


def _read_quotation(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text-file: got {path} ({error}), wanted a file of UTF-8 text: correct it.") from error


@app.command()
def gc(
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Age from which what nothing needs goes. Taken down: at once.")
    ] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Remove shards and records that no recipe's newest build and no finished training needs."""
    from flows import summary, takedown

    found = takedown.collect_garbage(workspace, keep_days=keep_days, is_dry=dry_run)
    _emit(found, summary.gc_lines, as_json=as_json)


@app.command()
def verify(workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Read every stored byte again and compare digests. Exit 1 if anything is damaged; the next run mends what it can."""
    from flows import summary, verification

    found = verification.verify(workspace)
    _emit(found, summary.verify_lines, as_json=as_json)
    if found["damaged"]:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def doctor(workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Check the set-up: versions, cores, disk, workspace, ports. Exit 1 if something would stop a run."""
    from flows import inspection, summary

    found = inspection.doctor(workspace)
    _emit(found, summary.doctor_lines, as_json=as_json)
    if not all(check["ok"] for check in found["checks"]):
        raise typer.Exit(EXIT_FAILED)


def main() -> None:
    """Entry point: errors become one sentence on stderr and an exit code."""
    # Idle OpenMP threads must sleep: spinning, they halve the speed of training on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        from flows.watching.logs import log_from_command

        log_from_command()
        app()
    except ConfigError as error:
        _fail(str(error), EXIT_BAD_USAGE)
    except CorpusmillError as error:
        _fail(str(error), EXIT_FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    from flows.watching.logs import say_failure

    try:
        say_failure(message)
    except ConfigError as error:  # of the settings that logs are written by
        sys.stderr.write(f"corpusmill: {error}\n")
    raise SystemExit(code)


def _run_flow(
    recipe: Path | None,
    workspace: Path | None,
    workers: int | None,
    until: Literal["crawl", "build", "train", "evaluate"],
    *,
    task_runner: Literal["pool", "ray"] | None = None,
    as_json: bool,
) -> None:
    from flows import summary
    from flows.control_plane import no_heartbeats, prefect_server
    from flows.recipe import load_recipe
    from flows.settings import read_settings
    from flows.workspace import Workspace, writing

    wanted = load_recipe(recipe)  # refuse a bad recipe before anything starts
    if until == "crawl":
        from flows.inspection import require_crawl

        require_crawl(wanted)
    if until != "crawl":
        wanted.check_files()
    settings = read_settings(workspace, workers, task_runner)
    place = Workspace.of(settings)
    path = str(recipe.absolute()) if recipe else None
    try:
        with (
            writing(
                place
            ),  # raises for a workspace that is in use or cannot be written; to the end, it is nobody else's
            prefect_server(settings, place) as wait_until_up,
        ):
            from flows.pipeline import crawl, pipeline

            wait_until_up()
            with no_heartbeats():
                if until == "crawl":
                    found = crawl(path, str(settings.workspace))
                else:
                    found = pipeline(path, str(settings.workspace), workers, until, settings.task_runner)
    except KeyboardInterrupt:  # caught here: Typer would end without a word
        _fail("got a request to stop; what was finished is kept: run the same command again to go on.", EXIT_STOPPED)
    _emit(found, summary.crawl_lines if until == "crawl" else summary.run_lines, as_json=as_json)


def _emit(found: Any, lines: Any, *, as_json: bool) -> None:
    text = json.dumps(found, indent=1, ensure_ascii=False, default=str) if as_json else "\n".join(lines(found))
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
