"""What commands print for a person: lines of plain text from the same values that --json prints."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.tracker.gates import registration_lines

_MAX_REASONS = 4
_MAX_HOSTS = 5
_MAX_MEMBERS = 10


def run_lines(found: dict[str, Any]) -> list[str]:
    """The end of a run: stages, funnel, loss before and after, a sample, where to look next."""
    lines = ["", *_stage_table(found["stages"])]
    if "documents" in found:
        documents = found["documents"]
        lines += ["", f"Funnel of {found['recipe']}", f"  {documents['in']:>8,}  pages in"]
        for reason, count in sorted(documents["dropped"].items(), key=lambda item: (-item[1], item[0])):
            lines.append(f"  {-count:>8,}  {reason}")
        lines.append(f"  {documents['kept']:>8,}  kept: {found['tokens']:,} tokens")
    for each in found.get("takedowns", ()):
        lines += [
            "",
            (
                f"Take-down {each['id']}: {each['documents']:,} documents are out, {each['reinstated']:,} of their duplicates "
                f"are back; certificate {each['certificate']}"
            ),
            *(f"  recipe {name} still holds some: build it too" for name in each["other_recipes"]),
        ]
    if "training" in found:
        training = found["training"]
        lines += [
            "",
            f"Training: {training['num_parameters']:,} parameters, {training['steps']:,} steps",
            f"  validation loss {training['first_val_loss']:.3f} before, {training['final_val_loss']:.3f} after (nats a token)",
        ]
    if "evaluation" in found:
        measured = found["evaluation"]
        lines += [
            f"Held-out text: loss {measured['loss']:.3f}, unigram baseline {measured['unigram_loss']:.3f} (nats a token)",
            f"  {measured['bits_per_byte']:.3f} bits per byte, unigram baseline {measured['unigram_bits_per_byte']:.3f}",
        ]
        for sample in measured["samples"][:1]:
            lines += ["", "A sample:", *(f"  {line}" for line in sample["text"].splitlines())]
    if "registration" in found:
        lines += ["", *registration_lines(found["registration"])]
    return [*lines, "", *_next_steps(found)]


def plan_lines(found: dict[str, Any]) -> list[str]:
    """A plan: a line a stage, with the reasons."""
    lines = [f"Plan for {found['recipe']}, {found['source_files']} source files"]
    if not found["is_begun"]:
        lines.append(f"  there is no workspace at {found['workspace']} yet: everything is to be made")
    lines += [
        f"  source {name} is not fetched to its end, so the figures below will grow"
        for name in found["sources_to_fetch"]
    ]
    for stage in found["stages"]:
        upper = f" (at most {stage['at_most']})" if stage["at_most"] > stage["compute"] else ""
        reasons = "; ".join(f"{why} ({count})" for why, count in list(stage["reasons"].items())[:_MAX_REASONS])
        lines.append(
            f"  {stage['name']:<13} compute {stage['compute']}{upper}, reuse {stage['reuse']}  {reasons}".rstrip()
        )
    return lines


def crawl_lines(found: dict[str, Any]) -> list[str]:
    """The end of a crawl: a few lines a source, and where its report is."""
    lines = []
    for stage in found["stages"]:
        outcomes = found.get("crawl", {}).get(stage["source"], {})
        brought = ", ".join(f"{stage[name]:,} {name}" for name in ("changed", "unchanged", "withdrawn") if stage[name])
        lines += [
            (
                f"source {stage['source']}: {stage['fetched']:,} requests for pages in {stage['seconds']:.1f} s"
                f"{f' ({brought})' if brought else ''}, {stage['shards']:,} WARC files, {stage['computed']:,} of them new"
            ),
            f"  in all: {', '.join(f'{name} {count:,}' for name, count in sorted(outcomes.items())) or 'nothing'}",
        ]
        if not stage["complete"]:
            lines.append("  URLs wait that the limits of this crawl did not let through")
        lines.append(f"  report: {stage['report']}")
    return lines


def crawl_status_lines(found: dict[str, Any]) -> list[str]:
    """How the crawls stand."""
    if not found["is_begun"]:
        return [f"there is no workspace at {found['workspace']} yet: run `corpusmill crawl run` to begin"]
    return [line for each in found["crawls"] for line in _crawl_status(each)]


def _crawl_status(facts: Mapping[str, Any]) -> list[str]:
    head = f"source {facts['source']}"
    if "problem" in facts:
        return [f"{head}: {facts['problem']}"]
    if not facts["is_begun"]:
        return [f"{head}: not begun"]
    totals, now, revisits = facts["totals"], facts["now"], facts["revisits"]
    lines = [
        (
            f"{head}: {totals['pages']:,} pages of at most {facts['max_pages']:,}, {totals['hosts']:,} hosts, "
            f"{totals['bytes'] / 1e6:,.1f} MB received, last request {facts['period']['last'] or 'never'}"
        ),
        (
            f"  now: {totals['queued']:,} URLs wait, {now['leased']:,} are being fetched, "
            f"{now['visits_per_second']:,.1f} visits/s in the last minute"
        ),
        (
            f"  next: {now['due']:,} due for another visit ({_at(revisits['next_due_at'])}), "
            f"{now['retries_due']:,} for another try ({_at(revisits['next_retry_at'])})"
        ),
        f"  outcomes: {_counted(facts['outcomes'])}",
        f"  errors: {_counted(facts['errors'])}",
        (
            f"  robots.txt: {facts['robots']['urls_disallowed']:,} URLs disallowed, "
            f"{facts['robots']['hosts_refused']:,} hosts left out"
        ),
        (
            f"  rights: {facts['rights']['urls_reserved']:,} URLs reserved, "
            f"{facts['rights']['urls_withdrawn']:,} pages withdrawn"
        ),
    ]
    slowest = facts["hosts"]["slowest"][:_MAX_HOSTS]
    if slowest:
        lines.append("  slowest hosts:")
        lines += [
            f"    {each['mean_seconds']:>8.3f} s  {each['host']}  ({each['requests']:,} requests, {each['failed']:,} failed)"
            for each in slowest
        ]
    return lines


def _at(time: str | None) -> str:
    return f"the first {time}" if time else "none"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def takedown_lines(found: dict[str, Any]) -> list[str]:
    """One take-down that was just written down."""
    what = f"{found['scope']} {found['value'] or '(a quotation, of which only digests are kept)'}"
    if not found["in_force"]:
        return [f"lifted take-down {found['id']} of {what}: the next build has it again"]
    return [f"take-down {found['id']} of {what} is in the ledger: the next `corpusmill build` of each recipe obeys"]


def takedown_list_lines(found: dict[str, Any]) -> list[str]:
    """The ledger: two lines a take-down."""
    if not found["takedowns"]:
        return [f"nothing is taken down in {found['workspace']}"]
    lines = []
    for each in found["takedowns"]:
        state = "in force" if each["in_force"] else f"lifted by {each['lifted_by']} at {each['lifted_at']}"
        lines += [
            f"{each['id']}  {each['scope']} {each['value'] or '(a quotation)'}  {state}",
            f"  by {each['by']} at {each['added_at']}: {each['reason']}",
            f"  certified for: {', '.join(each['certified']) or 'no recipe yet'}",
        ]
    return lines


def gc_lines(found: dict[str, Any]) -> list[str]:
    """What was removed, or would be, and what stays and why."""
    verb = "would remove" if found["dry_run"] else "removed"
    lines = [
        (
            f"{verb} {found['shards']:,} shards ({found['taken_down']:,} for take-downs), {found['records']:,} records: "
            f"{found['bytes']:,} bytes"
        ),
        (
            f"kept {found['kept']['reached']:,} shards that builds and trainings need, {found['kept']['young']:,} that nothing "
            f"needs and that are younger than {found['keep_days']:g} days"
        ),
    ]
    if found["artifacts"]:
        lines.append(f"{verb} {len(found['artifacts'])} MLflow artifacts that show what was taken down")
    if found["still_reached"]:
        lines.append(
            f"{len(found['still_reached'])} shards that hold what was taken down are needed by recipes that were not "
            "built since: build them, then run gc again"
        )
    return [*lines, *(f"take-down {each}: all old shards are erased" for each in found["erased"])]


def explain_lines(found: dict[str, Any]) -> list[str]:
    """The story of a page, top to bottom."""
    lines: list[str] = []
    for request in found["takedowns"]:
        certified = ", ".join(f"{name} at {at}" for name, at in request["certified"].items())
        lines += [
            f"taken down by {request['by']} at {request['added_at']}: {request['reason']}",
            f"  take-down {request['id']}, of {request['scope']} {request['value'] or '(a quotation)'}",
            (
                f"  certified for recipe {certified}: see `corpusmill takedown certificate {request['id']}`"
                if certified
                else "  not in effect yet: run `corpusmill build`"
            ),
        ]
        if not request["in_force"]:
            lines.append(f"  lifted by {request['lifted_by']} at {request['lifted_at']}: {request['lifted_because']}")
    for row in found["fetches"]:
        lines.append(f"fetched by source {row['source']}:")
        lines += [f"  {name}: {value}" for name, value in row.items() if name != "source" and value is not None]
    for story in found["documents"]:
        outcome = story["outcome"]
        lines += [
            "",
            f"document {story['doc_id']}  {story['url'] or '(no URL)'}",
            f"  from {story['source_file'] or story['unit']}",
            *_record_lines(story["record"]),
        ]
        document = story["document"]
        lines += [
            f"  {name}: {document[name]}"
            for name in ("fetched_at", "title", "charset", "declared_language", "problem", "num_chars")
            if document[name] is not None
        ]
        lines += [
            "signals:",
            *(f"  {name}: {value}" for name, value in story["signals"].items() if value not in (None, [], 0)),
        ]
        lines += [
            f"holds item {each['item']} of suite {each['suite']}: {each['num_ngrams']} n-grams, {each['share']:.0%} of its"
            for each in story["contaminated_by"] or ()
        ]
        lines.append("rules:")
        for rule in story["rules"]:
            mark = "ok  " if rule["passed"] else "FAIL"
            lines.append(f"  {mark} {rule['rule']}: {rule['value']} (threshold {rule['threshold']})")
        because = f", because of {outcome['reason']}" if outcome["reason"] else ""
        lines.append(f"outcome: {outcome['decision']}{because}")
        withdrawal = story.get("withdrawal")
        if withdrawal:
            lines.append(
                f"  withdrawn by {withdrawal['doc_id']}, fetched {withdrawal['fetched_at']}, for {withdrawal['reason']}:"
                f" {'; '.join(withdrawal['rights_evidence']) or 'no directive'}"
            )
        elif outcome["duplicate_of"]:
            lines.append(
                f"  like {outcome['duplicate_of']} {story['duplicate_of_url'] or ''} (similarity {outcome['similarity']}, containment {outcome['containment']})"
            )
        if story["tokens"]:
            tokens = story["tokens"]
            lines.append(
                f"tokens: {tokens['num_tokens']} at offset {tokens['offset']} of shard {tokens['shard'][:16]}, split {tokens['split']}"
            )
            lines.append(f"  {tokens['stream_start']} to {tokens['stream_end']} in the stream of that split")
        lines += _cluster_lines(story)
        lines.append(f"models that saw it: {', '.join(story['models']) or 'none'}")
        lines += [line for training in story["trainings"] for line in _training_lines(training)]
    if found["trainings"]:
        lines.append("no build has it any more; models whose data held it:")
        lines += [line for training in found["trainings"] for line in _training_lines(training)]
    return lines


def _record_lines(record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return []
    if record["command"] is None:
        return [f"  row {record['row']}, counted from 0"]
    return [f"  record at byte {record['offset']}: {record['command']}"]


def _cluster_lines(story: Mapping[str, Any]) -> list[str]:
    cluster = story["cluster"]
    others = [each for each in cluster["members"] if (each["doc_id"], each["unit"]) != (story["doc_id"], story["unit"])]
    if not others:
        return []
    lines = [f"cluster of {cluster['size']} pages, {cluster['doc_id']} stands for them:"]
    for each in others[:_MAX_MEMBERS]:
        alike = "" if each["similarity"] is None else f", similarity {each['similarity']:.3f}"
        within = "" if each["containment"] is None else f", containment {each['containment']:.3f}"
        why = f" ({each['reason']}{alike}{within})" if each["reason"] else ""
        lines.append(f"  {each['decision']}{why} {each['doc_id']} {each['url'] or ''}")
    hidden = cluster["size"] - 1 - len(others[:_MAX_MEMBERS])
    return [*lines, *([f"  and {hidden:,} more"] if hidden > 0 else [])]


def _training_lines(training: Mapping[str, Any]) -> list[str]:
    name = f"  {training['model']}"
    lines = []
    if training.get("num_visits"):
        of = f"steps {training['first_step']:,} to {training['last_step']:,} of {training['num_steps']:,}"
        lines.append(f"{name}: {of}, in {training['num_visits']:,} sequences of {len(training['steps']):,} steps")
    elif training.get("spans"):
        lines.append(f"{name}: its data holds it, but none of its {training['num_steps']:,} steps came to it")
    if "problem" in training:
        lines.append(f"{name}: {training['problem']}")
    return lines


def trace_lines(found: dict[str, Any]) -> list[str]:
    """The pages behind a step or a token: three lines a page."""
    if "step" in found:
        whose = f"step {found['step']:,} of model {found['model']} (recipe {found['recipe']})"
        num_tokens = sum(page["num_tokens"] for page in found["pages"])
        lines = [f"{whose}: {num_tokens:,} tokens of {len(found['pages']):,} pages"]
    elif "shard" in found:
        lines = [f"token {found['offset']:,} of shard {found['shard'][:16]}"]
    else:
        whose = f"model {found['model']}" if found["model"] else f"recipe {found['recipe']}"
        lines = [f"token {found['offset']:,} of split {found['split']}, {whose}"]
    for page in found["pages"]:
        parts = ", ".join(_part(part) for part in page["ranges"])
        if page["doc_id"] is None:
            lines += [
                f"  shard {page['token_shard'][:16]}, which is gone: whose its {page['num_tokens']:,} tokens were cannot be told",
                f"    {parts} of the stream",
            ]
            continue
        where = "not in the newest build any more" if page["unit"] is None else page["source_file"] or page["unit"]
        at = "" if page["record_offset"] is None else f", record at {page['record_offset']}"
        dropped = f"; {page['decision']} now ({page['reason']})" if page["reason"] else ""
        lines += [
            f"  {page['url'] or '(no URL)'}  {page['doc_id']}",
            f"    token {parts} of the document, row {page['token_row']} of shard {page['token_shard'][:16]}",
            f"    from {where}{at}{dropped}",
        ]
    return lines


def _part(part: Mapping[str, Any]) -> str:
    start, last = part["start"], part["end"] - 1
    return f"{start:,}" if start == last else f"{start:,} to {last:,}"


def sample_lines(found: dict[str, Any]) -> list[str]:
    """The review page: what fails which rule, and where the page is."""
    lines = [f"{found['documents']['in']:,} documents, {found['documents']['kept']:,} kept"]
    lines += [
        f"  {rule['num_failed']:>8,}  {rule['name']}"
        + (f" ({rule['num_alone']:,} fail only it)" * bool(rule["num_alone"]))
        for rule in found["rules"]
        if rule["num_failed"]
    ]
    size = f"{found['sampled']:,} documents shown, {found['bytes'] / 1e6:.1f} MB"
    return [*lines, f"review page: {found['path']} ({size})"]


def coverage_lines(found: dict[str, Any]) -> list[str]:
    """A keyword library against its schema: totals, what lacks, what to look at."""
    lines = [f"{name}: {count:,} rows" for name, count in found["files"].items()]
    lacking = max(found["min_total"] - found["num_terms"], 0)
    age = "no term says when it was added" if found["newest"] is None else f"{found['age_days']:,} days old"
    lines += [
        "",
        f"{'':<8}{'terms':>8}{'wanted':>8}{'lack':>8}  newest      category",
        *(
            f"{each['category']:<8}{each['num_terms']:>8,}{each['min_terms']:>8,}{each['num_missing']:>8,}"
            f"  {each['newest'] or '':<10}  {each['name_zh']} ({each['name_en']})"
            for each in found["categories"]
        ),
        f"{'in all':<8}{found['num_terms']:>8,}{found['min_total']:>8,}{lacking:>8,}  {found['newest'] or ''}",
        "",
        f"schema {found['schema']}: {'covered' if found['is_met'] else 'not covered'}",
        f"newest term: {age}, wanted at most {found['max_age_days']} days: {'fresh' if found['is_fresh'] else 'not fresh'}",
    ]
    if found["num_elsewhere"]:
        lines.append(f"{found['num_elsewhere']:,} terms are of categories that the schema does not know")
    if found["num_undated"]:
        lines.append(f"{found['num_undated']:,} terms do not say when they were added")
    if found["num_future"]:
        lines.append(f"{found['num_future']:,} terms are said to be added after today")
    for name, says in (
        ("repeated", "are listed twice in a category once normalised"),
        ("in_several", "stand in several categories and count once in all"),
        ("innocent", "stand inside phrases that mean no harm: they hit such words elsewhere"),
    ):
        if found[name]["count"]:
            lines.append(f"{found[name]['count']:,} terms {says}, for example:")
            lines += [
                f"  {each['term']} ({each.get('category') or ', '.join(each['categories'])})"
                + (f" in {', '.join(each['inside'][:4])}" if "inside" in each else "")
                for each in found[name]["examples"][:5]
            ]
    return lines


def verify_lines(found: dict[str, Any]) -> list[str]:
    """What was read, and what is damaged."""
    head = f"{found['shards']:,} shards ({found['bytes'] / 1e6:,.1f} MB) and {found['model_files']} model files read"
    if not found["damaged"]:
        return [f"{head}: all whole"]
    lost = found["irreplaceable"]
    mendable = len(found["damaged"]) - len(lost)
    return [
        f"{head}: {len(found['damaged'])} damaged",
        *(f"  {name}" for name in found["damaged"]),
        *(["run the recipe again: what it made is made anew"] if mendable else []),
        *([f"put back from a copy, or crawl again, since no run can make them: {', '.join(lost)}"] if lost else []),
    ]


def doctor_lines(found: dict[str, Any]) -> list[str]:
    """A line a check."""
    lines = [f"{name}: {value}" for name, value in found["facts"].items()]
    for check in found["checks"]:
        advice = "" if check["ok"] else f"  wanted {check['wanted']}"
        lines.append(f"  {'ok  ' if check['ok'] else 'FAIL'} {check['name']}: {check['found']}{advice}")
    return lines


def _stage_table(stages: list[dict[str, Any]]) -> list[str]:
    rows = [
        f"{stage['name']:<14}{stage['shards']:>8,}{stage['computed']:>10,}{stage['reused']:>8,}{stage['seconds']:>9.1f}"
        for stage in stages
    ]
    return [f"{'stage':<14}{'shards':>8}{'computed':>10}{'reused':>8}{'seconds':>9}", *rows]


def _next_steps(found: dict[str, Any]) -> list[str]:
    workspace, programs = found["workspace"], Path(sys.executable).parent
    return [
        "Where to look next:",
        f"  {workspace}/reports/{found['recipe']}/data_card.md   the data card",
        f"  {workspace}/reports/{found['recipe']}/model/index.html   the model: curves, suites, ladder, samples",
        f"  {workspace}/reports/{found['recipe']}/review/index.html   what each rule drops and keeps, for a browser",
        f"  {programs}/mlflow ui --backend-store-uri sqlite:///{workspace}/mlflow.db   runs, curves, samples: choose 'Model training' at its top left",
        f"  {programs}/corpusmill explain URL     why a page was kept or dropped",
        f"  {programs}/corpusmill generate TEXT   let the model write",
    ]


def score_lines(found: dict[str, Any]) -> list[str]:
    """What two reviewers found."""
    verdict = "accepted" if found["is_accepted"] else "not accepted"
    rates = f"{found['pass_rate']:.2%} ({found['lower']:.2%} to {found['upper']:.2%})"
    head = f"{found['num_passed']:,} of {found['num_items']:,} pass: {rates}, kappa {found['kappa']}"
    return [f"{head}, {verdict} at {found['min_pass_rate']:.0%}"]
