"""Every reservation of the reference (part C), from the file of the site to the verdict, with its traps."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rights.agents import AI_TRAINING_AGENTS
from pipelines.rights.rsl import MAX_NUM_BYTES, rsl_directives
from pipelines.rights.site import SiteFile, SiteRights, site_file_urls
from pipelines.rights.verdict import blocked_ai_agents, judge

ORIGIN = "https://site.example"
PAGE = f"{ORIGIN}/blog/post?id=1"
LICENSE = f"{ORIGIN}/license.xml"
TDMREP, AI_TXT = f"{ORIGIN}/.well-known/tdmrep.json", f"{ORIGIN}/ai.txt"
SOFT_404 = "\n<!DOCTYPE html>\n<html><head><meta name=tdm-reservation content=1></head><body>Not found</body></html>"
STAR = "User-agent: *\n"

MANAGED_ROBOTS = """# As a CDN's managed file looks
User-agent: *
Content-Signal: search=yes,ai-train=no,use=reference
Allow: /

User-agent: Amazonbot
Disallow: /

User-agent: Bytespider
Disallow: /

User-agent: CCBot
Disallow: /

User-agent: GPTBot
Disallow: /
"""


def directives(
    robots: str | None = None,
    *,
    files: dict[str, str | None] | None = None,
    page: str = PAGE,
    problem: str | None = None,
) -> tuple[str, ...]:
    answers = [SiteFile(url=url, text=text, problem=problem) for url, text in (files or {}).items()]
    return SiteRights(ORIGIN, robots, "corpusmill", AI_TRAINING_AGENTS, answers).directives(page)


def verdict(*args: object, **kwargs: object) -> str:
    return judge(directives(*args, **kwargs))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Content Signals
        ("Content-Signal: search=yes, ai-input=no, ai-train=no", "disallow"),
        ("Content-signal:search=yes,ai-train=no,use=reference", "disallow"),
        ("content-SIGNAL: AI-Train = NO", "disallow"),
        ("Content-Signal: search=yes ai-train=no", "disallow"),  # a comma forgotten
        ("Content-Signal: search=yes, ai-train=yes", "allow"),
        ("Content-Signal: search=yes, ai-input=no", "unknown"),
        ("Content-Signal: no-ai-train=no", "unknown"),
        ("Content-Signal: ai-train=yes\nContent-Signal: ai-train=no", "disallow"),
        ("Content-Signal: /blog ai-train=no", "disallow"),
        ("Content-Signal: /news ai-train=no", "unknown"),
        ("Content-Signal: ai-train=no\nContent-Signal: /blog/ ai-train=yes", "allow"),  # the longest path
        ("Content-Signal: /blog/*id= ai-train=no\nContent-Signal: /blog/ ai-train=yes", "disallow"),
        ("Content-Signal: ai-train=no\nContent-Signal: /blog/ search=yes", "disallow"),  # nothing said lifts nothing
        # AIPREF
        ("Content-Usage: train-ai=n", "disallow"),
        ("Content-Usage: train-ai=n, search=y # why", "disallow"),
        ("Content-Usage: train-ai=y", "allow"),
        ("Content-Usage: train-ai=n\nContent-Usage: /blog/ train-ai=y", "allow"),
        ("Content-Usage: train-ai=y\nContent-Usage: /blog/post\ttrain-ai=n", "disallow"),
        ("Content-Usage: /blog/ train-ai=n\nContent-Usage: /blog/* train-ai=y", "allow"),
        ("Content-Usage: /blog/ train-ai=y\nContent-Usage: /blog/ train-ai=n", "disallow"),  # identical paths
        ("Content-Usage: train-ai=n\nContent-Usage: /blog/ search=y", "unknown"),
        ("Content-Usage: /blog/ train-ai=n;reason=x, search=y", "disallow"),
        ("Content-Usage: train-ai=y, train-ai=n", "disallow"),
        ("Content-Usage: train-ai", "unknown"),
        ('Content-Usage: train-ai="n"', "unknown"),
        ("Content-Usage: Train-AI=n", "unknown"),
        ("Content-Usage: train-ai=n,", "unknown"),
        ("Content-Usage: ai=n, genai=n, bots=n", "unknown"),
        ("Content-Usage: ai-train=no", "unknown"),  # the words of Content-Signal
        # one of them is enough
        ("Content-Usage: train-ai=y\nContent-Signal: ai-train=no", "disallow"),
        ("Content-Usage: train-ai=n\nContent-Signal: ai-train=yes", "disallow"),
        # a value out of all proportion is not cut to another meaning
        (f"Content-Signal: {'a' * 2000}, ai-train=yes", "disallow"),
    ],
)
def test_preferences_in_robots_txt(lines: str, expected: str) -> None:
    assert verdict(STAR + lines) == expected
    assert verdict(f"User-agent: corpusmill\n{lines}\n\n{STAR}Disallow: /x") == expected
    assert verdict(f"User-agent: corpusmill\nDisallow: /x\n\n{STAR}{lines}") == "unknown"
    assert verdict(f"User-agent: other\n{lines}") == "unknown"


def test_unreadable_preferences_are_evidence() -> None:
    assert directives(STAR + "Content-Usage: /blog/ Train-AI=n") == ("robots.txt content-usage: /blog/ Train-AI=n",)
    assert judge(directives(STAR + "Content-Usage: Train-AI=n"))[1] == ["robots.txt content-usage: Train-AI=n"]


def test_exclusion_of_ai_agents_is_noted_and_not_judged() -> None:
    found = directives(MANAGED_ROBOTS)
    assert found == (
        "robots.txt content-signal: search=yes,ai-train=no,use=reference",
        "robots.txt ai-agents: GPTBot, CCBot, Bytespider",
    )
    assert blocked_ai_agents(found) == ("GPTBot", "CCBot", "Bytespider")
    assert judge(found[1:]) == ("unknown", [])


@pytest.mark.parametrize(
    ("robots", "agents"),
    [
        (None, ()),
        (STAR + "Disallow: /blog", AI_TRAINING_AGENTS),  # who has no group of its own has that of all
        (STAR + "Disallow: /blog\n\nUser-agent: GPTBot\nAllow: /", AI_TRAINING_AGENTS[1:]),
        ("User-agent: gptbot\nUser-agent: Ai2Bot-Dolma\nDisallow: /blog/\nAllow: /blog/x", ("GPTBot", "Ai2Bot-Dolma")),
        ("User-agent: GPT\nUser-agent: GPTBot2\nUser-agent: OAI-SearchBot\nDisallow: /", ()),
        ("User-agent: CCBot\nDisallow: /news", ()),
    ],
)
def test_ai_agents(robots: str | None, agents: tuple[str, ...]) -> None:
    assert blocked_ai_agents(directives(robots)) == agents


def _tdm(*entries: tuple[object, object]) -> str:
    return json.dumps([{"location": location, "tdm-reservation": value} for location, value in entries])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_tdm(("/", 1)), "disallow"),
        (_tdm(("*", 1)), "disallow"),
        (_tdm(("/", 0)), "allow"),
        (_tdm(("/blog/", 0), ("/", 1)), "allow"),  # the first in sequence, not the longest
        (_tdm(("/", 1), ("/blog/", 0)), "disallow"),
        (_tdm(("/news/", 1)), "unknown"),
        (_tdm(("/Blog/", 1)), "unknown"),
        (_tdm(("/bl%6Fg/*$", 1)), "disallow"),
        (_tdm(("/blog/post$", 1)), "unknown"),
        (_tdm(("blog/", 1)), "disallow"),
        (_tdm((f"{ORIGIN}/blog/", 1)), "disallow"),
        (_tdm(("/", "1")), "unknown"),  # values other than 0 and 1 set nothing
        (_tdm(("/", True)), "unknown"),
        (_tdm(("/", 2), ("/", 1)), "disallow"),
        (_tdm((None, 1), ("/", 0)), "allow"),
        ('[{"location": "/"}, {"tdm-reservation": 1}]', "unknown"),  # both are mandatory
        ('{"location": "/", "tdm-reservation": 1}', "disallow"),
        ("\ufeff" + _tdm(("/", 1)), "disallow"),
        ("[]", "unknown"),
        ('{"error": "not found"}', "unknown"),
        ("null", "unknown"),
        ("Not found", "unknown"),
        ('[{"location": "/", "tdm-reservation": 1,}]', "disallow"),  # not JSON, yet meant
        ("[" * 100_000 + '"tdm-reservation"', "disallow"),
        (SOFT_404, "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_tdmrep_json(text: str | None, expected: str) -> None:
    assert verdict(files={TDMREP: text}) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["tdmrep.json: 1 /", "tdm-reservation: 0"], "allow"),
        (["tdmrep.json: 0 /", "tdm-reservation: 1"], "disallow"),
        (["tdmrep.json: 1 /", "tdm-reservation: 0", "meta tdm-reservation: 1"], "disallow"),
        (["tdmrep.json: 1 /", "tdm-reservation: 1", "meta tdm-reservation: 0"], "allow"),
        (["tdmrep.json: 1 /", "tdm-reservation: yes"], "disallow"),  # invalid: as if absent
        (["tdmrep.json: 1 *", "meta tdm-reservation: "], "disallow"),
        (["tdm-reservation: 0 /x"], "unknown"),
        (["unread: tdmrep.json answered 503", "meta tdm-reservation: 0"], "disallow"),
    ],
)
def test_tdmrep_precedence(found: list[str], expected: str) -> None:
    assert judge(found)[0] == expected


@pytest.mark.parametrize(
    ("text", "page", "rule"),
    [
        ("User-Agent: *\nDisallow: *.txt\nDisallow: *.html", "/a/b.html", "Disallow: *.html"),
        ("User-Agent: *\nDisallow: *.txt", "/notes.txt", "Disallow: *.txt"),
        ("User-Agent: *\nDisallow: *.txt", "/notes.TXT?x=1", "Disallow: *.txt"),
        ("User-Agent: *\nDisallow: *.txt", "/notes.txt.html", None),
        ("User-Agent: *\nDisallow: *.html", "/notes.txt", None),
        ("User-Agent: *\nDisallow: *.html", "/", "Disallow: *.html"),  # what has no ending is HTML
        ("User-Agent: *\nDisallow: *.html", "/blog/post", "Disallow: *.html"),
        ("User-Agent: *\nDisallow: *.html", "/blog.d/post", "Disallow: *.html"),
        ("User-Agent: *\nDisallow: *.html", "/post.php", "Disallow: *.html"),  # served as HTML
        ("User-Agent: *\nDisallow: *.php", "/post.php", "Disallow: *.php"),
        ("User-Agent: *\nDisallow: *.jpg\nAllow: *.html", "/post", "Allow: *.html"),
        ("User-Agent: *\nDisallow: /", "/post", "Disallow: /"),
        ("User-Agent: *\nDisallow: *", "/post", "Disallow: *"),
        ("User-Agent: *\nAllow: /\nDisallow: *.html", "/post", "Disallow: *.html"),
        ("User-Agent: *\nDisallow: *.html\nAllow: /open/", "/open/post", "Allow: /open/"),
        ("Disallow: *.html", "/post", "Disallow: *.html"),  # nobody named: everybody
        ("User-Agent: GPTBot\nDisallow: /", "/post", None),
        ("User-Agent: *\nDisallow: *.png\nDisallow:", "/post", None),
        (SOFT_404, "/post", None),
        ("ai.txt: training = forbidden", "/post", None),
    ],
)
def test_ai_txt(text: str, page: str, rule: str | None) -> None:
    found = directives(files={AI_TXT: text}, page=ORIGIN + page)
    assert found == (() if rule is None else (f"ai.txt: {rule}",))
    expected = "unknown" if rule is None else "allow" if rule.startswith("Allow") else "disallow"
    assert judge(found)[0] == expected


def rsl(terms: str, *, attributes: str = 'url="/"') -> str:
    return f'<rsl xmlns="https://rslstandard.org/rsl"><content {attributes}>{terms}</content></rsl>'


def permits(usages: str, rest: str = "") -> str:
    return f'<license><permits type="usage">{usages}</permits>{rest}</license>'


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (rsl(permits("ai-train")), "permits ai-train"),
        (rsl(permits("search ai-all")), "permits ai-train"),
        (rsl(permits("all")), "permits ai-train"),
        (rsl(permits("search,train-ai")), "permits ai-train"),
        (rsl(permits("AI-Train", '<payment type="free"/>')), "permits ai-train"),
        (rsl(permits("ai-train", '<payment type="attribution"><standard>x</standard></payment>')), "permits ai-train"),
        (rsl(permits("search ai-input")), "prohibits ai-train, permits only ai-input search"),  # a closed list
        (rsl(permits("<!-- all -->")), "prohibits ai-train, permits only nothing"),
        (rsl('<license><prohibits type="usage">ai-train</prohibits></license>'), "prohibits ai-train"),
        (rsl("<license><prohibits>ai-all</prohibits></license>"), "prohibits ai-train"),
        (rsl('<license><prohibits type="usage">ai-input</prohibits></license>'), "silent on ai-train"),
        (rsl(""), "silent on ai-train"),
        (rsl(permits("ai-train"), attributes='url="/news/"'), "silent on ai-train"),
        (rsl(permits("ai-train"), attributes='url="/blog/*?id=1$"'), "permits ai-train"),
        (rsl(permits("ai-train"), attributes='url="https://SITE.example:443/blog/"'), "permits ai-train"),
        (rsl(permits("ai-train"), attributes='url="https://other.example/"'), "silent on ai-train"),
        (rsl(permits("ai-train"), attributes='url=""'), "permits ai-train"),
        (rsl(permits("ai-train")).replace(' xmlns="https://rslstandard.org/rsl"', ""), "permits ai-train"),
        (
            rsl(permits("ai-train")).replace("<rsl xmlns", "<r:rsl xmlns:r").replace("</rsl>", "</r:rsl>"),
            "permits ai-train",
        ),
        (f'<?xml version="1.0" encoding="UTF-16"?>{rsl(permits("ai-train"))}', "permits ai-train"),
    ],
)
def test_rsl_terms(document: str, expected: str) -> None:
    assert rsl_directives(document, LICENSE, PAGE) == (f"rsl: {expected} ({LICENSE})",)
    kind = {"permits": "allow", "prohibits": "disallow", "silent": "unknown"}[expected.split(maxsplit=1)[0]]
    assert verdict(f"License: {LICENSE}", files={LICENSE: document}) == kind
    assert judge([f"rsl link: {LICENSE}", *rsl_directives(document, LICENSE, PAGE)])[0] == kind


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (  # prohibits beats permits
            rsl(permits("ai-train", '<prohibits type="usage">ai-all</prohibits>')),
            ["permits ai-train", "prohibits ai-train"],
        ),
        (rsl(permits("all", '<payment type="purchase"/>')), ["payment purchase", "permits ai-train"]),
        (
            rsl(permits("all", '<payment><amount currency="USD">1</amount></payment>')),
            ["payment unspecified", "permits ai-train"],
        ),
        (rsl('<license><payment type="crawl"/></license>'), ["payment crawl"]),  # of whatever use
        (rsl(permits("search", '<payment type="purchase"/>') + permits("ai-train")), ["permits ai-train"]),
        (
            rsl(permits("ai-train"), attributes='url="/" server="https://olp.example/api"'),
            ["permits ai-train", "server olp.example"],
        ),
        (rsl(permits("ai-train", '<server url="https://x/"/>')), ["permits ai-train", "server named"]),
        (  # several that match count together
            rsl(permits("ai-train"), attributes='url="/blog/"').replace(
                "</rsl>", '<content url="*"><license><prohibits>ai-train</prohibits></license></content></rsl>'
            ),
            ["permits ai-train", "prohibits ai-train"],
        ),
    ],
)
def test_rsl_conditions_disallow(document: str, lines: list[str]) -> None:
    assert rsl_directives(document, LICENSE, PAGE) == tuple(f"rsl: {line} ({LICENSE})" for line in lines)
    only_permits = lines == ["permits ai-train"]
    assert verdict(f"License: {LICENSE}", files={LICENSE: document}) == ("allow" if only_permits else "disallow")


def test_rsl_that_depends_on_who_asks_is_never_allow() -> None:
    document = rsl(permits("ai-train", '<permits type="user">education</permits>'))
    found = rsl_directives(document, LICENSE, PAGE)
    assert judge([*found, "content-signal: ai-train=yes"]) == ("unknown", [f"rsl: restricted user ({LICENSE})"])


BOMB = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + rsl("&b;", attributes='url="&b;"')


@pytest.mark.parametrize(
    "document",
    ["", "<rsl>", "plain", "<feed/>", BOMB, '<!DOCTYPE rsl SYSTEM "file:///etc/passwd"><rsl/>', "<rsl>" * 5000, "\x00",
     rsl("x" * MAX_NUM_BYTES), rsl("&undefined;")],
)  # fmt: skip
def test_a_broken_rsl_document_is_unread(document: str) -> None:
    (line,) = rsl_directives(document, LICENSE, PAGE)
    assert line.startswith(f"unread: rsl {LICENSE} ")
    assert len(line) < 200
    assert judge([line, f"rsl link: {LICENSE}", "content-signal: ai-train=yes"])[0] == "disallow"


def test_an_rsl_document_that_was_not_read_is_never_allow() -> None:
    allowed = "content-signal: ai-train=yes"
    assert judge([allowed, f"rsl link: {LICENSE}"]) == ("unknown", [f"rsl link: {LICENSE}"])
    assert judge([allowed, f"rsl link: {LICENSE}", "rsl: permits ai-train (https://other/)"])[0] == "unknown"
    for text in (None, SOFT_404, ""):
        found = directives(f"License: {LICENSE}", files={LICENSE: text})
        assert found == (f"rsl: missing ({LICENSE})",)
        assert judge([*found, allowed, f"rsl link: {LICENSE}"]) == ("unknown", [*found])
    assert rsl_directives(SOFT_404, LICENSE, PAGE) == (f"rsl: missing ({LICENSE})",)
    robots = "".join(f"License: /{number}.xml\n" for number in range(1000))
    files = {f"{ORIGIN}/{number}.xml": rsl(permits("all")) for number in range(3)}
    found = directives(robots, files=files)
    assert len(found) == 4
    assert judge(found)[0] == "disallow"


@pytest.mark.parametrize(
    ("robots", "documents"),
    [
        (None, []),
        ("License: https://a.example/l.xml#x", ["https://a.example/l.xml"]),
        ("license: /l.xml\nLicense: l.xml", ["/l.xml"]),
        (STAR + "License: /a.xml\nDisallow: /x\n\nLicense: /b.xml", ["/a.xml", "/b.xml"]),
        ("User-agent: GPTBot\nDisallow: /\nLicense: /theirs.xml\n\nLicense: /all.xml\nUser-agent: corpusmill\nLicense: /ours.xml",
         ["/ours.xml", "/all.xml"]),
        ("License: file:///etc/passwd\nLicense: ftp://a/b\nLicense: javascript:x\nLicense: http://[\nLicense: http://u:p@a/", []),
        ("License: /1\nLicense: /2\nLicense: /3\nLicense: /4", ["/1", "/2", "/3"]),
        ("License: /" + "x" * 3000, []),
    ],
)  # fmt: skip
def test_site_file_urls(robots: str | None, documents: list[str]) -> None:
    absolute = [ORIGIN + each if each.startswith("/") else each for each in documents]
    assert site_file_urls(ORIGIN, robots, "corpusmill") == (TDMREP, AI_TXT, *absolute)


@pytest.mark.parametrize("url", [TDMREP, AI_TXT, LICENSE])
def test_a_file_out_of_reach_is_a_reservation(url: str) -> None:
    found = directives(f"License: {LICENSE}", files={url: None}, problem="answered 503")
    name = {TDMREP: "tdmrep.json", AI_TXT: "ai.txt"}.get(url, f"rsl {LICENSE}")
    assert f"unread: {name} answered 503" in found
    assert judge([*found, "tdm-reservation: 0", "content-usage: train-ai=y"])[0] == "disallow"


@pytest.mark.parametrize(
    ("licenses", "others", "expected"),
    [
        (["https://creativecommons.org/licenses/by/4.0/"], [], "allow"),
        (["https://creativecommons.org/licenses/by-sa/3.0/deed.de", "CC-BY-4.0", "MIT"], [], "allow"),
        (["https://creativecommons.org/publicdomain/zero/1.0/"], [], "allow"),
        (["https://www.nationalarchives.gov.uk/doc/open-government-licence/version/3/"], [], "allow"),
        (["https://creativecommons.org/licenses/by-nc/4.0/"], [], "unknown"),
        (["https://creativecommons.org/licenses/by-nd/4.0/"], [], "unknown"),
        (["cc-by-nc-sa-4.0"], [], "unknown"),
        (["https://creativecommons.org/licenses/by/4.0/", "https://site.example/terms"], [], "unknown"),  # mixed
        (["https://creativecommons.org/licenses/by/4.0/", "CC-BY-NC-4.0"], [], "unknown"),
        (["all rights reserved"], [], "unknown"),
        (["https://creativecommons.org/licenses/by/4.0/"], ["meta robots: noai"], "disallow"),
        (["https://creativecommons.org/licenses/by/4.0/"], ["rsl link: https://site.example/l.xml"], "unknown"),
        (["CC-BY-NC-4.0"], ["content-signal: ai-train=yes"], "allow"),
    ],
)
def test_licenses(licenses: list[str], others: list[str], expected: str) -> None:
    found, evidence = judge([*(f"license: {each}" for each in licenses), *others])
    assert found == expected
    assert evidence


SOURCES = ["content-signal: ai-train=yes", "content-signal: ai-train=no", "meta robots: noai", "x-robots-tag: all",
           "tdm-reservation: 0", "tdm-reservation: 1", "meta tdm-reservation: 0", "meta tdm-reservation: 1",
           "tdmrep.json: 0 /", "tdmrep.json: 1 /", "content-usage: train-ai=y", "content-usage: Train-AI=n",
           "robots.txt content-usage: /a train-ai=n", "robots.txt ai-agents: GPTBot", "ai.txt: Allow: *.html",
           "ai.txt: Disallow: /", f"rsl: permits ai-train ({LICENSE})", f"rsl: payment crawl ({LICENSE})",
           f"rsl: restricted geo ({LICENSE})", f"rsl: missing ({LICENSE})", f"rsl link: {LICENSE}", "license: CC-BY-4.0", "license: CC-BY-NC-4.0",
           "license: https://site.example/terms", "unread: ai.txt answered 503", "nonsense"]  # fmt: skip
STRICTNESS = {"allow": 0, "unknown": 1, "disallow": 2}


@given(st.lists(st.sampled_from(SOURCES), max_size=8), st.randoms(use_true_random=False))
def test_order_never_changes_the_verdict(found: list[str], random: object) -> None:
    shuffled = [*found]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled)[0] == judge(found)[0]
    assert sorted(judge(shuffled)[1]) == sorted(judge(found)[1])


@given(st.lists(st.sampled_from(SOURCES), max_size=8), st.sampled_from(SOURCES))
def test_a_reservation_more_never_loosens(found: list[str], added: str) -> None:
    if judge([added])[0] == "disallow":
        assert STRICTNESS[judge([*found, added])[0]] >= STRICTNESS[judge(found)[0]]


WORDS = st.sampled_from(["User-agent: *\n", "Content-Signal: ", "Content-Usage: ", "License: ", "Disallow: ", "/", "*",
                         "ai-train=", "train-ai=", "<rsl>", "[", '{"location":', "\n", "%", "$", "\x00", "\ud800"])  # fmt: skip
HOSTILE = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=12).map("".join)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_any_content_is_survived(robots: str, text: str, url: str) -> None:
    files = [SiteFile(url=each, text=text, problem=None) for each in site_file_urls(ORIGIN, robots, "corpusmill")]
    rights = SiteRights(ORIGIN, robots, "corpusmill", AI_TRAINING_AGENTS, files)
    found = rights.directives(url)
    assert found == rights.directives(url)
    assert len(found) < 20
    assert all("\n" not in line for line in found)
    judge(found)


def test_hostile_files_cost_little() -> None:
    robots = STAR + "".join(
        f"Content-Usage: /*a*{n} train-ai=n\nContent-Signal: /{n} ai-train=no\n" for n in range(7000)
    )
    content = '<content url="/*a*{}"><license><prohibits>all</prohibits></license></content>'
    files = {
        TDMREP: _tdm(*((f"/*a*{n}", 1) for n in range(10_000))),
        AI_TXT: STAR + "".join(f"Disallow: *.x{n}\nDisallow: /*{n}\n" for n in range(10_000)),
        LICENSE: f"<rsl>{''.join(content.format(n) for n in range(3000))}</rsl>",
    }
    started = time.process_time()
    found = directives(f"License: {LICENSE}\n{robots}", files=files, page=f"{ORIGIN}/{'a' * 2000}.{'b.' * 1000}")
    assert time.process_time() - started < 3
    assert found == (f"rsl: silent on ai-train ({LICENSE})",)
