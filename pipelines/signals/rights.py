"""May this page be used to train a model? What its own headers and meta tags say, and its licence.

Sources read: X-Robots-Tag and robots meta tags (`noai` as img2dataset and DeviantArt use it),
TDMRep (W3C TDM Reservation Protocol), AIPREF `Content-Usage` (draft-ietf-aipref-vocab, an RFC 9651
dictionary), Cloudflare `Content-Signal`. What robots.txt says was decided when the page was fetched.

`noindex` and `none` count as a reservation, as in img2dataset: who does not want a page in a public
index has not offered it to a corpus. `noimageai` is not about text; `noarchive` and `nofollow` are not about training.
"""

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

_OWN_AGENTS = frozenset({"*", "corpusmill"})
_RESERVATIONS = frozenset({"noai", "noindex", "none"})
_ROBOTS_TOKENS_WITH_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})


def judge(directives: Sequence[str]) -> tuple[str, list[str]]:
    """Verdict on training (`allow`, `disallow` or `unknown`) and the directives it rests on.

    A directive is `source: value`. Any disallow wins, then any allow; `unknown` rests on those
    that could not be understood. Other sources and labels are ignored. A valid TDMRep meta tag
    overrides the TDMRep header (TDMRep, section 5).
    """
    evidence: dict[str, list[str]] = {"disallow": [], "allow": [], "unknown": []}
    sources = [(source.strip().lower(), value.strip()) for source, _, value in (d.partition(":") for d in directives)]
    tdm_meta = any(source == "meta tdm-reservation" and value in ("0", "1") for source, value in sources)
    for directive, (source, value) in zip(directives, sources, strict=True):
        if source in _READERS and not (source == "tdm-reservation" and tdm_meta):
            verdict = _READERS[source](value)
            if verdict is not None:
                evidence[verdict].append(directive)
    for verdict in ("disallow", "allow"):
        if evidence[verdict]:
            return verdict, evidence[verdict]
    return "unknown", evidence["unknown"]


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


def _tdm(value: str) -> str | None:
    return {"1": "disallow", "0": "allow"}.get(value, "unknown")


def _content_usage(value: str) -> str | None:
    members = parse_dictionary(value)
    if members is None:
        return "unknown"
    if "train-ai" not in members:
        return None
    return {"y": "allow", "n": "disallow"}.get(members["train-ai"], "unknown")


def _content_signal(value: str) -> str | None:
    pairs = (part.partition("=") for part in value.lower().split(","))
    signals = [signal.strip() for key, _, signal in pairs if key.strip() == "ai-train"]
    if "no" in signals:
        return "disallow"
    if not signals:
        return None
    return "allow" if set(signals) == {"yes"} else "unknown"


_READERS: dict[str, Callable[[str], str | None]] = {
    "x-robots-tag": _robots,
    "meta robots": _robots,
    "meta corpusmill": _robots,
    "tdm-reservation": _tdm,
    "meta tdm-reservation": _tdm,
    "content-usage": _content_usage,
    "content-signal": _content_signal,
}
"""Each reads a value: allow, disallow, None where it says nothing on training, unknown where it is not understood."""

_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\"\\])*\""
    r"|%\"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*\"|:[A-Za-z0-9+/=]*:|\?[01]"
    r"|[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*)"
)
_PARAMETERS = rf"(?:;\ *{_KEY}(?:={_BARE_ITEM})?)*"
_ITEM = rf"{_BARE_ITEM}{_PARAMETERS}"
_INNER_LIST = rf"\(\ *(?:{_ITEM}(?:\ +{_ITEM})*)?\ *\){_PARAMETERS}"
_MEMBER = re.compile(rf"({_KEY})(?:=(?:({_BARE_ITEM}){_PARAMETERS}|{_INNER_LIST})|{_PARAMETERS})")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def parse_dictionary(value: str) -> dict[str, str] | None:
    """An RFC 9651 dictionary: key -> bare item as written ("" for a lone key or an inner list), the last of equal keys.

    None where the value is not one: such a field counts as absent as a whole.
    """
    members: dict[str, str] = {}
    value = value.strip(" ")
    pos = 0
    while pos < len(value):
        member = _MEMBER.match(value, pos)
        if member is None:
            return None
        members[member[1]] = member[2] or ""
        pos = member.end()
        if pos == len(value):
            break
        comma = _COMMA.match(value, pos)
        if comma is None or comma.end() == len(value):
            return None
        pos = comma.end()
    return members


