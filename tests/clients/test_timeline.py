"""The order of a conversation as a client is given it."""

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
    """A timeline that has caught up."""
    timeline = Timeline(held)
    timeline.ask()
    timeline.answered([], complete=True)
    return timeline


def test_live_messages_in_order() -> None:
    """Are given at once, and once."""
    timeline = following(3)
    assert seqs(timeline.live(message(4))) == [4]
    assert seqs(timeline.live(message(4))) == []
    assert seqs(timeline.live(message(3))) == []
    assert seqs(timeline.live(message(5))) == [5]
    assert not timeline.gap


def test_live_messages_wait_for_the_answer() -> None:
    """Which has some of them too, and what is before them."""
    timeline = Timeline(3)
    assert seqs(timeline.live(message(4))) == []
    assert seqs(timeline.live(message(6))) == []
    assert timeline.ask() == 3
    assert seqs(timeline.live(message(7))) == []
    assert seqs(timeline.answered(map(message, (4, 5, 6)), complete=True)) == [4, 5, 6, 7]
    assert not timeline.gap


def test_an_answer_that_is_not_complete() -> None:
    """Says that there is more to ask for, behind what it has."""
    timeline = Timeline(0)
    timeline.ask()
    timeline.live(message(9))
    assert seqs(timeline.answered(map(message, (1, 2)), complete=False)) == [1, 2]
    assert timeline.asking
    assert timeline.ask() == 2


def test_a_gap() -> None:
    """Is to be asked for; messages behind it wait."""
    timeline = following(3)
    assert seqs(timeline.live(message(6))) == []
    assert timeline.gap
    assert timeline.ask() == 3
    assert not timeline.gap
    assert seqs(timeline.answered(map(message, (4, 5, 6)), complete=True)) == [4, 5, 6]


def test_what_has_expired_is_no_gap() -> None:
    """An answer that was asked for later than the message behind it came passes over what is not there."""
    timeline = following(3)
    timeline.live(message(6))
    timeline.ask()
    assert seqs(timeline.answered([message(5)], complete=True)) == [5, 6]
    assert not timeline.gap


def test_a_gap_behind_the_question() -> None:
    """What came live only after the question says nothing of what the answer could not have."""
    timeline = following(3)
    timeline.ask()
    timeline.live(message(6))
    assert seqs(timeline.answered([message(4)], complete=True)) == [4]
    assert timeline.gap
    assert timeline.ask() == 4
    assert seqs(timeline.answered(map(message, (5, 6)), complete=True)) == [5, 6]


def test_no_more_wait_than_may() -> None:
    """The others are asked for."""
    timeline = Timeline(0)
    last = MOST_WAITING + 50
    for seq in range(2, last + 1):
        timeline.live(message(seq))
    assert seqs(timeline.answered([message(1)], complete=True)) == list(range(1, MOST_WAITING + 2))
    assert timeline.gap


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_order_of_events(seed: int, count: int) -> None:
    """Whatever comes live, or is lost, and whenever answers come: ascending, no gap, no repeat, and all of it."""
    chance = Random(seed)
    timeline, given_out, stored = Timeline(0), list[int](), 0
    question: tuple[int, int] | None = None  # after what, and how much was stored when the server read it

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
    """A server that knows less: it goes on from there."""
    timeline = following(50)
    timeline.live(message(60))
    timeline.restart(2)
    timeline.ask()
    assert seqs(timeline.answered([message(3)], complete=True)) == [3]
    assert not timeline.gap
