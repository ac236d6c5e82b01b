"""The limits on sockets and requests of each user and each address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from handlers.websocket.connection import LONGEST_PAUSE
from handlers.websocket.handler import ChatSocket
from server import Server
from tests.conftest import Ask, Connect, Connect2
from tests.support.patience import PATIENCE
from tests.support.sockets import RawSocket, socket_path, until, websocket
from tests.support.transports import CONTINUATION, PING, PONG, frame

Pair = tuple[int, int]
People = Callable[[int], list[int]]


@pytest.mark.parametrize("flags", [["--max-user-connections=2"]])
async def test_sockets_of_a_user(http_server: Server, connect: Connect, connect2: Connect2, pair: Pair) -> None:
    """A user's socket above the limit gets 429; others are accepted, and so is the next one after a close."""
    first = await connect(*pair)
    await connect2(pair[0])
    with pytest.raises(HTTPClientError, match="429"):
        await websocket(http_server.port, socket_path(*pair))
    await connect(*pair[::-1])
    assert ChatSocket.hub.count == 3
    first.close()
    await until(lambda: ChatSocket.hub.count == 2)
    await connect(*pair)


@pytest.mark.parametrize("flags", [["--max-address-connections=2", "--auth=open", "--trusted-proxies=127.0.0.1"]])
async def test_sockets_from_an_address(http_server: Server, connect: Connect, pair: Pair) -> None:
    """All sockets of an address count, of any user; behind a trusted proxy each client has its own address."""
    for address in ("9.9.9.9", "8.8.8.8", "2001:db8::1"):
        headers = {"X-Forwarded-For": address}
        await connect(*pair, headers=headers)
        await connect(*pair[::-1], headers=headers)
        with pytest.raises(HTTPClientError, match="429"):
            await websocket(http_server.port, socket_path(*pair), headers)
    with pytest.raises(HTTPClientError, match="429"):  # of the same IPv6 customer
        await websocket(http_server.port, socket_path(*pair), {"X-Forwarded-For": "2001:db8::2"})


RATE = ["--request-rate=0.001", "--request-burst=5"]


@pytest.mark.parametrize("flags", [RATE])
async def test_requests_on_a_socket(connect2: Connect2, connect: Connect, pair: Pair) -> None:
    """A user may send five requests at once, opening sockets included; more get 429 with the time to wait.

    Nothing of a refused request is stored, and the socket stays open. The limit is for all sockets of one user.
    """
    one, other = await connect2(*pair), await connect(*pair)
    answers = [await one.ask(1, content=f"message {n}") for n in range(3)]
    refused = await one.ask(1, content="too fast")
    assert {answer["code"] for answer in answers} == {50005}
    assert refused["code"] == 429
    assert 900 < refused["retry_after"] <= 1001
    await other.send(1, "too fast as well")
    await other.receive(429, "请求过于频繁")
    two = await connect2(*pair[::-1])
    page = (await two.ask(2))["messages"]
    assert "too fast" not in {message["content"] for message in page}


