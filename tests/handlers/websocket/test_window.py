"""How many requests a socket may have in flight."""

from __future__ import annotations

from handlers.websocket.window import Window


async def test_a_full_window_opens_again_at_half() -> None:
    """A full window blocks reading until half of the requests are answered."""
    window = Window(4)
    assert [window.wait_for_capacity(in_flight) for in_flight in range(4)] == [None] * 4
    capacity = window.wait_for_capacity(4)
    assert capacity is not None
    assert window.full
    window.release(3)
    assert not capacity.done()
    window.release(2)
    assert capacity.done()
    assert not window.full
    assert window.wait_for_capacity(2) is None


async def test_a_window_opens_at_once_when_its_socket_closes() -> None:
    """A closing socket is read again, however many requests are in flight."""
    window = Window(2)
    capacity = window.wait_for_capacity(9)
    assert capacity is not None
    window.open()
    assert capacity.done()
    assert not window.full
