"""The limit rule: how many messages a user may send to a peer who has never answered.

The rule and its figures are the article's (section 2.3.3). A may send to B while A has sent fewer than three messages,
or once B has written to A. Each accepted message keeps A's count for another 90 days; a refusal cuts that to 30 days.
`decide` is the rule. `storage/redis/counters.py` applies it in Redis, in one atomic script that is tested against this
function. `StrangerLimit` asks that script about the messages of the pipeline, as long as the rule may refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from models.chat.acquaintances import Acquaintances
from models.chat.ports import Admission, Counters, Messages, Recount
from models.errors import LimitReached, StorageUnavailable
from models.records import Head

if TYPE_CHECKING:  # a conversation keeps the newest LIMIT senders
    from models.chat.conversation import Conversation, PendingMessage

__all__ = ["ACCEPTED_DAYS", "DAY", "LIMIT", "REFUSED_DAYS", "StrangerLimit", "Verdict", "decide"]

LIMIT = 3
DAY = 86_400  # seconds
ACCEPTED_DAYS = 90
REFUSED_DAYS = 30
OPEN_FOR = 3600.0  # seconds for which a conversation is taken to be open before the rule is checked again

_log = structlog.get_logger(__name__)


class Verdict(NamedTuple):
    """Whether a message is accepted, the sender's count afterwards, and how many days that count lives."""

    accepted: bool
    count_after: int
    days: int


def decide(mine: int, theirs: int) -> Verdict:
    """Decide on one message, given the numbers of messages from the sender to the peer (`mine`) and back (`theirs`)."""
    if mine < LIMIT or theirs > 0:
        return Verdict(True, mine + 1, ACCEPTED_DAYS)
    return Verdict(False, mine, REFUSED_DAYS)


class StrangerLimit:
    """The limit rule for the messages of the pipeline. `clock` returns seconds since the epoch."""

    def __init__(
        self, messages: Messages, counters: Counters, acquaintances: Acquaintances, clock: Callable[[], float]
    ) -> None:
        self._messages = messages
        self._counters = counters
        self._spent = counters.spent
        self._acquaintances = acquaintances
        self._clock = clock

    def is_open(self, conversation: Conversation) -> bool:
        """Return whether neither the rule nor a quota is known to refuse messages of a conversation."""
        if self._spent and not self._spent.isdisjoint(conversation.users):
            return False
        return conversation.open_until > self._clock()

    async def admit(self, conversation: Conversation, pending: PendingMessage) -> Admission:
        """Decide on one message and count it. Raises LimitReached, StorageUnavailable."""
        return await self._counters.admit(pending.sender, pending.recipient, self._recount(conversation, pending))

    def require_left(self, head: Head, admission: Admission) -> None:
        """Raise LimitReached if MongoDB shows that the sender's count is used up, whatever Redis knows.

        A count lives for at least 30 days after each message that it counted. So three messages of the sender in that
        time and none of the peer's are a full count. That holds also if Redis lost the count a moment ago, and another
        process's messages had not reached MongoDB when it was rebuilt.
        """
        if admission.theirs > 0 or len(head.senders) < LIMIT:
            return
        since = (self._clock() - REFUSED_DAYS * DAY) * 1000
        if all(who == admission.sender and when > since for who, when in head.senders):
            raise LimitReached

    async def open(self, conversation: Conversation) -> None:
        """Record that both have written, after which the rule does not refuse. If that fails, the next answer does."""
        if conversation.head is None:
            return
        if not conversation.head.mutual:
            try:
                await self._acquaintances.introduce(conversation.name)
            except StorageUnavailable as error:
                _log.warning("not_introduced", conversation=conversation.name, reason=str(error))
                return
            conversation.note_mutual()
        conversation.keep_open(self._clock() + OPEN_FOR)

    def count(self, conversation: Conversation, pending: PendingMessage, *, admitted: bool) -> None:
        """Count a stored message, soon. An admitted one is counted already, but for its bytes."""
        if admitted:
            self._counters.weigh(pending.sender, pending.content)
        else:
            recount = self._recount(conversation, pending)
            self._counters.gather(pending.sender, pending.recipient, recount, pending.content)

    async def give_back(self, admission: Admission) -> None:
        """Take back the count of a message that is not stored."""
        try:
            await self._counters.give_back(admission)
        except StorageUnavailable as error:
            # The count stays too high until it expires. The rule may refuse too early, but never too late.
            _log.warning("count_not_given_back", sender=admission.sender, reason=str(error))

    def _recount(self, conversation: Conversation, pending: PendingMessage) -> Recount:
        async def recount(until: int) -> tuple[int, int]:
            mine = await self._messages.count(conversation.name, pending.sender, until, LIMIT)
            return mine, await self._messages.count(conversation.name, pending.recipient, until, LIMIT)

        return recount
