"""May this page be used to train a model? What its site, its headers, its elements and its licence say together.

A directive is `source: value`. Sources read:

- `x-robots-tag`, `meta robots`, `meta corpusmill`: `noai` as img2dataset and DeviantArt use it. `noindex` and `none`
  count too: who does not want a page in a public index has not offered it to a corpus. `noimageai` is not about text;
  `noarchive` and `nofollow` are not about training.
- `tdmrep.json`, `tdm-reservation`, `meta tdm-reservation`: TDMRep (W3C). A valid value in the page goes before one in
  the header, which goes before the file; a value other than 0 and 1 sets and resets nothing.
- `content-usage`, `robots.txt content-usage`: AIPREF (draft-ietf-aipref-vocab), an RFC 9651 dictionary.
- `content-signal`, `robots.txt content-signal`: Cloudflare's Content Signals.
- `ai.txt` (Spawning), `rsl` and `rsl link` (RSL 1.0), `license`.
- `unread`: a file of the site that could not be read. It may reserve everything, so it counts as if it did.

An RSL document that is named and that nobody has read, or whose terms depend on who one is, never lets the verdict
become `allow`. A licence allows where every one the page names is known and open. `robots.txt ai-agents` is evidence
of another kind, for whoever wants it to count: `blocked_ai_agents`.
"""

import re
from collections.abc import Callable, Sequence

from pipelines.rights.licenses import is_open, spdx
from pipelines.rights.structured_fields import parse_dictionary

_OWN_AGENTS = frozenset({"*", "corpusmill"})
_RESERVATIONS = frozenset({"noai", "noindex", "none"})
_ROBOTS_TOKENS_WITH_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_TDM_RANK = {"meta tdm-reservation": 2, "tdm-reservation": 1, "tdmrep.json": 0}
_OPEN = "open"
"""A condition that nobody has settled: what else allows does not."""


def judge(directives: Sequence[str]) -> tuple[str, list[str]]:
    """Verdict on training (`allow`, `disallow` or `unknown`) and the directives it rests on.

    Any disallow wins, then a condition left open, then any allow; `unknown` rests on those that could not be
    understood or settled. Other sources and labels are ignored. The order of directives never matters.
    """
    evidence: dict[str, list[str]] = {"disallow": [], _OPEN: [], "allow": [], "unknown": []}
    sources = [(source.strip().lower(), value.strip()) for source, _, value in (d.partition(":") for d in directives)]
    tdm_rank = max((_TDM_RANK[source] for source, value in sources if _is_valid_tdm(source, value)), default=-1)
    is_licensed_openly = all(_is_open_license(value) for source, value in sources if source == "license")
    for directive, (source, value) in zip(directives, sources, strict=True):
        if source == "license":
            verdict: str | None = "allow" if is_licensed_openly else "unknown"
        elif source == "rsl link":
            verdict = None if any(_is_on(document, value) for document in sources) else _OPEN
        elif source in _READERS and _TDM_RANK.get(source, tdm_rank) >= tdm_rank:
            verdict = _READERS[source](value)
        else:
            verdict = None
        if verdict is not None:
            evidence[verdict].append(directive)
    if evidence["disallow"]:
        return "disallow", evidence["disallow"]
    if evidence["allow"] and not evidence[_OPEN]:
        return "allow", evidence["allow"]
    return "unknown", [*evidence[_OPEN], *evidence["unknown"]]


def blocked_ai_agents(directives: Sequence[str]) -> tuple[str, ...]:
    """Product tokens of the crawlers for training data that robots.txt shuts out of the page, each once."""
    found: dict[str, None] = {}
    for directive in directives:
        source, _, value = directive.partition(":")
        if source.strip().lower() == "robots.txt ai-agents":
            found.update(dict.fromkeys(filter(None, (agent.strip() for agent in value.split(",")))))
    return tuple(found)


def content_usage(value: str) -> str | None:
    """What an AIPREF preference says of `train-ai`: allow, disallow, unknown (not understood), None (nothing)."""
    members = parse_dictionary(value)
    if members is None:
        return "unknown"
    if "train-ai" not in members:
        return None
    return {"y": "allow", "n": "disallow"}.get(members["train-ai"], "unknown")


_AI_TRAIN = re.compile(r"(?<![\w-])ai-train\s*=\s*([^\s,;]*)")


def content_signal(value: str) -> str | None:
    """What a Content-Signal says of `ai-train`: allow, disallow, unknown (not understood), None (nothing)."""
    signals = set(_AI_TRAIN.findall(value.lower()))
    if "no" in signals:
        return "disallow"
    if not signals:
        return None
    return "allow" if signals == {"yes"} else "unknown"


def split_path(value: str) -> tuple[str, str]:
    """Path and preference of a rule in robots.txt, `[path 1*WS] preference`; the path is empty where there is none."""
    if not value.startswith("/"):
        return "", value
    path, *rest = value.split(None, 1)
    return path, "".join(rest)


def _robots(value: str) -> str | None:
    """`[agent:] token[, token]`: an agent prefix holds until the next one; without one, everybody is meant."""
    addressed_to_us = True
    for part in value.lower().split(","):
        token = part.strip()
        name, colon, rest = token.partition(":")
        if colon and name.strip() not in _ROBOTS_TOKENS_WITH_VALUE:
            addressed_to_us = name.strip() in _OWN_AGENTS
            token = rest.strip()
        if addressed_to_us and token in _RESERVATIONS:
            return "disallow"
    return None


def _tdm(value: str) -> str:
    return {"1": "disallow", "0": "allow"}.get(value, "unknown")


def _tdmrep(value: str) -> str:
    return _tdm(value.partition(" ")[0])  # the location follows


def _is_valid_tdm(source: str, value: str) -> bool:
    return source in _TDM_RANK and _READERS[source](value) != "unknown"


def _ai_txt(value: str) -> str | None:
    return {"disallow": "disallow", "allow": "allow"}.get(value.partition(":")[0].strip().lower(), "unknown")


_RSL = {
    "prohibits": "disallow",
    "payment": "disallow",
    "server": "disallow",
    "permits": "allow",
    "silent": None,
}


def _rsl(value: str) -> str | None:
    return _RSL.get(re.split(r"[\s,]", value, maxsplit=1)[0].lower(), _OPEN)  # `missing`, `restricted user`


def _is_on(directive: tuple[str, str], document_url: str) -> bool:
    """Whether a directive is what an RSL document said, or that it could not be read."""
    source, value = directive
    if source == "rsl":
        return value.endswith(f"({document_url})")
    return source == "unread" and value.startswith(f"rsl {document_url}")


def _is_open_license(value: str) -> bool:
    name = spdx(value)
    return name is not None and is_open(name)


_READERS: dict[str, Callable[[str], str | None]] = {
    "x-robots-tag": _robots,
    "meta robots": _robots,
    "meta corpusmill": _robots,
    "tdmrep.json": _tdmrep,
    "tdm-reservation": _tdm,
    "meta tdm-reservation": _tdm,
    "content-usage": content_usage,
    "robots.txt content-usage": lambda value: content_usage(split_path(value)[1]),
    "content-signal": content_signal,
    "robots.txt content-signal": lambda value: content_signal(split_path(value)[1]),
    "ai.txt": _ai_txt,
    "rsl": _rsl,
    "unread": lambda _: "disallow",
}
"""Each reads a value: allow, disallow, None where it says nothing on training, unknown where it is not understood."""
