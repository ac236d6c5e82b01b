"""The settings: one frozen, grouped record; defaults < TOML file < environment < flags.

A setting is declared once, as a field below: its type, bounds and help text are checked and shown
from there. The flag for `max_connections` is `--max-connections`, its environment variable is
`TANDEM_MAX_CONNECTIONS`, and in the file it stands under its group.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

__all__ = ["Engines", "Limits", "Log", "Server", "Settings", "SettingsError", "Timeouts", "load"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server listens and keeps its data."""

    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one")] = 3000
    address: Annotated[
        str, Meta(min_length=1, description="address to listen on; anybody it reaches may be any user")
    ] = "127.0.0.1"
    data_dir: Annotated[str, Meta(min_length=1, description="where the private engines keep their data")] = "data"


class Engines(Struct, frozen=True, forbid_unknown_fields=True):
    """The engines: the addresses of all three, or none of them for private engines below the data directory."""

    mongo: Annotated[str, Meta(description="mongodb:// URL of a replica set, 6.0 or later")] = ""
    redis: Annotated[str, Meta(description="redis://, rediss:// or unix:// URL, 7.0 or later")] = ""
    mysql: Annotated[str, Meta(description="mysql://user:password@host:port/database URL of MySQL or MariaDB")] = ""
    mongo_database: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,38}$", description="MongoDB database")] = "tandem"
    redis_prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9_:-]{1,64}$", description="what Redis keys begin with")] = (
        "tandem"
    )
    redis_connections: Annotated[int, Meta(ge=1, le=1000, description="most connections to Redis")] = 16
    mysql_threads: Annotated[int, Meta(ge=1, le=64, description="threads, with a MySQL connection each")] = 8
    mysql_waiting: Annotated[
        int, Meta(ge=1, le=100_000, description="most lookups and registrations waiting for MySQL")
    ] = 1000
    password_threads: Annotated[int, Meta(ge=1, le=64, description="threads that hash passwords")] = 1
    insert_batch: Annotated[int, Meta(ge=1, le=10_000, description="most messages in one insert_many")] = 500
    insert_flights: Annotated[int, Meta(ge=1, le=32, description="most insert_many calls at once")] = 4


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what one client, or all of them together, can make the server hold."""

    max_connections: Annotated[int, Meta(ge=1, le=1_000_000, description="most open sockets; the next gets 503")] = (
        10_000
    )
    max_http_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most connections that are not sockets, or not yet; more are closed")
    ] = 2000
    window: Annotated[
        int, Meta(ge=1, le=4096, description="unanswered requests of a socket before it stops reading")
    ] = 64
    max_frame: Annotated[int, Meta(ge=1024, le=16_777_216, description="largest frame from a client, bytes")] = 65_536
    max_content: Annotated[int, Meta(ge=1, le=1_000_000, description="longest message, characters")] = 8192
    malformed_frames: Annotated[
        int, Meta(ge=1, le=1000, description="malformed frames in a row that close a socket")
    ] = 10
    write_buffer: Annotated[int, Meta(ge=65_536, description="unsent bytes at which a slow socket is closed")] = (
        1_048_576
    )
    max_body: Annotated[int, Meta(ge=1024, le=16_777_216, description="largest HTTP body, bytes")] = 65_536
    max_header: Annotated[int, Meta(ge=1024, le=1_048_576, description="largest HTTP header, bytes")] = 16_384
    lookup_cache: Annotated[int, Meta(ge=0, le=10_000_000, description="most users whose lookup is remembered")] = (
        50_000
    )


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds that something may take."""

    answer_timeout: Annotated[Seconds, Meta(description="a request without an answer from the engines gets 40001")] = (
        5.0
    )
    engine_timeout: Annotated[Seconds, Meta(description="one call to an engine")] = 3.0
    start_timeout: Annotated[Seconds, Meta(description="an engine becomes ready at start, or the server gives up")] = (
        15.0
    )
    handshake_timeout: Annotated[
        Seconds, Meta(description="an HTTP request, or the next one on an open connection")
    ] = 20.0
    ping_interval: Annotated[Seconds, Meta(description="between two pings to a socket")] = 30.0
    ping_timeout: Annotated[Seconds, Meta(description="a pong is awaited, then the socket is closed")] = 20.0
    lookup_ttl: Annotated[Seconds, Meta(description="a user's lookup is remembered")] = 3.0
    sweep_interval: Annotated[
        Seconds, Meta(description="between two looks for messages that an open socket may have missed")
    ] = 30.0
    drain_timeout: Annotated[Seconds, Meta(description="open requests may finish after SIGTERM")] = 5.0


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least severe level shown")] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], Meta(description="one line for people, or one JSON object")] = "text"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting of the server, grouped."""

    server: Server = Server()
    engines: Engines = Engines()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    log: Log = Log()


class SettingsError(Exception):
    """A setting cannot be used; the text names the source and the key."""


