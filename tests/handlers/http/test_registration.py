"""Tests of registration where this server issues tokens, and where another back end does."""

from __future__ import annotations

from pathlib import Path

import pymysql
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from config import Settings, load
from tests.conftest import Ask
from tests.support.patience import PATIENT
from tests.support.processes import FRAMES, TOKEN_SECRET

GIVEN = {"nick_name": "mallory", "user_name": "mallory03", "password": "at-least-8-bytes"}
HERE = f"--token-secret={TOKEN_SECRET}"
WAYS = {
    "by themselves": ([], "tokens are issued elsewhere, and so are accounts"),
    "turned off": (["--registration=off"], "registration is turned off"),
    "turned off where tokens are issued here": (["--registration=off", HERE], "registration is turned off"),
    "turned on": (["--registration=on"], ""),
    "where tokens are issued here as well": ([HERE], ""),
}


@pytest.fixture
def settings(flags: list[str], tmp_path: Path) -> Settings:
    """The settings of a server with the public key of another back end that issues tokens."""
    key = tmp_path / "public.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    key.chmod(0o600)
    common = ["--port=0", f"--frames={FRAMES}", "--auth=token", f"--token-keys={key}", *PATIENT]
    return load([*common, *flags], environ={})


@pytest.mark.parametrize(("flags", "reason"), WAYS.values(), ids=WAYS)
async def test_registering(reason: str, ask: Ask, database: pymysql.Connection) -> None:
    """Where registration is off, the answer says why, `/session` says so in advance, and no id is used up."""

    def following() -> object:
        with database.cursor() as cursor:
            cursor.execute("SHOW TABLE STATUS LIKE 'user'")
            return cursor.fetchone()[10]

    before = following()
    answer = await ask("POST", "/user/register", body=GIVEN)
    assert (await ask("GET", "/session")).data["registration"] is (answer.status == 200)
    if reason:
        assert (answer.status, answer.data, following()) == (403, None, before)
        assert reason in answer.error
    else:
        assert answer.status == 200
        with database.cursor() as cursor:
            cursor.execute("DELETE FROM `user` WHERE id = %s", (answer.data["id"],))
