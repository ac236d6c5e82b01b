"""Blocking over HTTP."""

from __future__ import annotations

from tornado.web import HTTPError

from handlers.base import BaseHandler
from handlers.fields import shown_to_others
from models.blocks import Blocks
from models.ports import Users
from models.records import user_id

__all__ = ["BlockHandler", "BlocksHandler"]


class BlocksHandler(BaseHandler):
    """GET /user/blocks"""

    def initialize(self, blocks: Blocks, users: Users) -> None:
        """Takes the collaborators."""
        self._blocks = blocks
        self._users = users

    async def get(self) -> None:
        """Whom the caller has blocked."""
        blocked = await self._blocks.of((await self.identify()).user)
        users = await self._users.active(*blocked) if blocked else {}
        self.answer([shown_to_others(users[user]) if user in users else {"id": user} for user in blocked])


class BlockHandler(BaseHandler):
    """/user/blocks/{id}"""

    def initialize(self, blocks: Blocks, users: Users) -> None:
        """Takes the collaborators."""
        self._blocks = blocks
        self._users = users

    async def put(self, name: str) -> None:
        """Blocks a user; nothing changes for one who is blocked."""
        identity, peer = await self.identify(), _named(name)
        if peer == identity.user:
            raise HTTPError(400, "nobody can block themselves")
        await self.require_active(self._users, peer)
        await self._blocks.block(identity.user, peer)
        self.answer(None)

    async def delete(self, name: str) -> None:
        """Lifts a block, also of a user who is gone; nothing changes for one who is not blocked."""
        identity, peer = await self.identify(), _named(name)
        await self._blocks.unblock(identity.user, peer)
        self.answer(None)


def _named(name: str) -> int:
    peer = user_id(name)
    if peer is None:
        raise HTTPError(400, "the path does not end in the id of a user")
    return peer
