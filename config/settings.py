"""The settings: one frozen record, with a group for each area.

Each setting is declared once, as a field with its type, bounds and help text. config/sources.py reads these to check
values and to show the help. A setting with `parse` is text that this function turns into the field's type.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from config.lists import Network, networks_in, origins_in

__all__ = ["Auth", "Engines", "Limits", "Log", "Server", "Settings", "Timeouts"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SECRET = {"secret": True}  # the value holds a password, which no error or log line may show
PATH = {"path": True}  # the value names a file or a directory; a leading ~ stands for a home directory


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server listens and keeps its data."""

    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 picks a free one")] = 3000
    address: Annotated[
        str,
        Meta(
            min_length=1, description="address to listen on, :: for all; beyond loopback, --auth=auto requires tokens"
        ),
    ] = "127.0.0.1"
    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="directory of the embedded databases and of the generated token key",
            extra=PATH,
        ),
    ] = "data"
    certfile: Annotated[
        str, Meta(description="TLS certificate with its chain, PEM; reloaded on SIGHUP", extra=PATH)
    ] = ""
    keyfile: Annotated[str, Meta(description="private key of the TLS certificate, PEM", extra=PATH)] = ""
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Meta(
            description="comma-separated addresses or networks whose X-Forwarded-… or Forwarded headers are trusted",
            extra={"parse": networks_in},
        ),
    ] = ()
    frames: Annotated[
        Literal["bulk", "tornado"],
        Meta(description="transport of WebSocket frames: bulk (the event loop's, faster) or tornado (its streams)"),
    ] = "bulk"
    metrics_port: Annotated[int, Meta(ge=0, le=65_535, description="separate loopback port for /metrics; 0: none")] = 0
    metrics_token: Annotated[
        str,
        Meta(
            description="bearer token for /metrics on the main port; without one it is not served there", extra=SECRET
        ),
    ] = ""


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """How users are authenticated, and who may register."""

    auth: Annotated[
        Literal["auto", "open", "token"],
        Meta(description="token requires tokens; open trusts the uid parameter; auto trusts it only on loopback"),
    ] = "auto"
    token_secret: Annotated[
        str,
        Meta(
            description="secret that signs tokens, at least 32 bytes; without it and --token-keys a key is generated",
            extra=SECRET,
        ),
    ] = ""
    token_keys: Annotated[
        str, Meta(description="file with token keys: a JWK Set, or a public key in PEM", extra=PATH)
    ] = ""
    token_audience: Annotated[str, Meta(min_length=1, description="aud claim that tokens must have")] = "tandem"  # noqa: S105  # no password
    token_lifetime: Annotated[
        int, Meta(ge=60, le=31_536_000, description="seconds for which an issued token is valid")
    ] = 2_592_000
    ticket_lifetime: Annotated[
        float, Meta(ge=1, le=86_400, description="seconds for which a socket ticket is valid")
    ] = 30.0
    session_check: Annotated[
        Seconds, Meta(description="seconds between two checks that the sessions of open sockets are still valid")
    ] = 4.0
    trusted_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="comma-separated origins whose pages may send requests, such as https://app.example",
            extra={"parse": origins_in},
        ),
    ] = ()
    sign_ins_per_account: Annotated[
        int, Meta(ge=1, le=1_000_000, description="maximum attempts to sign in to one account in 15 minutes")
    ] = 10
    sign_ins_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="maximum attempts to sign in from one address in 15 minutes")
    ] = 100
    registration: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="whether new users can register; auto: yes, unless tokens are issued only elsewhere"),
    ] = "auto"
    registrations_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="maximum attempts to register from one address in an hour")
    ] = 20


