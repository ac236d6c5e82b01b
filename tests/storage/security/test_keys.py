"""Tests of token keys: files with keys, keys that are refused, and the generated file."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from config.secret_files import UnsafeFileError
from config.settings import Auth
from storage.security.keys import Key, KeyFileError, generated_keys, key_of_secret, keys_in, keys_of
from tests.storage.conftest import pem

RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505  # that is the point
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
UNUSABLE = "not a supported key|neither a JWK Set|the secret has less|alg is not"
SECRET = "0123456789abcdefghijklmnopqrstuv"


def oct_jwk(secret: str = SECRET, **members: Any) -> dict[str, Any]:
    """Return a secret as a JWK."""
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode(), **members}


def rsa_jwk(key: Any = None, **members: Any) -> dict[str, Any]:
    """Return an RSA key as a JWK."""
    return {
        **jwt.algorithms.RSAAlgorithm.to_jwk(key or RSA.public_key(), as_dict=True),
        "key_ops": ["verify"],
        **members,
    }


def ec_jwk(key: Any = None, **members: Any) -> dict[str, Any]:
    """Return a key on a curve as a JWK."""
    return jwt.algorithms.ECAlgorithm.to_jwk(key or EC.public_key(), as_dict=True) | members


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the key file."""
    return tmp_path / "keys"


def test_a_secret_from_the_settings() -> None:
    """A secret from the settings signs, and has no name."""
    key = key_of_secret(SECRET)
    assert key == Key(None, "HS256", SECRET.encode())
    assert key.signs
    assert key_of_secret("字" * 11).key == ("字" * 11).encode()


def test_a_short_secret_from_the_settings() -> None:
    """The error about a short secret names the setting, and does not show the secret."""
    with pytest.raises(KeyFileError, match=r"--token-secret: .* 32 bytes") as caught:
        key_of_secret(SECRET[:-1])
    assert SECRET[:-1] not in str(caught.value)


