"""Token keys in files: a JWK Set (RFC 7517) with any number of keys, or one public key in PEM.

A secret (kty oct) signs and verifies HS256. An RSA public key verifies RS256, and one on P-256 verifies ES256. Each key
is used for one algorithm only, regardless of a token's header.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from config.secret_files import require_safe
from config.settings import Auth
from storage.embedded.data_directory import KEY_FILE

__all__ = ["Key", "KeyFileError", "generated_keys", "key_of_secret", "keys_in", "keys_of", "require_distinct"]

LEAST_SECRET = 32  # bytes; RFC 7518, section 3.2
LEAST_RSA = 2048  # bits; RFC 7518, section 3.3


class KeyFileError(Exception):
    """A token key cannot be used. The text says which one, and why."""


class Key(NamedTuple):
    """A key, its name in tokens (`kid`), and its algorithm."""

    name: str | None
    algorithm: str
    key: Any

    @property
    def signs(self) -> bool:
        """Whether the key can sign tokens."""
        return self.algorithm == "HS256"


def keys_of(auth: Auth, data_dir: Path) -> Sequence[Key]:
    """Return the keys of the settings, or one that is generated in the data directory if there are none.

    Raises KeyFileError, and UnsafeFileError for a file that other users could read or change.
    """
    keys: list[Key] = []
    if auth.token_secret:
        keys.append(key_of_secret(auth.token_secret))
    if auth.token_keys:
        path = Path(auth.token_keys)
        require_safe(path, secret=False)
        found = keys_in(path)
        require_safe(path, secret=any(key.signs for key in found))
        keys += found
    if not keys:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyFileError(f"--data-dir: {data_dir} cannot be used: {error.strerror}") from None
        require_safe(data_dir / KEY_FILE, secret=True)
        keys += generated_keys(data_dir / KEY_FILE)
    require_distinct(keys, "--token-secret and --token-keys")
    return keys


def key_of_secret(secret: str) -> Key:
    """Return the key for a secret from the settings. Raises KeyFileError."""
    return Key(None, "HS256", _long_enough(secret.encode(), "--token-secret"))


def keys_in(path: Path) -> Sequence[Key]:
    """Return the keys in a file. Raises KeyFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN" in content:
        try:
            return [_public(None, load_pem_public_key(content), str(path))]
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError(f"{path}: not a public key in PEM") from None
    try:
        entries = json.loads(content)["keys"]
        keys = [_from_jwk(entry, f"{path}: key {number}") for number, entry in enumerate(entries, 1)]
    # AttributeError and NotImplementedError: entries that are not objects, and key types that PyJWT lacks.
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RecursionError):
        raise KeyFileError(f"{path}: neither a JWK Set nor a public key in PEM") from None
    if not keys:
        raise KeyFileError(f"{path}: no keys")
    require_distinct(keys, str(path))
    return keys


def require_distinct(keys: Sequence[Key], where: str) -> None:
    """Raise KeyFileError if a token's header could name two of these keys."""
    if len({key.name or (key.name, key.algorithm) for key in keys}) != len(keys):
        raise KeyFileError(f"{where}: two keys with the same kid, or two without one for the same algorithm")


def generated_keys(path: Path) -> Sequence[Key]:
    """Return the keys in a file, which is created with a new secret if needed. Only its owner may read it."""
    if not path.exists():
        entry = {
            "kty": "oct",
            "alg": "HS256",
            "kid": secrets.token_hex(4),
            "k": base64.urlsafe_b64encode(secrets.token_bytes(LEAST_SECRET)).rstrip(b"=").decode(),
        }
        # Written to another file first, so that two servers that start at once read the same complete file.
        making = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            try:
                _write(making, entry)
                with suppress(FileExistsError):
                    path.hardlink_to(making)
            finally:
                making.unlink(missing_ok=True)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
    return keys_in(path)


def _write(path: Path, entry: dict[str, str]) -> None:
    """Write a JWK Set of one key to a new file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"keys": [entry]}, file)
        file.flush()
        os.fsync(file.fileno())


def _from_jwk(entry: dict[str, Any], where: str) -> Key:
    name = entry.get("kid")
    if name is not None and not isinstance(name, str):
        raise KeyFileError(f"{where}: kid is not text")
    if "d" in entry:
        raise KeyFileError(f"{where}: a private key; use the public key instead")
    if entry.get("use", "sig") != "sig":
        raise KeyFileError(f"{where}: the key is not for signatures")
    try:
        key = jwt.PyJWK(entry).key
    except jwt.PyJWTError:
        raise KeyFileError(f"{where}: not a supported key") from None
    found = Key(name, "HS256", _long_enough(key, where)) if isinstance(key, bytes) else _public(name, key, where)
    if entry.get("alg", found.algorithm) != found.algorithm:
        raise KeyFileError(f"{where}: alg is not {found.algorithm}, the algorithm of such a key")
    return found


def _public(name: str | None, key: Any, where: str) -> Key:
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA:
            raise KeyFileError(f"{where}: the RSA key has less than {LEAST_RSA} bits")
        return Key(name, "RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key(name, "ES256", key)
    raise KeyFileError(f"{where}: neither an RSA key nor one on P-256")


def _long_enough(secret: bytes, where: str) -> bytes:
    if len(secret) < LEAST_SECRET:
        raise KeyFileError(f"{where}: the secret has less than {LEAST_SECRET} bytes")
    return secret
