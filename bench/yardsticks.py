"""The servers that Tandem is compared with: `python -m bench.yardsticks relay|one-by-one [--uvloop]`.

Both are written in the simplest form, for the same clients. `relay` is plain Tornado that relays messages and stores
nothing. `one-by-one` awaits four round trips to Redis and one insert into MongoDB for each message, as the article's
program does, and acknowledges when they are done. Neither authenticates callers, so neither is fit for other uses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import uvloop
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import WriteConcern
from redis.asyncio import BlockingConnectionPool, Redis
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

KEPT = 90 * 86_400  # seconds
CONNECTIONS = 64  # to Redis; a request without one waits


def _frame(code: int, content: str) -> str:
    return json.dumps({"from": "", "code": code, "content": content}, ensure_ascii=False, separators=(",", ":"))


class Relay(WebSocketHandler):
    """Relays a message to the peer's sockets, and answers whether there were any."""

    here: ClassVar[defaultdict[tuple[str, str], set[Relay]]] = defaultdict(set)

    def open(self, *_: str, **__: str) -> None:
        """Add the socket to the registry."""
        self.user, self.peer = self.get_query_argument("uid"), self.get_query_argument("toUid")
        self.set_nodelay(True)
        self.here[self.user, self.peer].add(self)
        self.write_message(_frame(50002, "已连接至服务器"))

    def pass_on(self, content: str) -> None:
        """Write to the peer, and answer."""
        sockets = self.here.get((self.peer, self.user), ())
        for socket in sockets:
            socket.write_message(_frame(50001, content))
        self.write_message(_frame(50004, "对方在线应答") if sockets else _frame(50005, "对方不在线应答"))

    async def on_message(self, message: str | bytes) -> None:
        """Relay a message."""
        self.pass_on(json.loads(message)["content"])

    def on_close(self) -> None:
        """Remove the socket from the registry."""
        self.here[self.user, self.peer].discard(self)


class Health(RequestHandler):
    """The number of open sockets, in Tandem's format."""

    def get(self) -> None:
        """Answer with the number."""
        self.write({"data": {"sockets": sum(map(len, Relay.here.values()))}})


class OneByOne(Relay):
    """Awaits each database in turn, for each message."""

    def initialize(self, redis: Redis, messages: Any) -> None:
        """Take the databases' clients."""
        self.redis = redis
        self.messages = messages

    async def on_message(self, message: str | bytes) -> None:
        """Handle a message: read both counts, raise one, set its expiry, and insert the message."""
        content = json.loads(message)["content"]
        mine, theirs = f"bench:{self.user}->{self.peer}", f"bench:{self.peer}->{self.user}"
        count, others = await self.redis.get(mine), await self.redis.get(theirs)
        if count is not None and int(count) >= 3 and others is None:
            self.write_message(_frame(50006, "达到限制"))
            return
        await self.redis.incr(mine)
        await self.redis.expire(mine, KEPT)
        now = time.time()
        await self.messages.insert_one(
            {
                "conversation": "-".join(sorted((self.user, self.peer))),
                "sender": self.user,
                "content": content,
                "startTime": int(now * 1000),
                "endTime": int((now + KEPT) * 1000),
            }
        )
        self.pass_on(content)


async def serve(options: argparse.Namespace) -> None:
    """Serve until the process is killed."""
    if options.which == "relay":
        app = Application([("/ws", Relay), ("/healthz", Health)])
    else:
        database = AsyncIOMotorClient[dict[str, Any]](options.mongo).bench
        messages = database.get_collection("one_by_one", write_concern=WriteConcern(w="majority", j=True))
        pool = BlockingConnectionPool.from_url(options.redis, max_connections=CONNECTIONS, timeout=None)
        app = Application([("/ws", OneByOne, {"redis": Redis(connection_pool=pool), "messages": messages})])
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(app).add_sockets(sockets)
    print(f"ready: http://127.0.0.1:{sockets[0].getsockname()[1]}/ ", flush=True)
    await asyncio.Event().wait()


def main(argv: Sequence[str]) -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.yardsticks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=("relay", "one-by-one"))
    parser.add_argument("--mongo", default="", help="URL, for one-by-one")
    parser.add_argument("--redis", default="", help="URL, for one-by-one")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's own event loop")
    options = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if options.uvloop else None) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main(sys.argv[1:])