class Engines(Struct, frozen=True, forbid_unknown_fields=True):
    """The databases: the addresses of all three, or none of them to start embedded databases."""

    mongo: Annotated[str, Meta(description="mongodb:// URL of a replica set, 6.0 or later", extra=SECRET)] = ""
    redis: Annotated[str, Meta(description="redis://, rediss:// or unix:// URL, 7.0 or later", extra=SECRET)] = ""
    mysql: Annotated[
        str,
        Meta(
            description="mysql://user:password@host:port/database URL of MySQL or MariaDB, or with several host:port "
            "separated by commas; ?ssl_ca=FILE verifies the TLS certificate",
            extra=SECRET,
        ),
    ] = ""
    mongo_database: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_-]{1,38}$", description="name of the MongoDB database")
    ] = "tandem"
    redis_prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9_:-]{1,64}$", description="prefix of all Redis keys")] = (
        "tandem"
    )
    redis_connections: Annotated[int, Meta(ge=1, le=1000, description="maximum connections to Redis")] = 16
    mysql_threads: Annotated[int, Meta(ge=1, le=64, description="threads for MySQL, each with one connection")] = 8
    mysql_waiting: Annotated[
        int, Meta(ge=1, le=100_000, description="maximum lookups and registrations queued for MySQL")
    ] = 1000
    password_threads: Annotated[int, Meta(ge=1, le=64, description="threads that hash passwords")] = 1
    password_waiting: Annotated[
        int, Meta(ge=1, le=10_000, description="maximum passwords queued for hashing; further ones get 503")
    ] = 16
    insert_batch: Annotated[int, Meta(ge=1, le=10_000, description="maximum messages in one insert into MongoDB")] = 500
    insert_flights: Annotated[int, Meta(ge=1, le=32, description="maximum concurrent inserts into MongoDB")] = 1


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits on what one client, or all clients together, can use."""

    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="maximum open sockets; further ones get 503")
    ] = 10_000
    max_user_connections: Annotated[int, Meta(ge=1, le=1_000_000, description="maximum open sockets of one user")] = 50
    max_address_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="maximum open sockets from one address or IPv6 /64")
    ] = 1000
    request_rate: Annotated[
        float,
        Meta(gt=0, le=1_000_000, description="requests per second of one user, by weight; further ones get 429"),
    ] = 100.0
    request_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="requests of one user in a burst, by weight")
    ] = 1000
    address_request_rate: Annotated[
        float,
        Meta(
            gt=0,
            le=1_000_000,
            description="unauthenticated HTTP requests per second from one address; further ones are delayed",
        ),
    ] = 200.0
    address_request_burst: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="unauthenticated HTTP requests from one address or IPv6 /64 in a burst"),
    ] = 2000
    strangers_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="maximum users who never answered that one user may write to in an hour; 0: unlimited",
        ),
    ] = 100
    bytes_per_day: Annotated[
        int, Meta(ge=0, le=10**15, description="maximum bytes of messages stored for one user in a day; 0: unlimited")
    ] = 100_000_000
    max_blocks: Annotated[int, Meta(ge=1, le=100_000, description="maximum users that one user may block")] = 1000
    max_http_connections: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="maximum connections that are not open sockets; further ones are closed"),
    ] = 2000
    max_address_http_connections: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="the same from one address or IPv6 /64; trusted proxies are exempt"),
    ] = 400
    window: Annotated[
        int, Meta(ge=1, le=4096, description="unanswered requests at which the server stops reading from a socket")
    ] = 64
    max_frame: Annotated[
        int, Meta(ge=1024, le=16_777_216, description="maximum size of a frame from a client, in bytes")
    ] = 65_536
    max_content: Annotated[int, Meta(ge=1, le=1_000_000, description="maximum length of a message, in characters")] = (
        8192
    )
    malformed_frames: Annotated[
        int, Meta(ge=1, le=1000, description="malformed frames in a row after which a socket is closed")
    ] = 10
    write_buffer: Annotated[
        int, Meta(ge=65_536, description="unsent bytes at which the socket of a slow client is closed")
    ] = 1_048_576
    socket_buffer: Annotated[
        int,
        Meta(
            ge=0,
            le=16_777_216,
            description="system's send and receive buffer of a connection, in bytes; 0: the system's default",
        ),
    ] = 65_536
    max_body: Annotated[int, Meta(ge=1024, le=16_777_216, description="maximum size of an HTTP body, in bytes")] = (
        65_536
    )
    max_header: Annotated[int, Meta(ge=1024, le=1_048_576, description="maximum size of an HTTP header, in bytes")] = (
        16_384
    )
    lookup_cache: Annotated[int, Meta(ge=0, le=10_000_000, description="maximum users in the lookup cache")] = 50_000


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Timeouts and intervals, in seconds."""

    answer_timeout: Annotated[
        Seconds, Meta(description="time after which a request without an answer from the databases gets 40001")
    ] = 5.0
    engine_timeout: Annotated[Seconds, Meta(description="maximum time for one database call")] = 3.0
    start_timeout: Annotated[
        Seconds, Meta(description="maximum time for a database to become ready at start, before the server gives up")
    ] = 15.0
    password_timeout: Annotated[
        Seconds, Meta(description="maximum time for a password check, including its time in the queue; then 503")
    ] = 20.0
    handshake_timeout: Annotated[
        Seconds,
        Meta(description="maximum time for an HTTP request, between two requests, and without progress of a response"),
    ] = 20.0
    ping_interval: Annotated[Seconds, Meta(description="time between two pings to a socket")] = 30.0
    ping_timeout: Annotated[Seconds, Meta(description="maximum time for a pong, before the socket is closed")] = 20.0
    stall_timeout: Annotated[
        Seconds,
        Meta(description="maximum time in which a client reads none of its pending data, before its socket is closed"),
    ] = 20.0
    lookup_ttl: Annotated[Seconds, Meta(description="time for which a user lookup is cached")] = 3.0
    offline_after: Annotated[
        float,
        Meta(
            ge=0, le=60, description="time for which a user is still shown as online after their last socket has closed"
        ),
    ] = 2.0
    sweep_interval: Annotated[
        Seconds, Meta(description="time between two checks for messages that open sockets may have missed")
    ] = 30.0
    drain_timeout: Annotated[Seconds, Meta(description="maximum time for open requests to finish after SIGTERM")] = 5.0


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """The log, which is written to standard error."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe level that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="text for lines that people read, json for one JSON object a line")
    ] = "text"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of the server, by group."""

    server: Server = Server()
    auth: Auth = Auth()
    engines: Engines = Engines()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    log: Log = Log()
