"""The settings: one frozen, grouped record.

A setting is declared once, as a field below: its type, bounds and help text are checked and shown from there by
config/sources.py, which reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["Auth", "Engines", "Limits", "Log", "Server", "Settings", "Timeouts"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SECRET = {"secret": True}  # the value holds a password: no error shows it, no log line
PATH = {"path": True}  # the value names a file or a directory: a ~ at its beginning is a home directory


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server listens and keeps its data."""

    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one")] = 3000
    address: Annotated[
        str,
        Meta(min_length=1, description="address to listen on, :: for all; beyond loopback only tokens say who is who"),
    ] = "127.0.0.1"
    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="where private engines keep their data, and the generated key of tokens",
            extra=PATH,
        ),
    ] = "data"
    certfile: Annotated[
        str, Meta(description="TLS certificate with its chain, PEM; read again on SIGHUP", extra=PATH)
    ] = ""
    keyfile: Annotated[str, Meta(description="key of the TLS certificate, PEM", extra=PATH)] = ""
    trusted_proxies: Annotated[
        str,
        Meta(description="addresses or networks, with commas, whose X-Forwarded-… or Forwarded headers are believed"),
    ] = ""
    frames: Annotated[
        Literal["bulk", "tornado"],
        Meta(description="what carries frames: bulk (faster), or streams of tornado, which TLS takes always"),
    ] = "bulk"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="port of its own for /metrics, on loopback; 0 is none")
    ] = 0
    metrics_token: Annotated[
        str, Meta(description="bearer token for /metrics on the server's own port; none: not there", extra=SECRET)
    ] = ""


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may connect and speak as whom."""

    auth: Annotated[
        Literal["auto", "open", "token"],
        Meta(description="open believes uid; auto does, if only this machine can ask; else a token is needed"),
    ] = "auto"
    token_secret: Annotated[
        str, Meta(description="secret that signs tokens, 32 bytes or more; none: one is generated", extra=SECRET)
    ] = ""
    token_keys: Annotated[
        str, Meta(description="file with keys of tokens: a JWK Set, or a public key in PEM", extra=PATH)
    ] = ""
    token_audience: Annotated[str, Meta(min_length=1, description="what the aud of tokens names")] = "tandem"  # noqa: S105  # no password
    token_lifetime: Annotated[int, Meta(ge=60, le=31_536_000, description="seconds for which a token is good")] = (
        2_592_000
    )
    ticket_lifetime: Annotated[
        float, Meta(ge=1, le=86_400, description="seconds for which a ticket for a socket is good")
    ] = 30.0
    session_check: Annotated[
        Seconds, Meta(description="seconds between two looks whether the users of open sockets may still speak")
    ] = 4.0
    trusted_origins: Annotated[
        str, Meta(description="origins, with commas, whose pages may ask: https://app.example")
    ] = ""
    sign_ins_per_account: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most attempts to sign in to one account in 15 minutes")
    ] = 10
    sign_ins_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most attempts to sign in from one address in 15 minutes")
    ] = 100
    registration: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="whether anybody can register; auto: where tokens are issued here, not elsewhere alone"),
    ] = "auto"
    registrations_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most attempts to register from one address in an hour")
    ] = 20


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
    password_waiting: Annotated[
        int, Meta(ge=1, le=10_000, description="most passwords waiting for these; more get 503")
    ] = 16
    insert_batch: Annotated[int, Meta(ge=1, le=10_000, description="most messages in one insert_many")] = 500
    insert_flights: Annotated[int, Meta(ge=1, le=32, description="most insert_many calls at once")] = 1


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what one client, or all of them together, can make the server hold."""

    max_connections: Annotated[int, Meta(ge=1, le=1_000_000, description="most open sockets; the next gets 503")] = (
        10_000
    )
    max_user_connections: Annotated[int, Meta(ge=1, le=1_000_000, description="most open sockets of one user")] = 50
    max_address_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most open sockets from one address, or IPv6 /64")
    ] = 1000
    request_rate: Annotated[
        float,
        Meta(gt=0, le=1_000_000, description="requests of one user in a second, by what they weigh; more get 429"),
    ] = 100.0
    request_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="requests of one user at once, now and then, by what they weigh")
    ] = 1000
    address_request_rate: Annotated[
        float,
        Meta(gt=0, le=1_000_000, description="HTTP requests of no user from one address in a second; more wait"),
    ] = 200.0
    address_request_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="the same at once, now and then; IPv6: a /64 is one address")
    ] = 2000
    strangers_per_hour: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="most users without an answer one user writes to in an hour; 0: any"),
    ] = 100
    bytes_per_day: Annotated[
        int, Meta(ge=0, le=10**15, description="most bytes of messages that one user has stored in a day; 0: any")
    ] = 100_000_000
    max_blocks: Annotated[int, Meta(ge=1, le=100_000, description="most users that one user blocks")] = 1000
    max_http_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most connections that are not sockets, or not yet; more are closed")
    ] = 2000
    max_address_http_connections: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="the same from one address or IPv6 /64; none for trusted proxies"),
    ] = 400
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
    socket_buffer: Annotated[
        int,
        Meta(ge=0, le=16_777_216, description="bytes that the system buffers for a connection, each way; 0: its own"),
    ] = 65_536
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
    password_timeout: Annotated[Seconds, Meta(description="a password is checked, its waiting included; else 503")] = (
        20.0
    )
    handshake_timeout: Annotated[
        Seconds,
        Meta(description="an HTTP request, the next one on a connection, or a byte of an answer read"),
    ] = 20.0
    ping_interval: Annotated[Seconds, Meta(description="between two pings to a socket")] = 30.0
    ping_timeout: Annotated[Seconds, Meta(description="a pong is awaited, then the socket is closed")] = 20.0
    stall_timeout: Annotated[
        Seconds, Meta(description="a client reads none of its pending bytes, then its socket is closed")
    ] = 20.0
    lookup_ttl: Annotated[Seconds, Meta(description="a user's lookup is remembered")] = 3.0
    offline_after: Annotated[
        float, Meta(ge=0, le=60, description="a user whose last socket has closed is still shown as online")
    ] = 2.0
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
    auth: Auth = Auth()
    engines: Engines = Engines()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    log: Log = Log()
