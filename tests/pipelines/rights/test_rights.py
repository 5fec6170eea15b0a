"""Rights directives and licence URLs, by the specifications' own examples and traps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rights.licenses import spdx
from pipelines.rights.structured_fields import parse_dictionary
from pipelines.rights.verdict import judge


@pytest.mark.parametrize(
    ("directive", "verdict"),
    [
        ("x-robots-tag: noai", "disallow"),
        ("x-robots-tag: nofollow, NoAI, noimageai", "disallow"),
        ("x-robots-tag: noindex", "disallow"),
        ("meta robots: none", "disallow"),
        ("meta corpusmill: noindex", "disallow"),
        ("X-Robots-Tag: corpusmill: noai", "disallow"),
        ("x-robots-tag: *: noai", "disallow"),
        ("x-robots-tag: googlebot: noindex, nofollow", "unknown"),  # the prefix holds for both tokens
        ("x-robots-tag: googlebot: nofollow, corpusmill: noindex", "disallow"),
        ("x-robots-tag: unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "disallow"),
        ("x-robots-tag: max-snippet:20, noai", "disallow"),
        ("meta robots: noimageai, nofollow, noarchive, index, all", "unknown"),
        ("tdm-reservation: 1", "disallow"),
        ("tdm-reservation: 0", "allow"),
        ("tdm-reservation: yes", "unknown"),
        ("meta tdm-reservation: 1", "disallow"),
        ("content-usage: train-ai=n, search=y", "disallow"),
        ("content-usage: search=n, train-ai=y", "allow"),
        ("content-usage: train-ai=y, train-ai=n", "disallow"),  # of equal keys the last
        ("content-usage: train-ai=n;why=1", "disallow"),
        ("content-usage: search=n", "unknown"),
        ("content-usage: train-ai", "unknown"),
        ('content-usage: train-ai="n"', "unknown"),
        ("content-usage: Train-AI=n", "unknown"),
        ("content-usage: train-ai=n,", "unknown"),
        ("content-usage: ai=n, genai=n", "unknown"),
        ("content-signal: search=yes, ai-input=no, ai-train=no", "disallow"),
        ("content-signal: search=yes,ai-train=no,use=reference", "disallow"),
        ("Content-Signal: AI-Train=YES", "allow"),
        ("content-signal: search=yes", "unknown"),
        ("content-signal: ai-train=maybe", "unknown"),
        ("tdm-policy: https://example.com/policy.json", "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_one_directive(directive: str, verdict: str) -> None:
    found, evidence = judge([directive])
    assert found == verdict
    assert evidence in ([directive], [])
    assert evidence or found == "unknown"


def test_most_restrictive_wins_and_is_the_evidence() -> None:
    directives = ["content-signal: ai-train=yes", "meta robots: noai", "tdm-reservation: 1", "content-usage: ???"]
    assert judge(directives) == ("disallow", ["meta robots: noai", "tdm-reservation: 1"])
    assert judge([directives[0], directives[3]]) == ("allow", [directives[0]])
    assert judge([directives[3]]) == ("unknown", [directives[3]])
    assert judge([]) == ("unknown", [])


def test_tdm_meta_overrides_header_if_valid() -> None:
    assert judge(["tdm-reservation: 1", "meta tdm-reservation: 0"])[0] == "allow"
    assert judge(["tdm-reservation: 0", "meta tdm-reservation: 1"])[0] == "disallow"
    assert judge(["tdm-reservation: 1", "meta tdm-reservation: 2"])[0] == "disallow"


@given(st.permutations(["tdm-reservation: 0", "content-signal: ai-train=yes", "meta robots: none", "x: y"]))
def test_order_does_not_matter(directives: list[str]) -> None:
    assert judge(directives)[0] == "disallow"


@given(st.lists(st.text(max_size=30), max_size=4), st.sampled_from(["content-usage", "x-robots-tag", "content-signal"]))
def test_any_value_is_survived(values: list[str], source: str) -> None:
    verdict, evidence = judge([f"{source}: {value}" for value in values])
    assert verdict in ("allow", "disallow", "unknown")
    assert len(evidence) <= len(values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", {}),
        ("a=1, b;x=2, c=(1 2);q, d=?0", {"a": "1", "b": "", "c": "", "d": "?0"}),
        ('a="x, y" ,\tb=:aGk=:', {"a": '"x, y"', "b": ":aGk=:"}),
        ("a=1 b=2", None),
        ("a=1,,b=2", None),
        ("=1", None),
        ('a="open', None),
    ],
)
def test_dictionary(value: str, expected: dict[str, str] | None) -> None:
    assert parse_dictionary(value) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0"),
        ("//www.creativecommons.org/licenses/by-nc-nd/2.5/deed.zh", "CC-BY-NC-ND-2.5"),
        ("https://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/legalcode", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://creativecommons.org/licenses/by/9.0/", None),
        ("https://creativecommons.org/licenses/by-nd-sa/4.0/", None),
        ("https://creativecommons.org.evil.com/licenses/by/4.0/", None),
        ("https://www.gnu.org/licenses/gpl-3.0.en.html", "GPL-3.0-only"),
        ("https://www.gnu.org/licenses/old-licenses/lgpl-2.1.html", "LGPL-2.1-only"),
        ("http://www.gnu.org/licenses/fdl-1.3.txt", "GFDL-1.3-only"),
        ("https://www.gnu.org/licenses/agpl-3.0.html#section1", "AGPL-3.0-only"),
        ("http://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0.html", "Apache-2.0"),
        ("https://opensource.org/licenses/MIT", "MIT"),
        ("https://opensource.org/license/bsd-3-clause/", "BSD-3-Clause"),
        ("http://www.opensource.org/licenses/mit-license.php", "MIT"),
        ("https://spdx.org/licenses/GPL-2.0-or-later.html", "GPL-2.0-or-later"),
        ("https://www.mozilla.org/en-US/MPL/2.0/", "MPL-2.0"),
        ("https://example.com/license", None),
        ("/license.html", None),
        ("http://[", None),
        ("", None),
        (None, None),
    ],
)
def test_spdx(url: str | None, expected: str | None) -> None:
    assert spdx(url) == expected
