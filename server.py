"""The server: read the settings, start the databases, serve until a signal, end the databases.

    python server.py --port=3000

composition.py puts the server's parts together.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import msgspec
import structlog
import uvloop

from common.signals import ending, heed_hangups, heed_nothing_else
from composition import WEB, Server, StartError, serving
from config import Settings, SettingsError, load, secrets_of
from config.logs import configure_logging
from config.open_files import SPARE_FILES, TooFewFilesError, fitting
from config.redaction import Redactor
from config.secret_files import UnsafeFileError
from config.version import VERSION
from handlers.http.listening import ListenError, bind
from handlers.http.page import PageError, read_page
from models.accounts.authentication import Mode
from storage.embedded.supervisor import Addresses, DatabaseStartError, EmbeddedDatabases
from storage.mongo.messages import UnsuitableMongoError
from storage.mysql.schema import SchemaError
from storage.security.keys import KeyFileError
from storage.security.passwords import end_beside_hashes

__all__ = ["Server", "main", "serving"]

SWITCH_AFTER = 0.0005  # seconds until the event loop's thread yields to a driver's; Python's default is 0.005
COLLECT_AFTER = (5_000, 50, 100)  # objects, then younger generations' collections; Python's defaults are 700, 10, 10
UNSUITABLE = (SchemaError, UnsuitableMongoError)
CANNOT_START = (StartError, ListenError, PageError, DatabaseStartError, KeyFileError, UnsafeFileError, *UNSUITABLE)

_log = structlog.get_logger("server")


def main(argv: Sequence[str]) -> int:
    """Run the server until a signal ends it. Return the exit status."""
    redact = Redactor([])
    try:
        settings = load(argv)
        redact = Redactor(secrets_of(settings))
        configure_logging(settings.log, redact)
        _log.info("starting", version=VERSION)
        heed_hangups()
        heed_nothing_else()
        settings = _with_open_files(settings)
        # A missing page or a port in use is reported before a database is started.
        read_page(WEB)
        for listening in bind(settings.server.address, settings.server.port, "--address and --port"):
            listening.close()
        with ExitStack() as stack:
            addresses, embedded = _databases(settings, stack)
            uvloop.run(_run(settings, addresses, embedded))
    except (SettingsError, TooFewFilesError) as error:
        print(redact(f"server.py: {error}"), file=sys.stderr)
        return 2
    except CANNOT_START as error:
        print(redact(f"server.py: cannot start: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _with_open_files(settings: Settings) -> Settings:
    """Raise the limit on open files to what connections need. Return the settings, with fewer connections if needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = settings.limits
    if hard != resource.RLIM_INFINITY:
        limits, warning = fitting(limits, hard)
        if warning:
            _log.warning("fewer_connections", reason=warning)
    if soft != resource.RLIM_INFINITY:
        wanted = limits.max_connections + limits.max_http_connections + SPARE_FILES
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return msgspec.structs.replace(settings, limits=limits)


def _databases(settings: Settings, stack: ExitStack) -> tuple[Addresses, EmbeddedDatabases | None]:
    """Return the configured addresses, or start embedded databases that the stack stops, and return theirs."""
    given = Addresses(settings.engines.mongo, settings.engines.redis, settings.engines.mysql)
    if all(given):
        return given, None
    embedded = EmbeddedDatabases(Path(settings.server.data_dir), settings.timeouts.start_timeout)
    stack.callback(embedded.stop)
    return embedded.start(), embedded


async def _run(settings: Settings, addresses: Addresses, embedded: EmbeddedDatabases | None) -> None:
    """Serve until a signal ends the server."""
    told_to_end = ending()
    async with AsyncExitStack() as stack:
        restarting: Callable[[], Mapping[str, str]] = dict
        if embedded is not None:
            supervisor = asyncio.create_task(embedded.supervise())
            stack.callback(supervisor.cancel)
            restarting = embedded.restarting
        server = await stack.enter_async_context(
            serving(settings, addresses, article_users=embedded is not None, restarting=restarting)
        )
        _tune_python()
        print(f"Tandem is ready: {server.url} ({_why(settings, server.access.mode)})", flush=True)
        await told_to_end.wait()
        # The signal may have gone to the databases too, so those that end from now on are not started again.
        if embedded is not None:
            supervisor.cancel()


def _why(settings: Settings, mode: Mode) -> str:
    """Return the mode in force and its reason, for the ready line."""
    given = settings.auth.auth != "auto"
    what = {
        Mode.LOCAL: "uid is trusted, but only from this machine",
        Mode.OPEN: "uid is trusted from everywhere",
        Mode.TOKEN: "tokens are required",
    }[mode]
    reach = "on loopback" if mode is Mode.LOCAL else "beyond loopback"
    why = f"--auth={mode}" if given else f"--auth is not given, and --address is {reach}"
    return f"{what}: {why}"


def _tune_python() -> None:
    """Tune the interpreter for one busy event loop; docs/performance.md has the figures."""
    gc.collect()
    gc.freeze()  # permanent objects need no further garbage collection
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_AFTER)


if __name__ == "__main__":
    ended_with = main(sys.argv[1:])
    end_beside_hashes(ended_with)
    sys.exit(ended_with)
