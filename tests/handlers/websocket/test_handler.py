"""Sockets of a server: registry, window, pings, slow clients, subprotocols, drain."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any
from unittest.mock import Mock

import pytest
from tornado.httputil import HTTPHeaders

import composition
from handlers.websocket import transport
from handlers.websocket.connection import SocketConnection
from handlers.websocket.handler import ChatSocket
from models.errors import StorageUnavailable
from models.records import Message, conversation_of
from server import Server
from tests.conftest import Connect
from tests.support.patience import PATIENCE
from tests.support.sockets import Client, RawSocket, socket_path, until
from tests.support.transports import frame

Pair = tuple[int, int]


STALL = 500.0
INTERVAL, TIMEOUT = 1000.0, 2000.0  # seconds of pings: beyond any test, which says what time it is instead


@pytest.fixture(autouse=True)
def no_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave checking clients to the tests: a check at the real time would undo what one at a later time saw."""
    monkeypatch.setattr(composition, "CHECK_PONGS_EVERY", INTERVAL)


@pytest.fixture
def flags() -> list[str]:
    """Set limits that are low enough to be reached."""
    return [
        "--max-connections=40",
        "--window=8",
        "--write-buffer=65536",
        f"--ping-interval={INTERVAL}",
        f"--ping-timeout={TIMEOUT}",
        f"--stall-timeout={STALL}",
        "--request-burst=1000000",
    ]


async def test_every_device_gets_every_message(connect: Connect, pair: Pair) -> None:
    """All sockets of one user and peer get a message, and closing one leaves the others working."""
    one = await connect(*pair)
    devices = [await connect(*reversed(pair)) for _ in range(3)]
    await one.say("to all", 50004)
    for device in devices:
        await device.receive(50001, "to all")
    devices[0].close()
    await devices[0].closed()
    await until(lambda: ChatSocket.hub.count == 3)
    await one.say("to the rest", 50004)
    for device in devices[1:]:
        await device.receive(50001, "to the rest")


