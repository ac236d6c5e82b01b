"""The ports of models/ and handlers/, implemented so that every call fails. A fake overrides what is called.

So a fake keeps to the whole port, by name and by type, and a test fails if the code calls what it did not expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set

from typing_extensions import override

from handlers.websocket.hub import HubSocket
from handlers.websocket.interfaces import Connection, EncodedMessage, Session
from models.accounts.ports import AccountStore, Attempts, Found, Rule, Sessions, Tickets, Tokens
from models.chat.events import Event, PeerEvent
from models.chat.ports import (
    Admission,
    BlockStore,
    Cluster,
    Conflict,
    Counters,
    Directory,
    Messages,
    Reached,
    Recount,
    Sockets,
    Unread,
    Users,
)
from models.errors import InvalidFrame, TooFast
from models.protocol.v1 import Language
from models.records import Cursor, Head, Identity, Message, Profile, ReadPositions, Summary, UnreadStart, User

__all__ = [
    "UnusedAccountStore",
    "UnusedAttempts",
    "UnusedBlockStore",
    "UnusedCluster",
    "UnusedConnection",
    "UnusedCounters",
    "UnusedDirectory",
    "UnusedHubSocket",
    "UnusedMessages",
    "UnusedSession",
    "UnusedSessions",
    "UnusedSockets",
    "UnusedTickets",
    "UnusedTokens",
    "UnusedUsers",
]


class UnusedMessages(Messages):
    @override
    async def head(self, conversation: str) -> Head:
        raise NotImplementedError

    @override
    async def reserve(self, conversation: str, seq: int, until: int) -> int:
        raise NotImplementedError

    @override
    async def announce(self, conversation: str, until: int) -> None:
        raise NotImplementedError

    @override
    def insert(self, *run: Message) -> asyncio.Future[Conflict | None]:
        raise NotImplementedError

    @override
    async def find(self, conversation: str, key: bytes) -> Message | None:
        raise NotImplementedError

    @override
    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        raise NotImplementedError

    @override
    async def before(self, conversation: str, seq: int | None, most: int) -> list[Message]:
        raise NotImplementedError

    @override
    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        raise NotImplementedError

    @override
    async def newest(self, conversation: str) -> int:
        raise NotImplementedError

    @override
    async def last_before(self, conversation: str, time: int) -> int:
        raise NotImplementedError

    @override
    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        raise NotImplementedError

    @override
    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        raise NotImplementedError

    @override
    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        raise NotImplementedError

    @override
    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        raise NotImplementedError

    @override
    async def unread(self, conversation: str, reader: int, peer: int, most: int) -> list[Message]:
        raise NotImplementedError

    @override
    async def unread_counts(self, asked: Sequence[Unread], most: int) -> dict[str, int]:
        raise NotImplementedError

    @override
    async def newest_of(self, conversations: Sequence[str]) -> dict[str, int]:
        raise NotImplementedError


class UnusedDirectory(Directory):
    @override
    async def introduce(self, conversation: str) -> None:
        raise NotImplementedError

    @override
    async def mutual(self, conversation: str) -> bool:
        raise NotImplementedError

    @override
    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        raise NotImplementedError

    @override
    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        raise NotImplementedError


class UnusedCounters(Counters):
    spent: Set[int] = frozenset()

    @override
    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        raise NotImplementedError

    @override
    async def take_stranger(self, sender: int, recipient: int) -> None:
        raise NotImplementedError

    @override
    def weigh(self, sender: int, content: str) -> None:
        raise NotImplementedError

    @override
    async def give_back(self, admission: Admission) -> None:
        raise NotImplementedError

    @override
    def gather(self, sender: int, recipient: int, recount: Recount, content: str) -> None:
        raise NotImplementedError


class UnusedBlockStore(BlockStore):
    @override
    async def block(self, user: int, peer: int) -> int:
        raise NotImplementedError

    @override
    async def unblock(self, user: int, peer: int) -> None:
        raise NotImplementedError

    @override
    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        raise NotImplementedError

    @override
    async def newest(self, one: int, other: int) -> int:
        raise NotImplementedError

    @override
    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        raise NotImplementedError


class UnusedUsers(Users):
    @override
    async def active(self, *ids: int) -> dict[int, User]:
        raise NotImplementedError

    @override
    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        raise NotImplementedError

    @override
    async def named(self, user_name: str) -> User | None:
        raise NotImplementedError

    @override
    async def first(self, count: int) -> list[User]:
        raise NotImplementedError

    @override
    async def change(self, user: int, profile: Profile) -> User | None:
        raise NotImplementedError


class UnusedSockets(Sockets):
    @override
    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        raise NotImplementedError

    @override
    def resume(self, user: int, peer: int) -> None:
        raise NotImplementedError

    @override
    def reaches(self, user: int, peer: int) -> bool:
        raise NotImplementedError

    @override
    def tell(self, event: PeerEvent) -> None:
        raise NotImplementedError

    @override
    def present(self, user: int, peer: int, *, online: bool) -> None:
        raise NotImplementedError

    @override
    def has(self, user: int) -> bool:
        raise NotImplementedError


class UnusedCluster(Cluster):
    @property
    @override
    def single_process(self) -> bool:
        raise NotImplementedError

    @override
    def mark_online(self, user: int) -> None:
        raise NotImplementedError

    @override
    def mark_offline(self, user: int) -> None:
        raise NotImplementedError

    @override
    def follow(self, user: int, peer: int) -> None:
        raise NotImplementedError

    @override
    def unfollow(self, user: int, peer: int) -> None:
        raise NotImplementedError

    @override
    def watch(self, user: int) -> None:
        raise NotImplementedError

    @override
    def unwatch(self, user: int) -> None:
        raise NotImplementedError

    @override
    def publish(self, event: Event) -> None:
        raise NotImplementedError

    @override
    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        raise NotImplementedError

    @override
    async def reaches(self, user: int, peer: int) -> bool:
        raise NotImplementedError

    @override
    def publish_presence_change(self, user: int) -> None:
        raise NotImplementedError

    @override
    def publish_account_change(self, user: int) -> None:
        raise NotImplementedError

    @override
    async def online(self, users: Sequence[int]) -> set[int]:
        raise NotImplementedError


class UnusedAccountStore(AccountStore):
    @override
    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        raise NotImplementedError

    @override
    async def find(self, user_name: str) -> Found | None:
        raise NotImplementedError

    @override
    async def digest_of(self, user: int) -> str:
        raise NotImplementedError

    @override
    async def matches(self, password: bytes, digest: str | None) -> bool:
        raise NotImplementedError

    @property
    @override
    def busy(self) -> bool:
        raise NotImplementedError

    @override
    async def confirm(self, user: int, digest: str) -> User | None:
        raise NotImplementedError

    @override
    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        raise NotImplementedError

    @override
    async def erase(self, user: int, digest: str) -> bool:
        raise NotImplementedError


class UnusedSessions(Sessions):
    @override
    async def signed_out(self, session: bytes) -> bool:
        raise NotImplementedError

    @override
    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        raise NotImplementedError

    @override
    async def sign_out(self, identity: Identity) -> None:
        raise NotImplementedError

    @override
    async def sign_out_everywhere(self, user: int) -> None:
        raise NotImplementedError


class UnusedTokens(Tokens):
    @property
    @override
    def issues(self) -> bool:
        raise NotImplementedError

    @override
    def issue(self, user: User) -> str:
        raise NotImplementedError

    @override
    def verify(self, token: str) -> Identity:
        raise NotImplementedError


class UnusedTickets(Tickets):
    @override
    async def issue(self, identity: Identity) -> str:
        raise NotImplementedError

    @override
    async def redeem(self, ticket: str) -> Identity:
        raise NotImplementedError


class UnusedAttempts(Attempts):
    @override
    async def take(self, rule: Rule, subject: str) -> None:
        raise NotImplementedError

    @override
    async def forgive(self, rule: Rule, subject: str) -> None:
        raise NotImplementedError


class UnusedConnection(Connection):
    user = 0
    peer: int | None = None
    language: Language = "en"
    is_open = True
    busy = False

    @override
    def charge(self, weight: float) -> None:
        raise NotImplementedError

    @override
    def write_frame(self, frame: bytes) -> bool:
        raise NotImplementedError

    @override
    async def wait_writable(self) -> None:
        raise NotImplementedError

    @override
    def too_slow(self) -> None:
        raise NotImplementedError


class UnusedHubSocket(UnusedConnection, HubSocket):
    identity = Identity(0)
    session: Session | None = None
    watching = False

    @override
    def shut(self, code: int, reason: str) -> None:
        raise NotImplementedError

    @override
    def check_peer(self, now: float) -> None:
        raise NotImplementedError


class UnusedSession(Session):
    reads = False
    watching = False
    timeout = 0.0

    @override
    def take(self, text: str, max_content: int) -> None:
        raise NotImplementedError

    @override
    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        raise NotImplementedError

    @override
    def then(self, action: Callable[[], None]) -> None:
        raise NotImplementedError

    @override
    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        raise NotImplementedError

    @override
    def drop(self) -> None:
        raise NotImplementedError

    @override
    def deliver(self, message: EncodedMessage) -> bool:
        raise NotImplementedError

    @override
    def copy(self, message: EncodedMessage) -> None:
        raise NotImplementedError

    @override
    def tell(self, event: PeerEvent) -> None:
        raise NotImplementedError

    @override
    def present(self, peer: int, *, online: bool) -> None:
        raise NotImplementedError
