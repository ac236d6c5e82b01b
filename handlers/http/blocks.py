"""Blocks over HTTP."""

from __future__ import annotations

from tornado.web import HTTPError

from handlers.http.base import BaseHandler
from handlers.http.fields import shown_to_others
from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.ports import Users
from models.records import user_id

__all__ = ["BlockHandler", "BlocksHandler"]


class BlocksHandler(BaseHandler):
    """GET /user/blocks"""

    def initialize(self, blocks: Blocks, acquaintances: Acquaintances, users: Users) -> None:
        """Take the collaborators."""
        self._blocks = blocks
        self._acquaintances = acquaintances
        self._users = users

    async def get(self) -> None:
        """List the users whom the caller has blocked. Names are shown of those with whom the caller has a conversation.

        Any id can be blocked, so showing all names would list the accounts.
        """
        user = (await self.identify()).user
        blocked = await self._blocks.of(user)
        met = await self._acquaintances.met(user, blocked)
        users = await self._users.active(*met) if met else {}
        self.answer([shown_to_others(users[user]) if user in users else {"id": user} for user in blocked])


class BlockHandler(BaseHandler):
    """/user/blocks/{id}"""

    def initialize(self, blocks: Blocks) -> None:
        """Take the collaborators."""
        self._blocks = blocks

    async def put(self, name: str) -> None:
        """Block a user; a second time changes nothing. The answer does not say whether the user exists."""
        identity, peer = await self.identify(), _named(name)
        if peer == identity.user:
            raise HTTPError(400, "users cannot block themselves")
        await self._blocks.block(identity.user, peer)
        self.answer(None)

    async def delete(self, name: str) -> None:
        """Lift a block, also of a user who is gone. Without a block, nothing changes."""
        identity, peer = await self.identify(), _named(name)
        await self._blocks.unblock(identity.user, peer)
        self.answer(None)


def _named(name: str) -> int:
    peer = user_id(name)
    if peer is None:
        raise HTTPError(400, "the path does not end in the id of a user")
    return peer
