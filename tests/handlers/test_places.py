"""Places: taken one by one, given back together."""

from __future__ import annotations

import pytest

from handlers.places import ALL, Places


def test_what_is_taken_is_given_back() -> None:
    """Also when the last one could not be had; nothing is kept of whoever has none."""
    places = Places()
    with pytest.raises(LookupError), places.holder() as take:
        take(ALL, 2, LookupError())
        with places.holder() as another:
            another(ALL, 2, LookupError())
            assert places.count(ALL) == 2
        take(7, 1, LookupError())
        take(7, 1, LookupError())
    assert (places.count(ALL), places.count(7)) == (0, 0)
    assert not places._taken
