"""Tokens: JSON Web Tokens (RFC 7519), signed; no other module imports PyJWT but the one that reads keys.

A token says whose it is (`sub`), for whom (`aud`), when it was issued (`iat`) and how long it is good (`exp`); those
that are issued here also hold the version of the user's tokens then. PyJWT reads the clock by itself.
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

LEEWAY = 5  # seconds by which the clocks of those who issue and of those who check may differ
WRONG: Mapping[type[Exception], str] = {
    jwt.DecodeError: "is not a JSON Web Token",
    jwt.ExpiredSignatureError: "has expired",
    jwt.ImmatureSignatureError: "is not good yet",
    jwt.InvalidAudienceError: "is for somebody else",
}
LATEST = 2**53  # seconds since the epoch
VERSION = "tandem_version"  # the claim
LONGEST = 4096  # characters; what is longer is no token of anybody's


class SignedTokens:
    """Tokens for `audience`, good for `lifetime` seconds.

    Any of `keys` may have signed one, the first that can signs. `clock` returns seconds since the epoch.
    """

    def __init__(self, keys: Sequence[Key], *, audience: str, lifetime: float, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._signing = next((key for key in keys if key.signs), None)
        self._audience = audience
        self._lifetime = lifetime
        self._clock = clock

    @property
    def issues(self) -> bool:
        """Whether there is a key to sign with."""
        return self._signing is not None

    def issue(self, user: User) -> str:
        """A token for a user. Raises Forbidden without a key to sign with."""
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
        """Whose token it is. Raises Unauthenticated."""
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
                raise Unauthenticated("the token is nobody's")
            # PyJWT takes text as well.
            if not all(type(time) in (int, float) and abs(time) < LATEST for time in times):
                raise Unauthenticated("the token's times are no numbers, or not of this world")
            # The leeway is given here, once for all who look at these times.
            issued, expires = min(float(times[0]), self._clock()), float(times[1]) + LEEWAY
            return Identity(user, _session(token), version, issued, expires)
        # What PyJWT does not foresee in numbers and nesting is no reason to fail.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthenticated(f"the token {WRONG.get(type(error), 'is not good')}") from None

    def _key_of(self, header: dict[str, Any]) -> Key:
        """The key that a token names, else one without a name; of several, the one for the token's algorithm."""
        name = header.get("kid")
        named = [key for key in self._keys if key.name == name] or [key for key in self._keys if key.name is None]
        if not named and name is None:
            named = list(self._keys)
        fitting = [key for key in named if key.algorithm == header.get("alg")]
        if len(fitting) != 1:
            raise Unauthenticated("the token is signed by a key that is not known")
        return fitting[0]


def _session(token: str) -> bytes:
    """What tells a token from all others: its signed part, since a signature may be spelt in several ways."""
    return hashlib.blake2b(token.rpartition(".")[0].encode(), digest_size=16).digest()
