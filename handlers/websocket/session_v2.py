"""Protocol v2 on one pair or inbox socket: requests in, answers, messages and events out.

Requests carry ids, so answers are written as soon as they are known. Requests that read are answered one after the
other, which bounds the work that one socket can cause at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

import structlog

from common import token_bucket
from handlers.websocket.interfaces import Connection, EncodedMessage
from handlers.websocket.window import Window
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

__all__ = ["SessionV2"]

TYPING_EVERY = 1.0  # seconds; typing is passed on to a peer no more often
KNOWN = 1000  # peers of an inbox socket that are remembered to exist
RESUMED = 200  # conversations in one resume request

_log = structlog.get_logger(__name__)


class _Held:
    """Messages of one conversation that arrived while the messages before them are being read."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: list[EncodedMessage] = []
        self.size = 0  # bytes


class SessionV2:
    """The session of a socket that uses protocol v2."""

    reads = False  # only the client says which messages were read
    watching = True

    def __init__(
        self,
        connection: Connection,
        chat: Chat,
        history: History,
        users: Users,
        *,
        window: Window,
        timeout: float,
        most_held: int,
        known: set[int],
    ) -> None:
        self._connection = connection
        self._user = connection.user
        self._chat = chat
        self._history = history
        self._users = users
        self._window = window
        self.timeout = timeout
        self._most_held = most_held  # bytes
        self._in_flight = 0
        self._reads: deque[tuple[Request2, int | None, float]] = deque()  # requests that read, and their deadlines
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._known = known  # peers that are known to exist
        self._looking_up: dict[int, list[tuple[Request2, float]]] = {}  # messages to peers that are being looked up
        self._held: dict[int, _Held] = {}
        self._client_has: dict[int, int] = {}  # by peer: the last seq that the client said to have, or was replayed
        self._typed: dict[int, float] = {}  # by peer: when typing was last passed on (loop time)

    # Frames in

    def take(self, text: str, max_content: int) -> None:
        """Begin the request of a frame. Raises InvalidFrame."""
        request = v2.decode2(text, max_content)
        peer = self._peer_of(request)
        deadline = asyncio.get_running_loop().time() + self.timeout
        if peer is None:
            after = request.after
            if not isinstance(after, dict) or len(after) > RESUMED:
                raise InvalidFrame(f"after: names up to {RESUMED} conversations on an inbox socket")
            for name in after:
                self._peer_named(name, "after")
            self._connection.charge(token_bucket.RESUMED * len(after))
        elif isinstance(request.after, dict):
            raise InvalidFrame("after: is a seq on a pair socket")
        if request.type == RequestType.TYPING:
            self._type(peer or 0)
            return
        self._in_flight += 1
        if request.type == RequestType.SEND:
            self._send(request, peer or 0, deadline)
        elif request.type == RequestType.MARK:
            self._start(self._mark(request, peer or 0, deadline))
        else:
            self._reads.append((request, peer, deadline))
            if self._reading is None:
                self._reading = self._start(self._answer_reads())

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answer a frame that is not valid, or that came too fast."""
        self._reply(error.code, v2.id_in(text), retry_after=_retry_after(error), error=_error_text(error))

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` now, since answers keep no order."""
        action()

    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next frame is read, if the window is full."""
        return self._window.wait_for_capacity(self._in_flight)

    def drop(self) -> None:
        """Forget the requests in flight."""
        for task in tuple(self._tasks):
            task.cancel()
        self._window.open()

    def _peer_of(self, request: Request2) -> int | None:
        """Return the peer of a request; None for a resume request on an inbox socket, which names its peers itself."""
        own = self._connection.peer
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

    def _release(self) -> None:
        """Note that a request was answered."""
        self._in_flight -= 1
        self._window.release(self._in_flight)

    # Sending

    def _send(self, request: Request2, peer: int, deadline: float) -> None:
        """Send a message once its peer is known to exist; messages to one peer stay in the order of these calls."""
        if peer in self._looking_up:
            self._looking_up[peer].append((request, deadline))
        elif peer in self._known:
            self._submit(request, peer, deadline)
        else:
            self._looking_up[peer] = [(request, deadline)]
            self._start(self._look_up(peer))

    async def _look_up(self, peer: int) -> None:
        """Look a peer up, then send the messages that wait for that."""
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
        waiting = self._looking_up.pop(peer)
        if error is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known.add(peer)
        for request, deadline in waiting:
            if error is None:
                self._submit(request, peer, deadline)
            else:
                self._release()
                code = error.code if isinstance(error, ChatError) else Code.BUG
                self._reply(code, request.id, peer, retry_after=_retry_after(error), error=_error_text(error))

    def _submit(self, request: Request2, peer: int, deadline: float) -> None:
        answered = False

        def resolved(pending: PendingMessage) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._release()
            if pending.outcome is not None:
                self._tell_outcome(request.id, peer, pending.outcome)

        self._chat.pipeline.send(
            self._user, peer, request.content, deadline, resolved, message_id=request.id or "", origin=self._connection
        )

    def _tell_outcome(self, request: str | None, peer: int, outcome: Stored | ChatError) -> None:
        if isinstance(outcome, Stored):
            self._reply(outcome.code, request, peer, seq=outcome.seq, time=outcome.time, dup=outcome.dup)
        else:
            self._reply(outcome.code, request, peer, retry_after=_retry_after(outcome), error=_error_text(outcome))

    # Reading

    async def _answer_reads(self) -> None:
        """Answer the requests that read, one after the other."""
        now = asyncio.get_running_loop().time
        waited = 0.0  # seconds spent on a client that reads slowly, by which deadlines are later
        try:
            while self._reads:
                request, peer, deadline = self._reads.popleft()
                begun = now()
                await self._connection.wait_writable()
                waited += now() - begun
                await self._answered(request, peer, self._show(request, peer, deadline + waited))
        finally:
            self._reading = None

    async def _answered(self, request: Request2, peer: int | None, work: Coroutine[None, None, None]) -> None:
        """Do the work of a request, and answer with an error if it fails."""
        try:
            await work
        except ChatError as error:
            level = _log.debug if isinstance(error, Refused) else _log.info
            level("request_unanswered", user=self._user, reason=str(error))
            self._reply(error.code, request.id, peer, error=_error_text(error))
        except Exception:  # noqa: BLE001  # a bug must not leave the client without an answer
            _log.exception("request_failed", user=self._user, peer=peer)
            self._reply(Code.BUG, request.id, peer)
        finally:
            self._release()

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
        self._connection.charge(token_bucket.READ * len(page.messages))
        self._connection.write_frame(v2.page(request.id, page.messages, complete=page.complete, to=self._named(peer)))

    async def _resume(self, request: Request2, after: dict[str, int], deadline: float) -> None:
        """Replay the messages after a `seq` in each conversation; later ones follow without a gap or a repeat."""
        peers = {int(name): seq for name, seq in after.items()}
        for peer in peers:
            self._held[peer] = _Held()
        try:
            found = await self._history.resume(self._user, peers, MOST, deadline)
            self._connection.charge(token_bucket.READ * len(found.messages))
            self._connection.write_frame(
                v2.page(
                    request.id,
                    found.messages,
                    complete=not found.more,
                    to=self._named(self._connection.peer),
                    more=[str(peer) for peer in found.more] if self._connection.peer is None else (),
                )
            )
            for peer, seq in found.held.items():
                if seq:
                    self._client_has[peer] = max(seq, self._client_has.get(peer, 0))
        finally:
            for peer in peers:
                held = self._held.pop(peer, None)
                for message in held.messages if held else ():
                    self._write_new(peer, message)

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

    def deliver(self, message: EncodedMessage) -> bool:
        """Write a message of the peer. Return whether the connection took it."""
        return self._write_or_hold(message.message.sender, message)

    def copy(self, message: EncodedMessage) -> None:
        """Write a message that the user sent on another socket."""
        self._write_or_hold(message.message.recipient, message)

    def tell(self, event: PeerEvent) -> None:
        """Write an event of the peer that is not a message."""
        if isinstance(event, PositionsChanged):
            self._connection.write_frame(v2.moved(event))
        elif isinstance(event, Typing) and not self._connection.busy:
            self._connection.write_frame(v2.typing(event.user, event.peer))

    def present(self, peer: int, *, online: bool) -> None:
        """Report that the peer came online or went offline."""
        if not self._connection.busy:
            self._connection.write_frame(v2.presence(peer, self._user, online=online))

    def _write_or_hold(self, peer: int, message: EncodedMessage) -> bool:
        held = self._held.get(peer)
        if held is None:
            return self._write_new(peer, message)
        held.messages.append(message)
        held.size += len(message.v2)
        if held.size > self._most_held:
            self._connection.too_slow()
            return False
        return True

    def _write_new(self, peer: int, message: EncodedMessage) -> bool:
        """Write a message unless the client has it."""
        if message.message.seq <= self._client_has.get(peer, 0):
            return True
        return self._connection.write_frame(message.v2)

    def _named(self, peer: int | None) -> str:
        """Return `to` of an answer: nothing on a pair socket, which has only one peer."""
        return "" if peer is None or self._connection.peer is not None else str(peer)

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
        self._connection.write_frame(
            v2.answer(
                code,
                self._connection.language,
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


def _error_text(error: Exception) -> str:
    """Return the text of an answer: why a request is not valid, or which quota is used up."""
    return str(error) if isinstance(error, InvalidFrame | QuotaReached) else ""


def _retry_after(error: Exception) -> float:
    """Return after how many seconds the request may be sent again; 0 if that is not known."""
    return error.retry_after if isinstance(error, TooFast | QuotaReached) else 0.0
