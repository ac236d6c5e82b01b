"""Reading without a socket: a user's conversations, and their messages."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tornado.web import Finish, HTTPError

from common.token_bucket import LISTED, READ
from handlers.http.base import BaseHandler
from models.chat.history import COUNTED, History
from models.chat.ports import Users
from models.protocol.v2 import MOST, shown
from models.records import Cursor

__all__ = ["ConversationsHandler", "HistoryHandler"]

LIMIT = 50  # conversations, or messages, when the request does not say how many
SHOWN = 256  # characters of a message in the list of conversations
LATEST = 2**53  # the largest seq and time that every client can represent

T = TypeVar("T")


class _ReadingHandler(BaseHandler):
    """The base of both handlers: the time limit of an answer, and cancelling it when the caller disconnects."""

    _work: asyncio.Task[Any] | None = None
    _gone = False

    def initialize(self, history: History, users: Users, timeout: float) -> None:
        """Take the collaborators; `timeout` is in seconds."""
        self._history = history
        self._users = users
        self._deadline = asyncio.get_running_loop().time() + timeout

    def on_connection_close(self) -> None:
        """Cancel the work for a caller that has disconnected."""
        super().on_connection_close()
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    async def _while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work of a request unless the caller disconnects. Raises Finish if the caller has."""
        if self._gone:
            work.close()
            raise Finish
        task = asyncio.get_running_loop().create_task(work)
        self._work = task
        try:
            return await task
        except asyncio.CancelledError:
            if self._gone:
                raise Finish from None
            raise
        finally:
            task.cancel()

    def charge(self, user: int, weight: float) -> None:
        """Charge a user for what a request turned out to cost."""
        self.policy.requests.of(user).charge(weight)

    def _most(self) -> int:
        return self.int_argument("limit", LIMIT, 1, MOST) or LIMIT


class ConversationsHandler(_ReadingHandler):
    """GET /conversations[?before=…[&before_peer=…]][&limit=…]"""

    async def get(self) -> None:
        """List the caller's conversations, the newest message first; `_cursor` says where the page begins."""
        before, most = self._cursor(), self._most()
        user = (await self.identify()).user
        listed = await self._while_connected(self._history.conversations(user, before, most, self._deadline))
        self.charge(user, LISTED * len(listed))
        peers = await self._users.active(*(entry.summary.peer for entry in listed)) if listed else {}
        data = []
        for entry in listed:
            peer = peers.get(entry.summary.peer)
            data.append(
                {
                    "peer": {
                        "id": entry.summary.peer,
                        "user_name": peer.user_name if peer else "",
                        "nick_name": peer.nick_name if peer else "",
                        "avatar": peer.avatar if peer else "",
                    },
                    "last": _beginning(shown(entry.summary.last)),
                    "unread": entry.unread if entry.unread <= COUNTED else f"{COUNTED}+",
                    "received": entry.positions.received,
                    "read": entry.positions.read,
                    "online": entry.online,
                    "blocked": entry.blocked,
                }
            )
        self.answer(data)

    def _cursor(self) -> Cursor | None:
        """Return the conversation after which the page begins, None for the first page."""
        time = self.int_argument("before", None, 0, LATEST)
        peer = self.id_argument("before_peer") if self.get_query_arguments("before_peer", strip=False) else None
        if time is None:
            if peer is not None:
                raise HTTPError(400, "before_peer belongs to before")
            return None
        return Cursor(time) if peer is None else Cursor(time, peer)


class HistoryHandler(_ReadingHandler):
    """GET /messages?toUid=2[&before=…|&after=…][&limit=…]"""

    async def get(self) -> None:
        """Return a page of a conversation, ascending: before a seq, after one, or the newest."""
        peer = self.id_argument("toUid")
        before = self.int_argument("before", None, 0, LATEST)
        after = self.int_argument("after", None, 0, LATEST)
        if before is not None and after is not None:
            raise HTTPError(400, "before and after exclude each other")
        most = self._most()
        user = (await self.identify()).user
        if user == peer:
            raise HTTPError(400, "uid and toUid are the same")
        if after is not None:
            page = await self._while_connected(self._history.after(user, peer, after, most, self._deadline))
        else:
            page = await self._while_connected(self._history.before(user, peer, before, most, self._deadline))
        self.charge(user, READ * len(page.messages))
        self.answer({"messages": [shown(message) for message in page.messages], "complete": page.complete})


def _beginning(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a list shows it: long content is cut, and `cut` says so."""
    if len(message["content"]) <= SHOWN:
        return message
    return message | {"content": message["content"][:SHOWN], "cut": True}
