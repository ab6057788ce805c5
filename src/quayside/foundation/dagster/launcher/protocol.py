"""How launcher, fork server and warden talk: one JSON object per line over Unix sockets. Standard library only.

The folder of the sockets belongs to one user (mode 0700), and a server answers only that user and root.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Message = dict[str, Any]

#: A request waits this long for a server that is busy forking others, in seconds.
REPLY_SECONDS = 60.0


class NoServerError(Exception):
    """Nothing answers at that socket: the server has ended, was killed, or lives on another host."""


def request(path: str, message: Message, seconds: float = REPLY_SECONDS, linger: float = 0.0) -> Message:
    """Send one message to the server at a socket and return its reply.

    Args:
        linger: after the reply, wait up to so many seconds for the server to close the connection.

    Raises:
        NoServerError: nothing answers there within ``seconds``, or it ended before it replied.
    """
    try:
        with _short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(address)
            send(connection, message)
            reply = receive(connection)
            if reply is not None and linger:
                connection.settimeout(linger)
                with suppress(TimeoutError):
                    connection.recv(1)
    except OSError as error:
        raise NoServerError(f"no fork server answers at {path}: {error.strerror or error}") from None
    if reply is None:
        raise NoServerError(f"the fork server at {path} ended before it answered")
    return reply


def listen(path: str) -> socket.socket:
    """A listening socket at a path, open to this user alone; it does not block."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as address:
        listener.bind(address)
    Path(path).chmod(0o600)
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def from_own_user(connection: socket.socket) -> bool:
    """Whether the other end is this user or root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] in {0, os.getuid()}


def send(connection: socket.socket, message: Message) -> None:
    """Write one message."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> Message | None:
    """Read one message; None at the end of the stream.

    Raises:
        ValueError: what came is not a message.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            return None
        line += part
    try:
        message = json.loads(line)
    except RecursionError:
        message = None
    if not isinstance(message, dict):
        raise ValueError("what came is not a JSON object")
    return message


@contextmanager
def _short(path: str) -> Iterator[str]:
    """An address for a path of any length: Unix sockets take 107 bytes, a folder's descriptor makes any path short."""
    folder, name = os.path.split(path)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)
