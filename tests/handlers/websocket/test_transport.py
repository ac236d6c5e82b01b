"""What happens over time on a connection, on transports of the event loop and of Tornado's stream.

What bytes mean is in test_transport_streams.py and, on real connections, in test_conformance.py. How Tornado hands
connections over is in test_transport_hand_over.py, and what subclasses may call in test_transport_subclasses.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from tornado.iostream import IOStream

from handlers.websocket.tornado_transport import StreamTransport
from handlers.websocket.transport import CONGESTED, FRAMES
from tests.support.sockets import until
from tests.support.transports import (
    BINARY,
    PING,
    TEXT,
    RecordingProtocol,
    attached,
    close_frame,
    feed,
    frame,
    lose,
    parted,
    reset,
    timers_of,
    turns,
)

HI = frame(TEXT, "hi")


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def texts(*numbers: int) -> bytes:
    return b"".join(frame(TEXT, str(number)) for number in numbers)


# Reading


async def test_a_future_that_is_waited_for() -> None:
    """While a message's future is pending nothing is handled or read; then all is, in order."""
    protocol, transport, events = attached()
    await turns()
    waits = {"1": future(), "3": future()}
    protocol.answer = waits.get
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
    """The future of a text or binary message, whole or in parts, is waited for."""
    protocol, transport, events = attached()
    for message in (frame(opcode, "a"), frame(opcode, fin=False) + frame(0, "a")):
        await turns()
        assert transport.reading
        wait = future()
        protocol.answer = lambda _, wait=wait: wait
        protocol.data_received(message)
        protocol.data_received(HI)
        assert (len(events), transport.reading) == (1, False)
        protocol.answer(events.pop()).set_result(None)
        protocol.answer = lambda _: None
        await turns()
        assert events.pop() == "hi"


async def test_others_have_their_turn() -> None:
    """Of many frames in one read the first are handled at once and the rest in later turns, in order."""
    protocol, transport, events = attached()
    await turns()
    asyncio.get_running_loop().call_soon(events.append, "others")
    protocol.data_received(texts(*range(2 * FRAMES + 1)))
    assert (events, transport.reading) == ([str(number) for number in range(FRAMES)], False)
    protocol.data_received(texts(2 * FRAMES + 1))
    await until(lambda: transport.reading)
    events.remove("others")
    assert events == [str(number) for number in range(2 * FRAMES + 2)]


async def test_many_reads_are_one_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that are handled in a period are counted over all of its reads."""
    monkeypatch.setattr("handlers.websocket.transport.PERIOD", 0.3)
    protocol, transport, events = attached()
    await turns()
    for number in range(FRAMES + 1):
        protocol.data_received(texts(number))
    assert (len(events), transport.reading) == (FRAMES, False)
    await until(lambda: transport.reading)
    assert events == [str(number) for number in range(FRAMES + 1)]


async def test_a_method_that_fails() -> None:
    """An error ends the connection, and the other frames of the same read are not handled."""
    protocol, transport, events = attached()
    await turns()
    protocol.answer = lambda message: 1 / 0
    protocol.data_received(HI + HI + frame(PING))
    await turns()
    assert (events, transport.aborted) == (["hi", ("failed", ZeroDivisionError)], True)
    protocol.data_received(HI)
    assert len(events) == 2


async def test_a_future_that_fails() -> None:
    """A future's error ends the connection, and is reported even if that is lost by then."""
    for gone in (False, True):
        protocol, transport, events = attached()
        await turns()
        wait = future()
        protocol.answer = lambda message, wait=wait: wait
        protocol.data_received(HI + HI)
        if gone:
            lose(protocol, transport)
        wait.set_exception(ZeroDivisionError())
        await turns()
        assert ("failed", ZeroDivisionError) in events
        assert events.count("hi") == 1
        assert transport.aborted is not gone


async def test_a_connection_that_is_lost() -> None:
    """A lost connection reports its end once, and handles, writes and waits for nothing any more."""
    protocol, transport, events = attached()
    await turns()
    wait = future()
    protocol.answer = lambda message: wait
    protocol.pause_writing()
    waiting = asyncio.ensure_future(protocol.wait_sent())
    protocol.data_received(frame(PING) + HI + HI[:3])
    protocol.write(b"late")
    with timers_of(protocol) as timers:
        protocol.close(1001)
        lose(protocol, transport)
        (timer,) = timers
        assert timer.cancelled()
        protocol.close(1000)
        assert timers == [timer]
    wait.set_result(None)
    await waiting
    await turns()
    assert parted(events)[0] == ["hi", ("end", None, None)]
    assert ("pong", b"") not in events
    assert (protocol.write(b"x"), protocol.is_closing(), protocol.unsent) == (False, True, 0)


# Writing


async def test_one_turn_is_one_write() -> None:
    """Frames of one turn are sent together and in order, a close frame is the last, and none follows it."""
    protocol, transport, events = attached()
    for text in (b"", b"x" * 125, b"x" * 126, b"x" * 1000):
        assert protocol.write(text)
    protocol.ping(b"?")
    protocol.close(4008, "too slow")
    protocol.ping(b"late")
    assert not protocol.write(b"late")
    await turns()
    assert transport.writes == 1
    sizes = [len(said) for kind, said in events if kind == "text"]
    assert (sizes, events[4:]) == ([0, 125, 126, 1000], [("ping", b"?"), ("close", 4008)])


async def test_much_is_handed_to_the_transport_at_once() -> None:
    """Many bytes are given to the transport at once, so that it can report congestion."""
    protocol, transport, _ = attached()
    protocol.write(b"x" * 65_536)
    assert (transport.writes, protocol.unsent) == (1, 0)


