"""The registrable domain of a host, by the public suffix list that comes with tldextract; nothing is fetched.

tldextract imports an HTTP client and builds a tree of ten thousand rules, a seventh of a second for the few hosts that a
run asks about. So its rules are kept as a table once a machine, and looked up in the order in which its tree is walked.
"""

import functools
from collections.abc import Sequence

import numpy as np

from pipelines.crawl.address import is_address
from pipelines.kept import Array, kept_arrays

_DOTS = "\u3002\uff0e\uff61"
"""That count as one in a host name (RFC 3490)."""

_MODULES = ("pipelines.public_suffixes", "pipelines.crawl.address", "pipelines.errors")

_Rules = tuple[frozenset[str], frozenset[str]]
"""The rules, and whatever a longer rule ends in."""


def registrable_domain(host: str, *, below_platforms: bool) -> str:
    """`example.co.uk` of `www.example.co.uk`; an address or a bare name is its own domain.

    `below_platforms`: suffixes that the list calls private count, too, so that of `x.a.github.io` it is `a.github.io`.
    """
    if "." not in host or is_address(host):
        return host
    labels = host.partition(":")[0].strip().translate(str.maketrans(_DOTS, "...")).rstrip(".").split(".")
    start = _suffix_start([_as_listed(label) for label in labels], _rules(below_platforms=below_platforms))
    if 0 < start < len(labels) and labels[start - 1]:
        return ".".join(labels[start - 1 :])
    return ".".join(
        host.split(".")[-2:]
    )  # a suffix that is not on the list counts as one label: the list's default rule


def _suffix_start(labels: Sequence[str], rules: _Rules) -> int:
    """The first label of the public suffix; beyond the last one where no rule fits."""
    listed, tails = rules
    found, parent = len(labels), ""
    for place in reversed(range(len(labels))):
        name = f"{labels[place]}.{parent}" if parent else labels[place]
        if name not in listed and name not in tails:
            if parent and f"*.{parent}" in listed:
                return place + (f"!{name}" in listed)
            break
        if name in listed:
            found = place
        parent = name
    return found


def _as_listed(label: str) -> str:
    """A label in lower case and in Unicode, as the list has it."""
    label = label.lower()
    if not label.startswith("xn--"):
        return label
    import idna

    try:
        return idna.decode(label)
    except (UnicodeError, IndexError):
        return label


@functools.cache
def _rules(*, below_platforms: bool) -> _Rules:
    made = kept_arrays("suffixes", _made_rules, modules=_MODULES, libraries=("tldextract",))
    names = ("rules_below_platforms", "tails_below_platforms") if below_platforms else ("rules", "tails")
    rules, tails = (frozenset(made[name].tobytes().decode().split()) for name in names)
    return rules, tails


def _made_rules() -> dict[str, Array]:
    from tldextract import TLDExtract

    tables = {}
    for ending, is_private in (("", False), ("_below_platforms", True)):
        rules = set(TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=is_private).tlds)
        tails = {rule.split(".", cut)[-1] for rule in rules for cut in range(1, rule.count(".") + 1)} - rules
        for name, values in (("rules", rules), ("tails", tails)):
            tables[name + ending] = np.frombuffer("\n".join(sorted(values)).encode(), np.uint8)
    return tables
