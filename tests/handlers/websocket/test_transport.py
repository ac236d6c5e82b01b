"""What happens over time on a connection of the loop's own.

What bytes mean is in test_bulk_streams.py and, on real connections, in test_conformance.py; how Tornado hands
connections over in test_bulk_hand_over.py; what handlers may call in test_bulk_handlers.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from tornado.iostream import IOStream

from handlers.websocket.tornado_transport import StreamTransport
from handlers.websocket.transport import CONGESTED, FRAMES, BulkProtocol
from tests.support.sockets import end_of, until
from tests.support.transports import (
    BINARY,
    LIMIT,
    PING,
    TEXT,
    Handler,
    attached,
    close_frame,
    feed,
    frame,
    lose,
    parted,
    turns,
)

HI = frame(TEXT, "hi")


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def texts(*numbers: int) -> bytes:
    return b"".join(frame(TEXT, str(number)) for number in numbers)


# Reading


async def test_what_a_handler_waits_for() -> None:
    """Until its future is done nothing more is handed on or read; then all is, in order, also what came meanwhile."""
    protocol, transport, events, handler = attached()
    await turns()
    waits = {"1": future(), "3": future()}
    handler.answer = waits.get
    protocol.data_received(texts(0, 1, 2)[:-1])
    assert (events, transport.reading) == (["0", "1"], False)
    protocol.data_received(texts(2)[-1:] + texts(3, 4))  # had been read before the transport was told
    await turns()
    assert (events, transport.reading) == (["0", "1"], False)
    waits["1"].set_result(None)
    await turns()
    assert (events, transport.reading) == (["0", "1", "2", "3"], False)
    waits["3"].set_result(None)
    await turns()
    assert (events, transport.reading) == (["0", "1", "2", "3", "4"], True)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_every_kind_of_message_is_waited_for(opcode: int) -> None:
    """Whole or in parts."""
    protocol, transport, events, handler = attached()
    for message in (frame(opcode, "a"), frame(opcode, fin=False) + frame(0, "a")):
        await turns()
        assert transport.reading
        wait = future()
        handler.answer = lambda _, wait=wait: wait
        protocol.data_received(message)
        protocol.data_received(HI)
        assert (len(events), transport.reading) == (1, False)
        handler.answer(events.pop()).set_result(None)
        handler.answer = lambda _: None
        await turns()
        assert events.pop() == "hi"


async def test_others_have_their_turn() -> None:
    """Of many frames in one read the first are worked off at once, the rest in later turns, in order."""
    protocol, transport, events, _ = attached()
    await turns()
    asyncio.get_running_loop().call_soon(events.append, "others")
    protocol.data_received(texts(*range(2 * FRAMES + 1)))
    assert (events, transport.reading) == ([str(number) for number in range(FRAMES)], False)
    protocol.data_received(texts(2 * FRAMES + 1))
    await until(lambda: transport.reading)
    events.remove("others")
    assert events == [str(number) for number in range(2 * FRAMES + 2)]


async def test_many_reads_are_one_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked off in a period is counted over all reads in it."""
    monkeypatch.setattr("handlers.websocket.transport.PERIOD", 0.3)
    protocol, transport, events, _ = attached()
    await turns()
    for number in range(FRAMES + 1):
        protocol.data_received(texts(number))
    assert (len(events), transport.reading) == (FRAMES, False)
    await until(lambda: transport.reading)
    assert events == [str(number) for number in range(FRAMES + 1)]


async def test_a_handler_that_fails() -> None:
    """The connection is torn, and what the same read brought is not handed on."""
    protocol, transport, events, handler = attached()
    await turns()
    handler.answer = lambda message: 1 / 0
    protocol.data_received(HI + HI + frame(PING))
    await turns()
    assert (events, transport.aborted) == (["hi", ("failed", ZeroDivisionError)], True)
    protocol.data_received(HI)
    assert len(events) == 2


