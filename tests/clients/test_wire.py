"""Tests with a broken or hostile server: whatever it sends, the client goes on, and reports nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from clients.client import Client, Event, Status
from clients.outbox import Outbox, path_of
from clients.server import Peer, Server, SessionOver, Unreachable
from clients.wire import Senseless, data_in, frame_in, require_answer
from tests.support.sockets import until

LOG = "0123456789abcdef"
NO_SENSE = "makes no sense"
GREETING = {"from": "", "code": 50002, "content": "", "log": LOG}
SAID = {"from": "2", "code": 50001, "content": "hi", "to": "1", "seq": 1, "time": 1, "id": "x"}
PEER = {"id": 2, "user_name": "b", "nick_name": "b", "avatar": ""}
LAST = {"from": "2", "to": "1", "seq": 1, "time": 1, "content": "hi"}
ENTRY = {"peer": PEER, "last": LAST, "unread": 1, "received": 0, "read": 0, "online": False, "blocked": False}
SESSION = {"auth": "open", "user": None, "users": [PEER], "max_content": 8192, "log": LOG}

ODD_FRAMES: dict[str, Any] = {
    "no JSON": "{",
    "no object": "[]",
    "bytes": b"\x00\xff",
    "nested": "[" * 100_000,
    "a number of 5,000 digits": '{"from":"","code":' + "9" * 5000 + "}",
    "not a number": '{"from":"","code":NaN}',
    "half a character": '{"from":"2","code":50001,"content":"\\ud800","to":"1","seq":1,"time":1}',
    "no code": {"from": "", "content": ""},
    "a code that is text": {"from": "", "code": "50001", "content": ""},
    "nobody's code": {"from": None, "code": 50001},
    "from no user": SAID | {"from": "me"},
    "from a number": SAID | {"from": 2},
    "from digits that are not ASCII": SAID | {"from": "٢"},
    "to nobody": {key: value for key, value in SAID.items() if key != "to"},
    "no seq": {key: value for key, value in SAID.items() if key != "seq"},
    "seq of text": SAID | {"seq": "1"},
    "seq below one": SAID | {"seq": 0},
    "seq beyond all": SAID | {"seq": 2**64},
    "half a seq": SAID | {"seq": 1.5},
    "time beyond the calendar": SAID | {"time": 2**60},
    "time before the epoch": SAID | {"time": -1},
    "content of a number": SAID | {"content": 7},
    "an id that is a list": SAID | {"id": []},
    "an answer whose id is an object": {"from": "", "code": 50002, "content": "", "id": {}},
    "stored without a place": {"from": "", "code": 50004, "content": "", "id": "x"},
    "stored without an id": {"from": "", "code": 50005, "content": "", "seq": 1, "time": 1},
    "positions of text": {"from": "2", "code": 50007, "content": "", "to": "1", "received": "9", "read": 1},
    "positions that are missing": {"from": "2", "code": 50007, "content": "", "to": "1"},
    "presence of a number": {"from": "2", "code": 50009, "content": "", "to": "1", "online": 1},
    "messages that are none": {"from": "", "code": 50002, "content": "", "messages": [1]},
    "a wait without end": '{"from":"","code":429,"content":"","retry_after":1e999}',
    "a wait of text": {"from": "", "code": 429, "content": "", "retry_after": "soon"},
}
ODD_ANSWERS: dict[str, tuple[str, Any]] = {
    "a list that is none": ("/conversations", {}),
    "an entry without a peer": ("/conversations", [{key: v for key, v in ENTRY.items() if key != "peer"}]),
    "a peer with an odd id": ("/conversations", [ENTRY | {"peer": PEER | {"id": "../2"}}]),
    "a peer whose id is negative": ("/conversations", [ENTRY | {"peer": PEER | {"id": -2}}]),
    "a peer whose name is a list": ("/conversations", [ENTRY | {"peer": PEER | {"user_name": []}}]),
    "a last message without seq": ("/conversations", [ENTRY | {"last": {"from": "2"}}]),
    "a last message of the far future": ("/conversations", [ENTRY | {"last": LAST | {"time": 10**18}}]),
    "unread that is an object": ("/conversations", [ENTRY | {"unread": {}}]),
    "positions of text": ("/conversations", [ENTRY | {"received": "1"}]),
}


class Hostile:
    """What a hostile server sends: `frames` after the greeting of each socket, and the `data` of each path."""

    def __init__(self) -> None:
        self.greeting: Any = GREETING
        self.frames: list[Any] = []
        self.data: dict[str, Any] = {"/session": SESSION, "/conversations": []}
        self.port = 0


@pytest.fixture
def hostile(io_loop: IOLoop) -> Iterator[Hostile]:
    server = Hostile()

    class Answer(RequestHandler):
        def get(self) -> None:
            self.write(json.dumps({"status": 200, "data": server.data.get(self.request.path), "msg": "", "error": ""}))

    class Socket(WebSocketHandler):
        def open(self) -> None:
            for frame in (server.greeting, *server.frames):
                text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
                self.write_message(text, binary=isinstance(text, bytes))

        def on_message(self, message: str | bytes) -> None:
            pass

    sockets = bind_sockets(0, "127.0.0.1")
    server.port = sockets[0].getsockname()[1]

    async def start() -> HTTPServer:
        http = HTTPServer(Application([("/ws", Socket), (".*", Answer)]))
        http.add_sockets(sockets)
        return http

    http = io_loop.run_sync(start)
    yield server
    http.stop()
    io_loop.run_sync(http.close_all_connections)


Run = Callable[[], Awaitable[tuple[list[Event], "asyncio.Task[None]"]]]


@pytest.fixture
def run(io_loop: IOLoop, hostile: Hostile, tmp_path: Path) -> Iterator[Run]:
    """Return a function that starts a client at the hostile server. It returns the events, and the task."""
    opened: list[tuple[Server, Outbox, asyncio.Task[None]]] = []

    async def start() -> tuple[list[Event], asyncio.Task[None]]:
        server, events = Server(f"http://127.0.0.1:{hostile.port}"), []
        session = await server.session()
        outbox = Outbox(path_of(tmp_path, server.url, session.log, 1), lambda: 1.0)
        client = Client(server, Peer(1, "a", "a"), outbox, events.append, max_content=session.max_content)
        opened.append((server, outbox, asyncio.create_task(client.run())))
        return events, opened[-1][2]

    async def end() -> None:
        for server, outbox, task in opened:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            outbox.close()
            server.close()

    yield start
    io_loop.run_sync(end)


def refusals(events: list[Event]) -> int:
    """Return how often the client reported nonsense."""
    return sum(isinstance(event, Status) and NO_SENSE in event.reason for event in events)


@pytest.mark.parametrize("frame", ODD_FRAMES.values(), ids=ODD_FRAMES)
async def test_odd_frames(frame: Any, hostile: Hostile, run: Run) -> None:
    """Invalid frames are reported, and the client reconnects."""
    hostile.frames = [frame]
    events, task = await run()
    await until(lambda: refusals(events) or task.done())
    assert not task.done(), task.exception()


@pytest.mark.parametrize(("path", "data"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_odd_answers(path: str, data: Any, hostile: Hostile, run: Run) -> None:
    """Invalid HTTP answers are reported, and the client retries."""
    hostile.data[path] = data
    events, task = await run()
    await until(lambda: refusals(events) or task.done())
    assert not task.done(), task.exception()


async def test_a_server_that_comes_to_its_senses(hostile: Hostile, run: Run) -> None:
    """A server that sends valid frames again is used as before."""
    hostile.frames = ["{"]
    events, _ = await run()
    await until(lambda: refusals(events))
    hostile.frames = []
    await until(lambda: any(isinstance(event, Status) and event.connected for event in events))


async def test_another_installation(hostile: Hostile, run: Run) -> None:
    """Another installation ends the client before anything is sent: its ids are other users."""
    hostile.greeting = GREETING | {"log": LOG[::-1]}
    _, task = await run()
    await until(task.done)
    assert isinstance(task.exception(), SessionOver)
    assert "another installation" in str(task.exception())


@pytest.mark.parametrize(
    "session",
    [
        None,
        [],
        SESSION | {"users": [1]},
        SESSION | {"max_content": "x"},
        SESSION | {"log": "../../etc"},
        {"auth": "open"},
    ],
)
async def test_odd_sessions(session: Any, hostile: Hostile, run: Run) -> None:
    """An invalid session ends the start with an error; an invalid installation id never becomes part of a path."""
    hostile.data["/session"] = session
    with pytest.raises(Unreachable, match=NO_SENSE):
        await run()


@pytest.mark.parametrize("kind", [2, 6])
def test_answers_without_what_was_asked_for(kind: int) -> None:
    """An answer without messages is invalid for a request for messages, and valid for others."""
    frame = frame_in('{"from":"","code":50002,"content":"","id":"q1"}')
    require_answer(4, frame)
    with pytest.raises(Senseless):
        require_answer(kind, frame)
    require_answer(kind, frame | {"messages": [], "complete": True})


def test_what_is_no_envelope() -> None:
    """Neither other JSON nor anything else is accepted as an envelope."""
    for body in (b"", b"[]", b"{}", b"[" * 100_000, b"\xff"):
        with pytest.raises(Senseless):
            data_in(body)
    assert data_in(b'{"data":null}') is None
