"""Protocol v1 over real sockets: the order of answers, history, unread messages, long answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.websocket.handler import ChatSocket
from models.records import Message, conversation_of
from server import Server
from storage.mongo.messages import MongoMessages
from tests.conftest import Connect
from tests.support.clocks import Clock
from tests.support.sockets import RawSocket, until

Pair = tuple[int, int]


@pytest.fixture
def flags() -> list[str]:
    """Bounds low enough to be reached."""
    return ["--window=8"]


async def test_answers_leave_in_order(connect: Connect, pair: Pair) -> None:
    """Messages, malformed frames and history requests in one burst are answered in order.

    Each history has the messages that were sent before it.
    """
    one = await connect(*pair)
    await connect(*reversed(pair))
    expected: list[tuple[int, str | None]] = []
    await one.send(1, "a")
    await one.send_text("garbage")
    await one.send(2)
    await one.send(1, "b")
    await one.send(3)
    await one.send_text("garbage")
    await one.send(1, "c")
    expected = [
        (50004, None),
        (400, None),
        (50002, "a"),
        (50004, None),
        (50002, "a"),
        (50002, "b"),
        (400, None),
        (50004, None),
    ]
    for code, content in expected:
        await one.receive(code, content)


async def test_history_shows_nothing_that_was_sent_after_it(
    connect: Connect, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests behind a history request wait for it, however long it takes."""
    one = await connect(*pair)
    await one.say("before", 50005)
    gate = asyncio.Semaphore(0)
    newest, send = http_server.stores.messages.newest, http_server.chat.pipeline.send
    events = []

    async def slow(name: str) -> int:
        events.append("history")
        await gate.acquire()
        return await newest(name)

    def noted(*args: Any, **options: Any) -> Any:
        events.append("send")
        return send(*args, **options)

    monkeypatch.setattr(http_server.stores.messages, "newest", slow)
    monkeypatch.setattr(http_server.chat.pipeline, "send", noted)
    for kind, content in ((2, ""), (2, ""), (1, "after"), (2, "")):
        await one.send(kind, content)
    for _ in range(3):
        gate.release()
    await one.receive(50002, "before")
    await one.receive(50002, "before")
    await one.receive(50005)
    await one.receive(50002, "before")
    await one.receive(50002, "after")
    assert events == ["history", "history", "send", "history"]


@pytest.mark.parametrize("flags", [["--window=8", "--answer-timeout=2"]])
async def test_requests_that_waited_do_not_wait_again(
    connect: Connect, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a request that got no answer in time, the others are answered at once."""
    one = await connect(*pair)

    async def stuck(name: str) -> int:
        return await asyncio.Event().wait()

    monkeypatch.setattr(http_server.stores.messages, "newest", stuck)
    time = asyncio.get_running_loop().time
    begun = time()
    for _ in range(7):
        await one.send(2)
    await one.receive(40001)
    first = time()
    for _ in range(6):
        await one.receive(40001)
    assert time() - first < 5 * (first - begun)  # six that wait as long as the first would take longer


async def test_pipelined_messages_keep_their_order(connect: Connect, pair: Pair) -> None:
    """Of far more messages than the window holds none is lost: reading goes on as answers are written."""
    one, two = await connect(*pair), await connect(*reversed(pair))
    await two.say("hello", 50004)
    await one.receive(50001, "hello")
    for number in range(500):
        await one.send(1, str(number))
    for number in range(500):
        await two.receive(50001, str(number))
    for _ in range(500):
        await one.receive(50004)


@pytest.mark.parametrize("flags", [["--write-buffer=65536"]])
async def test_a_long_answer_waits_for_its_reader(
    connect: Connect, http_server: Server, messages: MongoMessages, pair: Pair
) -> None:
    """An answer that is far longer than the write buffer does not close the socket."""
    count, text = 400, "长" * 8000
    await messages.reserve(conversation_of(*pair), count)
    stored = [Message(pair[0], pair[1], seq, 10**12 * 2, text, seq.to_bytes(16, "big")) for seq in range(1, count + 1)]
    await asyncio.gather(*(messages.insert(message) for message in stored))
    reader = await RawSocket.upgraded(http_server.port, *reversed(pair))
    reader.writer.transport.pause_reading()
    reader.write_frame(1, b'{"type":3}')
    (socket,) = ChatSocket.hub.sockets_of(pair[1:])
    await until(lambda: socket.unsent > 0)
    reader.writer.transport.resume_reading()
    for _ in range(count):
        opcode, payload = await reader.frame()
        assert (opcode, len(payload)) == (1, 3 * 8000 + 40)
    reader.abort()


async def test_types_two_and_three_without_messages(connect: Connect, pair: Pair) -> None:
    """Without messages, both requests are answered with the end of history in the socket's language."""
    chinese, english = await connect(*pair), await connect(*pair, lang="en")
    for kind in (2, 3):
        await chinese.send(kind)
        await chinese.receive(50003, "到底了")
        await english.send(kind)
        await english.receive(50003, "no more messages")


async def test_unread_beyond_a_page(connect: Connect, pair: Pair) -> None:
    """All messages since the first unread one are shown, in both directions, and are read then."""
    one, two = await connect(*pair), await connect(*reversed(pair))
    await two.say("hello", 50004)
    await one.receive(50001)
    two.close()
    await until(lambda: ChatSocket.hub.count == 1)
    for number in range(250):
        await one.say(str(number), 50005)
    two = await connect(*reversed(pair))
    await two.say("back", 50004)
    await two.send(3)
    for number in range(250):
        await two.receive(50002, str(number), sender="you")
    await two.receive(50002, "back", sender="me")
    await two.send(3)  # nothing is unread now: the ten newest
    for number in range(241, 250):
        await two.receive(50002, str(number), sender="you")
    await two.receive(50002, "back", sender="me")


async def test_what_is_read_survives(connect: Connect, http_server: Server, pair: Pair) -> None:
    """The read position is stored, so a conversation that was forgotten in between continues there."""
    one = await connect(*pair)
    for text in ("first", "second"):
        await one.say(text, 50005)
    two = await connect(*reversed(pair))
    await two.send(3)
    for text in ("first", "second"):
        await two.receive(50002, text)
    await one.say("live", 50004)
    await two.receive(50001, "live")
    for client in (one, two):
        client.close()
    await until(lambda: ChatSocket.hub.count == 0)
    assert not list(http_server.chat.conversations)
    two = await connect(*reversed(pair))
    await two.say("an answer", 50005)
    two.close()
    await until(lambda: ChatSocket.hub.count == 0)
    one = await connect(*pair)
    await one.send(3)
    await one.receive(50002, "an answer", sender="you")
    await one.send(1, "end")
    await one.receive(50005)


async def test_messages_expire(connect: Connect, pair: Pair, clock: Clock) -> None:
    """After three months no request shows a message any more, and the conversation goes on."""
    one = await connect(*pair)
    await one.say("old", 50005)
    clock.offset = 91 * 86_400
    for kind in (2, 3):
        await one.send(kind)
        await one.receive(50003)
    await one.say("new", 50005)
    await one.send(2)
    await one.receive(50002, "new")
    two = await connect(*reversed(pair))
    await two.send(3)
    await two.receive(50002, "new")
