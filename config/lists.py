"""Settings that are lists: networks and origins, separated by commas."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["Network", "networks_in", "origins_in"]

Network = IPv4Network | IPv6Network

ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


def networks_in(text: str) -> tuple[Network, ...]:
    """Parse networks and single addresses. Raises ValueError."""
    return tuple(map(ip_network, _parts(text)))


def origins_in(text: str) -> tuple[str, ...]:
    """Parse origins of web pages. Raises ValueError."""
    origins = _parts(text)
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin}: expected an origin such as https://app.example:8443")
    return origins


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