@pytest.mark.parametrize("flags", [RATE])
async def test_requests_over_http(ask: Ask, pair: Pair) -> None:
    """HTTP requests share the user's bucket, and the answer says when to retry."""
    answers = [await ask("GET", f"/conversations?uid={pair[0]}") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert 900 < int(answers[-1].headers["Retry-After"]) <= 1001
    assert (await ask("GET", f"/conversations?uid={pair[1]}")).status == 200


@pytest.mark.parametrize("flags", [["--request-rate=0.001", "--request-burst=20"]])
async def test_requests_weigh_what_they_cost(
    connect2: Connect2, connect: Connect, ask: Ask, people: Callable[[int], list[int]]
) -> None:
    """A caller is charged for the work of a request, and the next request is refused when the bucket is empty.

    A conversation in a list costs half a message, a resumed one a quarter, and a message that is read a twentieth. A
    time that has to be searched for costs five, and opening an inbox ten.
    """
    lister, resumer, owner, reader, seeker, friend, *peers = people(11)
    for peer in peers:
        await (await connect2(peer, lister)).say("hello", 50005)
    for _ in range(5):  # 3.5 each
        assert len((await ask("GET", f"/conversations?uid={lister}")).data) == 5
    assert (await ask("GET", f"/conversations?uid={lister}")).status == 200  # two and a half were left
    assert (await ask("GET", f"/conversations?uid={lister}")).status == 429

    inbox = await connect2(resumer)
    assert (await inbox.ask(6, after={str(10**9 + number): 0 for number in range(76)}))["complete"]
    assert (await inbox.ask(6, after={}))["code"] == 429

    await connect2(owner)  # 11
    assert (await ask("GET", f"/conversations?uid={owner}")).status == 200
    for _ in range(8):
        await ask("GET", f"/conversations?uid={owner}")
    assert (await ask("GET", f"/conversations?uid={owner}")).status == 429

    writer, device = await connect2(friend, reader), await connect2(reader, friend)
    for name in [await writer.write(1, content="x") for _ in range(3)]:
        await writer.answer(name)
    for _ in range(16):  # 1.15 each, behind the 1 of opening the socket
        assert len((await device.ask(2))["messages"]) == 3
    assert (await device.ask(2))["code"] == 429

    old = await connect(seeker, friend)
    for _ in range(4):  # 6 each
        await old.send(2, "1")
        await old.receive(50003)
    await old.send(2, "1")
    await old.receive(429)


@pytest.mark.parametrize("flags", [RATE])
async def test_order_is_kept(connect: Connect, pair: Pair) -> None:
    """In protocol v1 a refusal keeps the order of the requests too."""
    one = await connect(*pair)
    for number in range(5):
        await one.send(2 if number % 2 else 1, "x")
    frames = [await one.read() or "" for _ in range(6)]  # the second history has two messages
    assert ['"code":429' in frame for frame in frames] == [False] * 5 + [True]


@pytest.mark.parametrize("flags", [RATE])
async def test_a_flood_is_not_read(connect2: Connect2, pair: Pair) -> None:
    """After a refusal the socket waits before it reads on, so that TCP slows the client down."""
    one = await connect2(*pair)
    for _ in range(10):
        await one.write(5)
    assert (await one.read())["code"] == 429
    refused = asyncio.get_running_loop().time()
    assert (await one.read())["code"] == 429
    assert asyncio.get_running_loop().time() - refused > LONGEST_PAUSE / 2  # never sooner


FRAMES = {
    "pings": frame(PING, "are you there"),
    "pongs that were not asked for": frame(PONG),
    "parts": b"".join(frame(CONTINUATION, fin=False) for _ in range(10)),
}


def take_token(socket: Any) -> bool:
    """Return whether a token was left for the user of a socket, and take it, as a request of any weight would."""
    return socket._requests.take() == 0  # noqa: SLF001  # a request of the client's own would begin other work


@pytest.mark.parametrize("flags", [["--request-rate=0.001", "--request-burst=20"]])
@pytest.mark.parametrize("kind", FRAMES)
async def test_frames_that_ask_for_nothing(kind: str, http_server: Server, connect: Connect, pair: Pair) -> None:
    """Pings and pongs cost as much as requests, a message's part a tenth; without tokens nothing is read."""
    raw, other = await RawSocket.upgraded(http_server.port, *pair), await connect(*reversed(pair))
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    if kind == "parts":
        raw.write_frame(1, b"", fin=False)
    for _ in range(15):
        raw.writer.write(FRAMES[kind])
    raw.write_frame(9, b"done")
    while await raw.frame() != (10, b"done"):
        pass
    assert take_token(socket)
    for _ in range(10):
        raw.writer.write(FRAMES[kind])
    await until(lambda: socket._paused)  # noqa: SLF001  # the client sees nothing of it
    assert not take_token(socket)
    await other.say("others are served")
    socket.abort()  # the end of a connection that is not read is noticed late
    raw.abort()


@pytest.mark.parametrize("flags", [["--request-rate=0.001", "--request-burst=5", "--ping-interval=1000"]])
async def test_pongs_that_answer_a_ping(connect: Connect, pair: Pair) -> None:
    """A pong that answers the server's ping costs nothing, however many there are."""
    one = await connect(*pair)
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    now = asyncio.get_running_loop().time()
    for number in range(1, 10):
        ChatSocket.hub.check_peers(now + 1001 * number, ChatSocket.hub.users())
        reading = asyncio.ensure_future(one.connection.read_message())
        await until(lambda: not socket.liveness.asked)
        reading.cancel()
    assert take_token(socket)


@pytest.mark.parametrize("flags", [["--request-rate=1000", "--request-burst=10"]])
async def test_a_pause_ends(http_server: Server, pair: Pair) -> None:
    """A client that sent too many pings is read again when there are tokens, and each ping is answered."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    for number in range(50):
        raw.write_frame(9, b"%d" % number)
    assert [await raw.frame() for _ in range(50)] == [(10, b"%d" % number) for number in range(50)]
    raw.abort()


@pytest.mark.parametrize("flags", [["--strangers-per-hour=2"]])
async def test_too_many_strangers(connect: Connect, connect2: Connect2, people: People) -> None:
    """A user may write to a limited number of strangers, on any socket; ids without an account count too."""
    one, first, second, third, friend = people(5)
    inbox = await connect2(one)
    await inbox.say("hello", 50005, to=str(first), id="k")
    await inbox.say("hello", 404, to="4000000000")
    answers = [await inbox.say("hello", 50006, to=str(peer)) for peer in (second, 4_000_000_001)]
    for answer in answers:
        assert answer["error"] == "too many users who have never answered"
        assert 0 < answer["retry_after"] <= 3600
    assert (await inbox.say("hello", 404, to="4000000000"))["to"] == "4000000000"
    await (await connect(one, third)).say("hello", 50006)
    await inbox.say("again", 50005, to=str(first))
    assert (await inbox.say("hello", 50005, to=str(first), id="k"))["dup"]
    await (await connect2(friend, one)).say("hello", 50004)
    await inbox.receive(50001)
    await inbox.say("hello yourself", 50004, to=str(friend))


@pytest.mark.parametrize("flags", [["--bytes-per-day=1000"]])
async def test_bytes_of_a_day(connect: Connect, connect2: Connect2, people: People) -> None:
    """A user whose bytes of the day are used up can store nothing more, in any conversation; others can."""
    one, two, stranger = people(3)
    mine, theirs = await connect2(one, two), await connect2(two, one)
    await mine.say("hello", 50004)
    await theirs.say("hello", 50004)
    first = await mine.say("first", 50004, id="first")
    async with asyncio.timeout(PATIENCE):
        while (answer := await mine.say("字" * 40))["code"] != 50006:
            assert answer["code"] == 50004
    assert answer["error"] == "too many bytes"
    assert 86_000 < answer["retry_after"] <= 86_400
    for _ in range(3):
        await mine.say("x", 50006)
    await (await connect(one, two)).say("x", 50006)
    await (await connect(one, stranger)).say("x", 50006)
    again = await mine.say("first", 50004, id="first")
    assert (again["seq"], again["dup"]) == (first["seq"], True)
    for _ in range(3):
        await theirs.say("mine go on", 50004)


@pytest.mark.parametrize("flags", [["--strangers-per-hour=0", "--bytes-per-day=0"]])
async def test_without_quotas(connect2: Connect2, people: People) -> None:
    """Without quotas only the limit rule refuses messages."""
    one, *others = people(12)
    inbox = await connect2(one)
    for peer in others:
        await inbox.say("x" * 8000, 50005, to=str(peer))
