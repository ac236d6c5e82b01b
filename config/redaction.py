"""Remove passwords from errors and log lines.

No code shows one on purpose. This is the last line of defence: in every error and log line that leaves the process,
the secrets of the settings are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

__all__ = ["Redactor", "mask_tokens", "masked"]

SHORTEST = 4  # characters; a shorter value is not a secret, and is part of too many words
MASK = "***"

# Each of these matches whole runs of characters and cannot fail inside one, so that no character is read twice. Clients
# choose the text that is searched, and a search that starts again inside a run takes quadratic time.
_PARAMETER = re.compile(r"([?&])([^=&?]*)=([^&]*)")
_TOKEN_CHARACTERS = re.compile(r"[A-Za-z0-9_.-]+")

SECRET_NAMES = ("password", "secret", "token", "properties")  # parts of parameters' names
TOKEN_START = "eyJ"  # the beginning of a JSON Web Token: `{"` in base64  # noqa: S105


def masked(url: str) -> str:
    """Replace the passwords in a URL, even if it is malformed."""
    start, end = _password_in(url)
    if start < end:
        url = f"{url[:start]}{MASK}{url[end:]}"
    return _PARAMETER.sub(_mask_parameter, url)


def _password_in(url: str) -> tuple[int, int]:
    """Return the start and end of a URL's password; the same index twice if there is none.

    The password ends at the last @, since an unescaped password may contain / and @.
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
    """Replace the JSON Web Tokens in a text.

    The server does not log tokens, but errors about malformed requests quote these.
    """
    return _TOKEN_CHARACTERS.sub(_mask_tokens_in, text) if TOKEN_START in text else text


def _mask_tokens_in(run: re.Match[str]) -> str:
    """Replace possible tokens in a run of characters, each from its beginning to the end of its third part."""
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
    """Replace secrets and JSON Web Tokens in texts. Each of `values` is a secret, or a URL with passwords."""

    def __init__(self, values: Iterable[str]) -> None:
        secrets = {secret for value in values for secret in _secrets(value)}
        spellings = {spelling for secret in secrets for spelling in (secret, unquote(secret))}
        spellings |= {json.dumps(spelling)[1:-1] for spelling in spellings}
        self._secrets = sorted((s for s in spellings if len(s) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with its secrets replaced."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return mask_tokens(text)


def _secrets(value: str) -> list[str]:
    if "://" not in value:
        return [value]
    start, end = _password_in(value)
    return [value[start:end], *(found[3] for found in _PARAMETER.finditer(value) if _names_secret(found[2]))]