async def test_a_bug_of_one_socket_keeps_no_message_from_others(
    connect: Connect, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a session fails, its socket is closed and has to resume. The others get the message, the sender its answer."""

    def fail(message: object) -> bool:
        raise RuntimeError("a bug")

    broken = [await connect(*pair), await connect(*reversed(pair))]
    for user in pair:
        (socket,) = ChatSocket.hub.sockets_of((user,))
        monkeypatch.setattr(socket, "session", Mock(wraps=socket.session, deliver=fail, copy=fail))
    one, two = await connect(*pair), await connect(*reversed(pair))
    await one.say("to all", 50004)
    await two.receive(50001, "to all")
    assert [await each.closed() for each in broken] == [4008, 4008]
    await until(lambda: ChatSocket.hub.count == 2)


async def test_many_other_sockets_of_a_user_cost_nothing(connect: Connect, people: Callable[[int], list[int]]) -> None:
    """A message touches none of the recipient's sockets that talk with another peer."""
    one, two, three = people(3)
    sender, right = await connect(one, two), await connect(two, one)
    (socket,) = ChatSocket.hub.sockets_of((two,))
    # A Mock fails on what it is not made with: here on what a message would ask for.
    asked = {"user": two, "peer": three, "identity": socket.identity, "watching": False}
    other = Mock(spec=[*asked, "check_peer"], **asked)
    ChatSocket.hub.join(other)
    try:
        await sender.say("for two", 50004)
        await right.receive(50001, "for two")
    finally:
        ChatSocket.hub.leave(other)


async def test_only_the_peer_gets_a_message(connect: Connect, people: Callable[[int], list[int]]) -> None:
    """A message goes to the peer's socket for this conversation, and to no other socket."""
    one, two, three = people(3)
    sender = await connect(one, two)
    right, elsewhere, stranger = await connect(two, one), await connect(two, three), await connect(three, two)
    await sender.say("for two", 50004)
    await right.receive(50001, "for two")
    for other in (elsewhere, stranger):
        await other.send(2)
        await other.receive(50003)


async def test_online_means_that_a_socket_gets_it(connect: Connect, people: Callable[[int], list[int]]) -> None:
    """A peer with a socket for another conversation only is offline for this one."""
    one, two, three = people(3)
    sender = await connect(one, two)
    await connect(two, three)
    await sender.say("hello", 50005)


async def test_connections_are_capped(
    connect: Connect, http_server: Server, people: Callable[[int], list[int]]
) -> None:
    """A socket above --max-connections gets 503; after a close the next one is accepted."""
    hub, *others = people(41)
    clients = [await connect(other, hub) for other in others]
    raw = await RawSocket.open(http_server.port)
    status, body = await raw.request(socket_path(hub, others[0]), upgrade=True)
    assert (status, json.loads(body)["error"]) == (503, "too many connections")
    raw.abort()
    clients[0].close()
    await until(lambda: ChatSocket.hub.count == 39)
    await connect(hub, others[0])


async def test_a_refused_upgrade_does_not_count(http_server: Server, pair: Pair) -> None:
    """Refused upgrades leave the count of sockets at zero, however many there are."""
    for _ in range(45):
        raw = await RawSocket.open(http_server.port)
        status, _ = await raw.request(socket_path(pair[0], 4_000_000_000), upgrade=True)
        assert status == 404
        raw.abort()
    assert ChatSocket.hub.count == 0


async def test_the_window_pushes_back(
    connect: Connect, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many requests in flight as the window holds no frame is read, and none is refused."""
    one = await connect(*pair)
    gate = asyncio.Event()
    insert = http_server.stores.messages.insert
    asked = []
    send = http_server.chat.pipeline.send

    async def slow(*run: Message) -> Any:
        await gate.wait()
        return await insert(*run)

    def counting(*args: Any, **options: Any) -> Any:
        asked.append(args)
        return send(*args, **options)

    monkeypatch.setattr(http_server.stores.messages, "insert", lambda *run: asyncio.ensure_future(slow(*run)))
    monkeypatch.setattr(http_server.chat.pipeline, "send", counting)
    two = await connect(*reversed(pair))
    for number in range(30):
        await one.send(1, str(number))
    await until(lambda: len(asked) == 8)
    await two.send(2)  # another socket is served meanwhile
    await two.receive(50003)
    assert len(asked) == 8
    gate.set()
    codes = [json.loads(await one.read() or "")["code"] for _ in range(30)]
    assert codes == [50004] * 3 + [50006] * 27


async def test_a_full_window_is_no_silence(
    connect: Connect, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server does not read, it does not close for a missing pong."""
    one = await connect(*pair)
    gate = asyncio.Event()
    insert = http_server.stores.messages.insert

    async def slow(*run: Message) -> Any:
        await gate.wait()
        return await insert(*run)

    monkeypatch.setattr(http_server.stores.messages, "insert", lambda *run: asyncio.ensure_future(slow(*run)))
    for number in range(20):
        await one.send(1, str(number))
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    await until(lambda: socket.window.full)
    now = asyncio.get_running_loop().time()
    for later in (1, 2, 3):  # far beyond interval and timeout
        ChatSocket.hub.check_peers(now + later * (INTERVAL + TIMEOUT), ChatSocket.hub.users())
    gate.set()
    await one.receive(50005)


async def test_pings_are_answered(http_server: Server, pair: Pair) -> None:
    """A pong carries the ping's payload."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.write_frame(9, b"payload")
    assert await raw.frame() == (10, b"payload")
    raw.abort()


async def test_a_silent_peer_is_found(http_server: Server, pair: Pair) -> None:
    """A client that does not answer a ping is closed with 4010, and is offline at once."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    now = asyncio.get_running_loop().time()
    ChatSocket.hub.check_peers(now + INTERVAL + 1, ChatSocket.hub.users())
    opcode, _ = await raw.frame()
    assert opcode == 9
    ChatSocket.hub.check_peers(now + INTERVAL + TIMEOUT - 1, ChatSocket.hub.users())
    assert pair[0] in ChatSocket.hub.users()
    ChatSocket.hub.check_peers(now + INTERVAL + TIMEOUT + 2, ChatSocket.hub.users())
    assert pair[0] not in ChatSocket.hub.users()
    assert await raw.close_code() == 4010
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


async def test_a_ping_to_a_closing_connection_stops_no_other(
    connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """A connection that is closing when its ping is due is offline, and the others are pinged."""
    gone, here = tuple(people(2)), tuple(people(2))
    for pair in (gone, here):
        await connect(*pair)
    (closing,), (open_one,) = ChatSocket.hub.sockets_of(gone), ChatSocket.hub.sockets_of(here)
    closing.eof_received()
    ChatSocket.hub.check_peers(asyncio.get_running_loop().time() + INTERVAL + 1, ChatSocket.hub.users())
    assert gone[0] not in ChatSocket.hub.users()
    assert open_one.liveness.asked


async def test_an_idle_socket_holds_little(connect: Connect, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open socket keeps neither its handler nor its request, even before a garbage collection."""
    kept: list[weakref.ref[object]] = []
    initialize = ChatSocket.initialize

    def noting(self: ChatSocket, **collaborators: Any) -> None:
        kept.extend(weakref.ref(each) for each in (self, self.request))
        initialize(self, **collaborators)

    monkeypatch.setattr(ChatSocket, "initialize", noting)
    gc.collect()
    gc.disable()
    try:
        await connect(*pair)
        await until(lambda: not any(reference() for reference in kept))
    finally:
        gc.enable()
    assert len(kept) == 2
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    assert not hasattr(socket, "__dict__")


async def test_a_client_that_answers_pings_stays(connect: Connect, pair: Pair) -> None:
    """A client that answers its pings stays for any number of intervals."""
    one = await connect(*pair)
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    now = asyncio.get_running_loop().time()
    for number in range(1, 6):
        ChatSocket.hub.check_peers(now + number * (INTERVAL + 1), ChatSocket.hub.users())
        assert socket.liveness.asked
        reading = asyncio.ensure_future(one.connection.read_message())
        await until(lambda: not socket.liveness.asked)
        reading.cancel()


async def test_unsolicited_pongs(http_server: Server, pair: Pair) -> None:
    """Unsolicited pongs do not count, since a client can send them without reading."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    now = asyncio.get_running_loop().time()
    ChatSocket.hub.check_peers(now + INTERVAL + 1, ChatSocket.hub.users())
    opcode, asked = await raw.frame()
    assert (opcode, len(asked)) == (9, 4)
    for guess in (b"", b"wrong", asked + b"x"):
        raw.write_frame(10, guess)
    raw.write_frame(9, b"read up to here")
    assert await raw.frame() == (10, b"read up to here")
    ChatSocket.hub.check_peers(now + INTERVAL + TIMEOUT + 2, ChatSocket.hub.users())
    assert await raw.close_code() == 4010
    raw.abort()


async def deaf_socket(one: Client, port: int, pair: Pair) -> tuple[RawSocket, SocketConnection]:
    """Open a socket of protocol v2 whose client does not read, beside the user's only other one, which writes."""
    (before,) = ChatSocket.hub.sockets_of(pair[:1])
    for number in range(3):
        await one.say(f"{number}" + "x" * 8000)
    raw = await RawSocket.open(port)
    # Without a size of its own, the kernel's buffer grows beyond all pages if the client reads fast for a moment.
    raw.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 65_536)
    assert (await raw.request(socket_path(*pair, v="2"), upgrade=True))[0] == 101
    raw.writer.transport.pause_reading()
    (socket,) = (each for each in ChatSocket.hub.sockets_of(pair[:1]) if each is not before)
    return raw, socket


def ask_for_pages(raw: RawSocket) -> None:
    """Request a megabyte in pages, with unsolicited pongs between the requests."""
    for _ in range(40):
        raw.write_frame(1, b'{"type":2,"id":"x"}')
        raw.write_frame(10, b"")


async def test_a_peer_that_reads_nothing(
    connect: Connect, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes none of its unsent bytes for a while is closed, whatever it still sends.

    Its window is full, so none of its frames is read, not even a pong.
    """
    monkeypatch.setattr(transport, "CLOSE_WITHIN", PATIENCE)
    one = await connect(*pair)
    raw, socket = await deaf_socket(one, http_server.port, pair)
    ask_for_pages(raw)
    await until(lambda: socket.stuck and socket.window.full)
    now = asyncio.get_running_loop().time()
    ChatSocket.hub.check_peers(now, ChatSocket.hub.users())
    ChatSocket.hub.check_peers(now + STALL - 1, ChatSocket.hub.users())
    assert socket.is_open
    ChatSocket.hub.check_peers(now + STALL + 1, ChatSocket.hub.users())
    assert not socket.is_open
    raw.writer.transport.resume_reading()
    assert await raw.close_code() == 4008
    raw.abort()
    await one.say("the other socket stays")


async def test_a_peer_that_reads_slowly_stays(connect: Connect, http_server: Server, pair: Pair) -> None:
    """A client stays as long as it takes some bytes between two checks."""
    one = await connect(*pair)
    raw, socket = await deaf_socket(one, http_server.port, pair)
    now = asyncio.get_running_loop().time()
    for _ in range(3):
        ask_for_pages(raw)
        await until(lambda: socket.stuck and socket.window.full)
        ChatSocket.hub.check_peers(now, ChatSocket.hub.users())
        moved = socket.moved
        raw.writer.transport.resume_reading()
        await until(lambda moved=moved: socket.moved > moved)
        raw.writer.transport.pause_reading()
        now += 2 * STALL
        ChatSocket.hub.check_peers(now, ChatSocket.hub.users())
        assert socket.is_open
    raw.abort()


async def test_a_peer_that_reads_too_slowly(connect: Connect, http_server: Server, pair: Pair) -> None:
    """A client with too many unsent bytes is closed with 4008; the sender is not affected, nothing is lost."""
    one = await connect(*pair)
    hello = await connect(*reversed(pair))
    await hello.say("hello", 50004)
    await one.receive(50001)
    hello.close()
    await until(lambda: ChatSocket.hub.count == 1)
    slow = await RawSocket.upgraded(http_server.port, *reversed(pair))
    slow.writer.transport.pause_reading()
    sent, text = 0, "x" * 8000
    while pair[1] in ChatSocket.hub.users():
        await one.say(f"{sent} {text}")
        sent += 1
        assert sent < 5000, "the slow socket is never closed"
    slow.abort()
    await one.say("the last", 50005)
    back = await connect(*reversed(pair))
    await back.send(2)
    for _ in range(9):
        await back.receive(50002)
    await back.receive(50002, "the last")


async def test_twenty_strangers_sends_at_once(connect: Connect, http_server: Server, pair: Pair) -> None:
    """Of messages on twenty sockets at the same moment exactly three are accepted and stored."""
    clients = [await connect(*pair) for _ in range(20)]
    codes = await asyncio.gather(*(client.say(f"{number}") for number, client in enumerate(clients)))
    assert sorted(codes) == [50005] * 3 + [50006] * 17
    assert len(await http_server.stores.messages.page(conversation_of(*pair), 1, 100)) == 3


async def test_a_lookup_that_fails(http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While MySQL is unavailable new sockets get 503, without the driver's words."""

    async def away(*ids: int) -> None:
        raise StorageUnavailable("mysql", "OperationalError: secret host")

    monkeypatch.setattr(http_server.stores.users, "active", away)
    raw = await RawSocket.open(http_server.port)
    status, body = await raw.request(socket_path(*pair), upgrade=True)
    assert (status, json.loads(body)["error"]) == (503, "mysql is unavailable, please retry")
    raw.abort()


async def test_draining(connect: Connect, http_server: Server, pair: Pair) -> None:
    """While draining, each socket gets 50003 and is closed with 1001, and no new one is accepted."""
    clients = [await connect(*pair), await connect(*reversed(pair))]
    ChatSocket.hub.start_draining()
    raw = await RawSocket.open(http_server.port)
    assert (await raw.request(socket_path(*pair), upgrade=True))[0] == 503
    raw.abort()
    closing = asyncio.ensure_future(ChatSocket.hub.close_all(10))
    for client in clients:
        await client.receive(50003, "连接已断开")
        assert await client.closed() == 1001
    await closing
    assert ChatSocket.hub.count == 0


async def test_closing_with_a_code_is_echoed(http_server: Server, pair: Pair) -> None:
    """The client's own close code comes back (RFC 6455, section 5.5.1)."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.write_frame(8, (1000).to_bytes(2, "big"))
    assert await raw.close_code() == 1000
    raw.abort()


async def test_a_client_of_the_servers_page(http_server: Server, pair: Pair) -> None:
    """The server's own pages may open sockets."""
    raw = await RawSocket.open(http_server.port)
    status, _ = await raw.request(socket_path(*pair), upgrade=True, headers={"Origin": "http://127.0.0.1"})
    assert status == 101
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


SUBPROTOCOLS = [
    # offered, v, what is chosen, the version that the socket speaks
    ("tandem.v1", "", "tandem.v1", 1),
    ("tandem.v2", "", "tandem.v2", 2),
    ("graphql-ws, tandem.v2, tandem.v1", "", "tandem.v2", 2),
    ("tandem.v1, tandem.v2", "2", "tandem.v2", 2),
    ("tandem.v2", "2", "tandem.v2", 2),
    ("tandem.v2", "1", None, 1),
    ("mqtt", "", None, 1),
    ("mqtt", "2", None, 2),
    ("", "", None, 1),
]


@pytest.mark.parametrize(("offered", "v", "chosen", "version"), SUBPROTOCOLS)
async def test_subprotocols(
    offered: str, v: str, chosen: str | None, version: int, http_server: Server, pair: Pair
) -> None:
    """The server's subprotocol is chosen of those offered, and sets the version where the URL does not."""
    headers = {"Sec-WebSocket-Protocol": offered} if offered else {}
    raw = await RawSocket.open(http_server.port)
    write, read, answers = raw.writer.write, raw.reader.readuntil, []

    async def noting(separator: bytes) -> bytes:
        answers.append(await read(separator))
        return answers[-1]

    raw.reader.readuntil = noting  # type: ignore[method-assign,assignment]
    path = socket_path(*pair, **({"v": v} if v else {}))
    assert (await raw.request(path, upgrade=True, headers=headers))[0] == 101
    said = HTTPHeaders.parse(answers[0].decode().partition("\r\n")[2]).get("Sec-WebSocket-Protocol")
    assert said == chosen
    await raw.frame()
    write(frame(1, '{"type":1,"content":"hi","id":"x"}'))
    assert ("seq" in json.loads((await raw.frame())[1])) is (version == 2)
    raw.abort()


async def test_an_inbox_by_its_subprotocol(http_server: Server, pair: Pair) -> None:
    """`tandem.v2` stands for `v=2` on an inbox too; without either the peer is missing."""
    for headers, status in (({"Sec-WebSocket-Protocol": "tandem.v2"}, 101), ({}, 400)):
        raw = await RawSocket.open(http_server.port)
        assert (await raw.request(f"/ws?uid={pair[0]}", upgrade=True, headers=headers))[0] == status
        raw.abort()


async def test_one_of_several_upgrades(http_server: Server, pair: Pair) -> None:
    """A client may offer other upgrades besides."""
    raw = await RawSocket.open(http_server.port)
    status, _ = await raw.request(socket_path(*pair), upgrade=True, headers={"Upgrade": "h2c, WebSocket"})
    assert status == 101
    raw.abort()


@pytest.mark.parametrize("early", [b"", frame(1, b'{"type":3}')], ids=["silent", "with a frame unread"])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_client_that_is_gone_before_its_socket_is_open(
    http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch, early: bytes, reset: bool
) -> None:
    """Of a client that goes while its user is looked up nothing stays, neither a socket nor a conversation."""
    asked, gate, wait_held = asyncio.Event(), asyncio.Event(), http_server.chat.blocks.wait_held

    async def late(user: int) -> None:
        await wait_held(user)
        asked.set()
        await gate.wait()

    monkeypatch.setattr(http_server.chat.blocks, "wait_held", late)
    raw = await RawSocket.open(http_server.port)
    upgrade = asyncio.ensure_future(raw.request(socket_path(*pair), upgrade=True))
    await asked.wait()
    raw.writer.write(early)
    await asyncio.sleep(0)
    if reset:
        linger = struct.pack("ii", 1, 0)  # closes with a reset; socket(7)
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raw.abort()
    with suppress(asyncio.IncompleteReadError, OSError):
        await upgrade
    gate.set()
    await until(lambda: not ChatSocket.hub.count)
    await until(lambda: not ChatSocket.hub.users())
    await until(lambda: not len(http_server.chat.conversations))
