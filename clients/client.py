"""The client without a screen: a user's conversations over one inbox socket, through all failures.

It loses no message, shows none twice and keeps their order, as docs/protocol.md requires of a client. A message is in
the outbox before it is sent, and until its outcome is known. After each connecting, the client resumes before it sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from clients.backoff import client_backoff
from clients.connection import Connection, Frame
from clients.conversation import Conversation
from clients.following import Follower
from clients.outbox import Outbox, Pending
from clients.sending import STORED, TAKEN, Sender
from clients.server import ClientError, Peer, Refused, Server, SessionOver
from clients.timeline import Message
from clients.wire import conversations_in, page_in

__all__ = ["Changed", "Client", "Event", "Outcome", "Said", "Status"]

TYPING = 5  # the type of a frame
MESSAGE, MOVED, IS_TYPING, PRESENCE = 50001, 50007, 50008, 50009  # codes
LISTED = 200  # conversations that are followed at once
LIST_PAGE = 100  # conversations in one answer
HISTORY_PAGE = 50  # messages
TYPING_EVERY = 1.0  # seconds; the server passes on no more
TYPING_FOR = 5.0  # seconds for which a peer is shown as typing


class Status(NamedTuple):
    """The connection is up, or has ended for this reason."""

    connected: bool
    reason: str


class Said(NamedTuple):
    """The next messages of a conversation, including the user's own."""

    conversation: Conversation
    messages: Sequence[Message]


class Outcome(NamedTuple):
    """A message is stored, or has failed. If it has failed, `pending.failed` says why, and the message is kept."""

    pending: Pending


class Changed(NamedTuple):
    """Something else about a conversation has changed, or about the list of conversations (None)."""

    conversation: Conversation | None


Event = Status | Said | Outcome | Changed


