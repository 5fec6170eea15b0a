"""Host names to addresses that were judged: what aiohttp connects to is what was looked at.

Judging a name and letting the client resolve it again would leave room for DNS rebinding. The
resolver hands out only judged addresses, so there is no second look-up.
"""

import socket
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from pipelines.crawl.address import AllowedAddresses


class AddressRefusedError(Exception):
    """A host has an address that may not be connected to. Never leaves this package's fetcher."""


class JudgingResolver(AbstractResolver):
    """Resolves a host, and refuses it when any of its addresses is not public."""

    def __init__(self, allowed: AllowedAddresses, connect_to: Mapping[str, tuple[str, int]]) -> None:
        """`connect_to` maps "host" or "host:port" to an address and port that are not judged."""
        self._allowed = allowed
        self._connect_to = connect_to
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a host. Raises AddressRefusedError, and OSError where the name does not resolve."""
        target = self._connect_to.get(f"{host}:{port}") or self._connect_to.get(host)
        if target:
            kind = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            return [ResolveResult(hostname=host, host=target[0], port=target[1], family=kind, proto=0, flags=0)]
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            self.judge(result["host"], host, port)
        return results

    def judge(self, address: str, host: str, port: int) -> None:
        """Raise AddressRefusedError where an address may not be connected to."""
        refusal = self._allowed.refusal(address, host, port)
        if refusal:
            raise AddressRefusedError(refusal)

    async def close(self) -> None:
        """Nothing is held open."""
        await self._resolver.close()
