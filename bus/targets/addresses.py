"""Which addresses a delivery may be sent to.

Theory of operation. On a loopback address everyone who can call the bus already runs on this machine, and nothing is
refused. Beyond loopback a caller could use the bus to reach what only this machine reaches: the metadata service that
hands out the machine's credentials, and link-local neighbours. Two checks hold these back:

* `Addresses.check_url` reads a URL, so that PutTargets can answer with a reason. It knows literal addresses in every
  spelling the system's resolver takes (``169.254.169.254``, ``2852039166``, ``0xa9.254.43518``, ``[::ffff:a9fe:a9fe]``)
  and the names under which clouds publish their metadata service.
* `Addresses.open_socket` is called with the one address a connection is about to be made to, whatever name led there
  and however often its answer changed since. It is the check that counts; a name that is harmless at PutTargets and
  points to a metadata address a second later ends here.

Loopback and private networks stay open: that is where one's own services live.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from yarl import URL

from bus.config import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "an unspecified address"),
        ("169.254.0.0/16", "a link-local or cloud-metadata address"),
        ("100.100.100.200/32", "a cloud-metadata address"),
        ("168.63.129.16/32", "a cloud-metadata address"),
        ("192.0.0.192/32", "a cloud-metadata address"),
        ("::/128", "an unspecified address"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::/32", "a cloud-metadata address"),
        ("fd20:ce::/32", "a cloud-metadata address"),
    )
)
"""What is refused beyond loopback, and what it is."""

METADATA_NAMES = {
    "instance-data": "169.254.169.254",
    "instance-data.ec2.internal": "169.254.169.254",
    "metadata": "169.254.169.254",
    "metadata.google.internal": "169.254.169.254",
    "metadata.goog": "169.254.169.254",
    "metadata.tencentyun.com": "169.254.0.23",
}
"""Names of metadata services, and the address each stands for."""

_EMBEDDING = (ip_network("64:ff9b::/96"), ip_network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address: NAT64, and the old IPv4-compatible form."""


class RefusedAddress(OSError):
    """A connection to an address that deliveries must not reach; says the same for every address of a name."""


class Addresses:
    """The addresses deliveries may reach under these settings."""

    def __init__(self, settings: Settings) -> None:
        self.guarded = not settings.on_loopback
        self._allowed: tuple[Network, ...] = tuple(ip_network(text, strict=False) for text in settings.allow_target)

    def check_url(self, url: str) -> str | None:
        """Why deliveries to ``url`` are refused, in a sentence; None when they are not."""
        try:
            parsed = URL(url)
            host = parsed.host
        except ValueError:
            return "The URL cannot be read."
        if parsed.scheme not in ("http", "https"):
            return "The URL must start with http:// or https://."
        if not host:
            return "The URL names no host."
        if not all(" " < character < "\x7f" for character in url):
            return "The URL must consist of printable ASCII characters without spaces."
        return self.check_host(host)

    def check_host(self, host: str) -> str | None:
        """Why deliveries to a name or literal address are refused, as far as can be said without asking for it."""
        if not self.guarded:
            return None
        name = host.rstrip(".").lower()
        address = literal_address(METADATA_NAMES.get(name, name))
        what = None if address is None else self._refusal(address)
        return f"{host} is {what}; busbar serve --allow-target would open it." if what else None

    def open_socket(self, addr_info: tuple[Any, ...]) -> socket.socket:
        """A socket for one resolved address, as a connector's socket factory; raises `RefusedAddress`."""
        family, kind, protocol, _, peer = addr_info
        if self.guarded:
            address = literal_address(peer[0])
            if address is None or self._refusal(address):
                raise RefusedAddress("the address is link-local, unspecified or a cloud's metadata service")
        return socket.socket(family=family, type=kind, proto=protocol)

    def _refusal(self, address: Address) -> str | None:
        meant = tuple(_meanings(address))
        if any(each in network for each in meant for network in self._allowed):
            return None
        return next((reason for network, reason in REFUSED for each in meant if each in network), None)


def literal_address(host: str) -> Address | None:
    """The address a literal stands for, in any spelling that a resolver would take; None for a name."""
    text = host.strip("[]").partition("%")[0]
    try:
        return ip_address(text)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(text)) if text.isascii() and " " not in text else None
    except OSError:
        return None


def _meanings(address: Address) -> Iterable[Address]:
    """The address itself, and the IPv4 address that it carries when it is a way of writing or reaching one."""
    yield address
    if isinstance(address, IPv4Address):
        return
    for carried in (address.ipv4_mapped, address.sixtofour):
        if carried is not None:
            yield carried
    if any(address in network for network in _EMBEDDING) and int(address) > 1:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