_CREATIVE_COMMONS = re.compile(
    r"/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)/(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)|publicdomain/(zero|mark)/1\.0)(?:/.*)?"
)
_LICENSE_PAGES = (
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?(a?gpl|lgpl)-([123]\.[0-3])"), "{}-{}"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?fdl-(1\.[1-3])"), "gfdl-{}"),
    (re.compile(r"apache\.org/licenses/license-(1\.1|2\.0)"), "apache-{}"),
    (re.compile(r"opensource\.org/licenses?/([\w.-]+)"), "{}"),
    (re.compile(r"spdx\.org/licenses/([\w.+-]+)"), "{}"),
    (re.compile(r"mozilla\.org/(?:[\w-]+/)?mpl/(1\.1|2\.0)"), "mpl-{}"),
    (re.compile(r"nationalarchives\.gov\.uk/doc/open-government-licence/version/([123])"), "ogl-uk-{}.0"),
    (re.compile(r"unlicense\.org"), "unlicense"),
)
"""Address of a licence's page, in lower case, without www. and the file's ending; the name it gives."""

_SPDX_IDS = (
    "MIT",
    "MIT-0",
    "ISC",
    "Zlib",
    "Unlicense",
    "0BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Apache-1.1",
    "Apache-2.0",
    "MPL-1.1",
    "MPL-2.0",
    "EPL-1.0",
    "EPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "GFDL-1.1-only",
    "GFDL-1.1-or-later",
    "GFDL-1.2-only",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "Artistic-2.0",
    "BSL-1.0",
    "PostgreSQL",
    "Python-2.0",
    "PSF-2.0",
    "OFL-1.1",
    "CC0-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-2.0",
    "CC-BY-SA-2.5",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-NC-ND-4.0",
    "OGL-UK-1.0",
    "OGL-UK-2.0",
    "OGL-UK-3.0",
)
_ALIASES = {"mit-license": "MIT", "isc-license": "ISC", "bsd-license": "BSD-2-Clause"}
_SPDX_BY_NAME = {name.lower().removesuffix("-only"): name for name in _SPDX_IDS if name.endswith("-only")}
_SPDX_BY_NAME |= {name.lower(): name for name in _SPDX_IDS} | _ALIASES
_FILE_ENDING = re.compile(r"(?:\.[a-z]{2})?\.(?:html?|txt|php)$")


def spdx(license_url: str | None) -> str | None:
    """SPDX identifier of a licence given by its URL; None where the URL names none that is known.

    The port of a Creative Commons licence to a country (`/3.0/us/`) is dropped. A GNU licence reads
    as `-only`: the link does not say "or later".
    """
    if license_url is None:
        return None
    try:
        url = urlsplit(license_url.strip().lower())
        host = (url.hostname or "").removeprefix("www.")
    except ValueError:
        return None
    path = url.path.rstrip("/")
    if host == "creativecommons.org":
        return _creative_commons(path)
    page = host + _FILE_ENDING.sub("", path)
    for pattern, name in _LICENSE_PAGES:
        if match := pattern.fullmatch(page):
            return _SPDX_BY_NAME.get(name.format(*match.groups()))
    return None


def _creative_commons(path: str) -> str | None:
    match = _CREATIVE_COMMONS.fullmatch(path)
    if match is None:
        return None
    if match[3]:
        return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}[match[3]]
    kind = match[1].replace("nd-nc", "nc-nd").upper()
    return f"CC-{kind}-{match[2]}"