async def test_pongs_while_congested() -> None:
    """While many bytes are unsent no ping is answered; afterwards the last one is, and each new one."""
    protocol, transport, events = attached()
    protocol.pause_writing()
    await feed(protocol, transport, [b"".join(frame(PING, str(number)) for number in range(1000))])
    assert events == []
    protocol.resume_writing()
    await feed(protocol, transport, [frame(PING, "again")])
    assert events == [("pong", b"999"), ("pong", b"again")]


async def test_no_pong_after_a_close_frame() -> None:
    """No pong follows a close frame, nor does one that was held back."""
    protocol, transport, events = attached()
    protocol.pause_writing()
    await feed(protocol, transport, [frame(PING)])
    protocol.close(1000)
    protocol.resume_writing()
    await feed(protocol, transport, [frame(PING)])
    assert events == [("close", 1000)]


# The end


async def test_a_close_frame_of_ours() -> None:
    """A close frame is sent once, and frames before the peer's are handled; with that the transport closes."""
    protocol, transport, events = attached()
    with timers_of(protocol) as timers:
        protocol.close(1001, "why")
        protocol.close(1000)
        await feed(protocol, transport, [HI])
        assert (parted(events), transport.is_closing()) == ((["hi"], [("close", 1001)]), False)
        await feed(protocol, transport, [close_frame(1001) + HI])
        assert (events[2:], transport.is_closing()) == ([], True)
        lose(protocol, transport)
    assert [timer.cancelled() for timer in timers] == [True]


async def test_a_peer_that_does_not_answer_a_close_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not answer a close frame in time is disconnected."""
    monkeypatch.setattr("handlers.websocket.transport.CLOSE_WITHIN", 0)
    protocol, transport, _ = attached()
    protocol.close(1000)
    assert not transport.is_closing()
    await until(lambda: transport.aborted)


@pytest.mark.parametrize("last", [b"", close_frame(1000), HI[:1] + b"\0"], ids=["end", "goodbye", "broken"])
async def test_a_peer_that_does_not_take_unsent_bytes(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames before any end are sent, and a peer that does not take them in time is disconnected."""
    monkeypatch.setattr("handlers.websocket.transport.CLOSE_WITHIN", 0)
    protocol, transport, events = attached()
    await turns()
    protocol.write(b"before")
    if last:
        protocol.data_received(last)
    else:
        protocol.eof_received()
    await until(lambda: transport.aborted)
    assert events[0] == ("text", b"before")


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["asyncio", "uvloop", "asyncio with a stream", "uvloop with a stream"])
def on(request: pytest.FixtureRequest) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Run a test with a real connection on a transport of this kind; no error may reach the loop."""
    loop_name, _, stream = request.param.partition(" with a ")

    def run(test: Callable[..., Awaitable[None]]) -> None:
        async def connected() -> None:
            errors: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: errors.append(context))
            with socket.create_server(("127.0.0.1", 0)) as server:
                peer = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
            protocol = RecordingProtocol()
            with peer:
                peer.setblocking(False)
                if stream:
                    accepted.setblocking(False)
                    protocol.connection_made(StreamTransport(IOStream(accepted), protocol))
                else:
                    await loop.connect_accepted_socket(lambda: protocol, accepted)
                await test(protocol, peer)
                await until(lambda: protocol.ended)
            await turns()
            assert not errors
            assert [event[0] for event in protocol.events if isinstance(event, tuple)].count("end") == 1

        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(connected())

    return run


async def all_of(peer: socket.socket) -> bytes:
    """Return all bytes up to the end."""
    data = b""
    while part := await asyncio.get_running_loop().sock_recv(peer, 2**20):
        data += part
    return data


def test_a_close_frame_while_congested(on: Any) -> None:
    """All frames are sent, then the answer to the close frame, then the end."""

    async def test(protocol: RecordingProtocol, peer: socket.socket) -> None:
        for _ in range(100):
            protocol.write(b"x" * 100_000)
        peer.send(close_frame(1000))
        await until(lambda: protocol.close_code is not None)
        assert protocol.unsent
        data = await all_of(peer)
        assert (len(data), data[-4:]) == (100 * 100_010 + 4, b"\x88\x02\x03\xe8")

    on(test)


def test_a_peer_that_breaks_the_protocol(on: Any) -> None:
    """Our half of the connection ends after the close frame, and the other half with the peer's."""

    async def test(protocol: RecordingProtocol, peer: socket.socket) -> None:
        peer.send(HI + b"\xff\xff" + bytes(100_000))
        data = await all_of(peer)
        assert (protocol.events, data[0], data[2:4]) == (["hi"], 0x88, b"\x03\xea")
        assert not protocol.ended
        peer.close()

    on(test)


def test_a_reset_before_a_broken_frame(on: Any) -> None:
    """Nothing is sent to a peer that is gone when its broken frame is handled."""

    async def test(protocol: RecordingProtocol, peer: socket.socket) -> None:
        wait = future()
        protocol.answer = lambda message: wait
        protocol.close(1001)
        peer.send(HI + frame(0xF))
        await until(lambda: protocol.events)
        reset(peer)
        wait.set_result(None)

    on(test)


def test_pings_without_end(on: Any) -> None:
    """Pongs pile up no higher than the limit of congestion, however many pings come."""

    async def test(protocol: RecordingProtocol, peer: socket.socket) -> None:
        protocol.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(400):
            said = frame(PING, str(number).encode().rjust(125)) * 100
            await asyncio.get_running_loop().sock_sendall(peer, said)
            assert protocol.unsent < 3 * CONGESTED
        await asyncio.get_running_loop().sock_sendall(peer, close_frame())
        data = await all_of(peer)
        assert data.endswith(b"\x88\x00")

    on(test)
