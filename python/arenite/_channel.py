"""Sockets over which workers send to the program what does not belong to one task: what they print, and records of
`logging`."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial

from . import _native

_KEY_BYTES = 32
#: Seconds that the end of an executor waits for what workers that have ended have sent.
_LAST = 5.0

Address = tuple[str, bytes]

#: Those that may still receive something: also of executors that were dropped, whose tasks go on.
_open: set[Receiver] = set()


class Receiver:
    """Listens for the workers of an executor, and has a thread for each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Without a name in a folder: gone with this process.
        self._path = f"\0arenite-{os.getpid()}-{os.urandom(8).hex()}"
        self._listener.bind(self._path)
        self._listener.listen(128)
        self.address: Address = (self._path[1:], os.urandom(_KEY_BYTES))
        self._threads: list[_native.Thread] = []
        #: A child made by `fork()` has the same socket, and must leave it to its parent.
        self._process = os.getpid()
        self._is_stopping = self._is_stopped = False
        try:
            self._accepting = _native.Thread(self._accept, name)
        except BaseException:
            self._listener.close()
            raise
        _open.add(self)

    def stop(self) -> None:
        """No worker can connect any more. Those that are connected go on."""
        if self._process != os.getpid() or self._is_stopping:
            return
        self._is_stopping = True
        # Behind all workers that have connected, and were not accepted so far.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last, contextlib.suppress(OSError):
            last.bind(f"{self._path}-last")
            last.connect(self._path)

    def close(self) -> None:
        """Waits for what workers that have ended have sent."""
        if self._process != os.getpid():
            return
        self.stop()
        if not self._accepting.is_current():
            _native.wait(self._accepting, _LAST)
        for thread in self._threads:
            if not thread.is_current():
                _native.wait(thread, _LAST)
        _open.discard(self)

    def receive(self, connection: socket.socket) -> None:
        """Takes what a worker sends, until it ends."""
        raise NotImplementedError

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, path = self._listener.accept()
                except OSError:
                    break
                if path == f"{self._path}-last".encode():
                    connection.close()
                    break
                try:
                    thread = _native.Thread(partial(self._serve, connection), self._name)
                except RuntimeError:
                    # No thread can be started now: the worker goes on without it.
                    connection.close()
                    continue
                self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        self._is_stopped = True
        self._forget()

    def _forget(self) -> None:
        if self._is_stopped and all(thread.is_current() or not thread.is_alive() for thread in self._threads):
            _open.discard(self)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                # One that does not know the key is of another program.
                if connection.recv(_KEY_BYTES, socket.MSG_WAITALL) == self.address[1]:
                    self.receive(connection)
            except OSError:
                pass  # It has ended.
        self._forget()


def close_all() -> None:
    """Waits for what workers have sent that have all ended: the interpreter ends."""
    for receiver in list(_open):
        receiver.close()


def connect(address: Address) -> socket.socket:
    """In a worker: connects to the receiver."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect("\0" + address[0])
        made.sendall(address[1])
    except BaseException:
        made.close()
        raise
    return made
