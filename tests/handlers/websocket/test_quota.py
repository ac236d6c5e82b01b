"""The quota of sockets: a lease takes uses one by one, and gives all back together."""

from __future__ import annotations

import pytest

from handlers.websocket.quota import ALL, ConnectionQuota


def test_what_is_taken_is_given_back() -> None:
    """A lease gives back all that it took, once, also after a use that was refused."""
    quota = ConnectionQuota()
    one, another = quota.lease(), quota.lease()
    one.take(ALL, 2, LookupError())
    another.take(ALL, 2, LookupError())
    one.take(7, 1, LookupError())
    with pytest.raises(LookupError):
        one.take(7, 1, LookupError())
    assert (quota.count(ALL), quota.count(7)) == (2, 1)
    one.release()
    one.release()
    assert (quota.count(ALL), quota.count(7)) == (1, 0)
    another.release()
    assert not quota._taken