@dataclass(frozen=True)
class _Setting:
    """One field of one group, as flags, environment and file see it."""

    group: str
    name: str
    type: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "TANDEM_" + self.name.upper()

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {int: "a whole number", float: "a number"}.get(type(self.default), "text")
        bounds = [meta for meta in get_args(self.type)[1:] if isinstance(meta, Meta)]
        words = []
        for meta in bounds:
            words += [f"at least {meta.ge}"] if meta.ge is not None else []
            words += [f"more than {meta.gt}"] if meta.gt is not None else []
            words += [f"at most {meta.le}"] if meta.le is not None else []
            words += ["not empty"] if meta.min_length else []
            words += [f"matching {meta.pattern}"] if meta.pattern else []
        return ", ".join([kind, *words])

    @property
    def choices(self) -> tuple[str, ...]:
        inner = get_args(self.type)[0]
        return get_args(inner) if not isinstance(inner, type) and get_args(inner) else ()


def _declared() -> dict[str, _Setting]:
    settings = {}
    for group in msgspec.structs.fields(Settings):
        hints = get_type_hints(group.type, include_extras=True)
        for field in msgspec.structs.fields(group.type):
            description = next(meta.description for meta in get_args(hints[field.name])[1:] if meta.description)
            settings[field.name] = _Setting(group.name, field.name, hints[field.name], field.default, description)
    return settings


_DECLARED = _declared()


def _check(setting: _Setting, value: Any, source: str, *, strict: bool) -> Any:
    """Returns `value` as the setting's type; text from flags and environment is parsed (not `strict`)."""
    try:
        return msgspec.convert(value, setting.type, strict=strict)
    except msgspec.ValidationError:
        raise SettingsError(f"{source}: {value!r}: expected {setting.expected}") from None


def _from_file(path: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"--config: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    values = {}
    groups = [field.name for field in msgspec.structs.fields(Settings)]
    for group, table in tables.items():
        if group not in groups:
            raise SettingsError(f"{path}: {group}: unknown; the tables are {', '.join(groups)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {group}: a table is expected: [{group}]")
        for name, value in table.items():
            key = f"{path}: {group}.{name}"
            setting = _DECLARED.get(name)
            if setting is None or setting.group != group:
                raise SettingsError(f"{key}: unknown setting")
            values[name] = _check(setting, value, key, strict=True)
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    by_variable = {setting.variable: setting for setting in _DECLARED.values()}
    values = {}
    for variable, text in environ.items():
        if not variable.startswith("TANDEM_") or variable == "TANDEM_CONFIG":
            continue
        setting = by_variable.get(variable)
        if setting is None:
            raise SettingsError(f"{variable}: unknown setting")
        values[setting.name] = _check(setting, text, variable, strict=False)
    return values


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are SettingsError."""

    def error(self, message: str) -> Any:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="server.py",
        description="Tandem, a one-to-one chat server.",
        epilog="Each setting may also stand in the file or in the environment, as TANDEM_ and the flag's "
        "name: TANDEM_MAX_CONNECTIONS. Flags win over the environment, that over the file.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=40, width=118),
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (see config/example.toml)")
    sections = {
        group.name: parser.add_argument_group(group.name, group.type.__doc__)
        for group in msgspec.structs.fields(Settings)
    }
    for setting in _DECLARED.values():
        shown = setting.default if setting.default != "" else "none"
        sections[setting.group].add_argument(
            setting.flag,
            dest=setting.name,
            metavar="|".join(setting.choices) or {int: "N", float: "SECONDS"}.get(type(setting.default), "TEXT"),
            help=f"{setting.help} (default: {shown})",
        )
    return parser


def load(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings from their four sources; a later source wins.

    `argv` are the flags without the program's name. Raises SettingsError, naming the key, for an
    unknown key, a wrong type or an impossible value; SystemExit after `--help`.
    """
    flags = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    path = flags.pop("config", None) or environ.get("TANDEM_CONFIG")
    values: dict[str, Any] = _from_file(path) if path else {}
    values |= _from_environment(environ)
    values |= {name: _check(_DECLARED[name], text, _DECLARED[name].flag, strict=False) for name, text in flags.items()}
    groups: dict[str, dict[str, Any]] = {field.name: {} for field in msgspec.structs.fields(Settings)}
    for name, value in values.items():
        groups[_DECLARED[name].group][name] = value
    settings = msgspec.convert(groups, Settings)
    given = [bool(url) for url in (settings.engines.mongo, settings.engines.redis, settings.engines.mysql)]
    if any(given) and not all(given):
        absent = [n for n in ("mongo", "redis", "mysql") if not getattr(settings.engines, n)]
        present = [f"--{name}" for name in ("mongo", "redis", "mysql") if name not in absent]
        raise SettingsError(
            f"{' and '.join(present)} without {' and '.join(f'--{name}' for name in absent)}: "
            "give the addresses of all three engines, or none of them for private ones"
        )
    return settings
