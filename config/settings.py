"""The settings: one frozen, grouped record.

A setting is declared once, as a field below: its type, bounds and help text are checked and shown from there by
config/sources.py, which reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["Engines", "Limits", "Log", "Server", "Settings", "Timeouts"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SECRET = {"secret": True}  # the value holds a password: no error shows it, no log line


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server listens and keeps its data."""

    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one")] = 3000
    address: Annotated[
        str, Meta(min_length=1, description="address to listen on; anybody it reaches may be any user")
    ] = "127.0.0.1"
    data_dir: Annotated[str, Meta(min_length=1, description="where the private engines keep their data")] = "data"


class Engines(Struct, frozen=True, forbid_unknown_fields=True):
    """The engines: the addresses of all three, or none of them for private engines below the data directory."""

    mongo: Annotated[str, Meta(description="mongodb:// URL of a replica set, 6.0 or later", extra=SECRET)] = ""
    redis: Annotated[str, Meta(description="redis://, rediss:// or unix:// URL, 7.0 or later", extra=SECRET)] = ""
    mysql: Annotated[
        str, Meta(description="mysql://user:password@host:port/database URL of MySQL or MariaDB", extra=SECRET)
    ] = ""
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
