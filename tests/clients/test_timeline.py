"""Tests of the order in which a client is given a conversation."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from clients.timeline import MOST_WAITING, Message, Timeline


def message(seq: int) -> Message:
    return Message(seq, seq * 1000, 1, f"m{seq}", "")


def seqs(messages: list[Message]) -> list[int]:
    return [each.seq for each in messages]


def following(held: int) -> Timeline:
    """Return a timeline that has caught up."""
    timeline = Timeline(held)
    timeline.ask()
    timeline.answered([], complete=True)
    return timeline


def test_live_messages_in_order() -> None:
    """Live messages in order are given at once, and once."""
    timeline = following(3)
    assert seqs(timeline.live(message(4))) == [4]
    assert seqs(timeline.live(message(4))) == []
    assert seqs(timeline.live(message(3))) == []
    assert seqs(timeline.live(message(5))) == [5]
    assert not timeline.gap


def test_live_messages_wait_for_the_answer() -> None:
    """The answer may have some of them, and earlier ones."""
    timeline = Timeline(3)
    assert seqs(timeline.live(message(4))) == []
    assert seqs(timeline.live(message(6))) == []
    assert timeline.ask() == 3
    assert seqs(timeline.live(message(7))) == []
    assert seqs(timeline.answered(map(message, (4, 5, 6)), complete=True)) == [4, 5, 6, 7]
    assert not timeline.gap


def test_an_answer_that_is_not_complete() -> None:
    """After an incomplete answer there is more to request, after its last message."""
    timeline = Timeline(0)
    timeline.ask()
    timeline.live(message(9))
    assert seqs(timeline.answered(map(message, (1, 2)), complete=False)) == [1, 2]
    assert timeline.asking
    assert timeline.ask() == 2


def test_a_gap() -> None:
    """A gap has to be requested, and messages after it wait."""
    timeline = following(3)
    assert seqs(timeline.live(message(6))) == []
    assert timeline.gap
    assert timeline.ask() == 3
    assert not timeline.gap
    assert seqs(timeline.answered(map(message, (4, 5, 6)), complete=True)) == [4, 5, 6]


def test_what_has_expired_is_no_gap() -> None:
    """A seq that came live before the request, and that the answer skips, has expired."""
    timeline = following(3)
    timeline.live(message(6))
    timeline.ask()
    assert seqs(timeline.answered([message(5)], complete=True)) == [5, 6]
    assert not timeline.gap


def test_a_gap_behind_the_question() -> None:
    """A message that came live after the request says nothing about the answer."""
    timeline = following(3)
    timeline.ask()
    timeline.live(message(6))
    assert seqs(timeline.answered([message(4)], complete=True)) == [4]
    assert timeline.gap
    assert timeline.ask() == 4
    assert seqs(timeline.answered(map(message, (5, 6)), complete=True)) == [5, 6]


def test_no_more_wait_than_may() -> None:
    """Beyond the limit, live messages are dropped and requested later."""
    timeline = Timeline(0)
    last = MOST_WAITING + 50
    for seq in range(2, last + 1):
        timeline.live(message(seq))
    assert seqs(timeline.answered([message(1)], complete=True)) == list(range(1, MOST_WAITING + 2))
    assert timeline.gap


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_order_of_events(seed: int, count: int) -> None:
    """With any lost, live or late messages the order is ascending, without a gap or a repeat, and complete."""
    chance = Random(seed)
    timeline, given_out, stored = Timeline(0), list[int](), 0
    question: tuple[int, int] | None = None  # the seq after which to read, and the last seq when the server read

    def take(messages: list[Message]) -> None:
        given_out.extend(seqs(messages))

    def answer() -> None:
        nonlocal question
        assert question is not None
        after, upto = question
        question = None
        page = list(range(after + 1, upto + 1))[: chance.randint(1, 5)]
        complete = not page or page[-1] == upto
        take(timeline.answered(map(message, page), complete=complete))

    while stored < count or question or timeline.asking or timeline.gap:
        if stored < count and chance.random() < 0.5:
            stored += 1
            if chance.random() < 0.7 or stored == count:
                take(timeline.live(message(stored)))
        elif question and chance.random() < 0.5:
            answer()
        elif question is None and (timeline.asking or timeline.gap):
            question = timeline.ask(), stored
    assert given_out == list(range(1, count + 1))


def test_restart() -> None:
    """A timeline goes on from a server that knows less."""
    timeline = following(50)
    timeline.live(message(60))
    timeline.restart(2)
    timeline.ask()
    assert seqs(timeline.answered([message(3)], complete=True)) == [3]
    assert not timeline.gap
