"""What a model memorises: the exposure of planted canaries, and text of its training that it goes on with word for word.

Exposure (Carlini et al. 2019, "The Secret Sharer", section 4): log2 |R| - log2 rank, the rank of the planted secret by
loss among all R of its format. R has 2^32 here, so two estimates are given, both from the paper:

    exposure      by sampling: the rank among held-out secrets drawn as the planted one was, |R| being their number and
                  one; it cannot exceed log2 of that
    extrapolated  by a skew-normal distribution fitted to the held-out losses: -log2 of its share at or below the planted
                  loss, at most log2 of the true |R|. A figure for the eye: it believes in the tail of a distribution

The p-value is exact, whatever the model: had it not seen the canary, the planted secret and the held-out ones would be
exchangeable, since all were drawn alike, so a rank of r or better among n + 1 has the probability r / (n + 1) (a
randomisation test). `is_found` holds the chance of a single
false alarm among all canaries of a report below 5 % (Holm 1979).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm.evaluation.losses import Encode, Progress, continuation_losses, no_progress, split_pair
from llm.evaluation.statistics import Figure, mean_figure, share_figure
from llm.evaluation.suite import Suite, SuiteResult
from llm.model import GPT, KeyValueCache
from pipelines.digest import digest_value
from pipelines.errors import ConfigError

_LEVEL = 0.05
_MAX_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A planted secret and what it is compared with."""

    name: str
    language: str
    """BCP 47."""
    num_planted: int
    """Documents of the training split that hold it; 0 for a control."""
    context: str
    """What stands before the secret."""
    secret: str
    held_out: tuple[str, ...]
    """Secrets of the same format, drawn as the planted one was and not planted."""
    log2_space: float
    """log2 of the number of secrets that the format has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """How well a model knows a secret. See the module."""

    name: str
    language: str
    num_planted: int
    loss: float
    """Nats of the secret after its context."""
    median_loss: float
    """Of the held-out secrets."""
    rank: int
    """1: no held-out secret has a lower loss. Equal ones rank before it."""
    num_ranked: int
    """Held-out secrets and the planted one."""
    exposure: float
    """Bits, by sampling."""
    extrapolated: float
    """Bits, by the skew-normal distribution."""
    p_value: float
    is_found: bool


def exposures(
    model: GPT, probes: Sequence[Probe], encode: Encode, eot_token: int, progress: Progress = no_progress
) -> list[Exposure]:
    """The exposure of each canary, in order; `progress` counts probes.

    Raises ConfigError where so few secrets are held out that nothing could ever be found.
    """
    if short := [each for each in probes if (len(each.held_out) + 1) * _LEVEL < len(probes)]:
        raise ConfigError(
            f"got {len(short[0].held_out)} held-out secrets for {short[0].name}, wanted at least "
            f"{math.ceil(len(probes) / _LEVEL)} for a report on {len(probes)} canaries: draw more."
        )
    found = []
    for number, probe in enumerate(probes, 1):
        pairs = [split_pair(encode, eot_token, probe.context, secret) for secret in (probe.secret, *probe.held_out)]
        found.append(_exposure(probe, continuation_losses(model, pairs)))
        progress(number, len(probes))
    is_found = holm([each.p_value for each in found])
    return [replace(each, is_found=is_real) for each, is_real in zip(found, is_found, strict=True)]


def exposure_suite(found: Sequence[Exposure], *, dataset_digest: str) -> SuiteResult:
    """Exposures as a suite: the share of canaries that are found, and by count and language the mean exposure.

    `p_value/...` of a count is its canary's exact one; where it has several, theirs together (Fisher 1925). `dataset_digest`
    is that of the plan.
    """
    suite = Suite(
        name="canaries",
        version=1,
        protocol="exposure of planted secrets by rank among held-out ones of their format",
        metric="share_found",
        higher_is_better=False,
        dataset_digest=dataset_digest,
        noise_floor=0.0,
        target=0.0,
    )
    num_found = sum(each.is_found for each in found)
    figures = {"share_found": share_figure(num_found, len(found))}
    for name, group in _groups(found).items():
        figures[f"exposure/{name}"] = mean_figure([each.exposure for each in group])
        p_value = fisher([each.p_value for each in group])
        figures[f"p_value/{name}"] = Figure(value=p_value, low=None, high=None, num_items=len(group))
    # Of a secret that was never seen, any rank is as likely: the mean of log2(n / rank) is near log2(e).
    if found:
        ranks = np.arange(1, found[0].num_ranked + 1)
        figures["baseline/unseen_exposure"] = Figure(
            value=float(np.log2(ranks.size / ranks).mean()), low=None, high=None, num_items=0
        )
    items = [{"id": each.name, "score": float(each.is_found), **asdict(each)} for each in found]
    return SuiteResult(suite=suite, figures=figures, items=items)


def holm(p_values: Sequence[float], level: float = _LEVEL) -> list[bool]:
    """Which are significant, so that the chance of one wrong among all is at most `level` (Holm 1979)."""
    found = [False] * len(p_values)
    for step, idx in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[idx] > level / (len(p_values) - step):
            break
        found[idx] = True
    return found


def fisher(p_values: Sequence[float]) -> float:
    """Of independent tests together: the tail of chi-squared with 2k degrees at -2 sum ln p (Fisher 1925)."""
    half = -sum(math.log(each) for each in p_values)
    term, total = 1.0, 0.0
    for idx in range(len(p_values)):
        term = term * half / idx if idx else 1.0
        total += term
    return min(1.0, math.exp(-half) * total)


def skew_normal_log2_share(losses: NDArray[np.float64], at: float) -> float:
    """log2 of the share at or below `at` of the skew-normal distribution with the losses' first three moments.

    By moments (Azzalini 1985), as the skewness of n draws; integrated numerically in logarithms, so that a far tail does
    not vanish. Losses that are all equal have all of it at or below theirs.
    """
    mean, std = float(losses.mean()), float(losses.std())
    if std < 1e-12:
        return 0.0 if at >= mean else -math.inf
    skewness = float(np.clip(((losses - mean) ** 3).mean() / std**3, -0.99, 0.99))  # the family reaches 0.9953
    third = abs(skewness) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * third / (third + ((4 - math.pi) / 2) ** (2 / 3))), skewness)
    alpha = delta / math.sqrt(1 - delta * delta)
    scale = std / math.sqrt(1 - 2 * delta * delta / math.pi)
    end = (at - (mean - scale * delta * math.sqrt(2 / math.pi))) / scale
    points = torch.linspace(end - 40, end, 80_001, dtype=torch.float64)
    logs = math.log(2) - points**2 / 2 - math.log(2 * math.pi) / 2 + torch.special.log_ndtr(alpha * points)
    logs[[0, -1]] -= math.log(2)  # the trapezoid rule
    share = torch.logsumexp(logs, dim=0) + math.log(40 / 80_000)
    return min(0.0, float(share) / math.log(2))


def _exposure(probe: Probe, losses: NDArray[np.float64]) -> Exposure:
    planted, held_out = float(losses[0]), losses[1:]
    rank = 1 + int((held_out <= planted).sum())
    return Exposure(
        name=probe.name,
        language=probe.language,
        num_planted=probe.num_planted,
        loss=planted,
        median_loss=float(np.median(held_out)),
        rank=rank,
        num_ranked=losses.size,
        exposure=math.log2(losses.size) - math.log2(rank),
        extrapolated=min(probe.log2_space, -skew_normal_log2_share(held_out, planted)),
        p_value=rank / losses.size,
        is_found=False,
    )


def _groups(found: Sequence[Exposure]) -> dict[str, list[Exposure]]:
    groups: dict[str, list[Exposure]] = {}
    for each in sorted(found, key=lambda each: (each.language, each.num_planted)):
        groups.setdefault(f"{each.language}/{each.num_planted}", []).append(each)
    return groups


# Verbatim extraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Tokens of a document: what is shown to the model, and how it goes on."""

    doc_id: str
    ids: tuple[int, ...]
    """prefix_tokens and after them continuation_tokens."""
    group: str
    """What extraction is counted by: `2-3` copies, `held out`."""