class Client:
    """The conversations of `user`, who has signed in to the server. `tell` is called with each event, in order.

    Messages are only sent and received while `run` is running.
    """

    def __init__(
        self,
        server: Server,
        user: Peer,
        outbox: Outbox,
        tell: Callable[[Event], None],
        *,
        max_content: int,
        chance: Random | None = None,
    ) -> None:
        self.server = server
        self.user = user
        self.outbox = outbox
        self.conversations: dict[int, Conversation] = {}
        self.status = Status(False, "")
        self._tell = tell
        self._max_content = max_content
        self._chance = chance or Random()  # noqa: S311  # for waits
        self._backoff = client_backoff(self._chance)
        self._sender = Sender(outbox, self._told, self._chance)
        self._connection: Connection | None = None
        self._follower: Follower | None = None
        self._all_listed: bool | None = None  # whether the first list had all conversations; None before the first list
        self._strangers: set[int] = set()  # users who wrote and are not in the list
        self._asked_for: asyncio.Event = asyncio.Event()  # set if the list has to be read
        self._typed = -TYPING_EVERY  # loop time

    async def run(self) -> None:
        """Connect again and again, until cancelled. Raises SessionOver."""
        while True:
            try:
                reason = await self._connected()
            except ClientError as error:
                reason = error
            if isinstance(reason, SessionOver):
                raise reason
            self._became(Status(False, str(reason)))
            await asyncio.sleep(max(self._backoff.next_pause(), getattr(reason, "retry_after", 0.0)))

    # The user's actions

    def send(self, peer: int, content: str) -> Pending:
        """Keep a message, and send it when possible. Raises Refused, and the outbox's errors; then it is not kept."""
        if len(content) > self._max_content:
            raise Refused(400, f"{len(content)} characters, and the server takes {self._max_content}")
        try:
            content.encode()
        except UnicodeEncodeError:
            raise Refused(400, "not text") from None
        pending = self.outbox.add(peer, content)
        self._sender.look(peer)
        return pending

    def retry(self, pending: Pending) -> None:
        """Send a failed message again, before those that were written later."""
        self.outbox.mark(pending.id, "")
        self._sender.look(pending.peer)

    def discard(self, pending: Pending) -> None:
        """Forget a failed message."""
        self.outbox.remove(pending.id)

    async def find(self, name: str) -> Peer:
        """Return the user of that name. Raises ClientError."""
        known = next((each.peer for each in self.conversations.values() if each.peer.name == name), None)
        found = known or await self.server.named(name)
        if found is None:
            raise Refused(404, "no user of that name")
        if found.id == self.user.id:
            raise Refused(400, "that is you")
        return found

    async def open(self, peer: Peer) -> Conversation:
        """Return the conversation with `peer` and its newest messages. Raises ClientError."""
        if self._all_listed is None:
            await self._list()  # the number of unread messages has to be known before anything counts as shown
        conversation = self.conversations.get(peer.id)
        if conversation is None:
            page = await self.server.get("/messages", page_in, toUid=peer.id, limit=HISTORY_PAGE)
            conversation = self.conversations.get(peer.id)  # the peer may have written meanwhile
            if conversation is None:
                held = max((message["seq"] for message in page["messages"]), default=0)
                conversation = self.conversations[peer.id] = Conversation(peer, held)
                conversation.preceded([*map(Message.of, page["messages"])], complete=page["complete"])
                conversation.opened = True
                if self._follower is not None:
                    self._follower.resume([peer.id])
        if not conversation.opened:
            await self.older(conversation)
        return conversation

    async def refresh(self) -> None:
        """Read the list of conversations now. Raises ClientError."""
        await self._list()
        self._asked_for.set()

    async def older(self, conversation: Conversation) -> None:
        """Add a page of history before the messages. Raises ClientError."""
        if not conversation.beginning:
            first = conversation.first
            page = await self.server.get(
                "/messages", page_in, toUid=conversation.peer.id, before=first, limit=HISTORY_PAGE
            )
            if conversation.first == first:  # otherwise the page no longer fits
                conversation.preceded([*map(Message.of, page["messages"])], complete=page["complete"])
                self._mark(conversation)
        conversation.opened = True
        self._tell(Changed(conversation))

    def shown(self, conversation: Conversation, seq: int) -> None:
        """Note that the user has seen everything up to `seq`."""
        if conversation.shown(seq):
            self._mark(conversation)
            self._tell(Changed(conversation))

    def typing(self, peer: int) -> None:
        """Tell the peer that the user is typing. It may be called for each key."""
        now = asyncio.get_running_loop().time()
        if self._connection is not None and now - self._typed >= TYPING_EVERY:
            self._typed = now
            self._connection.tell(TYPING, to=str(peer))

    # The connection

    async def _connected(self) -> ClientError:
        """Run one connection from its beginning to its end, and return why it ended."""
        connection = await Connection.open(self.server, self._take)
        self._connection = connection
        self._follower = Follower(connection, self.conversations, self._given, self._sender.ready, self._chance)
        self._sender.connected(connection)
        looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait((connection.ended, looking), return_when=asyncio.FIRST_COMPLETED)
            if not connection.ended.done():
                looking.result()
            return connection.ended.result()
        finally:
            self._sender.disconnected()
            self._connection = self._follower = None
            connection.close()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        """Read the list of conversations and resume them. Repeat that when other users begin conversations."""
        resumed: set[int] = set()
        while True:
            self._asked_for.clear()
            await self._list()
            for peer in (*self._strangers, *(pending.peer for pending in self.outbox)):
                if peer not in self.conversations:
                    self.conversations[peer] = Conversation(Peer(peer, "", ""), 0)
            self._strangers.clear()
            new = [peer for peer in self.conversations if peer not in resumed]
            if self._follower is not None:
                self._follower.resume(new)
            if not resumed:
                self._backoff.reset()
                self._became(Status(True, ""))
            resumed.update(new)
            self._tell(Changed(None))
            await self._asked_for.wait()

    async def _list(self) -> None:
        entries: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": LIST_PAGE}
        while len(entries) < LISTED:
            page = await self.server.get("/conversations", conversations_in, **query)
            entries += page
            if len(page) < LIST_PAGE:
                break
            query |= {"before": page[-1]["last"]["time"], "before_peer": page[-1]["peer"]["id"]}
        for conversation in self.conversations.values():
            conversation.listed_last = 0
        for entry in entries:
            peer, last = Peer.of(entry["peer"]), entry["last"]["seq"]
            # A conversation that is new since the first list is followed from its first message.
            if peer.id not in self.conversations:
                held = last if self._all_listed is None else 0 if self._all_listed else last - 1
                self.conversations[peer.id] = Conversation(peer, held)
            self.conversations[peer.id].listed(entry)
        if self._all_listed is None:
            self._all_listed = len(entries) < LISTED

    def _became(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self._tell(status)

    def _take(self, frame: Frame) -> None:
        """Handle a frame that is not an answer."""
        code = frame["code"]
        if code in STORED:
            self._sender.stored(frame["id"], frame)  # a message that was answered with 40001 before
            return
        if not frame["from"]:
            return
        sender = int(frame["from"])
        peer = int(frame["to"]) if sender == self.user.id else sender
        conversation = self.conversations.get(peer)
        if conversation is None or self._follower is None:
            if code == MESSAGE:
                self._strangers.add(peer)
                self._asked_for.set()
        elif code == MESSAGE:
            self._follower.live(peer, Message.of(frame))
        else:
            if code == MOVED:
                conversation.moved(frame["received"], frame["read"])
            elif code == IS_TYPING:
                conversation.typing_until = asyncio.get_running_loop().time() + TYPING_FOR
            elif code == PRESENCE:
                conversation.online = frame["online"]
            self._tell(Changed(conversation))

    def _told(self, pending: Pending, frame: Frame | None) -> None:
        """Handle a message that is stored or has failed."""
        self._tell(Outcome(pending))
        conversation = self.conversations.get(pending.peer)
        if frame is not None and self._follower is not None and conversation is not None:
            if conversation.own_received:  # otherwise this user is not told when the peer goes offline
                conversation.online = frame["code"] == TAKEN
            message = Message(frame["seq"], frame["time"], self.user.id, pending.content, pending.id)
            self._follower.live(pending.peer, message)

    def _given(self, conversation: Conversation, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.sender == self.user.id and message.id:
                self._sender.stored(message.id)
        self._tell(Said(conversation, messages))

    def _mark(self, conversation: Conversation) -> None:
        if self._follower is not None:
            self._follower.mark(conversation.peer.id)
