"""Passwords in URLs, errors and log lines."""

from __future__ import annotations

import pytest

from config.redaction import Redactor, masked

URLS = {
    "redis://user:pw@host/0": "redis://user:***@host/0",
    "redis://:pw@host/0": "redis://:***@host/0",
    "unix:///tmp/x.sock": "unix:///tmp/x.sock",
    "unix:///tmp/x.sock?password=pw&db=1": "unix:///tmp/x.sock?password=***&db=1",
    "mongodb://user:p/w@d@a,b/?replicaSet=r": "mongodb://user:***@a,b/?replicaSet=r",
    "mongodb://a/?tlsCertificateKeyFilePassword=pw": "mongodb://a/?tlsCertificateKeyFilePassword=***",
    "mysql://user@host/db": "mysql://user@host/db",
}


@pytest.mark.parametrize(("url", "shown"), URLS.items(), ids=URLS.values())
def test_a_url_without_its_password(url: str, shown: str) -> None:
    """Whatever the URL, also one that is malformed."""
    assert shown == masked(url)


@pytest.mark.parametrize(
    "text",
    ['Access denied for sec ret!"', "at mysql://u:sec%20ret%21%22@h", '{"event": "sec ret!\\""}'],
)
def test_a_secret_in_any_spelling(text: str) -> None:
    """As in the URL, decoded, and as JSON has it."""
    assert "ret" not in Redactor(["mysql://u:sec%20ret%21%22@h/d", ""])(text)


def test_what_is_no_url_is_the_secret() -> None:
    """The key of tokens, and the like; nothing else is touched."""
    redact = Redactor(["0123456789abcdef", "redis://localhost", "mysql://u:abc@h/d"])
    assert redact("abc key=0123456789abcdef redis://localhost") == "abc key=*** redis://localhost"
