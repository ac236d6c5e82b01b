"""Tests of signed tokens: which are valid, for how long, and with which keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Forbidden, Unauthenticated
from models.records import Identity, User
from storage.security.keys import Key, key_of_secret, keys_in
from storage.security.tokens import LEEWAY, SignedTokens
from tests.storage.conftest import pem
from tests.support.clocks import Clock

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
HERE = key_of_secret("0123456789abcdefghijklmnopqrstuv")
USER = User(7, "name", "nick", "", "", "active", 0, "version")
LIFETIME = 3600
NOW = int(time.time())
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tokens_with(*keys: Key, clock: Any = time.time, lifetime: float = LIFETIME) -> SignedTokens:
    """Return tokens with these keys."""
    return SignedTokens(keys, audience="tandem", lifetime=lifetime, clock=clock)


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a token from another issuer, without those that are None."""
    said = {"sub": "7", "aud": "tandem", "iat": int(time.time()), "exp": int(time.time()) + LIFETIME, **changed}
    return {name: value for name, value in said.items() if value is not None}


def secret_key(name: str | None, letter: str) -> Key:
    """Return a secret with a name."""
    return Key(name, "HS256", letter.encode() * 32)


def signed(header: object, payload: object, secret: bytes = HERE.key) -> str:
    """Return a token with any header and payload, as text or encoded as JSON, always signed with HS256."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    text = ".".join(encoded(part.encode()) for part in parts)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def encoded(raw: bytes) -> str:
    """Encode as base64, as in tokens."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_token_comes_back(clock: Clock) -> None:
    """A token gives its user, version and times."""
    tokens = tokens_with(HERE, clock=clock)
    before = int(clock())
    identity = tokens.verify(tokens.issue(USER))
    assert (identity.user, identity.version, len(identity.session)) == (7, "version", 16)
    assert before <= identity.issued <= clock()
    assert 0 <= identity.expires - LEEWAY - identity.issued - LIFETIME <= 1


def test_no_two_tokens_are_the_same() -> None:
    """Two tokens that are issued to a user in the same second differ."""
    tokens = tokens_with(HERE)
    assert len({tokens.verify(tokens.issue(USER)).session for _ in range(50)}) == 50


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
def test_another_back_end_issues_tokens(tmp_path: Path, private: Any, algorithm: str) -> None:
    """Tokens of another back end are verified with its public key, and have no version."""
    path = tmp_path / "public.pem"
    path.write_bytes(pem(private.public_key()))
    tokens = tokens_with(*keys_in(path))
    said = claims(iss="elsewhere", scope="chat", aud=["another", "tandem"])
    identity = tokens.verify(jwt.encode(said, private, algorithm))
    expected = Identity(7, identity.session, None, said["iat"], said["exp"] + LEEWAY)
    assert identity == expected
    assert not tokens.issues
    with pytest.raises(Forbidden):
        tokens.issue(USER)


def test_tokens_from_here_and_from_elsewhere() -> None:
    """Own tokens and another back end's are both valid, and the secret signs, wherever it is in the list."""
    tokens = tokens_with(Key("there", "ES256", EC.public_key()), secret_key("here", "a"))
    assert tokens.issues
    assert tokens.verify(tokens.issue(USER)).version == "version"
    assert tokens.verify(jwt.encode(claims(), EC, "ES256", {"kid": "there"})).version is None


def test_keys_come_and_go() -> None:
    """A token is valid as long as its key is configured, even if a newer key signs."""
    old, new = secret_key("old", "a"), secret_key("new", "b")
    token = tokens_with(old).issue(USER)
    both = tokens_with(new, old)
    assert both.verify(token).user == both.verify(both.issue(USER)).user == 7
    assert tokens_with(new).verify(both.issue(USER)).user == 7
    with pytest.raises(Unauthenticated):
        tokens_with(new).verify(token)


def test_a_token_without_a_name() -> None:
    """A token without a key name is verified with the key without a name, or with the only key."""
    one, other, nameless = secret_key("one", "a"), secret_key("other", "b"), secret_key(None, "c")
    by_one, by_nameless = (jwt.encode(claims(), key.key, "HS256") for key in (one, nameless))
    assert tokens_with(one).verify(by_one).user == 7
    assert tokens_with(one, nameless).verify(by_nameless).user == 7
    for token, keys in ((by_one, (one, other)), (by_one, (one, nameless)), (by_nameless, (one,))):
        with pytest.raises(Unauthenticated):
            tokens_with(*keys).verify(token)


