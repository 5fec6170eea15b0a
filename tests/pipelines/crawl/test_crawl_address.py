"""Which addresses may be connected to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.address import AllowedAddresses, is_public
from pipelines.errors import ConfigError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:a9fe:a9fe::",
        "2002:7f00:1::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "3fff::1",
    ],
)
def test_refuses_what_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2001:4860:4860::8888", "64:ff9b::8.8.8.8"]
)
def test_allows_what_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_inside_nat64_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    inside = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(address))
    assert is_public(inside) == is_public(address)
    assert not is_public(ipaddress.IPv6Address(f"::ffff:{address}"))


@pytest.mark.parametrize(
    ("allowed", "address", "host", "port", "is_allowed"),
    [
        ((), "127.0.0.1", "localhost", 80, False),
        ((), "8.8.8.8", "dns.example", 80, True),
        (("127.0.0.1:8080",), "127.0.0.1", "127.0.0.1", 8080, True),
        (("127.0.0.1:8080",), "127.0.0.1", "name.example", 8080, True),
        (("127.0.0.1:8080",), "127.0.0.1", "127.0.0.1", 8081, False),
        (("localhost:8080",), "127.0.0.1", "localhost", 8080, True),
        (("localhost:8080",), "127.0.0.1", "other.example", 8080, False),
        (("127.0.0.0/8",), "127.3.2.1", "x.example", 1, True),
        (("127.0.0.0/8",), "10.0.0.1", "x.example", 1, False),
        (("10.0.0.1",), "10.0.0.1", "x.example", 1, True),
        (("10.0.0.1",), "10.0.0.2", "x.example", 1, False),
        (("[::1]:80",), "::1", "localhost", 80, True),
        (("fe80::/10",), "fe80::1%eth0", "x.example", 80, True),
        ((), "2606:4700::1111%eth0", "x.example", 80, False),
    ],
)
def test_allow_list(allowed: tuple[str, ...], address: str, host: str, port: int, *, is_allowed: bool) -> None:
    refusal = AllowedAddresses.parse(allowed).refusal(address, host, port)
    assert (refusal is None) == is_allowed


@pytest.mark.parametrize("entry", ["localhost", "127.0.0.1:0", "10.0.0.0/40", "http://a:1/", "a:b", "", "u@a:80"])
def test_allow_list_refuses(entry: str) -> None:
    with pytest.raises(ConfigError, match="allow_addresses"):
        AllowedAddresses.parse((entry,))
