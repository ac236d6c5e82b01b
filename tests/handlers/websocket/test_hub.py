"""Tests of the hub: whose first and last sockets it tells of, what the chat keeps for them, and bugs in sockets."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.websocket.hub import RESUME, Hub
from handlers.websocket.quota import ALL, QuotaLease
from models.chat.events import Typing
from models.chat.service import Chat
from models.records import Message, conversation_of
from tests.support.chats import Channels, FriendsWithoutMessages, GatedBlocks
from tests.support.hub import Device, RecordedAttendance, RecordedSocket
from tests.support.ports import UnusedCounters, UnusedMessages


class Step(NamedTuple):
    """A step of a random run: what is done, for which user and peer or by which of the sockets that may do it."""

    action: str
    user: int
    peer: int | None
    watching: bool
    which: int


steps = st.builds(
    Step,
    st.sampled_from(["connect", "join", "join", "leave", "disconnect"]),
    st.integers(1, 2),
    st.none() | st.integers(4, 5),
    st.booleans(),
    st.integers(0, 1000),
)
runs = st.lists(steps, min_size=20, max_size=60)


def started(*broken: str) -> tuple[Hub, RecordedAttendance]:
    hub, attendance = Hub(), RecordedAttendance(*broken)
    hub.start(attendance)
    return hub, attendance


class Model:
    """A hub, and the connections in the simplest form: which are counted, and which of them have joined."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.leases: dict[Device, QuotaLease] = {}
        self.joined: list[Device] = []

    def do(self, step: Step) -> None:
        """Do a step, unless no connection can do it."""
        waiting = [device for device in self.leases if device not in self.joined]
        if step.action == "connect":
            device = Device(step.user, step.peer, watching=step.watching)
            self.leases[device] = self.hub.quota.lease()
            self.leases[device].take(ALL, 1000, LookupError())
            self.leases[device].take(device.user, 1000, LookupError())
        elif step.action == "join" and waiting:
            self.joined.append(waiting[step.which % len(waiting)])
            self.hub.join(self.joined[-1])
        elif step.action == "leave" and self.joined:
            self.hub.leave(self.joined.pop(step.which % len(self.joined)))
        elif step.action == "disconnect" and waiting:
            self.leases.pop(waiting[step.which % len(waiting)]).release()

    def end(self) -> None:
        """End all connections."""
        for device in self.joined:
            self.hub.leave(device)
        for lease in self.leases.values():
            lease.release()
            lease.release()
        self.joined.clear()
        self.leases.clear()

    def needed(self) -> set[tuple[Any, ...]]:
        """Return what has to be open."""
        connections = {("connections", device.user) for device in self.leases}
        return connections | {each for device in self.joined for each in device.open_by_it()}


@settings(max_examples=200)
@given(runs)
def test_first_and_last_sockets(run: list[Step]) -> None:
    """After each step, what was told to be open is what the connections need, and each change was told once.

    A connection may end without having joined, and a socket that has left keeps its connection until that is lost.
    """
    hub, attendance = started()
    model = Model(hub)
    for step in run:
        before, told = set(attendance.open), len(attendance.told)
        model.do(step)
        assert attendance.open == model.needed()
        assert len(attendance.told) - told == len(before ^ attendance.open)
        assert hub.count == len(model.leases)
        assert set(hub.users()) == {device.user for device in model.joined}
        assert all(hub.has(user) == (user in hub.users()) for user in (1, 2))
    model.end()
    assert not attendance.open
    assert (hub.count, set(hub.users()), hub.quota.users()) == (0, set(), [])


def kept_by(chat: Chat, cluster: Channels) -> set[tuple[Any, ...]]:
    """Return what the chat does for the users 1 and 2."""
    connections = {("connections", user) for user in (1, 2) if not chat.blocks.passes(Typing(9, user))}
    followed = {("conversation", each.name) for each in chat.conversations if each.followed}
    watched = {("watched", user) for user in chat.presence.watched}
    return connections | followed | watched | cluster.wanted


