"""The order of answers and the window, with an answerer that the test controls.

Over real sockets: test_session_v1.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.websocket.answers import Answers, Window
from models.chat.conversation import PendingMessage, Stored
from models.errors import ChatError
from models.protocol.v1 import Request
from tests.support.sockets import until


class Socket:
    """Records what begins and what is answered; the test ends each request."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.answered: list[str] = []
        self.sent: dict[str, PendingMessage] = {}
        self.shown: dict[str, asyncio.Future[bool]] = {}
        self.deadlines: dict[str, float] = {}

    def send(self, request: Request, deadline: float, resolved: Callable[[PendingMessage], None]) -> PendingMessage:
        self.begun.append(request.content)
        self.deadlines[request.content] = deadline
        self.sent[request.content] = PendingMessage(1, 2, request.content, b"", resolved)
        return self.sent[request.content]

    async def show(self, request: Request, deadline: float) -> bool:
        self.begun.append(request.content)
        self.deadlines[request.content] = deadline
        self.shown[request.content] = asyncio.get_running_loop().create_future()
        healthy = await self.shown[request.content]
        self.answered.append(request.content)
        return healthy

    def tell_outcome(self, outcome: Stored | ChatError) -> None:
        assert isinstance(outcome, Stored)
        self.answered.append(str(outcome.seq))


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.sampled_from([1, 2, 3, 0]), max_size=12), data=st.data())
def test_any_burst_is_answered_in_order(kinds: list[int], data: st.DataObject) -> None:
    """Whatever ends first, answers keep the order of the requests, and nothing overtakes a history request."""

    async def run() -> None:
        socket = Socket()
        answers = Answers(socket, Window(100), 60)
        for number, kind in enumerate(kinds):
            name = str(number)
            if kind == 0:
                answers.then(lambda name=name: socket.answered.append(name))
            else:
                answers.take(Request(kind, name))
        while len(socket.answered) < len(kinds):
            await asyncio.sleep(0)
            sending = [name for name, pending in socket.sent.items() if pending.outcome is None]
            showing = [name for name, future in socket.shown.items() if not future.done()]
            if not sending + showing:
                continue
            name = data.draw(st.sampled_from(sorted(sending + showing)))
            barriers = [n for n, kind in enumerate(kinds) if kind in (2, 3) and str(n) not in socket.answered]
            assert all(int(begun) <= min(barriers, default=99) for begun in socket.begun)
            if name in sending:
                socket.sent[name].resolve(Stored(int(name), 0, online=True))
            else:
                socket.shown[name].set_result(True)
        assert [str(number) for number in range(len(kinds))] == socket.answered

    asyncio.run(run())


async def test_the_window_opens_again_at_half() -> None:
    """A full window blocks reading until half of the requests are answered."""
    socket = Socket()
    answers = Answers(socket, window := Window(4), 60)
    for number in range(4):
        assert answers.wait_for_capacity() is None
        answers.take(Request(1, str(number)))
    capacity = answers.wait_for_capacity()
    assert capacity is not None
    assert window.full
    socket.sent["0"].resolve(Stored(0, 0, online=True))
    await until(lambda: len(socket.answered) == 1)
    assert not capacity.done()
    socket.sent["1"].resolve(Stored(1, 0, online=True))
    await until(capacity.done)
    assert not window.full


async def test_deadlines_count_from_arrival_unless_the_wait_was_the_clients() -> None:
    """A deadline starts anew behind a request that was answered, and not behind one that was not."""
    socket = Socket()
    answers = Answers(socket, Window(100), 60)
    for name in ("a", "b", "c"):
        answers.take(Request(2, name))
    await until(lambda: "a" in socket.shown)
    socket.shown["a"].set_result(True)
    await until(lambda: "b" in socket.shown)
    assert socket.deadlines["b"] > socket.deadlines["a"]
    socket.shown["b"].set_result(False)
    await until(lambda: "c" in socket.shown)
    assert socket.deadlines["c"] == socket.deadlines["b"]
    answers.drop()


async def test_drop_forgets_all_requests() -> None:
    """After a drop nothing is answered, what is being shown is cancelled, and nothing waits for the window."""
    socket = Socket()
    answers = Answers(socket, Window(2), 60)
    for name in ("a", "b", "c"):
        answers.take(Request(2, name))
    capacity = answers.wait_for_capacity()
    assert capacity is not None
    await until(lambda: "a" in socket.shown)
    answers.drop()
    await until(socket.shown["a"].cancelled)
    assert capacity.done()
    assert socket.begun == ["a"]
    assert not socket.answered