async def test_a_handler_that_fails_later() -> None:
    """Its future's error tears the connection, also when it is gone by then."""
    for gone in (False, True):
        protocol, transport, events, handler = attached()
        await turns()
        wait = future()
        handler.answer = lambda message, wait=wait: wait
        protocol.data_received(HI + HI)
        if gone:
            lose(protocol, transport)
        wait.set_exception(ZeroDivisionError())
        await turns()
        assert ("failed", ZeroDivisionError) in events
        assert events.count("hi") == 1
        assert transport.aborted is not gone


async def test_lost_in_the_midst_of_everything() -> None:
    """The handler is told once; nothing is handed on, written or waited for any more."""
    protocol, transport, events, handler = attached()
    await turns()
    wait = future()
    handler.answer = lambda message: wait
    protocol.pause_writing()
    waiting = asyncio.ensure_future(protocol.sent())
    protocol.data_received(frame(PING) + HI + HI[:3])
    protocol.write_text(b"late")
    protocol.close(1001)
    timer = protocol._timer
    assert timer is not None
    lose(protocol, transport)
    wait.set_result(None)
    await waiting
    await turns()
    assert parted(events)[0] == ["hi", ("end", None, None)]
    assert ("pong", b"") not in events
    assert timer.cancelled()
    protocol.close(1000)
    assert protocol._timer is timer
    assert (protocol.write_text(b"x"), protocol.is_closing(), protocol.unsent) == (False, True, 0)


# Writing


async def test_one_turn_is_one_write() -> None:
    """What is written in one turn leaves together and in order; a goodbye comes after it, and nothing after that."""
    protocol, transport, events, _ = attached()
    for text in (b"", b"x" * 125, b"x" * 126, b"x" * 1000):
        assert protocol.write_text(text)
    protocol.write_ping(b"?")
    protocol.close(4008, "too slow")
    protocol.write_ping(b"late")
    assert not protocol.write_text(b"late")
    await turns()
    assert transport.writes == 1
    sizes = [len(said) for kind, said in events if kind == "text"]
    assert (sizes, events[4:]) == ([0, 125, 126, 1000], [("ping", b"?"), ("close", 4008)])


async def test_much_is_handed_to_the_transport_at_once() -> None:
    """So that it says when too much is unsent."""
    protocol, transport, _, _ = attached()
    protocol.write_text(b"x" * 65_536)
    assert (transport.writes, protocol.unsent) == (1, 0)


async def test_pongs_that_nobody_reads() -> None:
    """While much is unsent no ping is answered; then the last one is, and after it each one again."""
    protocol, transport, events, _ = attached()
    protocol.pause_writing()
    await feed(protocol, transport, [b"".join(frame(PING, str(number)) for number in range(1000))])
    assert events == []
    protocol.resume_writing()
    await feed(protocol, transport, [frame(PING, "again")])
    assert events == [("pong", b"999"), ("pong", b"again")]


async def test_no_pong_after_a_goodbye() -> None:
    """Neither the one that was held back."""
    protocol, transport, events, _ = attached()
    protocol.pause_writing()
    await feed(protocol, transport, [frame(PING)])
    protocol.close(1000)
    protocol.resume_writing()
    await feed(protocol, transport, [frame(PING)])
    assert events == [("close", 1000)]


# The end


async def test_our_goodbye() -> None:
    """It is said once; what comes before the peer's is handed on; with that the transport is closed."""
    protocol, transport, events, _ = attached()
    protocol.close(1001, "why")
    timer = protocol._timer
    protocol.close(1000)
    await feed(protocol, transport, [HI])
    assert (parted(events), transport.is_closing()) == ((["hi"], [("close", 1001)]), False)
    await feed(protocol, transport, [close_frame(1001) + HI])
    assert (events[2:], transport.is_closing(), protocol._timer is timer) == ([], True, True)
    lose(protocol, transport)
    assert timer is not None
    assert timer.cancelled()


