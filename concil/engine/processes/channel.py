"""Messages between a parent process and its child, over a pair of sockets."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("!Q")


class Channel:
    """One end of the pair. Any thread may send; one thread receives.

    Messages are pickled: each end runs the code of the other one's user.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Use ``connection``, which `close` closes."""
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._lock = threading.Lock()  # held while a message is sent

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            OSError: the other process has ended.
        """
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:  # noqa: ANN401 - whatever was sent
        """Receive the next message.

        Raises:
            EOFError: the other process sends no more, or has ended.
        """
        try:
            head = self._reader.read(_LENGTH.size)
            body = self._reader.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
        except OSError as error:
            raise EOFError from error
        if not body or len(body) != _LENGTH.unpack(head)[0]:
            raise EOFError
        return pickle.loads(body)  # noqa: S301 - the other end is this program

    def finish_sending(self) -> None:
        """Let the other process receive EOFError after the messages that were sent."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """Close this end."""
        self._reader.close()
        self._socket.close()
