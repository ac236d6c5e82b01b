"""The export: everything that is stored of a user's messages, as a file."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec
from tornado.iostream import StreamClosedError

from handlers.http import fields
from handlers.http.base import BaseHandler
from models.chat.history import History
from models.chat.ports import Users
from models.errors import StorageUnavailable, TooFast, UnknownUser
from models.protocol.v2 import shown

__all__ = ["ExportHandler"]

AGAIN_AFTER = 10.0  # seconds after which a user whose export runs may retry

_encode = msgspec.json.Encoder().encode


class ExportHandler(BaseHandler):
    """GET /user/export"""

    def initialize(self, history: History, users: Users, running: set[int]) -> None:
        """Take the collaborators, and the set of users whose export is running: one at a time for each."""
        self._history = history
        self._users = users
        self._running = running

    async def get(self) -> None:
        """Write the caller's account, then all messages of all conversations, one JSON object a line.

        Messages are written as they are read. The last line says that the export is complete; without it, it was cut
        off.
        """
        user = (await self.identify()).user
        account = (await self._users.active_now([user])).get(user)
        if account is None:  # the account is gone, but was still cached
            raise UnknownUser(user)
        if user in self._running:
            raise TooFast("exports at a time", AGAIN_AFTER)
        self._running.add(user)
        try:
            self.set_header("Content-Type", "application/x-ndjson; charset=utf-8")
            self.set_header("Content-Disposition", 'attachment; filename="messages.ndjson"')
            await self._line({"account": fields.shown(account)})
            count = 0
            async with aclosing(self._history.everything(user)) as parts:
                async for messages in parts:
                    for message in messages:
                        self.write(_encode(shown(message)) + b"\n")
                    count += len(messages)
                    await self.flush()
            await self._line({"complete": True, "messages": count})
        except StreamClosedError:
            return
        except StorageUnavailable:
            if not self._headers_written:
                raise
            self.request.connection.stream.close()  # type: ignore[union-attr]  # the client must not take it as complete
        finally:
            self._running.discard(user)

    async def _line(self, content: dict[str, Any]) -> None:
        self.write(_encode(content) + b"\n")
        await self.flush()
