"""Following conversations over a connection: first what was missed, then live messages, in order and without a gap.

After each connecting, every conversation is resumed from what is held of it. Incomplete answers are completed from
history, and so are gaps between live messages. This user's positions are sent at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from random import Random

from clients.backoff import client_backoff
from clients.connection import Connection, Frame
from clients.conversation import Conversation
from clients.timeline import Message

__all__ = ["Follower"]

HISTORY, MARK, RESUME = 2, 4, 6  # types of frames
DONE, INVALID, TOO_FAST = 50002, 400, 429  # codes
PAGE = 100  # messages in an answer from history
RESUMED = 200  # conversations in one resume request

Given = Callable[[Conversation, Sequence[Message]], None]


class Follower:
    """Follows conversations over one connection.

    `given` is called with a conversation's next messages, `caught_up` with a peer when everything that was missed in
    the conversation with that peer has been given.
    """

    def __init__(
        self,
        connection: Connection,
        conversations: Mapping[int, Conversation],
        given: Given,
        caught_up: Callable[[int], None],
        chance: Random,
    ) -> None:
        self._connection = connection
        self._conversations = conversations
        self._given = given
        self._caught_up = caught_up
        self._backoff = client_backoff(chance)
        for conversation in conversations.values():
            conversation.timeline.suspend()
            conversation.telling = False

    def resume(self, peers: Sequence[int]) -> None:
        """Request what was missed in the conversations with these peers."""
        rest = iter(peers)
        while part := list(islice(rest, RESUMED)):
            after = {str(peer): self._conversations[peer].timeline.ask() for peer in part}
            self._connection.ask(RESUME, partial(self._resumed, part), after=after)

    def live(self, peer: int, message: Message) -> None:
        """Handle a live message in a conversation that is followed."""
        conversation = self._conversations[peer]
        self._give(conversation, conversation.timeline.live(message))
        if conversation.timeline.gap:
            self._fill(peer)

    def mark(self, peer: int) -> None:
        """Send this user's positions, unless the server has them or they are being sent."""
        conversation = self._conversations[peer]
        wanted = conversation.own_received, conversation.own_read
        if not conversation.telling and wanted != conversation.told:
            conversation.telling = True
            then = partial(self._marked, peer, wanted)
            self._connection.ask(MARK, then, to=str(peer), received=wanted[0], read=wanted[1])

    def _resumed(self, peers: list[int], frame: Frame) -> None:
        code = frame["code"]
        if code == INVALID and len(peers) > 1:
            for peer in peers:  # to find out which of them it is about
                self.resume([peer])
        elif code == INVALID and self._conversations[peers[0]].timeline.held:
            self._conversations[peers[0]].restart()
            self.resume(peers)
        elif code == INVALID:  # the peer does not exist
            self._answered(peers[0], [], complete=True)
        elif code != DONE:
            self._later(frame, partial(self.resume, peers))
        else:
            self._backoff.reset()
            more = frame.get("more", ())
            for peer in peers:
                messages = [m for m in frame["messages"] if str(peer) in (m["from"], m["to"])]
                self._answered(peer, messages, complete=str(peer) not in more)

    def _fill(self, peer: int) -> None:
        after = self._conversations[peer].timeline.ask()
        self._connection.ask(HISTORY, partial(self._filled, peer), to=str(peer), after=after, limit=PAGE)

    def _filled(self, peer: int, frame: Frame) -> None:
        if frame["code"] != DONE:
            self._later(frame, partial(self._fill, peer))
        else:
            self._backoff.reset()
            self._answered(peer, frame["messages"], complete=frame["complete"])

    def _answered(self, peer: int, messages: list[Frame], *, complete: bool) -> None:
        conversation = self._conversations[peer]
        timeline = conversation.timeline
        self._give(conversation, timeline.answered(map(Message.of, messages), complete=complete))
        if timeline.asking or timeline.gap:
            self._fill(peer)
        else:
            self._caught_up(peer)

    def _give(self, conversation: Conversation, messages: list[Message]) -> None:
        if messages:
            for message in messages:
                conversation.said(message)
            self._given(conversation, messages)
            self.mark(conversation.peer.id)

    def _marked(self, peer: int, wanted: tuple[int, int], frame: Frame) -> None:
        conversation = self._conversations[peer]
        conversation.telling = False
        if frame["code"] in (DONE, INVALID):  # an invalid request is not repeated
            conversation.told = wanted
            self.mark(peer)
        else:
            conversation.telling = True
            self._later(frame, partial(self._mark_again, peer))

    def _mark_again(self, peer: int) -> None:
        self._conversations[peer].telling = False
        self.mark(peer)

    def _later(self, frame: Frame, again: Callable[[], None]) -> None:
        """Request again after a moment, if the connection is still the same."""
        wait = frame.get("retry_after", 0.0) if frame["code"] == TOO_FAST else 0.0
        asyncio.get_running_loop().call_later(wait or self._backoff.next_pause(), self._unless_ended, again)

    def _unless_ended(self, again: Callable[[], None]) -> None:
        if not self._connection.ended.done():
            again()
