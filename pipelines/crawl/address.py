"""Which IP addresses a crawler may connect to.

A page can name any host, and a name can have any address, so the address that a connection goes to
is what is judged, never the text of the URL. Source: the IANA special-purpose address registries
(RFC 6890). Addresses that carry another one inside (IPv4-mapped, 6to4, Teredo: RFC 4291, 3056, 4380)
are refused, save NAT64 (RFC 6052), which is how a host without IPv4 reaches the rest.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pipelines.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Python 3.11 calls some addresses of each of these global: IETF assignments, the 6to4 relay, local NAT64,
# Teredo, ORCHIDv2, 6to4, documentation, SRv6.
_ALSO_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(block)
    for block in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",
        "2001::/32",
        "2001:20::/28",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; one translated by NAT64 is as public as the one inside."""
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not getattr(address, "is_site_local", False)
        and not any(address.version == block.version and address in block for block in _ALSO_NOT_PUBLIC)
    )


def is_address(host: str) -> bool:
    """Whether a URL's host (without brackets) is written as an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class AllowedAddresses:
    """The addresses that may be reached although they are not public."""

    networks: tuple[Network, ...]
    hosts: frozenset[tuple[str, int]]
    """A name or an address, and the port."""

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Self:
        """Read "host:port", an address or a CIDR block. Raises ConfigError."""
        if isinstance(entries, str):
            raise ConfigError(f"allow_addresses: got the text {entries!r}, wanted a list: put it in a list.")
        networks: list[Network] = []
        hosts: set[tuple[str, int]] = set()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
                continue
            except ValueError:
                pass
            try:
                parts = urlsplit(f"//{entry}")
                host, port = parts.hostname, parts.port
            except ValueError:
                host = port = None
            if not host or not port or parts.path or parts.query or "@" in entry:
                raise ConfigError(
                    f"allow_addresses: got {entry!r}, wanted 'host:port', an address or a CIDR block: correct it."
                )
            hosts.add((host, port))
        return cls(networks=tuple(networks), hosts=frozenset(hosts))

    def refusal(self, address: str, host: str, port: int) -> str | None:
        """Why `host`, which has this address, may not be connected to at `port`; None where it may."""
        # A scope id ("fe80::1%eth0") names a link of this machine.
        judged = ipaddress.ip_address(address.partition("%")[0])
        if is_public(judged) and "%" not in address:
            return None
        if (host, port) in self.hosts or (str(judged), port) in self.hosts:
            return None
        if any(judged.version == network.version and judged in network for network in self.networks):
            return None
        return f"{host} has the address {address}, which is not public: name it in allow_addresses to reach it"
