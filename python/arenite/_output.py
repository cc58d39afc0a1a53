"""What workers print with `output="plain"`: byte for byte, in whole lines of any length.

A worker writes into pipes of its own, in the place of those of the engine, which limits lines and rates. A thread of
the program reads them and writes to `sys.stdout` and `sys.stderr`. It never drops anything: if it is slower than the
worker, the pipe is full, and the worker waits.

`_print` is the worker's side. Of the error output, only that of Python takes this way. What native code writes, and the
traceback of a crash, goes to the engine, which takes the cause of a death from it.
"""

from __future__ import annotations

import collections
import os
import selectors
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import _channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NUMBER = struct.Struct("<I")
_CHUNK = 64 << 10
#: Lines that are kept for the error of a worker that dies, and characters of each.
_WORDS, _LONGEST = 16, 600
#: Seconds that the last words of a worker may take to arrive after its death.
_LAST = 0.5


class Receiver(_channel.Receiver):
    """Writes what the workers of an executor print."""

    def __init__(self) -> None:
        #: The last lines of workers that have ended, by number; those that still print are not among them.
        self._words: dict[int, list[str]] = {}
        self._open: set[int] = set()
        #: What workers print into.
        self.pipes: set[int] = set()
        #: Whole lines are written at a time.
        self._writing = threading.Lock()
        super().__init__("arenite-output")

    def receive(self, connection: socket.socket) -> None:
        data, pipes, _, _ = socket.recv_fds(connection, _NUMBER.size, 2, socket.MSG_CMSG_CLOEXEC)
        self.pipes.update(pipes)
        if len(data) != _NUMBER.size or len(pipes) != 2:
            return
        (worker,) = _NUMBER.unpack(data)
        self._open.add(worker)
        # It waits until its pipes have a reader.
        connection.sendall(b"!")
        words: collections.deque[str] = collections.deque(maxlen=_WORDS)
        left = {pipe: bytearray() for pipe in pipes}
        with selectors.DefaultSelector() as selector:
            for pipe, name in zip(pipes, ("stdout", "stderr"), strict=True):
                selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select():
                    pipe = key.fd
                    chunk = os.read(pipe, _CHUNK)
                    # Searched once, however long the line is. A progress bar ends in the other way.
                    end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r") if key.data == "stderr" else -1) + 1
                    if end or not chunk:
                        whole = bytes(left[pipe] + chunk[:end])
                        left[pipe] = bytearray(chunk[end:])
                        self._write(key.data, whole)
                        last = whole[-_WORDS * _LONGEST :].decode(errors="replace").splitlines()
                        words.extend(line[:_LONGEST] for line in last)
                    else:
                        left[pipe] += chunk
                    if not chunk:
                        selector.unregister(pipe)
                        self.pipes.discard(pipe)
                        os.close(pipe)
        self._words[worker] = list(words)
        self._open.discard(worker)

    def _write(self, name: str, data: bytes) -> None:
        stream = getattr(sys, name)
        if not data or stream is None:
            return
        with self._writing:
            try:
                buffer = getattr(stream, "buffer", None)
                if buffer is None:
                    # Of a notebook, which takes text.
                    stream.write(data.decode(errors="backslashreplace"))
                else:
                    stream.flush()
                    buffer.write(data)
                stream.flush()
            except Exception:
                pass  # It is closed, or code of the program: the worker must not wait for ever.

    def words(self, worker: int | None) -> list[str]:
        """What a worker that has died printed last."""
        until = time.monotonic() + _LAST
        while worker in self._open and time.monotonic() < until:
            time.sleep(0.005)
        return self._words.get(worker, []) if worker is not None else []


class Load:
    """Unpickles what workers send, and knows what those that have died printed."""

    def __init__(self, load: Callable[..., Any], receiver: Receiver) -> None:
        self._load, self._receiver = load, receiver

    def __call__(self, data: Any, buffers: Sequence[Any] = (), private: bool = False) -> Any:
        return self._load(data, buffers, private)

    def add_words(self, failure: dict[str, Any]) -> None:
        """Adds what the worker printed to what its engine knows of that."""
        printed = self._receiver.words(failure["worker"])
        failure["last_words"] = [*printed, *failure["last_words"]][-_WORDS:] if printed else failure["last_words"]
