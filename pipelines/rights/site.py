"""What the files of a site say of one of its URLs: robots.txt, tdmrep.json, ai.txt, and RSL documents.

Read once, then asked for every URL of the site. The answers go with the page, so each is a few short lines whatever
the files hold: of several rules that say the same, the first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urldefrag, urljoin, urlsplit

from pipelines.rights.ai_txt import AiTxt
from pipelines.rights.patterns import PatternIndex, path_of
from pipelines.rights.robots_txt import AccessRules, RobotsTxt
from pipelines.rights.rsl import MAX_URL_NUM_CHARS, RslDocument, is_html, missing, unread
from pipelines.rights.tdmrep import TdmRep
from pipelines.rights.verdict import content_signal, content_usage, split_path

MAX_RSL_DOCUMENTS = 3
"""More are not asked for: they count as unread."""
_TDMREP = "/.well-known/tdmrep.json"
_AI_TXT = "/ai.txt"
_MAX_AI_TXT_NUM_CHARS = 500 * 1024
_MAX_VALUE_NUM_CHARS = 1000
"""A longer preference is none that anybody wrote in earnest; cut, it could mean something else."""
_MAX_PATTERN_NUM_CHARS = 300

_Rules = PatternIndex[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteFile:
    """What asking for one file of a site gave."""

    url: str
    """As `site_file_urls` named it."""
    text: str | None
    """None, with no problem: there is no such file (4xx)."""
    problem: str | None
    """Why it could not be read: `answered 503`. It then counts as a reservation."""


def site_file_urls(origin: str, robots_text: str | None, product_token: str) -> tuple[str, ...]:
    """What to ask an origin (`https://a.example`) for besides robots.txt; http and https only.

    tdmrep.json, ai.txt, and the first three RSL documents that License lines of robots.txt name, here or elsewhere.
    """
    origin = origin.rstrip("/")
    robots = RobotsTxt.parse(robots_text or "")
    documents = _document_urls(origin, robots, product_token)[:MAX_RSL_DOCUMENTS]
    return (origin + _TDMREP, origin + _AI_TXT, *documents)


class SiteRights:
    """The files of one origin, parsed."""

    def __init__(
        self,
        origin: str,
        robots_text: str | None,
        product_token: str,
        ai_agents: Sequence[str],
        files: Sequence[SiteFile],
    ) -> None:
        """Read the files; content of any kind is survived.

        `robots_text` is None where there is no robots.txt. `ai_agents` are product tokens whose exclusion is noted.
        `files` are the answers to `site_file_urls`; of one that is not among them nothing is said, but for an RSL
        document, whose conditions then stay open. A page of HTML in place of a file means that there is none.
        """
        origin = origin.rstrip("/")
        robots = RobotsTxt.parse(robots_text or "")
        records = robots.records_for(product_token)
        # Of Content-Signal rules only those on training take part: "absent" neither grants nor restricts.
        self._signals = _rules(records, "Content-Signal", content_signal, is_silence_a_rule=False)
        self._usages = _rules(records, "Content-Usage", content_usage, is_silence_a_rule=True)
        self._agents = _agent_rules(robots, ai_agents)
        self._always: list[str] = []
        self._tdmrep: TdmRep | None = None
        self._ai_txt: AiTxt | None = None
        self._documents: list[RslDocument] = []
        by_url = {file.url: file for file in files}
        self._read_tdmrep(by_url.get(origin + _TDMREP))
        self._read_ai_txt(by_url.get(origin + _AI_TXT), product_token)
        for number, url in enumerate(_document_urls(origin, robots, product_token)):
            if number < MAX_RSL_DOCUMENTS:
                self._read_rsl(url, by_url.get(url))
            else:
                self._always.append(unread(url, f"is one of more than {MAX_RSL_DOCUMENTS} documents"))
                break

    def directives(self, url: str) -> tuple[str, ...]:
        """Lines on one URL of the origin, in a fixed order, each once."""
        path = path_of(url)
        lines = [
            *_governing("robots.txt content-signal", self._signals, path),
            *_governing("robots.txt content-usage", self._usages, path),
        ]
        blocked = {name for rules, names in self._agents if not rules.judge(path)[0] for name in names}
        if blocked:
            ordered = sorted((place, agent) for place, agent in blocked)
            lines.append(f"robots.txt ai-agents: {', '.join(agent for _, agent in ordered)}")
        if self._tdmrep and (rule := self._tdmrep.rule(path)):
            lines.append(f"tdmrep.json: {rule[:_MAX_PATTERN_NUM_CHARS]}")
        if self._ai_txt and (rule := self._ai_txt.rule(path)):
            lines.append(f"ai.txt: {rule[:_MAX_PATTERN_NUM_CHARS]}")
        for document in self._documents:
            lines.extend(document.directives(url))
        return tuple(dict.fromkeys((*lines, *self._always)))

    def _read_tdmrep(self, file: SiteFile | None) -> None:
        text = self._text("tdmrep.json", file)
        if text is not None:
            try:
                self._tdmrep = TdmRep.parse(text)
            except ValueError as error:
                self._always.append(f"unread: tdmrep.json {error}")

    def _read_ai_txt(self, file: SiteFile | None, product_token: str) -> None:
        text = self._text("ai.txt", file)
        if text is not None and len(text) > _MAX_AI_TXT_NUM_CHARS:
            self._always.append(f"unread: ai.txt is longer than {_MAX_AI_TXT_NUM_CHARS} characters")
        elif text is not None:
            self._ai_txt = AiTxt(text, product_token)

    def _read_rsl(self, url: str, file: SiteFile | None) -> None:
        text = self._text(f"rsl {url}", file)
        if text is not None:
            try:
                self._documents.append(RslDocument.parse(text, url))
            except ValueError as error:
                self._always.append(unread(url, str(error)))
        elif file is None or file.problem is None:
            self._always.append(missing(url))

    def _text(self, name: str, file: SiteFile | None) -> str | None:
        """The text of a file that exists and could be read; one that could not leaves its line."""
        if file is None:
            return None
        if file.problem is not None:
            self._always.append(f"unread: {name} {' '.join(file.problem.split())[:_MAX_PATTERN_NUM_CHARS]}")
            return None
        return None if file.text is None or not file.text.strip() or is_html(file.text) else file.text


def _document_urls(origin: str, robots: RobotsTxt, product_token: str) -> tuple[str, ...]:
    urls = (_document_url(origin, value) for value in robots.licenses_for(product_token))
    return tuple(dict.fromkeys(url for url in urls if url))


def _document_url(origin: str, value: str) -> str | None:
    try:
        url = urldefrag(urljoin(f"{origin}/", value)).url
        parts = urlsplit(url)
        is_web = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return None
    return url if is_web and len(url) <= MAX_URL_NUM_CHARS else None


def _rules(
    records: Sequence[tuple[str, str]], field: str, reader: Callable[[str], str | None], *, is_silence_a_rule: bool
) -> _Rules:
    """Index of the rules of one field: verdict and value by path; a rule without a path matches any."""
    found = []
    for name, value in records:
        if name == field:
            path, preference = split_path(value)
            if len(preference) > _MAX_VALUE_NUM_CHARS:
                found.append((path, ("unread", f"robots.txt {field.lower()} of {len(preference)} characters")))
            elif (verdict := reader(preference)) is not None:
                found.append((path, (verdict, f"{path[:_MAX_PATTERN_NUM_CHARS]} {preference}".strip())))
            elif is_silence_a_rule:
                found.append((path, ("", "")))
    return PatternIndex(found)


def _governing(source: str, rules: _Rules, path: str) -> Iterator[str]:
    """One line for each verdict among the rules of the longest path that matches."""
    values: dict[str, str] = {}
    for verdict, value in rules.longest(path):
        values.setdefault(verdict, value)
    for verdict in sorted(values):
        if verdict:
            yield f"{'unread' if verdict == 'unread' else source}: {values[verdict]}"


def _agent_rules(robots: RobotsTxt, agents: Sequence[str]) -> list[tuple[AccessRules, list[tuple[int, str]]]]:
    """Rules, and place and name of the agents that they hold for: most sites give many agents the same ones."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[int, str]]] = {}
    for place, agent in enumerate(dict.fromkeys(agents)):
        records = tuple(each for each in robots.records_for(agent) if each[0] in {"Allow", "Disallow"} and each[1])
        if records:
            groups.setdefault(records, []).append((place, agent))
    return [(AccessRules(records), names) for records, names in groups.items()]
