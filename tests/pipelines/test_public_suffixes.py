"""The table of public suffixes against tldextract, which it is made of."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tldextract import TLDExtract

from pipelines.public_suffixes import registrable_domain

EXTRACT = {
    below: TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=below) for below in (False, True)
}
RULES = sorted(EXTRACT[True].tlds)
LABELS = st.sampled_from(
    ["", "a", "WWW", "com", "uk", "co", "ck", "github", "例子", "xn--fiqs8s", "xn--a", "xn--", "1", "x y"]
)


def by_tldextract(host: str, *, below_platforms: bool) -> str:
    found = EXTRACT[below_platforms](host)
    return found.top_domain_under_public_suffix or ".".join(host.split(".")[-2:])


@pytest.mark.parametrize("below_platforms", [False, True])
def test_every_rule_is_read_as_tldextract_reads_it(below_platforms):
    assert any(rule.startswith("!") for rule in RULES)
    assert any("*" in rule for rule in RULES)
    for rule in RULES:
        name = rule.removeprefix("!")
        for host in (
            name,
            f"a.{name}",
            f"b.a.{name}",
            f"c.b.a.{name}",
            f"b.{name.replace('*', 'w')}.",
            name.partition(".")[2],
        ):
            if "." in host:
                found = registrable_domain(host, below_platforms=below_platforms)
                assert found == by_tldextract(host, below_platforms=below_platforms), host


@given(
    st.lists(LABELS, min_size=2, max_size=5),
    st.sampled_from([*RULES[::97], ""]),
    st.sampled_from("..。."),
    st.booleans(),
)
def test_any_host_is_read_as_tldextract_reads_it(labels, rule, dot, below_platforms):
    host = dot.join([*labels, rule.removeprefix("!")] if rule else labels)
    if "." in host:
        found = registrable_domain(host, below_platforms=below_platforms)
        assert found == by_tldextract(host, below_platforms=below_platforms)


@pytest.mark.parametrize("host", ["", "localhost", "192.0.2.7", "2001:db8::1"])
def test_an_address_and_a_bare_name_are_their_own_domain(host):
    assert registrable_domain(host, below_platforms=True) == host


def test_a_known_machine_asks_without_the_library():
    """Importing tldextract takes as long as taking a page down may cost."""
    code = (
        "import sys; from pipelines.public_suffixes import registrable_domain as find; "
        "print(find('a.example.co.uk', below_platforms=True), 'tldextract' in sys.modules)"
    )
    registrable_domain("a.b.example", below_platforms=True)  # the table is there now
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["example.co.uk", "False"]
