"""Signed JSON Web Tokens (RFC 7519).

A token has its user (`sub`), its audience (`aud`), the time when it was issued (`iat`) and the time when it expires
(`exp`). A token that is issued here also has the version of the user's tokens at that time. PyJWT, which only this
module and `keys` import, reads the system's clock.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt

from models.errors import Forbidden, Unauthenticated
from models.records import Identity, User, user_id
from storage.security.keys import Key

__all__ = ["SignedTokens"]

LEEWAY = 5  # seconds by which the clocks of the issuer and of this machine may differ
WRONG: Mapping[type[Exception], str] = {
    jwt.DecodeError: "is not a JSON Web Token",
    jwt.ExpiredSignatureError: "has expired",
    jwt.ImmatureSignatureError: "is not valid yet",
    jwt.InvalidAudienceError: "has another audience",
}
LATEST = 2**53  # seconds since the epoch
VERSION = "tandem_version"  # the claim
LONGEST = 4096  # characters of a token


class SignedTokens:
    """Tokens for `audience` that are valid for `lifetime` seconds.

    Tokens are verified with any of `keys`, and signed with the first one that can sign. `clock` returns seconds since
    the epoch.
    """

    def __init__(self, keys: Sequence[Key], *, audience: str, lifetime: float, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._signing = next((key for key in keys if key.signs), None)
        self._audience = audience
        self._lifetime = lifetime
        self._clock = clock

    @property
    def issues(self) -> bool:
        """Whether there is a key that can sign."""
        return self._signing is not None

    def issue(self, user: User) -> str:
        """Return a new token for a user. Raises Forbidden if no key can sign."""
        if self._signing is None:
            raise Forbidden("tokens are issued elsewhere")
        now = self._clock()
        claims = {
            "sub": str(user.id),
            "aud": self._audience,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "jti": secrets.token_urlsafe(12),
            VERSION: user.token_version,
        }
        headers = {"kid": self._signing.name} if self._signing.name is not None else None
        return jwt.encode(claims, self._signing.key, self._signing.algorithm, headers)

    def verify(self, token: str) -> Identity:
        """Verify a token and return the identity in it. Raises Unauthenticated."""
        try:
            if len(token) > LONGEST:
                raise Unauthenticated("the token is too long")
            key = self._key_of(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["sub", "aud", "iat", "exp"]},
            )
            user, version = user_id(claims["sub"]), claims.get(VERSION)
            times = claims["iat"], claims["exp"]
            if user is None or not (version is None or (isinstance(version, str) and version.isascii())):
                raise Unauthenticated(f"invalid sub or {VERSION} claim in the token")
            # PyJWT also accepts numbers as text.
            if not all(type(time) in (int, float) and abs(time) < LATEST for time in times):
                raise Unauthenticated("invalid iat or exp claim in the token")
            # The leeway is added here, so that other code can compare these times with the clock.
            issued, expires = min(float(times[0]), self._clock()), float(times[1]) + LEEWAY
            return Identity(user, _session(token), version, issued, expires)
        # PyJWT raises other errors than its own for unusual numbers and deep nesting.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthenticated(f"the token {WRONG.get(type(error), 'is not valid')}") from None

    def _key_of(self, header: dict[str, Any]) -> Key:
        """Return the key that a token's header names, or one without a name, with the token's algorithm."""
        name = header.get("kid")
        named = [key for key in self._keys if key.name == name] or [key for key in self._keys if key.name is None]
        if not named and name is None:
            named = list(self._keys)
        fitting = [key for key in named if key.algorithm == header.get("alg")]
        if len(fitting) != 1:
            raise Unauthenticated("the token is signed with an unknown key")
        return fitting[0]


def _session(token: str) -> bytes:
    """Return a digest that identifies a token, of its signed part, since a signature has several spellings."""
    return hashlib.blake2b(token.rpartition(".")[0].encode(), digest_size=16).digest()
