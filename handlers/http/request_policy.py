"""The checks of a request before authentication: its address, its proxy, its Host and its Origin.

Only configured proxies are trusted for the address and the scheme. If `uid` is believed because only this machine can
send requests, each request has to prove that. Its peer is this machine, no proxy has forwarded it, and its Host and
Origin are not names that others could have pointed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from common.token_bucket import Buckets
from config.lists import Network
from handlers.http.forwarded import forwarded_for, forwarded_proto
from models.accounts.authentication import Access

__all__ = ["LONGEST_WAIT", "RequestPolicy", "is_loopback", "subject_of", "within"]

# How the names of headers begin that show a forwarded request: RFC 7239, and others that proxies send.
FORWARDING = (
    "forwarded",
    "via",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-",
    "cf-connecting-ip",
    "true-client-ip",
    "fastly-client-ip",
)
LONGEST_WAIT = 5.0  # seconds for which a request or a refusal is delayed until its address may send again
ANSWER_WITHIN = 1.0  # seconds for the answers to requests that are cancelled
LOOK_EVERY = 0.01  # seconds between two checks for requests in progress
ADDRESSES = 10_000  # that are kept parsed; opening a socket needs each one eight times
LONGEST = 64  # characters of an address with its zone, at most; longer texts are not parsed
SITE = 64  # bits of an IPv6 address that identify one customer


def is_loopback(name: str) -> bool:
    """Return whether a name or an address is a loopback one."""
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def within(address: str | None, networks: Collection[Network]) -> bool:
    """Return whether an address is in one of these networks."""
    found = _address(address)
    return found is not None and any(found in network for network in networks)


def subject_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network that an IPv6 customer can choose from."""
    found = _address(address)
    return str(ip_network((found, SITE), strict=False)) if isinstance(found, IPv6Address) else address


class RequestPolicy:
    """Which clients may send requests, from where, and how often.

    With `local`, only this machine may. `proxies` are trusted. Pages of `origins` may send requests. `requests` has a
    bucket for each user, `unasked` one for each address: for its requests that no user was authenticated for. The
    policy also counts the requests in progress, without those that became sockets.
    """

    def __init__(
        self,
        access: Access,
        requests: Buckets,
        unasked: Buckets,
        *,
        local: bool,
        proxies: Collection[Network] = (),
        origins: Collection[str] = (),
    ) -> None:
        self.access = access
        self.requests = requests
        self.unasked = unasked
        self.origins = frozenset(origins)
        self._local = local
        self._proxies = tuple(proxies)
        self._under_way: dict[object, asyncio.Task[Any] | None] = {}
        self._draining = False
        self.given_up = False  # the requests in progress are cancelled

    def begun(self, request: object) -> bool:
        """Note a request that the current task handles. Return False if draining has begun."""
        self._under_way[request] = asyncio.current_task()
        return not self._draining

    def ended(self, request: object) -> None:
        """Note the end of a request; the counterpart of `begun`."""
        self._under_way.pop(request, None)

    async def drain(self, timeout: float) -> None:
        """Refuse new requests, and wait up to `timeout` seconds for those in progress.

        The rest is then cancelled and answered with 503, since databases and connections are closed next.
        """
        self._draining = True
        await self._wait(timeout)
        self.given_up = True
        for task in tuple(self._under_way.values()):
            if task is not None:
                task.cancel()
        await self._wait(ANSWER_WITHIN)

    async def _wait(self, timeout: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        while self._under_way and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_EVERY)

    def address(self, request: HTTPServerRequest) -> str:
        """Return the client's address: the last one that is not a trusted proxy's."""
        peer = _address(request.remote_ip)
        if peer is None or not within(request.remote_ip, self._proxies):
            return str(peer or request.remote_ip)
        for hop in reversed(forwarded_for(request.headers)):
            forwarded = _address(hop)
            if forwarded is None:  # missing or malformed: the last valid one counts
                break
            peer = forwarded
            if not within(str(forwarded), self._proxies):
                break
        return str(peer)

    def secure(self, request: HTTPServerRequest) -> bool:
        """Return whether the request reached this server, or a trusted proxy, over TLS."""
        if within(request.remote_ip, self._proxies):
            said = forwarded_proto(request.headers)
            if said in ("http", "https"):
                return said == "https"
        return request.protocol == "https"

    def refusal(self, request: HTTPServerRequest, *, linked: bool = False) -> str | None:
        """Return why a request is refused, None if it is not.

        With `linked`, links from all sites may lead to the route. Its answer is the same for all, and only the browser
        sees it.
        """
        if not self._local:
            return None
        peer = _address(request.remote_ip)
        if peer is None or not peer.is_loopback:
            return "only this machine may ask"
        # Many proxies send HTTP/1.0; other clients of today do not.
        if request.version == "HTTP/1.0" or any(name.lower().startswith(FORWARDING) for name in request.headers):
            return "only this machine may ask, not through a proxy"
        if not _is_loopback_name(request.host):
            return "only this machine may ask, by a name of its own such as localhost"
        origin = request.headers.get("Origin")
        if origin in self.origins:
            return None
        if linked and origin is None and _is_navigation(request):
            return None
        own = origin in (None, f"{request.protocol}://{request.host}")
        if not own or request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "only this machine may ask, not another site's page"
        return None


def _is_navigation(request: HTTPServerRequest) -> bool:
    """Return whether a browser requests a page to show it by itself, as when a link is followed (Fetch Metadata)."""
    said = tuple(request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest"))
    return request.method == "GET" and said == ("navigate", "document")


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    return _parsed(text) if text is not None and len(text) <= LONGEST else None


@lru_cache(maxsize=ADDRESSES)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_loopback_name(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
