"""Regular expressions over URLs that strangers choose: the same answers as `re`, and none that takes for ever."""

import re
import time

import pytest

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.patterns import Patterns
from pipelines.crawl.screen import Screen
from pipelines.errors import ConfigError

HOSTILE = r"^(.*?,){25}x"
"""On which `regex`, cleverer than `re` about some, takes for ever too."""
TRAP = "http://site.test/" + "xw,1" * 30 + "!"


@pytest.mark.parametrize("pattern", [HOSTILE, r"/(a+)+\.html$", r"(\w|\d)*_$", r"(x*)*y", r"([a-z]+/?)*\?q=1$"])
def test_a_pattern_that_takes_too_long_is_given_up(pattern):
    patterns = Patterns([pattern])
    urls = [f"http://site.test/{'a' * 40}{'xw,1' * 30}{number}!" for number in range(10)]
    started = time.process_time()
    for url in urls:
        patterns.find(url, if_given_up=True)
    assert time.process_time() - started < 4


def test_what_was_given_up_counts_as_excluded(caplog):
    """By an exclude pattern and by an include pattern alike, and a person is told once."""
    for config in ({"exclude": (HOSTILE,)}, {"include": (HOSTILE,)}, {"include": (HOSTILE, "never")}):
        caplog.clear()
        screen = Screen(CrawlConfig(seeds=("http://site.test/",), **config))
        assert screen.judge(TRAP, 1, 0) is Outcome.EXCLUDED
        assert screen.judge(TRAP + "b", 1, 0) is Outcome.EXCLUDED
        assert len([each for each in caplog.records if "without a repeat in a repeat" in each.message]) == 1
    screen = Screen(CrawlConfig(seeds=("http://elsewhere.test/",), scope="regex", include=(HOSTILE,)))
    assert screen.judge(TRAP, 1, 0) is Outcome.OUT_OF_SCOPE


def test_another_pattern_that_matches_still_counts():
    screen = Screen(CrawlConfig(seeds=("http://site.test/",), include=(HOSTILE, "site")))
    assert screen.judge(TRAP, 1, 0) is None


def test_a_pattern_that_lost_much_time_gets_less_of_it():
    patterns = Patterns([HOSTILE])
    for number in range(25):
        patterns.find(f"{TRAP}{number}", if_given_up=True)
    started = time.process_time()
    for number in range(50):
        patterns.find(f"{TRAP}b{number}", if_given_up=True)
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    "pattern",
    [
        r"/news/\d+",
        r"\.pdf$",
        r"^https?://[^/]+/(?!private)",
        r"(?i)ARCHIVE",
        r"(?<=/en/).+",
        r"[?&]page=(\d)\1",
        r"中文",
        r"a{2,3}",
    ],
)
@pytest.mark.parametrize(
    "url",
    [
        "http://site.test/news/12",
        "http://site.test/private/a.pdf",
        "http://site.test/en/archive?page=11",
        "http://site.test/中文/aa",
    ],
)
def test_answers_are_those_of_re(pattern, url):
    assert Patterns([pattern]).find(url, if_given_up=False) == bool(re.search(pattern, url))


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "(?P<a>b)(?P<a>c", "a" * 1001, "(?<=a+"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ConfigError, match="exclude: got"):
        CrawlConfig(seeds=("http://site.test/",), exclude=(pattern,))
