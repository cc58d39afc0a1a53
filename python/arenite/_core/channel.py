"""Sockets by which workers send data to the program outside of results: printed output, and records of `logging`."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial

from . import native

_KEY_BYTES = 32
#: The seconds that the end of an executor waits for data of ended workers.
_LAST = 5.0

Address = tuple[str, bytes]

#: Receivers that may still get data. The tasks of a dropped executor go on, so its receiver is here too.
_open: set[Receiver] = set()


class Listener:
    """Accepts connections of an executor's workers, with a thread for each worker."""

    def __init__(self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self._name = name
        self._listener = socket.socket(socket.AF_UNIX, kind)
        # An abstract address: it needs no file, and ends with this process.
        self._path = f"\0arenite-{os.getpid()}-{os.urandom(8).hex()}"
        self._listener.bind(self._path)
        self.address: Address = (self._path[1:], os.urandom(_KEY_BYTES))
        self._accepting: native.Thread | None = None
        self._threads: list[native.Thread] = []
        #: The process that owns the socket. A child made by `fork()` has a copy of the socket, and must not use it.
        self._process = os.getpid()
        self._is_stopping = False

    def start(self) -> None:
        """Lets workers connect."""
        try:
            self._listener.listen(128)
            self._accepting = native.Thread(self._accept, self._name)
        except BaseException:
            self._listener.close()
            raise

    def stop(self) -> None:
        """Stops accepting workers. Open connections remain."""
        if self._process != os.getpid() or self._is_stopping:
            return
        self._is_stopping = True
        if self._accepting is None:
            self._listener.close()
            return
        # This connection comes after all connections that are not accepted yet.
        with socket.socket(socket.AF_UNIX, self._listener.type) as last, contextlib.suppress(OSError):
            last.bind(f"{self._path}-last")
            last.connect(self._path)

    def receive(self, connection: socket.socket) -> None:
        """Receives the data of a worker until the worker ends."""
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
                    thread = native.Thread(partial(self._serve, connection), self._name)
                except RuntimeError:
                    # No thread can start now: the worker goes on without a receiver.
                    connection.close()
                    continue
                self._threads = [*(other for other in self._threads if other.is_alive()), thread]

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                # A process that does not know the key is not a worker.
                if connection.recv(_KEY_BYTES, socket.MSG_WAITALL) == self.address[1]:
                    self.receive(connection)
            except OSError:
                pass  # The worker has ended.


class Receiver(Listener):
    """Receives data of workers also after the end of their executor, and of the main file."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._is_stopped = False
        self.start()
        _open.add(self)

    def close(self) -> None:
        """Waits for the data of ended workers."""
        if self._process != os.getpid():
            return
        self.stop()
        if self._accepting is not None and not self._accepting.is_current():
            # The accepting thread ends first, because it adds to the other threads.
            native.wait(self._accepting, _LAST)
        for thread in self._threads:
            if not thread.is_current():
                native.wait(thread, _LAST)
        _open.discard(self)

    def _accept(self) -> None:
        super()._accept()
        self._is_stopped = True
        self._forget()

    def _serve(self, connection: socket.socket) -> None:
        super()._serve(connection)
        self._forget()

    def _forget(self) -> None:
        if self._is_stopped and all(thread.is_current() or not thread.is_alive() for thread in self._threads):
            _open.discard(self)


def close_all() -> None:
    """Waits for the data of all workers, which have ended. Called at the end of the interpreter."""
    for receiver in list(_open):
        receiver.close()


def connect(address: Address, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """In a worker: connects to the listener."""
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        made.connect("\0" + address[0])
        made.sendall(address[1])
    except BaseException:
        made.close()
        raise
    return made
