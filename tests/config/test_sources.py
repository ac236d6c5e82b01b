"""Tests of the settings' sources, their precedence, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from config import Settings, SettingsError, load, secrets_of
from config.sources import DECLARED


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tandem.toml"


def test_defaults() -> None:
    """The defaults are the article's port, embedded databases and loopback."""
    settings = load([], environ={})
    assert Settings() == settings
    assert (settings.server.port, settings.server.address, settings.engines.mongo) == (3000, "127.0.0.1", "")


def test_order(file: Path) -> None:
    """Flags take precedence over the environment, the environment over the file, and the file over defaults."""
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
    """TANDEM_CONFIG names the configuration file."""
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
        ("stray", "unexpected argument; expected flags"),
        ("--config=/nowhere/x.toml", "/nowhere/x.toml"),
        ("--mongo=mongodb://x", "--redis"),
        ("--certfile=/nowhere", "--certfile and --keyfile: set both"),
        ("--keyfile=/nowhere", "--certfile and --keyfile: set both"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(flag: str, words: str) -> None:
    """An error names a flag that is unknown, of the wrong type, out of bounds, or incomplete without another one."""
    with pytest.raises(SettingsError, match=words):
        load([flag], environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1", r"server\.prot: unknown"),
        ("[server]\nwindow = 1", r"server\.window: unknown"),
        ("[sever]\nport = 1", "sever: unknown"),
        ("port = 1", "port: unknown"),
        ("server = 1", "server: expected a table"),
        ("[server]\nport = '3000'", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[server]\nport = 3000.0", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[server]\nport = true", r"server\.port: .*: expected a whole number, at least 0, at most 65535"),
        ("[limits]\nwindow = 0", r"limits\.window"),
        ("[timeouts]\nping_interval = inf", r"timeouts\.ping_interval"),
        ("[server\n", "invalid TOML"),
        ("\ufffe", "invalid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file: Path, text: str, words: str) -> None:
    """An error about a value in the file names the file, the key, and what is wrong."""
    file.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load([f"--config={file}"], environ={})
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("TANDEM_PRT", "1"), ("TANDEM_PORT", "x"), ("TANDEM_WINDOW", "0")])
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    """A misspelt or invalid variable is an error that names it, instead of leaving the default silently."""
    with pytest.raises(SettingsError, match=name):
        load([], environ={name: value})


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists every flag with its default, in groups."""
    with pytest.raises(SystemExit) as ended:
        load(["--help"], environ={})
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for setting in DECLARED.values():
        assert setting.flag in shown
        assert f"(default: {'none' if setting.default in ('', ()) else setting.default})" in shown
    for group in msgspec.structs.fields(Settings):
        assert f"{group.name}:" in shown


def test_a_value_from_a_file(file: Path) -> None:
    """TANDEM_MYSQL_FILE names a file with the value; TANDEM_MYSQL beside it, or a missing file, is an error."""
    file.write_text("mysql://u:secret@h/d\n")
    variables = {"TANDEM_MYSQL_FILE": str(file), "TANDEM_MONGO": "mongodb://x", "TANDEM_REDIS": "redis://x"}
    assert load([], environ=variables).engines.mysql == "mysql://u:secret@h/d"
    with pytest.raises(SettingsError, match="TANDEM_MYSQL is set as well"):
        load([], environ=variables | {"TANDEM_MYSQL": "mysql://"})
    with pytest.raises(SettingsError, match="TANDEM_MYSQL_FILE: /nowhere/x: No such file"):
        load([], environ={"TANDEM_MYSQL_FILE": "/nowhere/x"})
    with pytest.raises(SettingsError, match="TANDEM_COLOUR_FILE: unknown"):
        load([], environ={"TANDEM_COLOUR_FILE": str(file)})


def test_a_secret_is_not_shown(file: Path) -> None:
    """An error about a secret setting does not show its value."""
    file.write_text("[engines]\nmysql = ['mysql://u:secret@h/d']\n")
    with pytest.raises(SettingsError, match=r"engines\.mysql: this value: expected text"):
        load([f"--config={file}"], environ={})


def test_the_secrets_of_settings() -> None:
    """The URLs of the databases are among the secrets."""
    urls = ["--mongo=mongodb://x", "--redis=redis://:pw@x", "--mysql=mysql://u:pw@x/d"]
    assert {url.partition("=")[2] for url in urls} <= set(secrets_of(load(urls, environ={})))


@pytest.mark.parametrize("flag", ["--mysq=mysql://u:hunter22@h/d", "mysql://u:hunter22@h/d", "--token-secre=hunter22"])
def test_a_mistyped_flag_shows_no_password(flag: str) -> None:
    """An error about a mistyped flag does not show its value."""
    with pytest.raises(SettingsError) as caught:
        load([flag], environ={})
    assert "hunter22" not in str(caught.value)


LINKS = {
    "TANDEM_PORT": "tcp://10.0.0.1:3000",
    "TANDEM_SERVICE_HOST": "10.0.0.1",
    "TANDEM_SERVICE_PORT": "3000",
    "TANDEM_SERVICE_PORT_HTTP_1": "3000",
    "TANDEM_PORT_3000_TCP": "tcp://[fd00::1]:3000",
    "TANDEM_PORT_3000_TCP_PROTO": "tcp",
    "TANDEM_PORT_3000_TCP_PORT": "3000",
    "TANDEM_PORT_3000_TCP_ADDR": "fd00::1",
    # Services named tandem-metrics, tandem-mysql
    "TANDEM_METRICS_PORT": "tcp://10.0.0.2:9100",
    "TANDEM_METRICS_SERVICE_HOST": "10.0.0.2",
    "TANDEM_MYSQL_PORT": "tcp://10.0.0.3:3306",
    "TANDEM_MYSQL_PORT_3306_TCP_ADDR": "10.0.0.3",
    "TANDEM_DNS_PORT_53_UDP": "udp://10.0.0.4:53",
}


def test_service_links_are_no_settings() -> None:
    """Variables that Kubernetes sets for a Service named tandem, or tandem-something, are ignored."""
    assert load([], environ=LINKS) == Settings()
    assert load([], environ=LINKS | {"TANDEM_PORT": "4000"}).server.port == 4000
    assert load(["--metrics-port=9"], environ=LINKS).server.metrics_port == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TANDEM_PORT", "http://10.0.0.1:3000"),
        ("TANDEM_PORT", "tcp"),
        ("TANDEM_SERVICE_HOST", "the host of it"),
        ("TANDEM_SERVICE", "x"),
        ("TANDEM_SERVICE_PORT", "x"),
        ("TANDEM_PORT_TCP", "3000"),
    ],
)
def test_what_only_looks_like_a_service_link_is_an_error(name: str, value: str) -> None:
    """A variable that only resembles a service link is an error."""
    with pytest.raises(SettingsError, match=name):
        load([], environ={name: value})


URL = "mysql://u:secret@h/d"
OTHERS = {"TANDEM_MONGO": "mongodb://x", "TANDEM_REDIS": "redis://x"}


@pytest.mark.parametrize(
    "content",
    [URL, f"{URL}\n", f"{URL}\r\n", f"\ufeff{URL}", f"\ufeff{URL}\r\n"],
    ids=["plain", "line", "CRLF", "BOM", "both"],
)
def test_how_editors_write_a_value(file: Path, content: str) -> None:
    """A byte-order mark and the end of the line are not part of a value that is read from a file."""
    file.write_bytes(content.encode())
    assert load([], environ={"TANDEM_MYSQL_FILE": str(file)} | OTHERS).engines.mysql == URL


def test_a_configuration_with_a_byte_order_mark(file: Path) -> None:
    """A configuration with a byte-order mark is read like one without."""
    file.write_text("\ufeff[server]\r\nport = 5\r\n", newline="")
    assert load([f"--config={file}"], environ={}).server.port == 5


@pytest.mark.parametrize("content", [URL.encode("utf-16"), b"pass\xe9"])
def test_a_file_that_is_not_utf_8(file: Path, content: bytes) -> None:
    """The error about a file that is not UTF-8 is one line with the setting and the file, without its content."""
    file.write_bytes(content)
    for given in ({"TANDEM_MYSQL_FILE": str(file)}, {"TANDEM_CONFIG": str(file)}):
        with pytest.raises(SettingsError, match=rf"{file}: not valid UTF-8$") as caught:
            load([], environ=given)
        assert "\n" not in str(caught.value)


def test_values_that_are_no_text(file: Path) -> None:
    """Values from all sources that are not UTF-8 or hold NUL are refused, and secret ones are not shown."""
    with pytest.raises(SettingsError, match=r"^--data-dir: .*: not valid UTF-8$"):
        load(["--data-dir=caf\udce9"], environ={})
    with pytest.raises(SettingsError, match=r"^TANDEM_TOKEN_SECRET: this value: not valid UTF-8$"):
        load([], environ={"TANDEM_TOKEN_SECRET": "hunter22\udcff"})
    with pytest.raises(SettingsError, match=r"^TANDEM_MYSQL_FILE: .*: not valid UTF-8$"):
        load([], environ={"TANDEM_MYSQL_FILE": "\udcff"})
    file.write_text('[server]\ndata_dir = "a\\u0000b"\n')
    with pytest.raises(SettingsError, match=r"server\.data_dir: .*: contains a NUL character$"):
        load([f"--config={file}"], environ={})


def test_the_home_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading ~ of a path is replaced by the home directory, which shells do not do after a =."""
    monkeypatch.setenv("HOME", str(file.parent))
    file.write_text("[server]\ndata_dir = '~/chat'\n")
    for argv, environ in (
        (["--data-dir=~/chat"], {}),
        ([], {"TANDEM_DATA_DIR": "~/chat"}),
        ([f"--config=~/{file.name}"], {}),
        ([], {"TANDEM_CONFIG": f"~/{file.name}"}),
    ):
        assert load(argv, environ=environ).server.data_dir == str(file.parent / "chat")
    settings = load(["--certfile=~/c", "--keyfile=~", "--token-keys=~root/k", "--data-dir=./~"], environ={})
    assert (settings.server.certfile, settings.server.keyfile) == (str(file.parent / "c"), str(file.parent))
    assert (settings.auth.token_keys.startswith("~"), settings.server.data_dir) == (False, "./~")


def test_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the home directory is unknown, as it may be in a container, the error is one line with the setting."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    for argv in (["--data-dir=~/chat"], ["--config=~/x"], ["--data-dir=~no-such-user/chat"]):
        with pytest.raises(SettingsError, match=r"^--(data-dir|config): ~.*: the home directory is unknown; set HOME"):
            load(argv, environ={})
    assert load([], environ={}) == Settings()


def test_files_that_others_can_change_or_read(file: Path) -> None:
    """Every file with a value or the configuration is checked, strictly if it holds a secret."""
    directory = file.parent / "open"
    directory.mkdir()
    inside = directory / "x"
    inside.write_text("[server]\nport = 5\n")
    inside.chmod(0o600)
    require = "config.sources.require_safe"
    asked: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(require, lambda path, *, secret: asked.append(secret))
        load([f"--config={inside}"], environ={})
        assert asked == [False]
        inside.write_text("[auth]\ntoken_secret = '0123456789abcdefghijklmnopqrstuv'\n")
        load(
            [f"--config={inside}"],
            environ={"TANDEM_METRICS_TOKEN_FILE": str(inside), "TANDEM_ADDRESS_FILE": str(inside)},
        )
    assert asked == [False, False, True, True, False]
