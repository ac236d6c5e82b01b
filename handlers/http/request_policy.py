"""What is known of a request before it is known who asks: where it comes from, and whether it may come at all.

A proxy's word for the address and the scheme is taken from those proxies alone that were named. While `uid` is
believed because nobody outside this machine can ask, each request has to prove that: its peer is this machine, no
proxy has forwarded it, and its Host and Origin are no names that somebody else could have pointed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from common.token_bucket import Buckets
from handlers.http.forwarded import forwarded_for, forwarded_proto
from models.accounts.authentication import Access

__all__ = ["LONGEST_WAIT", "Network", "RequestPolicy", "is_loopback", "networks_in", "subject_of", "within"]

Network = IPv4Network | IPv6Network

# How the names of headers begin that say that somebody else has asked first: RFC 7239, and what proxies send besides.
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
LONGEST_WAIT = 5.0  # seconds for which a request, or a refusal, waits until its address may ask again
ANSWER_WITHIN = 1.0  # seconds for the answers to requests that are cancelled
LOOK_EVERY = 0.01  # seconds between two looks at requests under way
ADDRESSES = 10_000  # that are kept parsed; each is looked at eight times while a socket opens
LONGEST = 64  # characters of what may be an address, its zone included; nothing longer is kept
SITE = 64  # bits of an IPv6 address that one customer has


def networks_in(text: str) -> tuple[Network, ...]:
    """The networks, or single addresses, in a list with commas. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own for itself."""
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def within(address: str | None, networks: Collection[Network]) -> bool:
    """Whether an address is in one of these networks."""
    found = _address(address)
    return found is not None and any(found in network for network in networks)


def subject_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the network that an IPv6 customer can choose from."""
    found = _address(address)
    return str(ip_network((found, SITE), strict=False)) if isinstance(found, IPv6Address) else address


class RequestPolicy:
    """The way in: who may ask what, from where, and how often.

    `local` says that only this machine may; `proxies` are believed, and `origins` may ask from their pages. `requests`
    has a bucket for each user, `unasked` one for each address: for its requests that no user answers for. It also knows
    how many requests are under way, those that became sockets not among them.
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
        self.given_up = False  # what is under way is cancelled

    def begun(self, request: object) -> bool:
        """A request has come in, and is worked on by the task that runs; False says that it comes too late."""
        self._under_way[request] = asyncio.current_task()
        return not self._draining

    def ended(self, request: object) -> None:
        """The counterpart of `begun`."""
        self._under_way.pop(request, None)

    async def drain(self, timeout: float) -> None:
        """Lets nothing in from now on, and waits up to `timeout` seconds for the requests that are under way.

        What is not through then is cancelled, which has it answered with 503: stores and connections are closed next.
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
        """The address of who asks: the last one that no trusted proxy stands for."""
        peer = _address(request.remote_ip)
        if peer is None or not within(request.remote_ip, self._proxies):
            return str(peer or request.remote_ip)
        for hop in reversed(forwarded_for(request.headers)):
            forwarded = _address(hop)
            if forwarded is None:  # nothing, or nonsense: what is known for sure is the last good one
                break
            peer = forwarded
            if not within(str(forwarded), self._proxies):
                break
        return str(peer)

    def secure(self, request: HTTPServerRequest) -> bool:
        """Whether the request came to us, or to a trusted proxy, by TLS."""
        if within(request.remote_ip, self._proxies):
            said = forwarded_proto(request.headers)
            if said in ("http", "https"):
                return said == "https"
        return request.protocol == "https"

    def refusal(self, request: HTTPServerRequest, *, linked: bool = False) -> str | None:
        """Why a request may not come in at all; None if it may.

        `linked` says that links may lead there from everywhere: what is asked for is the same for all, and is shown
        by the browser alone.
        """
        if not self._local:
            return None
        peer = _address(request.remote_ip)
        if peer is None or not peer.is_loopback:
            return "only this machine may ask"
        # Many proxies ask in HTTP/1.0, and what else asks on a machine of today does not.
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
    """Whether a browser asks for a page to be shown by itself, as when a link is followed (Fetch Metadata)."""
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
