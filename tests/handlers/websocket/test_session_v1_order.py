"""The order of answers in protocol v1, with a chat and a history that the test controls.

Over real sockets: test_session_v1.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from handlers.websocket.session_v1 import SessionV1
from handlers.websocket.window import Window
from models.chat.conversation import PendingMessage
from models.chat.history import History, Shown
from models.chat.service import Chat
from models.errors import ChatError, StorageUnavailable
from models.protocol.v1 import Code, RequestType
from models.records import Message
from tests.support.ports import UnusedConnection
from tests.support.sockets import until

# Answers to messages, different so that each tells which message it is for.
CODES = (
    Code.ONLINE,
    Code.OFFLINE,
    Code.LIMIT,
    Code.INVALID,
    Code.FORBIDDEN,
    Code.UNKNOWN_USER,
    Code.TOO_FAST,
    Code.BUG,
    Code.DATABASE,
)
ACTION = 0  # stands for a call of `then` among the types of requests


class Answer(ChatError):
    """An outcome with any code."""

    def __init__(self, code: Code) -> None:
        super().__init__("an outcome")
        self.code = code


ME, PEER = 1, 2


class Client:
    """A session's pipeline, beside its connection. The test names the requests, with numbers, and ends them."""

    def __init__(self, window: int = 100) -> None:
        self.begun: list[str] = []
        self.answered: list[str | int] = []
        self.sent: dict[str, PendingMessage] = {}
        self.shown: dict[str, asyncio.Future[None]] = {}
        self.deadlines: dict[str, float] = {}
        self.pipeline = self
        self.connection = Frames(self)
        self.past = Past(self)
        self.session = SessionV1(
            self.connection, cast("Chat", self), cast("History", self.past), window=Window(window), timeout=60.0
        )

    def take(self, kind: int, name: str) -> None:
        """Let a request arrive."""
        if kind == ACTION:
            self.session.then(lambda: self.answered.append(name))
            return
        if kind != RequestType.SEND:
            self.past.waiting.append(name)
        self.session.take(json.dumps({"type": kind, "content": name}), 1000)

    def send(
        self,
        sender: int,
        recipient: int,
        content: str,
        deadline: float,
        resolved: Callable[[PendingMessage], None],
        *,
        origin: object,
    ) -> PendingMessage:
        assert (sender, recipient, origin) == (ME, PEER, self.connection)
        self.begun.append(content)
        self.deadlines[content] = deadline
        self.sent[content] = PendingMessage(sender, recipient, content, b"", resolved)
        return self.sent[content]


class Frames(UnusedConnection):
    """The connection, which records the answers of the frames that are written."""

    user, peer = ME, PEER

    def __init__(self, client: Client) -> None:
        self._client = client

    @override
    def write_frame(self, frame: bytes) -> bool:
        reply = json.loads(frame)
        self._client.answered.append(reply["content"] if reply["code"] == Code.SUCCESS else reply["code"])
        return True

    @override
    async def wait_writable(self) -> None: ...

    @override
    def charge(self, weight: float) -> None: ...


class Past:
    """A history in which each request is answered with one message, when the test ends it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.waiting: list[str] = []  # the names of requests that have arrived and not begun

    async def before_time(self, reader: int, peer: int, before: int | None, deadline: float) -> list[Message]:
        assert before == int(self.waiting[0]) * 1000
        return [await self._show(deadline)]

    async def unread(self, reader: int, peer: int, deadline: float) -> AsyncIterator[Shown]:
        yield Shown([await self._show(deadline)], upto=1)

    def shown(self, reader: int, peer: int, upto: int) -> None:
        assert (reader, peer, upto) == (ME, PEER, 1)

    async def _show(self, deadline: float) -> Message:
        client, name = self._client, self.waiting.pop(0)
        client.begun.append(name)
        client.deadlines[name] = deadline
        client.shown[name] = asyncio.get_running_loop().create_future()
        await client.shown[name]
        return Message(PEER, ME, 1, 0, name, b"")


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.sampled_from([1, 2, 3, ACTION]), max_size=12), data=st.data())
def test_any_burst_is_answered_in_order(kinds: list[int], data: st.DataObject) -> None:
    """Whatever ends first, answers keep the order of the requests, and nothing overtakes a history request."""

    async def run() -> None:
        client = Client()
        answers: list[str | int] = [
            CODES[number % len(CODES)] if kind == RequestType.SEND else str(number) for number, kind in enumerate(kinds)
        ]
        for number, kind in enumerate(kinds):
            client.take(kind, str(number))
        while len(client.answered) < len(kinds):
            await asyncio.sleep(0)
            sending = [name for name, pending in client.sent.items() if pending.outcome is None]
            showing = [name for name, future in client.shown.items() if not future.done()]
            if not sending + showing:
                continue
            name = data.draw(st.sampled_from(sorted(sending + showing)))
            barriers = [n for n, kind in enumerate(kinds) if kind in (2, 3) and str(n) not in client.answered]
            assert all(int(begun) <= min(barriers, default=99) for begun in client.begun)
            if name in sending:
                client.sent[name].resolve(Answer(CODES[int(name) % len(CODES)]))
            else:
                client.shown[name].set_result(None)
        assert client.answered == answers

    asyncio.run(run())


async def test_deadlines_count_from_arrival_unless_the_wait_was_the_clients() -> None:
    """A deadline starts anew behind a request that was answered, and not behind one that was not."""
    client = Client()
    for name in "012":
        client.take(2, name)
    await until(lambda: "0" in client.shown)
    client.shown["0"].set_result(None)
    await until(lambda: "1" in client.shown)
    assert client.deadlines["1"] > client.deadlines["0"]
    client.shown["1"].set_exception(StorageUnavailable("mongodb", "is away"))
    await until(lambda: "2" in client.shown)
    assert client.deadlines["2"] == client.deadlines["1"]
    assert client.answered == ["0", Code.DATABASE]
    client.session.drop()


async def test_drop_forgets_all_requests() -> None:
    """After a drop nothing is answered, what is being shown is cancelled, and nothing waits for the window."""
    client = Client(window=2)
    for name in "012":
        client.take(2, name)
    capacity = client.session.wait_for_capacity()
    assert capacity is not None
    await until(lambda: "0" in client.shown)
    client.session.drop()
    await until(client.shown["0"].cancelled)
    assert capacity.done()
    assert client.begun == ["0"]
    assert not client.answered
