"""Where this deployment may go to fetch a file: judged twice, as an address is written and as its name resolves.

DOWNLOAD_HOSTS says what is allowed. A pattern with `*`, `?` or `[…]` allows public addresses only; an entry without
them names its host on purpose, and may lead into a private network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from service.core.errors import LinkForbidden

_LONGEST = 8192
_ADDRESS = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(?:[/?#][^\\\x00-\x1f\x7f]*)?",
    re.IGNORECASE | re.ASCII,
)
_IPV6_PUBLIC = IPv6Network("2000::/3")
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: how a host that has IPv6 only reaches the rest
# Looks public, but is the platform behind each virtual machine at Azure.
_AZURE_PLATFORM = IPv4Address("168.63.129.16")
_RELAY = IPv4Network("192.88.99.0/24")  # of 6to4: leads nowhere of its own


def check_address(url: str, allowed_hosts: Sequence[str]) -> None:
    """Raise LinkForbidden unless the address is https (http only towards loopback) on an allowed host.

    Stricter than any parser of addresses, so that no client can understand another host than the one checked here.
    """
    match = _ADDRESS.fullmatch(url) if len(url) <= _LONGEST else None
    if match is None:
        raise LinkForbidden("the address is not https://host/…, or can be read in more than one way")
    scheme, named, port = match[1].lower(), match[2].lower().rstrip("."), match[3]
    patterns = [entry for entry in allowed_hosts if _is_pattern(entry)]
    if not _named(named, port, allowed_hosts) and not any(
        fnmatchcase(named, pattern) or fnmatchcase(f"{named}:{port}", pattern) for pattern in patterns
    ):
        raise LinkForbidden(f"the address leads to {named[:100]}, which DOWNLOAD_HOSTS does not allow")
    if scheme != "https" and not _is_loopback_name(named):
        raise LinkForbidden(f"the address on {named[:100]} is not https")


def check_resolved(host: str, port: int, address: str, allowed_hosts: Sequence[str], *, secure: bool) -> None:
    """Raise LinkForbidden unless a connection for `host` may be made to `address`, which the name resolves to.

    `address` is what the system's resolver gives, as text. `secure`: https will be spoken, so plain loopback is not
    the only place to go to.
    """
    resolved = ip_address(address)
    embedded = _embedded(resolved)
    if not secure and not embedded.is_loopback:
        raise LinkForbidden(f"the address on {host[:100]} is not https, and its name resolves to {resolved}")
    if _is_public(embedded):
        return
    literal = f"[{resolved}]" if resolved.version == 6 else str(resolved)
    if _named(host, str(port), allowed_hosts) or _named(literal, str(port), allowed_hosts):
        return
    raise LinkForbidden(
        f"the address leads to {host[:100]}, which resolves to {resolved}: not a public address. "
        "If it is meant to be used, write the host itself, without a wildcard, into DOWNLOAD_HOSTS"
    )


def _is_pattern(entry: str) -> bool:
    return any(mark in entry for mark in "*?") or "[" in entry[1:]  # an IPv6 address begins with a bracket


def _named(host: str, port: str | None, allowed_hosts: Sequence[str]) -> bool:
    """Whether an entry is this very host, with or without this very port."""
    bare, with_port = _canonical(host), f"{_canonical(host)}:{port}"
    return any(_canonical(entry) in (bare, with_port) for entry in allowed_hosts if not _is_pattern(entry))


def _canonical(host: str) -> str:
    """One spelling for each host: lower case, no dot at its end, an IPv6 address in brackets and shortened."""
    host = host.lower().rstrip(".")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    inner, closing, rest = host.removeprefix("[").partition("]")
    if not closing:
        return host
    try:
        return f"[{IPv6Address(inner)}]{rest}"
    except ValueError:
        return host


def _is_loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, where it is reached through it; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        return address in _IPV6_PUBLIC and address.is_global and address.teredo is None
    return address.is_global and not address.is_multicast and address != _AZURE_PLATFORM and address not in _RELAY
