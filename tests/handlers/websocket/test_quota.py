"""Places: taken one by one, given back together."""

from __future__ import annotations

import pytest

from handlers.websocket.quota import ALL, Places


def test_what_is_taken_is_given_back() -> None:
    """Also when the last one could not be had; nothing is kept of whoever has none."""
    places = Places()
    one, another = places.holder(), places.holder()
    one.take(ALL, 2, LookupError())
    another.take(ALL, 2, LookupError())
    one.take(7, 1, LookupError())
    with pytest.raises(LookupError):
        one.take(7, 1, LookupError())
    assert (places.count(ALL), places.count(7)) == (2, 1)
    one.release()
    one.release()
    assert (places.count(ALL), places.count(7)) == (1, 0)
    another.release()
    assert not places._taken
