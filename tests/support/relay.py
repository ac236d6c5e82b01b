"""A relay between a client and MySQL that breaks a connection at a given statement."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

MOST = 1 << 16  # bytes read at once


class Relay:
    """Relays between a client and MySQL.

    `lose` is a part of a statement. The next connection that sends it is closed once MySQL has answered, and the answer
    is not relayed. `away` closes each connection at once.
    """

    def __init__(self, url: str) -> None:
        self._to = unquote(parse_qs(urlsplit(url).query)["unix_socket"][0])
        self._directory = tempfile.mkdtemp()  # short, since a socket's path has at most 107 bytes
        path = str(Path(self._directory) / "relay.sock")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self.url = f"{url.partition('?')[0]}?unix_socket={quote(path)}"
        self.lose = b""
        self.lost = 0  # broken connections
        self.away = False
        self._clients: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End the relay and its connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        for client in tuple(self._clients):
            with suppress(OSError):  # it has just been closed
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()
        shutil.rmtree(self._directory)

    def at(self, url: str) -> str:
        """Return the URL of another database of the same server, through the relay."""
        return f"{url.partition('?')[0]}?{self.url.partition('?')[2]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            if self.away:
                return
            server.connect(self._to)
            self._clients.add(client)
            with suppress(OSError):  # one side has closed its connection
                self._hand_on(client, server)
            self._clients.remove(client)

    def _hand_on(self, client: socket.socket, server: socket.socket) -> None:
        """Relay in turns: MySQL greets, then answers. An answer of the tests fits into one read."""
        lost = False
        while answer := server.recv(MOST):
            if lost or self.away:
                self.lost += 1
                return
            client.sendall(answer)
            statement = client.recv(MOST)
            if not statement:
                return
            if self.lose and self.lose in statement:
                self.lose, lost = b"", True
            server.sendall(statement)