def excerpts(
    documents: Iterable[tuple[str, Sequence[int] | NDArray[Any]]],
    groups: Mapping[str, str],
    *,
    prefix_tokens: int,
    continuation_tokens: int,
    max_per_group: int,
    seed: int = 0,
) -> list[Excerpt]:
    """An excerpt of each document that is long enough, at a place drawn by the seed; at most so many a group.

    `documents` are (doc_id, ids); `groups` says by doc_id what each counts for, others are left out. Which are taken hangs
    on doc_id and seed alone.
    """
    length = prefix_tokens + continuation_tokens
    if prefix_tokens < 1 or continuation_tokens < 1:
        raise ConfigError(
            f"got excerpts of {prefix_tokens} and {continuation_tokens} tokens, wanted at least one of each: correct it."
        )
    found: dict[str, list[tuple[str, Excerpt]]] = {}
    for doc_id, ids in documents:
        if doc_id in groups and len(ids) >= length:
            order = digest_value([seed, doc_id])
            start = int(order[:12], 16) % (len(ids) - length + 1)
            taken = tuple(int(token) for token in ids[start : start + length])
            group = found.setdefault(groups[doc_id], [])
            group.append((order, Excerpt(doc_id=doc_id, ids=taken, group=groups[doc_id])))
            if len(group) > 2 * max_per_group:  # so that memory does not grow with the corpus
                group[:] = _first(group, max_per_group)
    return [each for group in sorted(found) for _, each in _first(found[group], max_per_group)]


