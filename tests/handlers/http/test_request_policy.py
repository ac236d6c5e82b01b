"""Tests of the checks before authentication: addresses, proxies, names, origins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from config.lists import networks_in
from handlers.http.request_policy import RequestPolicy, _parsed, is_loopback, subject_of
from server import Server
from tests.conftest import Ask
from tests.support.sockets import RawSocket, socket_path

Pair = tuple[int, int]
UNUSED: Any = None
PROXIES = networks_in("10.0.0.0/8, 192.0.2.1,fd00::/8")


def request(peer: str, *headers: tuple[str, str]) -> HTTPServerRequest:
    made = HTTPServerRequest(
        start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=HTTPHeaders({"Host": "chat.example"})
    )
    for name, value in headers:
        made.headers.add(name, value)
    made.remote_ip = peer
    made.protocol = "http"
    return made


ADDRESSES = {
    "nobody forwarded": ("203.0.113.9", [], "203.0.113.9"),
    "a stranger's word": ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
    "a proxy's word": ("10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
    "a single proxy's": ("192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
    "what the client told the proxy": ("10.1.1.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
    "two proxies": ("10.1.1.1", ["1.2.3.4, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
    "two headers": ("10.1.1.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
    "proxies all the way": ("10.1.1.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
    "nonsense": ("10.1.1.1", ["1.2.3.4, <script>"], "10.1.1.1"),
    "nonsense behind a proxy": ("10.1.1.1", ["unknown, 10.2.2.2"], "10.2.2.2"),
    "empty": ("10.1.1.1", [""], "10.1.1.1"),
    "IPv6": ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
    "IPv4 in IPv6": ("::ffff:10.1.1.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
    "a port": ("10.1.1.1", ["198.51.100.1:4711"], "198.51.100.1"),
    "ports and proxies": ("10.1.1.1", ["1.2.3.4:1, 198.51.100.1:2, 10.2.2.2:3"], "198.51.100.1"),
    "brackets": ("10.1.1.1", ["[2001:db8::1]"], "2001:db8::1"),
    "brackets and a port": ("10.1.1.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
    "quotes": ("10.1.1.1", ['"[2001:db8::1]:4711", "10.2.2.2"'], "2001:db8::1"),
    "a proxy in brackets": ("10.1.1.1", ["198.51.100.1, [fd00::7]:80"], "198.51.100.1"),
    "a port that is none": ("10.1.1.1", ["198.51.100.1:x"], "10.1.1.1"),
    "a bracket that is left open": ("10.1.1.1", ["[2001:db8::1"], "10.1.1.1"),
    "no address": ("0.0.0.0", ["198.51.100.1"], "0.0.0.0"),  # noqa: S104  # what Tornado calls a unix socket
}


@pytest.mark.parametrize(("peer", "forwarded", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_address_of_the_client(peer: str, forwarded: list[str], expected: str) -> None:
    """Only a trusted proxy's header is believed."""
    policy = RequestPolicy(UNUSED, UNUSED, UNUSED, local=False, proxies=PROXIES)
    asked = request(peer, *(("X-Forwarded-For", value) for value in forwarded), ("X-Real-Ip", "9.9.9.9"))
    assert expected == policy.address(asked)


