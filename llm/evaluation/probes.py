"""Template probes: what a model ties to groups of people, measured in sentences that differ in the group alone.

Each axis has groups, attributes in two poles (jobs held mostly by men or by women, pleasant or unpleasant traits) and
templates. Every sentence is scored as a whole. Two things are told of a group, in nats a sentence:

    gap          how much likelier sentences with it are than those with the mean group in the same template and with the
                 same attribute. This is mostly how often the group is spoken of
    association  how much more it leans to the first pole than the mean group does: the gap with the one pole's attributes
                 less that with the other's. How common a group or an attribute is cancels out; 0 is no association

As GPT-3's occupation probes (arXiv:2005.14165, section 6.2), in the form of a word association test (Caliskan et al. 2017,
arXiv:1608.07187). Intervals are bootstraps over templates and attributes at once (Owen 2007, the pigeonhole bootstrap,
arXiv:0712.1111), since both were chosen by us and others might have been. `share_associated` counts groups whose
association is real at 5 % over all groups of the axis (Bonferroni): fewer than that are found by chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.losses import Encode, Progress, no_progress, text_losses
from llm.evaluation.statistics import NUM_DRAWS, Figure, share_figure
from llm.evaluation.suite import Suite, SuiteResult
from llm.model import GPT
from pipelines.digest import digest_value
from pipelines.errors import ConfigError

_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """What is probed in one language."""

    name: str
    """Such as `gender`."""
    language: str
    groups: Mapping[str, Mapping[str, str]]
    """By name, the forms that stand in the templates' slots."""
    poles: Mapping[str, Sequence[str]]
    """Two, by name: attributes."""
    templates: Sequence[str]
    """With `{attribute}` and slots of the groups."""

    def __post_init__(self) -> None:
        if len(self.poles) != 2 or len(self.groups) < 2 or not self.templates or not all(self.poles.values()):
            raise ConfigError(
                f"got the axis {self.name!r} with {len(self.groups)} groups, {len(self.poles)} poles and "
                f"{len(self.templates)} templates, wanted at least two groups, two poles that are not empty, and a template."
            )

    def sentence(self, template: str, group: str, attribute: str) -> str:
        """A template filled; it begins with a capital."""
        text = template.format(attribute=attribute, **self.groups[group])
        return text[:1].upper() + text[1:]


def probe_axis(model: GPT, axis: Axis, encode: Encode, eot_token: int, progress: Progress = no_progress) -> SuiteResult:
    """Gaps and associations of each group of an axis. See the module."""
    attributes = [attribute for pole in axis.poles.values() for attribute in pole]
    texts = [
        axis.sentence(template, group, attribute)
        for template in axis.templates
        for group in axis.groups
        for attribute in attributes
    ]
    shape = (len(axis.templates), len(axis.groups), len(attributes))
    likelihoods = -text_losses(model, encode, eot_token, texts, progress).reshape(shape)
    gaps = likelihoods - likelihoods.mean(axis=1, keepdims=True)  # (templates, groups, attributes)
    num_first = len(next(iter(axis.poles.values())))
    suite = Suite(
        name=f"probes_{axis.name}_{axis.language}",
        version=1,
        protocol="log-likelihood of sentences that differ in the group alone, by pole of the attributes",
        metric="share_associated",
        higher_is_better=False,
        dataset_digest=digest_value([axis, list(axis.poles)]),
        noise_floor=0.0,
        target=0.0,
        language=axis.language,
    )
    level = _LEVEL / len(axis.groups)
    figures, associated = {}, {}
    for place, group in enumerate(axis.groups):
        figures[f"gap/{group}"], _ = _figure(gaps[:, place], None, level)
        figures[f"association/{group}"], associated[group] = _figure(gaps[:, place], num_first, level)
    figures["share_associated"] = share_figure(sum(associated.values()), len(associated))
    figures["baseline/random"] = Figure(value=0.0, low=None, high=None, num_items=len(associated))
    items = [
        {
            "id": group,
            "score": float(is_real),
            "gap_nats": figures[f"gap/{group}"].value,
            "association_nats": figures[f"association/{group}"].value,
            "leans_to": _leaning(axis, figures[f"association/{group}"].value) if is_real else None,
            "by_template": {
                template: _association(gaps[row : row + 1, place], num_first)
                for row, template in enumerate(axis.templates)
            },
        }
        for place, (group, is_real) in enumerate(associated.items())
    ]
    return SuiteResult(suite=suite, figures=figures, items=items)


def _leaning(axis: Axis, association: float) -> str:
    first, second = axis.poles
    return first if association > 0 else second


def _association(gaps: NDArray[np.float64], num_first: int) -> float:
    return float(gaps[:, :num_first].mean() - gaps[:, num_first:].mean())


def _figure(gaps: NDArray[np.float64], num_first: int | None, level: float) -> tuple[Figure, bool]:
    """The mean of (templates, attributes), or between poles, with its interval; whether 0 is out at `level`, too."""
    generator = np.random.default_rng(0)
    num_templates, num_attributes = gaps.shape
    rows = generator.multinomial(num_templates, np.full(num_templates, 1 / num_templates), NUM_DRAWS) / num_templates
    poles = (
        [(0, num_attributes, 1.0)] if num_first is None else [(0, num_first, 1.0), (num_first, num_attributes, -1.0)]
    )
    value, drawn = 0.0, np.zeros(NUM_DRAWS)
    for start, end, sign in poles:
        size = end - start
        columns = generator.multinomial(size, np.full(size, 1 / size), NUM_DRAWS) / size
        value += sign * float(gaps[:, start:end].mean())
        drawn += sign * np.einsum("dt,ta,da->d", rows, gaps[:, start:end], columns, optimize=True)
    low, high = np.percentile(drawn, [100 * _LEVEL / 2, 100 * (1 - _LEVEL / 2)])
    least, most = np.percentile(drawn, [100 * level / 2, 100 * (1 - level / 2)])
    # Rounding is no association: groups that read alike differ in the last digits of fp32.
    is_real = not least <= 0 <= most and abs(value) > 1e-4
    return Figure(value=value, low=float(low), high=float(high), num_items=gaps.size), bool(is_real)
