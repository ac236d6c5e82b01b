"""The sources of settings, in ascending precedence: defaults, TOML file, environment, flags.

The flag for `max_connections` is `--max-connections`, and its environment variable is `TANDEM_MAX_CONNECTIONS`. In the
file it belongs to the table of its group. `TANDEM_MYSQL_FILE` names a file that holds the value of `TANDEM_MYSQL`, for
secrets that are mounted as files. The variables that Kubernetes sets for services are ignored.
"""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from config.secret_files import UnsafeFileError, require_safe
from config.settings import Settings
from config.version import VERSION

__all__ = ["DECLARED", "SettingsError", "load", "secrets_of"]


# Kubernetes sets such variables for each Service, prefixed with its name: tandem, tandem-mysql, tandem-metrics.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables; Docker's links have them too.
SERVICE_LINKS = (
    (re.compile(r"TANDEM_(\w+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?"), re.compile(r"(tcp|udp|sctp)://\S*")),
    (re.compile(r"TANDEM_(\w+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"TANDEM_(\w+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_PORT"), re.compile(r"[0-9]+")),
    (re.compile(r"TANDEM_(\w+_)?SERVICE_PORT(_\w+)?"), re.compile(r"[0-9]+")),
    (re.compile(r"TANDEM_(\w+_)?(SERVICE_HOST|PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR)"), re.compile(r"[0-9A-Fa-f.:]+|None|")),
)


class SettingsError(Exception):
    """A setting is invalid. The text names its source and its key."""


@dataclass(frozen=True)
class _Setting:
    """A setting as flags, the environment and the file use it."""

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
        """The values that are accepted, in words for an error."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {int: "a whole number", float: "a number"}.get(type(self.default), "text")
        words = []
        for meta in self._metas:
            words += [f"at least {meta.ge}"] if meta.ge is not None else []
            words += [f"more than {meta.gt}"] if meta.gt is not None else []
            words += [f"at most {meta.le}"] if meta.le is not None else []
            words += ["not empty"] if meta.min_length else []
            words += [f"matching {meta.pattern}"] if meta.pattern else []
        return ", ".join([kind, *words])

    @property
    def metavar(self) -> str:
        """The placeholder for a value in the help."""
        if self.choices:
            return "|".join(self.choices)
        if isinstance(self.default, float):
            return "N" if self.group == "limits" else "SECONDS"
        return "N" if isinstance(self.default, int) else "TEXT"

    @property
    def secret(self) -> bool:
        """Whether the value holds a password and must not be shown."""
        return bool(self._extra("secret"))

    @property
    def path(self) -> bool:
        """Whether the value names a file or a directory."""
        return bool(self._extra("path"))

    @property
    def parse(self) -> Callable[[str], Any] | None:
        """The function that turns the text of a list into the setting's type. It raises ValueError."""
        parse: Callable[[str], Any] | None = self._extra("parse")
        return parse

    def _extra(self, key: str) -> Any:
        return next((meta.extra[key] for meta in self._metas if meta.extra and key in meta.extra), None)

    @property
    def _metas(self) -> list[Meta]:
        return [meta for meta in get_args(self.type)[1:] if isinstance(meta, Meta)]

    @property
    def choices(self) -> tuple[str, ...]:
        inner = get_args(self.type)[0]
        return get_args(inner) if get_origin(inner) is Literal else ()


def _declared() -> dict[str, _Setting]:
    settings = {}
    for group in msgspec.structs.fields(Settings):
        hints = get_type_hints(group.type, include_extras=True)
        for field in msgspec.structs.fields(group.type):
            description = next(meta.description for meta in get_args(hints[field.name])[1:] if meta.description)
            settings[field.name] = _Setting(group.name, field.name, hints[field.name], field.default, description)
    return settings


DECLARED = _declared()


def _check(setting: _Setting, value: Any, source: str, *, strict: bool) -> Any:
    """Return `value` as the setting's type. Unless `strict`, text is parsed, as from flags and the environment."""
    shown = "this value" if setting.secret else repr(value)
    if isinstance(value, str):
        _require_text(value, f"{source}: {shown}")
    try:
        checked = msgspec.convert(value, setting.type if setting.parse is None else str, strict=strict)
    except msgspec.ValidationError:
        raise SettingsError(f"{source}: {shown}: expected {setting.expected}") from None
    if setting.parse is not None:
        try:
            return setting.parse(checked)
        except ValueError as error:
            raise SettingsError(f"{source}: {shown}: {error}") from None
    return _expanded(checked, source) if setting.path else checked


def _require_text(value: str, what: str) -> None:
    """Raise SettingsError for bytes that are not UTF-8, which flags and the environment may hold, and for NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{what}: not valid UTF-8") from None
    if "\0" in value:
        raise SettingsError(f"{what}: contains a NUL character")


def _expanded(path: str, source: str) -> str:
    """Replace a leading ~ with the home directory. Shells do not replace it after a =."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise SettingsError(
            f"{source}: {path}: the home directory is unknown; set HOME, or write ./{path} for a file of that name"
        ) from None


def _from_file(path: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(_content(path, "--config", secret=False))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: invalid TOML: {error}") from None
    values = {}
    groups = [field.name for field in msgspec.structs.fields(Settings)]
    for group, table in tables.items():
        if group not in groups:
            raise SettingsError(f"{path}: {group}: unknown table; expected one of {', '.join(groups)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {group}: expected a table: [{group}]")
        for name, value in table.items():
            key = f"{path}: {group}.{name}"
            setting = DECLARED.get(name)
            if setting is None or setting.group != group:
                raise SettingsError(f"{key}: unknown setting")
            values[name] = _check(setting, value, key, strict=True)
    if any(DECLARED[name].secret and value for name, value in values.items()):
        _require_safe(path, "--config", secret=True)
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    by_variable = {setting.variable: setting for setting in DECLARED.values()}
    values = {}
    for variable, given in environ.items():
        if not variable.startswith("TANDEM_") or variable == "TANDEM_CONFIG":
            continue
        if any(name.fullmatch(variable) and value.fullmatch(given) for name, value in SERVICE_LINKS):
            continue
        setting, text = by_variable.get(variable), given
        if setting is None and variable.endswith("_FILE"):
            setting = by_variable.get(variable.removesuffix("_FILE"))
            if setting is not None:
                if setting.variable in environ:
                    raise SettingsError(f"{variable}: {setting.variable} is set as well; remove one of them")
                text = _content(given, variable, secret=setting.secret).removesuffix("\n")
        if setting is None:
            raise SettingsError(f"{variable}: unknown setting")
        values[setting.name] = _check(setting, text, variable, strict=False)
    return values


def _content(path: str, source: str, *, secret: bool) -> str:
    """Return a file's text without its byte-order mark. Raise SettingsError if other users could change the file.

    A file with a `secret` must not be readable by other users either.
    """
    _require_text(path, f"{source}: {path!r}")
    path = _expanded(path, source)
    _require_safe(path, source, secret=secret)
    try:
        return Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{source}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{source}: {path}: not valid UTF-8") from None


def _require_safe(path: str, source: str, *, secret: bool) -> None:
    try:
        require_safe(Path(path), secret=secret)
    except UnsafeFileError as error:
        raise SettingsError(f"{source}: {error}") from None


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises SettingsError instead of exiting."""

    def error(self, message: str) -> Any:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="server.py",
        description="Tandem, a one-to-one chat server.",
        epilog="Each setting can also be set in the TOML file, or in the environment as TANDEM_ and the flag's name, "
        "such as TANDEM_MAX_CONNECTIONS. TANDEM_MYSQL_FILE names a file that holds the value of TANDEM_MYSQL. Flags "
        "take precedence over the environment, and the environment over the file.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=40, width=118),
    )
    parser.add_argument("--version", action="version", version=f"Tandem {VERSION}")
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (see config/example.toml)")
    sections = {
        group.name: parser.add_argument_group(group.name, group.type.__doc__)
        for group in msgspec.structs.fields(Settings)
    }
    for setting in DECLARED.values():
        shown = "none" if setting.default in ("", ()) else setting.default
        sections[setting.group].add_argument(
            setting.flag,
            dest=setting.name,
            metavar=setting.metavar,
            help=f"{setting.help} (default: {shown})",
        )
    return parser


def load(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from their four sources.

    `argv` holds the flags, without the program's name. Raises SettingsError for an unknown key, a wrong type or an
    invalid value, and SystemExit after `--help` and `--version`.
    """
    known, unknown = _parser().parse_known_args(argv)
    for argument in unknown:  # shown without its value, which may be a password
        name = argument.partition("=")[0]
        raise SettingsError(f"{name}: unknown flag" if name.startswith("-") else "unexpected argument; expected flags")
    flags = {name: value for name, value in vars(known).items() if value is not None}
    path = flags.pop("config", None) or environ.get("TANDEM_CONFIG")
    values: dict[str, Any] = _from_file(_expanded(path, "--config")) if path else {}
    values |= _from_environment(environ)
    values |= {name: _check(DECLARED[name], text, DECLARED[name].flag, strict=False) for name, text in flags.items()}
    groups: dict[str, dict[str, Any]] = {field.name: {} for field in msgspec.structs.fields(Settings)}
    for name, value in values.items():
        groups[DECLARED[name].group][name] = value
    settings = Settings(**{group.name: group.type(**groups[group.name]) for group in msgspec.structs.fields(Settings)})
    if bool(settings.server.certfile) != bool(settings.server.keyfile):
        raise SettingsError("--certfile and --keyfile: set both of them, or none")
    given = [bool(url) for url in (settings.engines.mongo, settings.engines.redis, settings.engines.mysql)]
    if any(given) and not all(given):
        absent = [n for n in ("mongo", "redis", "mysql") if not getattr(settings.engines, n)]
        present = [f"--{name}" for name in ("mongo", "redis", "mysql") if name not in absent]
        raise SettingsError(
            f"{' and '.join(present)} without {' and '.join(f'--{name}' for name in absent)}: "
            "set the addresses of all three databases, or none of them to start embedded databases"
        )
    return settings


def secrets_of(settings: Settings) -> list[str]:
    """Return the values that hold passwords."""
    return [getattr(getattr(settings, s.group), s.name) for s in DECLARED.values() if s.secret]
