"""Clients of Redis: what they raise, and that nothing is tried twice."""

from __future__ import annotations

import pytest

from models.errors import EngineUnavailable
from storage.clients import redis_client, subscriber_client, translated


@pytest.mark.parametrize("make", [lambda url: redis_client(url, 1, 2), lambda url: subscriber_client(url, 1)])
async def test_nobody_there(make: object, tmp_path: object) -> None:
    """The driver's error is ours, and names the engine."""
    client = make(f"unix://{tmp_path}/nobody.sock")  # type: ignore[operator]
    with pytest.raises(EngineUnavailable, match="redis"), translated():
        await client.ping()
    await client.aclose()


def test_a_url_that_is_none() -> None:
    """Said before anything is connected."""
    for make in (lambda: redis_client("mysql://x", 1, 2), lambda: subscriber_client("mysql://x", 1)):
        with pytest.raises(ValueError, match="scheme"):
            make()
