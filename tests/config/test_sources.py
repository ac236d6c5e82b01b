"""Settings: sources, order, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from config import Settings, SettingsError, load, secrets_of
from config.sources import _DECLARED


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tandem.toml"


def test_defaults() -> None:
    """Nothing given: the article's port, private engines, loopback."""
    settings = load([], environ={})
    assert Settings() == settings
    assert (settings.server.port, settings.server.address, settings.engines.mongo) == (3000, "127.0.0.1", "")


def test_order(file: Path) -> None:
    """Defaults < file < environment < flags."""
    file.write_text("[server]\nport = 1\naddress = 'file'\ndata_dir = 'file'\n")
    settings = load(
        [f"--config={file}", "--port=3"], environ={"TANDEM_PORT": "2", "TANDEM_ADDRESS": "environment", "HOME": "/x"}
    )
    assert (
        settings.server.port,
        settings.server.address,
        settings.server.data_dir,
        settings.limits.window,
    ) == (3, "environment", "file", 64)


def test_the_file_may_come_from_the_environment(file: Path) -> None:
    """TANDEM_CONFIG names it; --config wins."""
    file.write_text("[limits]\nwindow = 5\n")
    assert load([], environ={"TANDEM_CONFIG": str(file)}).limits.window == 5


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--port=abc", "--port"),
        ("--port=70000", "--port"),
        ("--port=-1", "--port"),
        ("--port=1.5", "--port"),
        ("--port=", "--port"),
        ("--max-connections=0", "--max-connections"),
        ("--answer-timeout=nan", "--answer-timeout"),
        ("--answer-timeout=0", "--answer-timeout"),
        ("--log-level=loud", "--log-level"),
        ("--mongo-database=a/b", "--mongo-database"),
        ("--data-dir=", "--data-dir"),
        ("--colour=red", "--colour"),
        ("--por=3000", "--por"),
        ("stray", "an argument that is no flag"),
        ("--config=/nowhere/x.toml", "/nowhere/x.toml"),
        ("--mongo=mongodb://x", "--redis"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(flag: str, words: str) -> None:
    """Unknown, of the wrong type, out of bounds, or half of what belongs together."""
    with pytest.raises(SettingsError, match=words):
        load([flag], environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1", r"server\.prot: unknown"),
        ("[server]\nwindow = 1", r"server\.window: unknown"),
        ("[sever]\nport = 1", "sever: unknown"),
        ("port = 1", "port: unknown"),
        ("server = 1", "server: a table"),
        ("[server]\nport = '3000'", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[server]\nport = 3000.0", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[server]\nport = true", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[limits]\nwindow = 0", r"limits\.window"),
        ("[timeouts]\nping_interval = inf", r"timeouts\.ping_interval"),
        ("[server\n", "not TOML"),
        ("\ufffe", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file: Path, text: str, words: str) -> None:
    """The file, the key, and what is wrong."""
    file.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load([f"--config={file}"], environ={})
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("TANDEM_PRT", "1"), ("TANDEM_PORT", "x"), ("TANDEM_WINDOW", "0")])
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    """A misspelt variable is no silent default."""
    with pytest.raises(SettingsError, match=name):
        load([], environ={name: value})


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Grouped, from the one declaration."""
    with pytest.raises(SystemExit) as ended:
        load(["--help"], environ={})
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for setting in _DECLARED.values():
        assert setting.flag in shown
        assert f"(default: {setting.default if setting.default != '' else 'none'})" in shown
    for group in msgspec.structs.fields(Settings):
        assert f"{group.name}:" in shown


def test_a_value_from_a_file(file: Path) -> None:
    """TANDEM_MYSQL_FILE names a file with the value; not both, and not a file that is none."""
    file.write_text("mysql://u:secret@h/d\n")
    variables = {"TANDEM_MYSQL_FILE": str(file), "TANDEM_MONGO": "mongodb://x", "TANDEM_REDIS": "redis://x"}
    assert load([], environ=variables).engines.mysql == "mysql://u:secret@h/d"
    with pytest.raises(SettingsError, match="TANDEM_MYSQL is given as well"):
        load([], environ=variables | {"TANDEM_MYSQL": "mysql://"})
    with pytest.raises(SettingsError, match="TANDEM_MYSQL_FILE: /nowhere/x: No such file"):
        load([], environ={"TANDEM_MYSQL_FILE": "/nowhere/x"})
    with pytest.raises(SettingsError, match="TANDEM_COLOUR_FILE: unknown"):
        load([], environ={"TANDEM_COLOUR_FILE": str(file)})


def test_a_secret_is_not_shown(file: Path) -> None:
    """Not even in the error about it."""
    file.write_text("[engines]\nmysql = ['mysql://u:secret@h/d']\n")
    with pytest.raises(SettingsError, match=r"engines\.mysql: this value: expected text"):
        load([f"--config={file}"], environ={})


def test_the_secrets_of_settings() -> None:
    """The values that are never shown."""
    urls = ["--mongo=mongodb://x", "--redis=redis://:pw@x", "--mysql=mysql://u:pw@x/d"]
    assert {url.partition("=")[2] for url in urls} <= set(secrets_of(load(urls, environ={})))


@pytest.mark.parametrize("flag", ["--mysq=mysql://u:hunter22@h/d", "mysql://u:hunter22@h/d", "--token-secre=hunter22"])
def test_a_mistyped_flag_shows_no_password(flag: str) -> None:
    """Its name is enough."""
    with pytest.raises(SettingsError) as caught:
        load([flag], environ={})
    assert "hunter22" not in str(caught.value)