def _first(group: Sequence[tuple[str, Excerpt]], num: int) -> list[tuple[str, Excerpt]]:
    return sorted(group, key=lambda pair: pair[0])[:num]


def extraction(
    model: GPT,
    taken: Sequence[Excerpt],
    *,
    prefix_tokens: int,
    dataset_digest: str,
    progress: Progress = no_progress,
) -> SuiteResult:
    """The share of excerpts that the model goes on with word for word, the likeliest token each time, by group.

    Extractable with k tokens of context (Carlini et al. 2023, arXiv:2202.07646, with k = 50 and 50 more). The figure is
    over all groups but `held out`, which the model has not seen: what it gets right there, it could guess.
    `dataset_digest` is that of the documents.
    """
    if any(len(each.ids) > model.config.block_size for each in taken):
        raise ConfigError(
            f"got excerpts of {max(len(each.ids) for each in taken)} tokens, wanted at most the model's block_size of "
            f"{model.config.block_size}: take fewer."
        )
    items = []
    for start in range(0, len(taken), _MAX_BATCH):
        batch = taken[start : start + _MAX_BATCH]
        for each, num_equal in zip(batch, _num_equal(model, [each.ids for each in batch], prefix_tokens), strict=True):
            wanted = len(each.ids) - prefix_tokens
            items.append(
                {
                    "id": each.doc_id,
                    "score": float(num_equal == wanted),
                    "group": each.group,
                    "num_equal": num_equal,
                    "num_wanted": wanted,
                }
            )
        progress(len(items), len(taken))
    suite = Suite(
        name="extraction",
        version=1,
        protocol=f"greedy continuation of {prefix_tokens} tokens of a document equals its next ones",
        metric="share_extracted",
        higher_is_better=False,
        dataset_digest=dataset_digest,
        noise_floor=0.0,
        target=0.0,
    )
    return SuiteResult(suite=suite, figures=_shares(items), items=items)


HELD_OUT = "held out"
"""The group of documents that the model was not trained on."""


def _shares(items: Sequence[Mapping[str, object]]) -> dict[str, Figure]:
    def share(chosen: Sequence[Mapping[str, object]]) -> Figure:
        return share_figure(sum(each["score"] == 1 for each in chosen), len(chosen))

    figures = {"share_extracted": share([each for each in items if each["group"] != HELD_OUT])}
    for group in sorted({str(each["group"]) for each in items} - {HELD_OUT}):
        figures[f"share_extracted/{group}"] = share([each for each in items if each["group"] == group])
    held_out = [each for each in items if each["group"] == HELD_OUT]
    if held_out:
        figures["baseline/held_out"] = share(held_out)
    return figures


def _num_equal(model: GPT, ids: Sequence[Sequence[int]], prefix_tokens: int) -> list[int]:
    """How many tokens after the prefix are chosen as they stand, of sequences of equal length."""
    model.eval()
    wanted = torch.tensor(ids, device=model.wte.weight.device)  # (B, T)
    cache, unread = KeyValueCache(), wanted[:, :prefix_tokens]
    still = torch.ones(len(ids), dtype=torch.bool, device=wanted.device)
    counts = torch.zeros(len(ids), dtype=torch.long, device=wanted.device)
    for place in range(prefix_tokens, wanted.size(1)):
        with torch.inference_mode():
            token = model.logits(model.states(unread, cache=cache)[:, -1]).argmax(dim=-1)  # (B,)
        still = still & (token == wanted[:, place])
        counts += still
        if not still.any():
            break
        unread = token[:, None]
    return [int(each) for each in counts.tolist()]
