"""Where a webhook may go: rules on URLs, asked when a job is admitted, and on IP addresses, asked
of what its host's name means at the moment of sending.

Only public unicast addresses are allowed. In IPv6 that is 2000::/3 without the blocks that stand
for IPv4 addresses or are kept for special use, so that no other spelling of a private address
gets through. Source: the IANA special-purpose address registries (RFC 6890 and its updates).
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from api.settings import is_loopback
from darkroom.errors import InvalidInput

TARGET = "webhook_url"
DEFAULT_PORTS = {"https": 443, "http": 80}

_REFUSED_IPV4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform, reachable from every virtual machine
        "169.254.0.0/16",  # link-local, with the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # Teredo, ORCHID and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)


def is_allowed(address: str, *, allow_loopback: bool) -> bool:
    """Whether an IP address may be connected to; text that is none may not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if allow_loopback and found.is_loopback:
        return True
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in block for block in _REFUSED_IPV4)
    if found.scope_id is not None or found not in _PUBLIC_IPV6:
        return False
    return not any(found in block for block in _REFUSED_IPV6)


@dataclass(frozen=True)
class UrlRules:
    """Which URLs may be sent to, before their host is looked up."""

    ports: frozenset[int]
    allow_loopback: bool

    def check(self, url: str) -> None:
        """Raise `InvalidInput` that says what is wrong with ``url``, without repeating it."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
        if self.allow_loopback and is_loopback(host):
            return
        if parts.scheme != "https":
            raise InvalidInput(f"{TARGET} must be https", target=TARGET)
        if port not in self.ports:
            known = ", ".join(str(one) for one in sorted(self.ports))
            raise InvalidInput(f"{TARGET} must have one of the ports {known}", target=TARGET)
        if is_loopback(host) or (_is_address(host) and not self.allows(host)):
            raise InvalidInput(f"{TARGET} must be a public address", target=TARGET)

    def allows(self, address: str) -> bool:
        """Whether an IP address may be connected to."""
        return is_allowed(address, allow_loopback=self.allow_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
