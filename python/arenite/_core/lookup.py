"""Names that a task looks up in modules of the program without having them in its code: the classes of what it
unpickles, from a file, a queue or a `multiprocessing.Manager`.

A mirror that lacks a name asks the program over a socket. There a thread pickles the definition as it is now. The
thread waits for no task, so a task may wait for the thread. A sandboxed worker asks nothing: it could read all globals.
"""

from __future__ import annotations

import os
import pickle
import struct
import weakref
from typing import TYPE_CHECKING, Any

from . import channel

if TYPE_CHECKING:
    import socket

    from .definitions import Definitions

_LENGTH = struct.Struct("<Q")


class Server(channel.Listener):
    """Sends definitions to workers that ask for them. An empty answer: the program has none."""

    def __init__(self, definitions: Definitions) -> None:
        super().__init__("arenite-lookup")
        # A weak reference: the thread of a worker would keep the workers of a dropped executor.
        self._definitions = weakref.ref(definitions)

    def receive(self, connection: socket.socket) -> None:
        with connection.makefile("rwb") as stream:
            while request := _read(stream):
                _write(stream, self._answer(*pickle.loads(request)))

    def _answer(self, home: str, name: str) -> bytes:
        definitions = self._definitions()
        try:
            return b"" if definitions is None else definitions.of_lookup(home, name)
        except Exception:
            return b""  # It cannot be pickled.


#: The connection of this worker, by the process: a process that a task has forked needs another one.
_connections: dict[int, Any] = {}


def ask(address: channel.Address, home: str, name: str) -> bytes:
    """In a worker: returns the definition of a global of the program, for `mirror.apply`. One thread calls this at a
    time."""
    try:
        stream = _connections.get(os.getpid())
        if stream is None:
            with channel.connect(address) as connection:
                stream = _connections[os.getpid()] = connection.makefile("rwb")
        _write(stream, pickle.dumps((home, name)))
        return _read(stream)
    except OSError:
        return b""  # The program has ended its executor.


def _write(stream: Any, data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: Any) -> bytes:
    head = stream.read(_LENGTH.size)
    return stream.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
