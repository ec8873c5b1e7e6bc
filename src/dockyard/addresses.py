"""Which addresses may be reached: public ones, and private ones that the operator listed; never those of metadata.

Whoever dials resolves a name here and connects to the address that was checked, so that a name which resolves to
something else a moment later gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket

from dockyard.errors import Forbidden, SourceUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32")
)
"""Where clouds tell machines their credentials: no setting opens these."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
RESOLVE_SECONDS = 10.0


class Guard:
    """``private`` are names, addresses and networks (CIDR) beyond the public internet that may be reached."""

    def __init__(self, private: tuple[str, ...] = ()) -> None:
        self._names: set[str] = set()
        self._networks = []
        for entry in private:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                self._names.add(plain(entry))

    def refuses(self, host: str, address: str) -> str | None:
        """Why this address of ``host`` may not be reached, or None."""
        found = [_parse(address)]
        found += _embedded(found[0])
        if any(each in network for each in found for network in METADATA):
            return "it is a link-local or metadata address, which is never reached"
        for each in found:
            if _public(each) or plain(host) in self._names or any(each in network for network in self._networks):
                continue
            return "it is not on the public internet; the setting `tools_private` lists what else may be reached"
        return None

    def listed(self, host: str, address: str) -> bool:
        """Whether the operator listed it, so that it may be spoken to without TLS."""
        found = _parse(address)
        return plain(host) in self._names or any(found in network for network in self._networks)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Addresses of a name, all of them permitted. Raises Forbidden if one is not, SourceUnreachable if none is."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                told = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise SourceUnreachable(f"{host!r} can't be resolved: {error}") from error
        found = list(dict.fromkeys(str(entry[4][0]) for entry in told))
        for address in found:
            reason = self.refuses(host, address)
            if reason is not None:
                raise Forbidden(f"{host!r} is at {address}: {reason}")
        return found

    async def connect(
        self, host: str, port: int, seconds: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams to the first permitted address that answers. Raises Forbidden, SourceUnreachable."""
        last: Exception | None = None
        for address in await self.addresses(host, port):
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.open_connection(address, port)
            except (OSError, TimeoutError) as error:
                last = error
        raise SourceUnreachable(f"{host}:{port} does not answer: {last}")


def plain(host: str) -> str:
    """A host name as it is compared: lower case, no final dot, no brackets."""
    return host.strip("[]").rstrip(".").lower()


def _parse(address: str) -> Address:
    return ipaddress.ip_address(address.partition("%")[0])


def _public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = []
    with contextlib.suppress(ValueError):
        if address.ipv4_mapped:
            found.append(address.ipv4_mapped)
        if address.sixtofour:
            found.append(address.sixtofour)
        if address.teredo:
            found.append(address.teredo[1])
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found
