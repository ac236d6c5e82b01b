"""Dialect 2: what a pair or inbox socket does with its client's frames, and what it writes.

Requests carry ids, so answers leave as they are known. Requests that read are answered one after the other, which
bounds what one socket can ask for at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

import structlog

from common import token_bucket
from handlers.websocket.answers import Window
from handlers.websocket.connection import Live, Speaker
from models.chat.conversation import PendingMessage, Stored
from models.chat.events import PeerEvent, PositionsChanged, Typing
from models.chat.history import History
from models.chat.ports import Users
from models.chat.service import Chat
from models.errors import ChatError, InvalidFrame, QuotaReached, Refused, TooFast, UnknownUser
from models.protocol import v2
from models.protocol.v1 import Code, RequestType
from models.protocol.v2 import MOST, Request2
from models.records import ReadPositions, user_id

__all__ = ["Dialect2"]

TYPING_EVERY = 1.0  # seconds; typing that is told more often is not passed on
KNOWN = 1000  # peers of an inbox socket that are remembered to exist
RESUMED = 200  # conversations in one resume request

_log = structlog.get_logger(__name__)


class _Held:
    """Messages of one conversation that came while what was before them is being read."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: list[Live] = []
        self.size = 0


class Dialect2:
    """A socket that speaks dialect 2."""

    reads = False  # only the client says what was read
    watching = True

    def __init__(
        self,
        socket: Speaker,
        chat: Chat,
        history: History,
        users: Users,
        *,
        window: Window,
        timeout: float,
        most_held: int,
        known: set[int],
    ) -> None:
        self._socket = socket
        self._user = socket.user
        self._chat = chat
        self._history = history
        self._users = users
        self._window = window
        self._timeout = timeout
        self._most_held = most_held  # bytes
        self._owed = 0
        self._asked: deque[tuple[Request2, int | None, float]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._known = known  # peers who are there
        self._meeting: dict[int, list[tuple[Request2, float]]] = {}  # messages to peers who are being looked up
        self._held: dict[int, _Held] = {}
        self._holds: dict[int, int] = {}  # by peer: what the client has said to hold, or was replayed
        self._typed: dict[int, float] = {}  # by peer: when typing was last passed on (loop time)

    # Frames in

    def take(self, text: str, max_content: int) -> None:
        """Takes a frame. Raises InvalidFrame."""
        request = v2.decode2(text, max_content)
        peer = self._peer_of(request)
        deadline = asyncio.get_running_loop().time() + self._timeout
        if peer is None:
            after = request.after
            if not isinstance(after, dict) or len(after) > RESUMED:
                raise InvalidFrame(f"after: names up to {RESUMED} conversations on an inbox socket")
            for name in after:
                self._peer_named(name, "after")
            self._socket.charge(token_bucket.RESUMED * len(after))
        elif isinstance(request.after, dict):
            raise InvalidFrame("after: is a seq on a pair socket")
        if request.type == RequestType.TYPING:
            self._type(peer or 0)
            return
        self._owed += 1
        if request.type == RequestType.SEND:
            self._send(request, peer or 0, deadline)
        elif request.type == RequestType.MARK:
            self._start(self._mark(request, peer or 0, deadline))
        else:
            self._asked.append((request, peer, deadline))
            if self._asking is None:
                self._asking = self._start(self._answer_all())

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answers a frame that is not valid, or comes too fast."""
        self._reply(error.code, v2.id_in(text), retry_after=_wait_of(error), error=_said_of(error))

    def then(self, action: Callable[[], None]) -> None:
        """Does something now: answers keep no order."""
        action()

    def room(self) -> asyncio.Future[None] | None:
        """None while the window has room; else a future to be awaited before the next frame is read."""
        return self._window.room(self._owed)

    def drop(self) -> None:
        """Forgets what is owed."""
        for task in tuple(self._tasks):
            task.cancel()
        self._window.open()

    def _peer_of(self, request: Request2) -> int | None:
        """Whom a request is about; None for a resume request on an inbox socket, which names its peers itself."""
        own = self._socket.peer
        if own is not None:
            if request.to is not None and request.to != str(own):
                raise InvalidFrame("to: is not the peer of this socket")
            return own
        if request.type == RequestType.RESUME:
            return None
        if request.to is None:
            raise InvalidFrame("to: is missing")
        return self._peer_named(request.to)

    def _peer_named(self, name: str, field: str = "to") -> int:
        peer = user_id(name)
        if peer is None or peer == self._user:
            raise InvalidFrame(f"{field}: is not the id of another user")
        return peer

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _paid(self) -> None:
        self._owed -= 1
        self._window.paid(self._owed)

    # Sending

    def _send(self, request: Request2, peer: int, deadline: float) -> None:
        """Sends a message, once it is known that there is somebody to send it to; in the order of these calls."""
        if peer in self._meeting:
            self._meeting[peer].append((request, deadline))
        elif peer in self._known:
            self._hand_over(request, peer, deadline)
        else:
            self._meeting[peer] = [(request, deadline)]
            self._start(self._meet(peer))

    async def _meet(self, peer: int) -> None:
        """Looks a peer up, then sends what waits."""
        error: Exception | None = None
        try:
            if peer not in await self._users.active(peer):
                await self._chat.ask_for(self._user, peer)
                error = UnknownUser(peer)
        except ChatError as unavailable:
            error = unavailable
        except Exception as bug:  # noqa: BLE001  # it must not leave the client without an answer
            _log.exception("request_failed", user=self._user, peer=peer)
            error = bug
        waiting = self._meeting.pop(peer)
        if error is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known.add(peer)
        for request, deadline in waiting:
            if error is None:
                self._hand_over(request, peer, deadline)
            else:
                self._paid()
                code = error.code if isinstance(error, ChatError) else Code.BUG
                self._reply(code, request.id, peer, retry_after=_wait_of(error), error=_said_of(error))

    def _hand_over(self, request: Request2, peer: int, deadline: float) -> None:
        answered = False

        def resolved(pending: PendingMessage) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._paid()
            if pending.outcome is not None:
                self._tell_outcome(request.id, peer, pending.outcome)

        self._chat.send(
            self._user, peer, request.content, deadline, resolved, message_id=request.id or "", origin=self._socket
        )

    def _tell_outcome(self, request: str | None, peer: int, outcome: Stored | ChatError) -> None:
        if isinstance(outcome, Stored):
            self._reply(outcome.code, request, peer, seq=outcome.seq, time=outcome.time, dup=outcome.dup)
        else:
            self._reply(outcome.code, request, peer, retry_after=_wait_of(outcome), error=_said_of(outcome))

    # Reading

    async def _answer_all(self) -> None:
        now = asyncio.get_running_loop().time
        waited = 0.0  # for a client that reads slowly, which does not count
        try:
            while self._asked:
                request, peer, deadline = self._asked.popleft()
                begun = now()
                await self._socket.drained()
                waited += now() - begun
                await self._answered(request, peer, self._show(request, peer, deadline + waited))
        finally:
            self._asking = None

    async def _answered(self, request: Request2, peer: int | None, work: Coroutine[None, None, None]) -> None:
        """Does the work of a request, and says what kept it from being done."""
        try:
            await work
        except ChatError as error:
            level = _log.debug if isinstance(error, Refused) else _log.info
            level("request_unanswered", user=self._user, reason=str(error))
            self._reply(error.code, request.id, peer, error=_said_of(error))
        except Exception:  # noqa: BLE001  # a bug must not leave the client without an answer
            _log.exception("request_failed", user=self._user, peer=peer)
            self._reply(Code.BUG, request.id, peer)
        finally:
            self._paid()

    async def _show(self, request: Request2, peer: int | None, deadline: float) -> None:
        if request.type == RequestType.RESUME:
            after = request.after
            await self._resume(request, after if isinstance(after, dict) else {str(peer): after or 0}, deadline)
            return
        if peer is None:
            raise RuntimeError("only a resume request may be about several peers")
        if request.type == RequestType.UNREAD:
            page = await self._history.first_unread(self._user, peer, deadline)
        elif isinstance(request.after, int):
            page = await self._history.after(self._user, peer, request.after, request.limit, deadline)
        else:
            page = await self._history.before(self._user, peer, request.before, request.limit, deadline)
        self._socket.charge(token_bucket.READ * len(page.messages))
        self._socket.write_frame(v2.page(request.id, page.messages, complete=page.complete, to=self._named(peer)))

    async def _resume(self, request: Request2, after: dict[str, int], deadline: float) -> None:
        """Replays what came after a `seq` in each conversation; what comes meanwhile follows, without gap or repeat."""
        peers = {int(name): seq for name, seq in after.items()}
        for peer in peers:
            self._held[peer] = _Held()
        try:
            found = await self._history.resume(self._user, peers, MOST, deadline)
            self._socket.charge(token_bucket.READ * len(found.messages))
            self._socket.write_frame(
                v2.page(
                    request.id,
                    found.messages,
                    complete=not found.more,
                    to=self._named(self._socket.peer),
                    more=[str(peer) for peer in found.more] if self._socket.peer is None else (),
                )
            )
            for peer, seq in found.held.items():
                if seq:
                    self._holds[peer] = max(seq, self._holds.get(peer, 0))
        finally:
            for peer in peers:
                held = self._held.pop(peer, None)
                for live in held.messages if held else ():
                    self._write_live(peer, live)

    async def _mark_now(self, request: Request2, peer: int, deadline: float) -> None:
        wanted = ReadPositions(request.received or 0, request.read or 0)
        positions = await self._history.mark(self._user, peer, wanted, deadline)
        if request.id is not None:
            self._reply(Code.SUCCESS, request.id, peer, positions=positions)

    async def _mark(self, request: Request2, peer: int, deadline: float) -> None:
        await self._answered(request, peer, self._mark_now(request, peer, deadline))

    def _type(self, peer: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._typed.get(peer, -TYPING_EVERY) < TYPING_EVERY:
            return
        if len(self._typed) >= KNOWN:
            self._typed.clear()
        self._typed[peer] = now
        self._chat.typing(self._user, peer)

    # Frames out

    def deliver(self, live: Live) -> bool:
        """Writes a message of the peer; whether the socket took it."""
        return self._live(live.message.sender, live)

    def copy(self, live: Live) -> None:
        """Writes a message that the user sent from another socket."""
        self._live(live.message.recipient, live)

    def tell(self, event: PeerEvent) -> None:
        """Tells what else the peer does."""
        if isinstance(event, PositionsChanged):
            self._socket.write_frame(v2.moved(event))
        elif isinstance(event, Typing) and not self._socket.busy:
            self._socket.write_frame(v2.typing(event.user, event.peer))

    def present(self, peer: int, *, online: bool) -> None:
        """Tells that the peer came online or went offline."""
        if not self._socket.busy:
            self._socket.write_frame(v2.presence(peer, self._user, online=online))

    def _live(self, peer: int, live: Live) -> bool:
        held = self._held.get(peer)
        if held is None:
            return self._write_live(peer, live)
        held.messages.append(live)
        held.size += len(live.dialect2)
        if held.size > self._most_held:
            self._socket.too_slow()
            return False
        return True

    def _write_live(self, peer: int, live: Live) -> bool:
        if live.message.seq <= self._holds.get(peer, 0):
            return True
        return self._socket.write_frame(live.dialect2)

    def _named(self, peer: int | None) -> str:
        """What `to` says in an answer: nothing on a pair socket, whose peer is known."""
        return "" if peer is None or self._socket.peer is not None else str(peer)

    def _reply(
        self,
        code: int,
        request: str | None,
        peer: int | None = None,
        *,
        seq: int = 0,
        time: int = 0,
        dup: bool = False,
        positions: ReadPositions | None = None,
        retry_after: float = 0.0,
        error: str = "",
    ) -> None:
        self._socket.write_frame(
            v2.answer(
                code,
                self._socket.language,
                request,
                to=self._named(peer),
                seq=seq,
                time=time,
                dup=dup,
                positions=positions,
                retry_after=retry_after,
                error=error,
            )
        )


def _said_of(error: Exception) -> str:
    """What an answer says beside its code: why a request is not valid, and which quota is used up."""
    return str(error) if isinstance(error, InvalidFrame | QuotaReached) else ""


def _wait_of(error: Exception) -> float:
    """After how many seconds the same may be asked again; 0 if that is not known."""
    return error.retry_after if isinstance(error, TooFast | QuotaReached) else 0.0