def needed_of(model: Model) -> set[tuple[Any, ...]]:
    """Return what a chat has to do for the connections. Blocks are never read here, and hide all events."""
    needed = set()
    for each in model.needed():
        if each[0] == "watch":
            needed |= {("watch", each[2]), ("watched", each[2])}
        else:
            needed.add(each)
            if each[0] == "pair" and each[2] is not None:
                needed.add(("conversation", conversation_of(*each[1:])))
    return needed


@settings(max_examples=50)
@given(runs)
def test_what_the_chat_keeps(run: list[Step]) -> None:
    """After each step, the chat subscribes, follows, watches and holds what the connections need, and nothing else."""

    async def play() -> None:
        hub, cluster = Hub(), Channels()
        chat = Chat(
            UnusedMessages(),
            FriendsWithoutMessages(),
            UnusedCounters(),
            hub,
            cluster,
            GatedBlocks(),
            clock=lambda: 0.0,
            new_key=lambda: b"",
            offline_after=0.0,
        )
        hub.start(chat)
        model = Model(hub)
        for step in run:
            model.do(step)
            assert kept_by(chat, cluster) == needed_of(model)
            await asyncio.sleep(0)  # the looks at presence and inboxes go on
        model.end()
        assert not kept_by(chat, cluster)
        assert not len(chat.conversations)
        await chat.close()

    asyncio.run(play())


def test_connections_that_are_counted_when_the_server_starts_again() -> None:
    """Who is told from then on is told of them first, so that their end is no surprise."""
    hub, _ = started()
    lease = hub.quota.lease()
    lease.take(7, 1, LookupError())
    next_one = RecordedAttendance()
    hub.start(next_one)
    lease.release()
    assert next_one.told == [("connecting", 7), ("disconnected", 7)]


def test_the_order_in_which_is_told() -> None:
    """A user's news comes before that of the pair when a socket joins, and after it when the socket leaves."""
    hub, attendance = started()
    device = Device(1, 4, watching=True)
    hub.join(device)
    hub.leave(device)
    assert attendance.told == [
        ("online", 1),
        ("opened", 1, 4),
        ("watched", 1, 4),
        ("unwatched", 1, 4),
        ("closed", 1, 4),
        ("offline", 1),
    ]


@pytest.mark.parametrize("broken", ["online", "opened", "watched"])
def test_a_socket_that_cannot_join(broken: str) -> None:
    """If a first socket fails to join, what was told is taken back, and the next socket is told as the first."""
    hub, attendance = started(broken)
    with pytest.raises(RuntimeError):
        hub.join(Device(1, 4, watching=True))
    assert not attendance.open
    assert not hub.users()
    attendance.broken = ()
    hub.join(Device(1, 4, watching=True))
    assert attendance.open == {("user", 1), ("pair", 1, 4), ("watch", 1, 4)}


@pytest.mark.parametrize("broken", ["offline", "closed", "unwatched"])
def test_a_bug_in_what_is_told_of_a_last_socket(broken: str) -> None:
    """It keeps nothing else from being told, and the socket has left."""
    hub, attendance = started(broken)
    device = Device(1, 4, watching=True)
    hub.join(device)
    hub.leave(device)
    assert [call for call, *_ in attendance.told[3:]] == ["unwatched", "closed", "offline"]
    assert not hub.users()


@pytest.mark.parametrize("broken_first", [True, False])
def test_a_bug_in_one_socket_concerns_no_other(broken_first: bool) -> None:
    """Whatever is done to several sockets is done to all but the broken one, which is closed and has to resume."""
    hub, _ = started()
    sockets = {
        user: [RecordedSocket(user, broken=broken_first), RecordedSocket(user, broken=not broken_first)]
        for user in (1, 2)
    }
    for socket in (*sockets[1], *sockets[2]):
        hub.join(socket)
    reached = hub.deliver(Message(1, 2, 1, 1, "hi", b""), None, withheld=False)
    assert reached == (True, False)
    hub.tell(Typing(1, 2))
    hub.present(2, 1, online=True)
    hub.check_peers(0.0, (1, 2))
    for socket in (*sockets[1], *sockets[2]):
        done = ["copy", "check_peer"] if socket.user == 1 else ["deliver", "tell", "present", "check_peer"]
        assert (socket.done, socket.closed_with) == (([], RESUME) if socket.broken else (done, None))
