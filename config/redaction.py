"""Keeping passwords out of what is printed and logged.

Nothing is meant to show one. This is the last line behind that: whatever text leaves the process as an error or a
log line has the secrets of the settings replaced, however they came into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

__all__ = ["Redactor", "mask_tokens", "masked"]

SHORTEST = 4  # characters; what is shorter is no secret, and stands in too many words
MASK = "***"

# Each of these matches whole runs of characters and cannot fail inside one, so that no character is read twice: whoever
# sends a request chooses what is searched, and a search that begins anew inside a run takes the square of its length.
_PARAMETER = re.compile(r"([?&])([^=&?]*)=([^&]*)")
_TOKEN_CHARACTERS = re.compile(r"[A-Za-z0-9_.-]+")

SECRET_NAMES = ("password", "secret", "token", "properties")  # parts of names of parameters
TOKEN_START = "eyJ"  # how a JSON Web Token begins: `{"` in base64  # noqa: S105


def masked(url: str) -> str:
    """The URL without passwords, also if it is not quite a URL."""
    start, end = _password_in(url)
    if start < end:
        url = f"{url[:start]}{MASK}{url[end:]}"
    return _PARAMETER.sub(_mask_parameter, url)


def _password_in(url: str) -> tuple[int, int]:
    """Where the password of a URL stands, from and to; the same number twice if there is none.

    It ends at the last @: an unescaped password may hold / and @ itself.
    """
    scheme, end = url.find("://"), url.rfind("@")
    begin = scheme + len("://")
    colon = url.find(":", begin, end) if scheme >= 0 and begin < end else -1
    if colon < 0 or "/" in url[begin:colon] or "@" in url[begin:colon]:
        return 0, 0
    return colon + 1, end


def _mask_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if _names_secret(found[2]) else found[0]


def _names_secret(parameter: str) -> bool:
    return any(name in parameter.lower() for name in SECRET_NAMES)


def mask_tokens(text: str) -> str:
    """The text without JSON Web Tokens.

    The server does not log any, but what it says of a malformed request quotes that.
    """
    return _TOKEN_CHARACTERS.sub(_mask_tokens_in, text) if TOKEN_START in text else text


def _mask_tokens_in(run: re.Match[str]) -> str:
    """Masks in a run of characters what may be a token: from where one begins to the end of its third part."""
    parts, kept = run[0].split("."), []
    index = 0
    while index < len(parts):
        part = parts[index]
        start = part.find(TOKEN_START) if index + 2 < len(parts) and parts[index + 1] else -1
        if 0 <= start < len(part) - len(TOKEN_START):
            kept.append(part[:start] + MASK)
            index += 3
        else:
            kept.append(part)
            index += 1
    return ".".join(kept)


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
        return mask_tokens(text)


def _secrets(value: str) -> list[str]:
    if "://" not in value:
        return [value]
    start, end = _password_in(value)
    return [value[start:end], *(found[3] for found in _PARAMETER.finditer(value) if _names_secret(found[2]))]
