"""Keeping passwords out of what is printed and logged.

Nothing is meant to show one. This is the last line behind that: whatever text leaves the process as an error or a
log line has the secrets of the settings replaced, however they came into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

__all__ = ["Redactor", "masked"]

SHORTEST = 4  # characters; what is shorter is no secret, and stands in too many words
MASK = "***"

_USER_INFO = re.compile(r"://([^:@/]*)(:.*)?@")  # greedy: an unescaped password may hold / and @ itself
_PARAMETER = re.compile(r"([?&][^=&]*(?:password|secret|token|properties)[^=&]*=)([^&]*)", re.IGNORECASE)


def masked(url: str) -> str:
    """The URL without passwords, also if it is not quite a URL."""
    url = _USER_INFO.sub(lambda found: f"://{found[1]}{':' + MASK if found[2] else ''}@", url)
    return _PARAMETER.sub(lambda found: found[1] + MASK, url)


# A JSON Web Token; the server does not log any, but what it says of a malformed request quotes that.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Redactor:
    """Replaces the secrets in `values`, which are URLs with passwords, or secrets themselves; and tokens."""

    def __init__(self, values: Iterable[str]) -> None:
        secrets = {secret for value in values for secret in _secrets(value)}
        spellings = {spelling for secret in secrets for spelling in (secret, unquote(secret))}
        spellings |= {json.dumps(spelling)[1:-1] for spelling in spellings}
        self._secrets = sorted((s for s in spellings if len(s) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _TOKEN.sub(MASK, text)


def _secrets(value: str) -> list[str]:
    if "://" not in value:
        return [value]
    found = _USER_INFO.search(value)
    password = [found[2][1:]] if found and found[2] else []
    return password + [parameter[2] for parameter in _PARAMETER.finditer(value)]