def test_clocks_differ_a_little() -> None:
    """A token is accepted a few seconds before its time and after it, since clocks differ."""
    now = int(time.time())
    for said in (claims(iat=now + 3, nbf=now + 3), claims(exp=now - 2)):
        identity = tokens_with(HERE).verify(jwt.encode(said, HERE.key, "HS256"))
        assert identity.expires > time.time()  # including the leeway
        assert identity.issued <= time.time()  # or the token would outlive signing out everywhere


@pytest.mark.parametrize(("key", "private"), [(HERE, HERE.key), (Key(None, "ES256", EC.public_key()), EC)])
def test_a_signature_of_other_spelling(key: Key, private: Any) -> None:
    """A signature in another spelling is refused or gives the same session, so signing out ends both."""
    tokens = tokens_with(key)
    token = jwt.encode(claims(), private, key.algorithm)
    found = set()
    for other in (*(token[:-1] + last for last in ALPHABET), f"{token}=", f"{token[:-9]}!{token[-9:]}", f"{token}\n"):
        with suppress(Unauthenticated):
            found.add(tokens.verify(other).session)
    assert {tokens.verify(token).session} == found


def test_the_twin_of_a_signature_is_the_same_token() -> None:
    """The signatures (r, s) and (r, -s) on a curve are both valid, and give the same session."""
    tokens = tokens_with(Key(None, "ES256", EC.public_key()))
    token = jwt.encode(claims(), EC, "ES256")
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(f"{signature}==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    other = f"{signed}.{encoded(twin)}"
    assert other != token
    assert tokens.verify(other).session == tokens.verify(token).session


def test_what_is_signed_is_spelt_in_one_way() -> None:
    """A header or payload in another spelling does not match the signature."""
    tokens = tokens_with(HERE)
    header, payload, signature = tokens.issue(USER).split(".")
    for other in (f"{header}=.{payload}", f"{header}.{payload}=", f"{header}.{payload}\n", f" {header}.{payload}"):
        with pytest.raises(Unauthenticated):
            tokens.verify(f"{other}.{signature}")


def test_a_forged_token_could_be_good() -> None:
    """The tests' own token is accepted if nothing is wrong with it."""
    assert tokens_with(HERE).verify(signed({"alg": "HS256"}, claims())).user == 7


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, "HS512", "hs256", ["HS256"], {}, 5])
def test_the_header_chooses_no_algorithm(algorithm: object) -> None:
    """A token whose header names another algorithm, or none, is refused."""
    forged = signed({"alg": algorithm}, claims())
    for key in (HERE, Key(None, "RS256", RSA.public_key()), Key(None, "ES256", EC.public_key())):
        for token in (forged, forged.rpartition(".")[0] + ".", forged.rpartition(".")[0]):
            with pytest.raises(Unauthenticated):
                tokens_with(key).verify(token)


@pytest.mark.parametrize("private", [RSA, EC])
def test_a_public_key_is_no_secret(private: Any) -> None:
    """A token that is signed with a public key's text as the secret is refused."""
    key = Key(None, "RS256" if private is RSA else "ES256", private.public_key())
    for secret in (pem(private.public_key()), pem(private.public_key()).strip()):
        for algorithm in ("HS256", key.algorithm):
            with pytest.raises(Unauthenticated):
                tokens_with(key).verify(signed({"alg": algorithm}, claims(), secret))


@pytest.mark.parametrize("secret", [b"", b"another secret of thirty-two byte", HERE.key[::-1], HERE.key + b"w"])
def test_another_key(secret: bytes) -> None:
    """A token that another key has signed is refused."""
    with pytest.raises(Unauthenticated):
        tokens_with(HERE).verify(signed({"alg": "HS256"}, claims(), secret))


