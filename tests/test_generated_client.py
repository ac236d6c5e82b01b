"""Tests that a program can make a working client from docs/openapi.yaml."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import yaml

from storage.embedded.supervisor import Addresses
from tests.conftest import StartServer
from tests.fuzz.asker import DESCRIPTION
from tests.support.patience import TEST_TIME
from tests.support.processes import external

NO_JSON = {"exportMessages", "describe"}  # their answers are files of other types, without a model
# Use the generated client by keyword, and by the fields that the description names.
USE = """
import asyncio, json, secrets, sys
from made import AuthenticatedClient, Client
from made.api.accounts import read_account, register, sign_in, sign_out
from made.api.chat import find_user, list_conversations
from made.api.operation import readiness
from made.models import Credentials, DoneAnswer, Error, Registration

url, name, password = sys.argv[1], f"n{secrets.token_hex(6)}", "a long secret"
client = Client(base_url=url, raise_on_unexpected_status=True, timeout=float(sys.argv[2]))
assert readiness.sync(client=client).data.draining is False
account = register.sync(client=client, body=Registration("made", name, password)).data
taken = register.sync(client=client, body=Registration("made", name, password))
assert isinstance(taken, Error) and taken.status == 409 and taken.data is None, taken
token = sign_in.sync(client=client, body=Credentials(name, password)).data.token
mine = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True, timeout=float(sys.argv[2]))
assert read_account.sync(client=mine).data == account
assert find_user.sync(client=mine, user_name=name).data.id == account.id
assert list_conversations.sync(client=mine).data == []
assert isinstance(asyncio.run(sign_out.asyncio(client=mine)), DoneAnswer)
refused = read_account.sync(client=mine)
assert isinstance(refused, Error) and refused.status == 401, refused
print(account.user_name == name)
"""


def run(*command: str, cwd: Path) -> str:
    """Return the output of a Python program, which has to exit with status 0."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TEST_TIME,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_client_that_a_program_makes(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection, tmp_path: Path
) -> None:
    """A generated client has types for all JSON answers, and can register, sign in, query, and handle refusals."""
    config = tmp_path / "config.yaml"
    config.write_text("post_hooks: []\n")
    given = ("--path", str(DESCRIPTION), "--meta", "none", "--output-path", str(tmp_path / "made"))
    said = run("-m", "openapi_python_client", "generate", "--config", str(config), *given, cwd=tmp_path)
    assert len(re.findall("^WARNING", said, re.MULTILINE)) == len(NO_JSON), said
    server = start_server(*external(addresses), "--auth=token")
    url = f"http://127.0.0.1:{server.ready()}"
    assert run("-c", USE, url, str(TEST_TIME), cwd=tmp_path) == "True\n"


content = yaml.safe_load(DESCRIPTION.read_text("utf-8"))


def parts(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every object of the description with its path."""
    if isinstance(node, dict):
        yield path, node
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from parts(value, f"{path}/{name}")


def test_nothing_that_programs_leave_out() -> None:
    """Each constant and each enumeration has a type, and no schema combines incomplete parts."""
    for path, node in parts(content):
        assert "type" in node or not {"const", "enum"} & node.keys() or path.endswith("/properties"), path
        assert "allOf" not in node, path
        null = node.get("type") == "null"
        assert not null or "/anyOf/" in path, f"{path}: programs do not know what is null and nothing else"


def test_every_answer_in_json_is_an_envelope_with_its_data() -> None:
    """Each JSON answer is a named envelope whose fields are always present, so that generated types have names."""
    answers = [
        (path, node)
        for path, node in parts(content["paths"] | content["components"]["responses"])
        if path.endswith("/content/application/json") and "/requestBody/" not in path and "/ping/" not in path
    ]
    assert len(answers) > len(content["paths"]) / 2
    for path, node in answers:
        name = node["schema"]["$ref"].rpartition("/")[2]
        assert set(content["components"]["schemas"][name]["required"]) == {"status", "data", "msg", "error"}, path


def test_no_name_is_that_of_another_s_constructor() -> None:
    """No type's name is New and another type's name, since that is the constructor's name in Go."""
    names = set(content["components"]["schemas"])
    assert not {name for name in names if f"New{name}" in names}