def test_a_set_of_keys(path: Path) -> None:
    """A JWK Set gives its keys in order, each with its name and one algorithm, and only a secret signs."""
    entries = [oct_jwk(kid="a"), rsa_jwk(kid="b", use="sig", alg="RS256"), ec_jwk(kid="字"), oct_jwk(alg="HS256")]
    path.write_text(json.dumps({"keys": entries, "more": 1}))
    keys = keys_in(path)
    expected = [("a", "HS256", True), ("b", "RS256", False), ("字", "ES256", False), (None, "HS256", True)]
    assert expected == [(key.name, key.algorithm, key.signs) for key in keys]
    assert keys[0].key == SECRET.encode()
    assert pem(keys[1].key) == pem(RSA.public_key())
    assert pem(keys[2].key) == pem(EC.public_key())


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
def test_a_public_key_in_pem(path: Path, key: Any, algorithm: str) -> None:
    """A PEM file gives one key without a name, and text before the key is ignored."""
    path.write_bytes(b"of the other back end\n" + pem(key.public_key()))
    (found,) = keys_in(path)
    assert (found.name, found.algorithm, found.signs) == (None, algorithm, False)
    assert pem(found.key) == pem(key.public_key())


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (oct_jwk(SECRET[:-1]), "less than 32 bytes"),
        (oct_jwk(""), UNUSABLE),
        (oct_jwk(k="$"), UNUSABLE),
        (oct_jwk(alg="HS512"), "alg is not HS256"),
        (oct_jwk(alg="RS256"), UNUSABLE),
        (oct_jwk(kid=5), "kid is not text"),
        (oct_jwk(use="enc"), "not for signatures"),
        (oct_jwk(kty="OCT"), "not a supported key"),
        (oct_jwk(kty=None), UNUSABLE),
        ({}, "not a supported key"),
        (rsa_jwk(SMALL_RSA.public_key()), "less than 2048 bits"),
        (rsa_jwk(RSA), "private key"),
        (rsa_jwk(alg="RS512"), "alg is not RS256"),
        (rsa_jwk(alg="HS256"), UNUSABLE),
        (rsa_jwk(n=""), UNUSABLE),
        (rsa_jwk(n=None), UNUSABLE),
        (ec_jwk(OTHER_EC.public_key()), "nor one on P-256"),
        (ec_jwk(EC), "private key"),
        (ec_jwk(alg="ES384"), UNUSABLE),
        (ec_jwk(x="AA"), UNUSABLE),
        (jwt.algorithms.OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True), "neither an RSA key"),
    ],
)
def test_a_key_that_cannot_be_used(path: Path, entry: dict[str, Any], reason: str) -> None:
    """A file with an invalid key is refused by its path, even if another key in it is valid."""
    path.write_text(json.dumps({"keys": [oct_jwk(kid="good"), entry]}))
    with pytest.raises(KeyFileError, match=reason) as caught:
        keys_in(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert oct_jwk()["k"] not in str(caught.value)


@pytest.mark.parametrize("kid", ["a", None])
def test_two_keys_of_one_name(path: Path, kid: str | None) -> None:
    """Two keys with the same name, or without one for the same algorithm, are refused: a token could match both."""
    path.write_text(json.dumps({"keys": [oct_jwk(kid=kid), ec_jwk(kid=kid) if kid else oct_jwk(kid=kid)]}))
    with pytest.raises(KeyFileError, match="the same kid") as caught:
        keys_in(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        b"\xff\xfe\x00",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"keys": 5}',
        b'{"keys": null}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct"}]',
        b'{"keys": ["x"]}',
        b'{"keys": [null]}',
        b'{"keys": {"a": 1}}',
        b'{"keys": [{"kty": "oct", "alg": "none", "k": "AAAA"}]}',
        b"[" * 100_000,
        json.dumps(oct_jwk()).encode(),
        b"-----BEGIN PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem(RSA),
        pem(EC),
        pem(SMALL_RSA.public_key()),
        pem(OTHER_EC.public_key()),
        pem(ED25519.public_key()),
    ],
)
def test_a_file_without_keys(path: Path, content: bytes) -> None:
    """A file without keys is refused by its path."""
    path.write_bytes(content)
    with pytest.raises(KeyFileError) as caught:
        keys_in(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_file(path: Path) -> None:
    """The error about a missing file, or about a directory, says so."""
    with pytest.raises(KeyFileError, match=f"{path}: No such file"):
        keys_in(path)
    with pytest.raises(KeyFileError, match=f"{path.parent}: Is a directory"):
        keys_in(path.parent)


def test_keys_are_generated(path: Path) -> None:
    """A signing key is generated once, in a file that only its owner may read, and no other file is left."""
    (key,) = generated_keys(path)
    assert key.signs
    assert key.name
    assert len(key.key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [key] == list(generated_keys(path)) == list(keys_in(path))
    assert [path] == list(path.parent.iterdir())


def test_two_directories(tmp_path: Path) -> None:
    """Two directories get different keys."""
    (one,), (other,) = generated_keys(tmp_path / "one"), generated_keys(tmp_path / "other")
    assert one.key != other.key
    assert one.name != other.name


def test_keys_that_are_there_are_kept(path: Path) -> None:
    """An existing file is used and never replaced, even if it is invalid."""
    path.write_text(json.dumps({"keys": [oct_jwk(kid="a")]}))
    assert [Key("a", "HS256", SECRET.encode())] == list(generated_keys(path))
    path.write_text("")
    with pytest.raises(KeyFileError):
        generated_keys(path)
    assert path.read_text() == ""


def test_no_directory_for_keys(path: Path) -> None:
    """The error about a directory that does not exist names the path."""
    with pytest.raises(KeyFileError, match=str(path)):
        generated_keys(path / "keys")


def test_two_servers_that_begin_at_once(tmp_path: Path) -> None:
    """Two servers that start at once read the same key."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for path in (tmp_path / str(number) for number in range(20)):
            found = pool.map(generated_keys, [path] * 4, chunksize=1)
            assert all(each == found[0] for each in found)
            assert keys_in(path) == found[0]
            assert [path] == [
                each for each in tmp_path.iterdir() if each.name.startswith(f"{path.name}.") or each == path
            ]


def test_the_keys_of_the_settings(path: Path, tmp_path: Path) -> None:
    """The secret and the keys of the file are used together, and no key is generated."""
    path.write_bytes(pem(EC.public_key()))
    path.chmod(0o600)
    keys = keys_of(Auth(token_secret=SECRET, token_keys=str(path)), tmp_path / "data")
    assert [key.algorithm for key in keys] == ["HS256", "ES256"]
    assert not (tmp_path / "data").exists()


def test_a_secret_and_a_file_with_a_secret(path: Path, tmp_path: Path) -> None:
    """Two keys that a token could not tell apart are refused, though they come from two settings."""
    path.write_text(json.dumps({"keys": [oct_jwk()]}))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="--token-secret and --token-keys"):
        keys_of(Auth(token_secret=SECRET, token_keys=str(path)), tmp_path)


def test_a_file_with_a_secret_that_others_can_read() -> None:
    """Others may read a file with public keys, but not one with a secret."""
    with TemporaryDirectory(prefix="tandem-test-") as name:  # others cannot enter the test's own directory
        path = Path(name) / "keys"
        path.parent.chmod(0o755)
        path.write_bytes(pem(EC.public_key()))
        path.chmod(0o644)
        assert keys_of(Auth(token_keys=str(path)), path.parent)
        path.write_text(json.dumps({"keys": [oct_jwk()]}))
        with pytest.raises(UnsafeFileError, match=f"{path}: others can read the secret"):
            keys_of(Auth(token_keys=str(path)), path.parent)


def test_without_keys_one_is_generated(tmp_path: Path) -> None:
    """Without keys in the settings, one is generated in the data directory, which is created, and used again."""
    (first,) = keys_of(Auth(), tmp_path / "new" / "data")
    (second,) = keys_of(Auth(), tmp_path / "new" / "data")
    assert first.signs
    assert first == second


def test_a_data_directory_that_cannot_be_created(tmp_path: Path) -> None:
    """The error about a data directory that cannot be created names it."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match=f"--data-dir: {tmp_path}/file/data cannot be used"):
        keys_of(Auth(), tmp_path / "file" / "data")