@pytest.mark.parametrize(
    "name", ["b", "A", "", "a/../a", "../../etc/passwd", "http://x/keys", None, 5, [], {"a": 1}, True]
)
def test_an_unknown_key(name: object) -> None:
    """A token that names an unknown key is refused."""
    for keys in ([secret_key("a", "a")], [secret_key("a", "a"), secret_key("c", "a")]):
        with pytest.raises(Unauthenticated):
            tokens_with(*keys).verify(signed({"alg": "HS256", "kid": name}, claims(), b"a" * 32))


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: None} for name in ("sub", "exp", "iat", "aud")),
        *({"sub": sub} for sub in ("0", "01", "-1", "+1", " 1", "1.0", "abc", "", "１", "9" * 20, 1, True, ["1"], {})),
        *({"aud": aud} for aud in ("another", "tande", "", [], ["another"], [["tandem"]], {"tandem": 1}, 5)),
        {"exp": NOW - 60},
        {"nbf": NOW + 600},
        {"iat": NOW + 600},
        *({name: 10**400} for name in ("exp", "iat", "nbf")),
        *({name: -(10**400)} for name in ("exp", "iat")),
        *({name: value} for name in ("exp", "iat", "nbf") for value in (math.nan, math.inf, "x", [], {})),
        *({"tandem_version": version} for version in (5, ["version"], {}, False)),
    ],
    ids=lambda wrong: re.sub(r"[0-9]{9,}", "N", json.dumps(wrong))[:40],
)
def test_wrong_claims(wrong: dict[str, Any]) -> None:
    """A token with missing or invalid claims is refused, though its signature is valid."""
    with pytest.raises(Unauthenticated):
        tokens_with(HERE).verify(signed({"alg": "HS256"}, claims(**wrong)))


@pytest.mark.parametrize(
    "header",
    ["", "{", "[]", "5", '"alg"', "[" * 2000, '{"alg":"HS256","x":' + "[" * 1000, '{"alg":"HS256","crit":["x"]}'],
    ids=lambda header: header[:20],
)
def test_odd_parts(header: str) -> None:
    """A malformed header or payload is refused."""
    for token in (signed(header, claims()), signed({"alg": "HS256"}, header)):
        with pytest.raises(Unauthenticated):
            tokens_with(HERE).verify(token)


def test_a_long_token() -> None:
    """A token that is too long is refused, though it is valid otherwise."""
    with pytest.raises(Unauthenticated, match="too long"):
        tokens_with(HERE).verify(signed({"alg": "HS256"}, claims(more="x" * 5000)))


def test_a_token_is_good_as_a_whole() -> None:
    """A token that is cut or has one character changed is refused, or has the same content."""
    tokens = tokens_with(HERE)
    token = tokens.issue(USER)
    said = tokens.verify(token)
    for index in range(len(token)):
        with pytest.raises(Unauthenticated):
            tokens.verify(token[:index])
        other = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
        with suppress(Unauthenticated):
            assert tokens.verify(other) == said
            assert index == len(token) - 1


def test_a_secret_of_ours_beside_a_key_of_another_back_end() -> None:
    """A secret and a public key, both without a name, are each used for their own algorithm."""
    tokens = tokens_with(HERE, Key(None, "ES256", EC.public_key()))
    assert tokens.verify(tokens.issue(USER)).user == 7
    for headers in ({}, {"kid": "theirs"}):
        assert tokens.verify(jwt.encode(claims(), EC, "ES256", headers)).user == 7
        with pytest.raises(Unauthenticated):
            tokens.verify(jwt.encode(claims(), RSA, "RS256", headers))


@pytest.mark.parametrize(
    "exp",
    ["9" * 1000, str(NOW + 60), True, 1e400, float("nan"), 1e30],
    ids=["long", "text", "true", "infinite", "NaN", "far"],
)
def test_times_that_are_no_numbers(exp: Any) -> None:
    """Times that are not numbers are refused, so that every token expires."""
    with pytest.raises(Unauthenticated):
        tokens_with(HERE).verify(signed({"alg": "HS256", "typ": "JWT"}, claims(exp=exp)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("sub", "aud", "iat", "exp", "nbf", "jti", "kid"), JSON))
HEADERS = st.fixed_dictionaries({"alg": st.just("HS256") | JSON}, optional=dict.fromkeys(("kid", "crit"), JSON))
TEXT = st.text(st.characters(exclude_categories=()))


@settings(deadline=None)
@given(TEXT | st.lists(TEXT, min_size=3, max_size=3).map(".".join))
def test_any_text(text: str) -> None:
    """Any text that is not a token is refused as unauthenticated."""
    with pytest.raises(Unauthenticated):
        tokens_with(HERE).verify(text)


@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries({"alg": st.just("HS256") | JSON}, optional={"kid": JSON, "crit": JSON, "b64": JSON}), CLAIMS
)
def test_any_content(header: dict[str, Any], changed: dict[str, Any]) -> None:
    """Any signed content gives an identity or is refused as unauthenticated."""
    try:
        identity = tokens_with(HERE).verify(signed(header, claims() | changed))
    except Unauthenticated:
        return
    assert 0 < identity.user < 2**63