FORWARDED = {
    "an address": ({"Forwarded": "for=198.51.100.1"}, "198.51.100.1", False),
    "all of it": (
        {"Forwarded": 'for="198.51.100.1:4711";by=10.2.2.2;host=chat.example;proto=https'},
        "198.51.100.1",
        True,
    ),
    "several": (
        {"Forwarded": "for=1.2.3.4;proto=https, For=198.51.100.1, for=10.2.2.2;Proto=http"},
        "198.51.100.1",
        False,
    ),
    "IPv6": ({"Forwarded": 'for="[2001:db8::1]:4711";proto="HTTPS"'}, "2001:db8::1", True),
    "IPv6 without quotes": ({"Forwarded": "for=[2001:db8::1]:80"}, "2001:db8::1", False),
    "hidden": ({"Forwarded": "for=1.2.3.4, for=_hidden"}, "10.1.1.1", False),
    "unknown behind a proxy": ({"Forwarded": "for=unknown, for=10.2.2.2"}, "10.2.2.2", False),
    "a quote that the client left open": ({"Forwarded": 'for="1.2.3.4, for=198.51.100.1'}, "10.1.1.1", False),
    "twice": ({"Forwarded": "for=1.2.3.4;for=198.51.100.1"}, "10.1.1.1", False),
    "no pairs": ({"Forwarded": "198.51.100.1"}, "10.1.1.1", False),
    "beside what most proxies write": (
        {"Forwarded": "for=1.2.3.4;proto=https", "X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "http"},
        "198.51.100.1",
        False,
    ),
}


@pytest.mark.parametrize(("headers", "address", "secure"), FORWARDED.values(), ids=FORWARDED)
def test_the_client_in_a_forwarded_header(headers: dict[str, str], address: str, secure: bool) -> None:
    """Forwarded names the client if the proxy writes it; X-Forwarded-For precedes it."""
    policy = RequestPolicy(UNUSED, UNUSED, UNUSED, local=False, proxies=PROXIES)
    asked = request("10.1.1.1", *headers.items())
    assert (address, secure) == (policy.address(asked), policy.secure(asked))
    stranger = request("203.0.113.9", *headers.items())
    assert (policy.address(stranger), policy.secure(stranger)) == ("203.0.113.9", False)


def test_what_is_too_long_for_an_address_is_not_kept() -> None:
    """Long texts are not cached as addresses: clients choose them, and could fill the server's memory."""
    names = ["127.0.0.1", "fe80::1%" + "z" * 15, "n" * 60_000]
    _parsed.cache_clear()
    assert [is_loopback(name) for name in names] == [True, False, False]
    assert _parsed.cache_info().currsize == 2


@pytest.mark.parametrize(
    ("peer", "said", "expected"),
    [("10.1.1.1", "https", True), ("10.1.1.1", "http", False), ("10.1.1.1", "ftp", False), ("1.1.1.1", "https", False)],
)
def test_the_scheme_of_the_client(peer: str, said: str, expected: bool) -> None:
    """Only a trusted proxy's word for the scheme is believed."""
    policy = RequestPolicy(UNUSED, UNUSED, UNUSED, local=False, proxies=PROXIES)
    assert expected is policy.secure(request(peer, ("X-Forwarded-Proto", said)))


def test_what_counts_as_one_address() -> None:
    """All addresses of an IPv6 customer's network count as one."""
    assert subject_of("2001:db8:1:2:3::4") == subject_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert subject_of("203.0.113.9") == "203.0.113.9"


LOCAL = {
    "as it comes": ({}, 200),
    "by another name": ({"Host": "localhost:3000"}, 200),
    "by IPv6": ({"Host": "[::1]:3000"}, 200),
    "by another loopback address": ({"Host": "127.8.8.8"}, 200),
    "from its own page": ({"Host": "localhost:3000", "Origin": "http://localhost:3000"}, 200),
    "a rebound name": ({"Host": "evil.example"}, 403),
    "a rebound name and its page": ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    "the same with browsers' word": (
        {"Host": "evil.example:3000", "Origin": "http://evil.example:3000", "Sec-Fetch-Site": "same-origin"},
        403,
    ),
    "a name that looks like it": ({"Host": "localhost.evil.example"}, 403),
    "an address that looks like it": ({"Host": "127.0.0.1.evil.example"}, 403),
    "a number for the address": ({"Host": "2130706433"}, 403),
    "the unspecified address": ({"Host": "0.0.0.0"}, 403),  # noqa: S104
    "a host that is none": ({"Host": "[::1"}, 403),
    "a user before the host": ({"Host": "localhost@evil.example"}, 400),
    "another origin": ({"Origin": "http://evil.example"}, 403),
    "another port's page": ({"Host": "localhost:3000", "Origin": "http://localhost:8080"}, 403),
    "another scheme's page": ({"Host": "localhost", "Origin": "https://localhost"}, 403),
    "a page without an origin": ({"Origin": "null"}, 403),
    "forwarded": ({"X-Forwarded-For": "127.0.0.1"}, 403),
    "forwarded for nobody": ({"X-Forwarded-For": ""}, 403),
    "forwarded as RFC 7239 has it": ({"Forwarded": "for=127.0.0.1"}, 403),
    "forwarded protocol": ({"X-Forwarded-Proto": "http"}, 403),
    "forwarded host": ({"X-Forwarded-Host": "localhost"}, 403),
    "real address": ({"X-Real-IP": "127.0.0.1"}, 403),
    "through a proxy": ({"Via": "1.1 proxy"}, 403),
    "forwarded port": ({"X-Forwarded-Port": "3000"}, 403),
    "through a well-known one": ({"CF-Connecting-IP": "127.0.0.1"}, 403),
    "another site's page without an origin": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "a page of the same site": ({"Sec-Fetch-Site": "same-site", "Host": "localhost:3000"}, 403),
}


@pytest.mark.parametrize(("headers", "status"), LOCAL.values(), ids=LOCAL)
async def test_this_machine_alone(headers: dict[str, str], status: int, http_server: Server, pair: Pair) -> None:
    """By default `uid` is believed from this machine only, over HTTP and on sockets."""
    for path, upgrade, good in ((f"/user/me?uid={pair[0]}", False, 200), (socket_path(*pair), True, 101)):
        raw = await RawSocket.open(http_server.port)
        got, body = await raw.request(path, upgrade=upgrade, headers=headers)
        assert got == (good if status == 200 else status), body
        assert status != 403 or b"see --auth" in body or b"cross-origin" in body
        raw.abort()


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
LINKS = {
    "a link": ("GET", "/", LINK, 200),
    "a link of the same site": ("GET", "/", LINK | {"Sec-Fetch-Site": "same-site"}, 200),
    "a link with a query": ("GET", "/?x=1", LINK, 200),
    "a form": ("POST", "/", LINK | {"Origin": "http://evil.example"}, 403),
    "a frame": ("GET", "/", LINK | {"Sec-Fetch-Dest": "iframe"}, 403),
    "a script": ("GET", "/", LINK | {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
    "a fetch": ("GET", "/", LINK | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
    "an origin": ("GET", "/", LINK | {"Origin": "http://evil.example"}, 403),
    "another method": ("HEAD", "/", LINK, 403),
    "a rebound name": ("GET", "/", LINK | {"Host": "evil.example"}, 403),
    "a proxy": ("GET", "/", LINK | {"Via": "1.1 proxy"}, 403),
    "the users": ("GET", "/session", LINK, 403),
    "the description": ("GET", "/openapi.yaml", LINK, 403),
}


@pytest.mark.parametrize(("method", "path", "headers", "status"), LINKS.values(), ids=LINKS)
async def test_a_link_on_another_site(
    method: str, path: str, headers: dict[str, str], status: int, http_server: Server
) -> None:
    """A link on another site may lead to the page, which is the same for all, and to nothing else."""
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(f"{method} {path} HTTP/1.1\r\n".encode())
    for name, value in ({"Host": "localhost", "Content-Length": "0"} | headers).items():
        raw.writer.write(f"{name}: {value}\r\n".encode())
    raw.writer.write(b"\r\n")
    assert (await raw.reader.readline()).split()[1] == str(status).encode()
    raw.abort()


@pytest.mark.parametrize("flags", [["--auth=token"]])
async def test_a_proxy_that_leaves_the_port_out_of_host(http_server: Server) -> None:
    """The refusal mentions the missing port; another host or port is refused as any other origin."""
    for host, origin, said in (
        ("chat.example", "http://chat.example:8443", True),
        ("chat.example", "http://evil.example:8443", False),
        ("chat.example:1", "http://chat.example:8443", False),
        ("chat.example", "http://chat.example:99999999", False),
    ):
        raw = await RawSocket.open(http_server.port)
        headers = {"Host": host, "Origin": origin}
        for path, method, upgrade in (("/user/login", "POST", False), ("/ws?toUid=1", "GET", True)):
            status, body = await raw.request(path, method=method, upgrade=upgrade, headers=headers)
            assert (status, b"$http_host" in body) == (403, said)
        raw.abort()


ONCE = ["--address-request-rate=0.001", "--address-request-burst=3"]


@pytest.mark.parametrize("flags", [ONCE])
@pytest.mark.parametrize("path", ["/ping", "/healthz", "/nowhere", "/user/me", "/user/me?uid=999999999", "/"])
async def test_requests_without_a_user(path: str, http_server: Server, pair: Pair) -> None:
    """Requests without a user count for their address. Users' own do not, and each address has its own share."""
    for _ in range(6):  # one for each request that passes below, and more
        raw = await RawSocket.open(http_server.port)
        assert (await raw.request(f"/user/me?uid={pair[0]}"))[0] == 200
        raw.abort()
    statuses = []
    for _ in range(6):
        raw = await RawSocket.open(http_server.port)
        statuses.append((await raw.request(path))[0])
        raw.abort()
    assert statuses[0] != 429
    assert statuses == [statuses[0]] * 4 + [429] * 2
    other = await RawSocket.open(http_server.port, source="127.0.0.2")
    assert (await other.request("/ping"))[0] == 200
    other.abort()


@pytest.mark.parametrize("flags", [["--address-request-rate=100", "--address-request-burst=1"]])
async def test_pipelined_requests_wait(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pipelined requests are answered; beyond the address's share, the server delays them instead of working."""
    slept, sleep = 0.0, asyncio.sleep

    async def counting(delay: float, *args: Any) -> None:
        nonlocal slept
        slept += delay
        await sleep(delay, *args)

    monkeypatch.setattr(asyncio, "sleep", counting)
    raws = [await RawSocket.open(http_server.port) for _ in range(5)]
    for raw in raws:
        raw.writer.write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4)
    for raw in raws:
        for _ in range(4):
            assert (await raw.reader.readuntil(b'"SUCCESS"')).startswith(b"HTTP/1.1 200 ")
        raw.abort()
    assert slept > 0


async def test_a_proxy_that_says_nothing(http_server: Server, pair: Pair) -> None:
    """Many proxies without forwarding headers send HTTP/1.0, with the server's own address in Host."""
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(f"GET /user/me?uid={pair[0]} HTTP/1.0\r\nHost: 127.0.0.1:{http_server.port}\r\n\r\n".encode())
    assert b" 403 " in (await raw.reader.read()).split(b"\r\n")[0]
    raw.abort()


async def test_what_tells_nothing_is_open(http_server: Server) -> None:
    """Health is open for monitoring; the rest is answered with 403."""
    for path, status in (("/ping", 200), ("/healthz", 200), ("/readyz", 200), ("/", 403), ("/openapi.yaml", 403)):
        raw = await RawSocket.open(http_server.port)
        got, _ = await raw.request(path, headers={"Host": "health.example", "X-Forwarded-For": "1.1.1.1"})
        assert (path, got) == (path, status)
        raw.abort()


@pytest.mark.parametrize("flags", [["--auth=open"]])
async def test_open_from_everywhere(http_server: Server, pair: Pair) -> None:
    """With --auth=open, `uid` is believed from everywhere, but not from another site's page."""
    raw = await RawSocket.open(http_server.port)
    headers = {"Host": "chat.example", "X-Forwarded-For": "1.1.1.1"}
    assert (await raw.request(f"/user/me?uid={pair[0]}", headers=headers))[0] == 200
    raw.abort()
    raw = await RawSocket.open(http_server.port)
    headers |= {"Origin": "https://evil.example"}
    assert (await raw.request(socket_path(*pair), upgrade=True, headers=headers))[0] == 403
    raw.abort()


ORIGINS = "--trusted-origins=https://app.example, http://localhost:5173"


@pytest.mark.parametrize("flags", [[ORIGINS], [ORIGINS, "--auth=open"]])
async def test_a_listed_origin(http_server: Server, ask: Ask, pair: Pair) -> None:
    """Pages of a listed origin may send requests, open sockets and read answers (CORS); others may not."""
    mine = {"Origin": "https://app.example", "Sec_Fetch_Site": "cross-site"}
    answer = await ask("GET", f"/user/me?uid={pair[0]}", **mine)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
    assert answer.headers["Vary"] == "Origin"
    before = await ask("OPTIONS", "/user/me", Access_Control_Request_Method="PATCH", **mine)
    assert (before.status, "PATCH" in before.headers["Access-Control-Allow-Methods"]) == (204, True)
    assert (await ask("POST", f"/ws/ticket?uid={pair[0]}", body={}, **mine)).status == 200
    others = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    assert (await ask("OPTIONS", "/user/me", **others)).status == 403
    refused = await ask("POST", f"/ws/ticket?uid={pair[0]}", body={}, **others)
    assert (refused.status, "Access-Control-Allow-Origin" in refused.headers) == (403, False)
    # A GET may be answered, as for a plain link; browsers do not give the answer to the page.
    read = await ask("GET", f"/user/me?uid={pair[0]}", **others)
    assert read.status == (200 if http_server.access.mode == "open" else 403)
    assert "Access-Control-Allow-Origin" not in read.headers
    raw = await RawSocket.open(http_server.port)
    headers = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    assert (await raw.request(socket_path(*pair), upgrade=True, headers=headers))[0] == 101
    raw.abort()


@pytest.mark.parametrize("flags", [["--auth=token", "--trusted-proxies=127.0.0.1"]])
async def test_behind_a_trusted_proxy(ask: Ask, http_server: Server) -> None:
    """A trusted proxy's word for TLS is believed, and browsers are told to keep using TLS."""
    body = {"user_name": "nobody", "password": "x"}
    answer = await ask("POST", "/user/login", body=body, X_Forwarded_Proto="https", X_Forwarded_For="9.9.9.9")
    assert (answer.status, "max-age" in answer.headers["Strict-Transport-Security"]) == (401, True)
    assert "Strict-Transport-Security" not in (await ask("GET", "/ping")).headers


async def test_what_every_answer_says_to_browsers(ask: Ask) -> None:
    """Every answer has a strict content policy, and forbids sniffing, frames and caches; none names the server."""
    for path in ("/openapi.yaml", "/user/me", "/nowhere", "/ping"):
        headers = (await ask("GET", path)).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers
        assert "Etag" not in headers


async def test_draining() -> None:
    """Draining waits for the requests in progress, and refuses new ones."""
    policy = RequestPolicy(UNUSED, UNUSED, UNUSED, local=False)
    assert policy.begun("first")
    draining = asyncio.ensure_future(policy.drain(1000))
    await asyncio.sleep(0)
    assert not policy.begun("second")
    policy.ended("first")
    await asyncio.sleep(0)
    assert not draining.done()
    policy.ended("second")
    await draining


async def test_draining_gives_up() -> None:
    """Requests that are not finished in time are cancelled."""
    policy = RequestPolicy(UNUSED, UNUSED, UNUSED, local=False)

    async def work() -> None:
        policy.begun("slow")
        try:
            await asyncio.Event().wait()
        finally:
            policy.ended("slow")

    working = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await policy.drain(0)
    await asyncio.wait((working,))
    assert working.cancelled()