async def test_a_peer_that_does_not_answer_our_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is torn off after a time."""
    monkeypatch.setattr("handlers.websocket.transport.CLOSE_WITHIN", 0)
    protocol, transport, _, _ = attached()
    protocol.close(1000)
    assert not transport.is_closing()
    await until(lambda: transport.aborted)


@pytest.mark.parametrize("last", [b"", close_frame(1000), HI[:1] + b"\0"], ids=["end", "goodbye", "broken"])
async def test_a_peer_that_does_not_take_what_is_unsent(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ended: it gets what was written before, and is torn off if it does not take that in time."""
    monkeypatch.setattr("handlers.websocket.transport.CLOSE_WITHIN", 0)
    protocol, transport, events, _ = attached()
    await turns()
    protocol.write_text(b"before")
    if last:
        protocol.data_received(last)
    else:
        protocol.eof_received()
    await until(lambda: transport.aborted)
    assert events[0] == ("text", b"before")


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["asyncio", "uvloop", "asyncio with a stream", "uvloop with a stream"])
def on(request: pytest.FixtureRequest) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs a test with a real connection on a transport of this kind; no error may reach the loop."""
    loop_name, _, stream = request.param.partition(" with a ")

    def run(test: Callable[..., Awaitable[None]]) -> None:
        async def connected() -> None:
            errors: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: errors.append(context))
            with socket.create_server(("127.0.0.1", 0)) as server:
                peer = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
            handler = Handler()
            protocol = handler.protocol = BulkProtocol(handler, LIMIT)  # type: ignore[arg-type]
            protocol.taken_over = True
            with peer:
                peer.setblocking(False)
                if stream:
                    accepted.setblocking(False)
                    protocol.connection_made(StreamTransport(IOStream(accepted), protocol))
                else:
                    await loop.connect_accepted_socket(lambda: protocol, accepted)
                await test(protocol, handler, peer)
                await until(lambda: protocol._lost)
            await turns()
            assert not errors
            assert [event[0] for event in handler.events if isinstance(event, tuple)].count("end") == 1

        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(connected())

    return run


async def all_of(peer: socket.socket) -> bytes:
    """What comes up to the end."""
    data = b""
    while part := await asyncio.get_running_loop().sock_recv(peer, 2**20):
        data += part
    return data


def test_a_goodbye_while_much_is_unsent(on: Any) -> None:
    """All is sent, then the answer, then the end."""

    async def test(protocol: BulkProtocol, handler: Handler, peer: socket.socket) -> None:
        for _ in range(100):
            protocol.write_text(b"x" * 100_000)
        peer.send(close_frame(1000))
        await until(lambda: protocol.client_terminated)
        assert protocol.unsent
        data = await all_of(peer)
        assert (len(data), data[-4:]) == (100 * 100_010 + 4, b"\x88\x02\x03\xe8")

    on(test)


def test_what_breaks_the_protocol_is_told_why(on: Any) -> None:
    """Our side of the connection ends after the close frame; the other one with the peer's."""

    async def test(protocol: BulkProtocol, handler: Handler, peer: socket.socket) -> None:
        peer.send(HI + b"\xff\xff" + bytes(100_000))
        data = await all_of(peer)
        assert (handler.events, data[0], data[2:4]) == (["hi"], 0x88, b"\x03\xea")
        assert not protocol._lost
        peer.close()

    on(test)


def test_a_reset_before_what_breaks_the_protocol(on: Any) -> None:
    """Nothing is told to a peer that has gone when its last frames' turn comes."""

    async def test(protocol: BulkProtocol, handler: Handler, peer: socket.socket) -> None:
        wait = future()
        handler.answer = lambda message: wait
        protocol.close(1001)
        peer.send(HI + frame(0xF))
        await until(lambda: handler.events)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        wait.set_result(None)

    on(test)


def test_pings_without_end(on: Any) -> None:
    """Pongs pile up no higher than to where the transport says that it is too much, however many pings come."""

    async def test(protocol: BulkProtocol, handler: Handler, peer: socket.socket) -> None:
        end_of(protocol).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(400):
            said = frame(PING, str(number).encode().rjust(125)) * 100
            await asyncio.get_running_loop().sock_sendall(peer, said)
            assert protocol.unsent < 3 * CONGESTED
        await asyncio.get_running_loop().sock_sendall(peer, close_frame())
        data = await all_of(peer)
        assert data.endswith(b"\x88\x00")

    on(test)
