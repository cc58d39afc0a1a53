"""Forwards the output of workers with `output="plain"`: byte for byte, in whole lines of any length.

A worker writes into separate pipes instead of the engine's pipes, which limit lines and rates. A thread of the program
reads the pipes and writes to `sys.stdout` and `sys.stderr`. It drops nothing: if it is slower than the worker, the pipe
becomes full, and the worker waits.

`printing` is the worker's side. Only Python's error output uses the separate pipe. The error output of native code, and
the traceback of a crash, go to the engine, which reads the cause of a death from them.
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

from . import channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NUMBER = struct.Struct("<I")
_CHUNK = 64 << 10
#: The number of lines that are stored for the error of a worker that dies, and the characters of each.
_WORDS, _LONGEST = 16, 600
#: The seconds for which the last words of a worker are awaited after its death.
_LAST = 0.5


class Receiver(channel.Receiver):
    """Writes the output of an executor's workers."""

    def __init__(self) -> None:
        #: The last lines of ended workers, by number. Workers that still print have no entry.
        self._words: dict[int, list[str]] = {}
        self._open: set[int] = set()
        #: The inodes of pipes that workers print into.
        self.pipes: set[int] = set()
        #: Locked while whole lines are written.
        self._writing = threading.Lock()
        super().__init__("arenite-output")

    def receive(self, connection: socket.socket) -> None:
        data, pipes, _, _ = socket.recv_fds(connection, _NUMBER.size, 2, socket.MSG_CMSG_CLOEXEC)
        self.pipes.update(pipes)
        try:
            if len(data) == _NUMBER.size and len(pipes) == 2:
                (worker,) = _NUMBER.unpack(data)
                self._forward(worker, pipes, connection)
        finally:
            # A worker may be killed before it knows that its pipes are read.
            for pipe in pipes:
                self.pipes.discard(pipe)
                os.close(pipe)

    def _forward(self, worker: int, pipes: list[int], connection: socket.socket) -> None:
        """Forwards the output of a worker until its pipes end."""
        self._open.add(worker)
        try:
            # The worker waits for this byte: now its pipes have a reader.
            connection.sendall(b"!")
            self._words[worker] = self._read(pipes)
        finally:
            self._open.discard(worker)

    def _read(self, pipes: list[int]) -> list[str]:
        """Writes what comes from the pipes. Returns the last lines."""
        words: collections.deque[str] = collections.deque(maxlen=_WORDS)
        left = {pipe: bytearray() for pipe in pipes}
        with selectors.DefaultSelector() as selector:
            for pipe, name in zip(pipes, ("stdout", "stderr"), strict=True):
                selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select():
                    pipe = key.fd
                    chunk = os.read(pipe, _CHUNK)
                    # Searches each byte once, however long the line is. Lines of a progress bar end with "\r".
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
        return list(words)

    def _write(self, name: str, data: bytes) -> None:
        stream = getattr(sys, name)
        if not data or stream is None:
            return
        with self._writing:
            try:
                buffer = getattr(stream, "buffer", None)
                if buffer is None:
                    # The stream of a notebook takes text.
                    stream.write(data.decode(errors="backslashreplace"))
                else:
                    stream.flush()
                    buffer.write(data)
                stream.flush()
            except Exception:
                pass  # A closed stream, or an error of the program's stream: the worker must not wait for ever.

    def words(self, worker: int | None) -> list[str]:
        """Returns the last lines that a dead worker has printed."""
        until = time.monotonic() + _LAST
        while worker in self._open and time.monotonic() < until:
            time.sleep(0.005)
        return self._words.get(worker, []) if worker is not None else []


class Load:
    """Unpickles data of workers, and knows the last words of dead workers."""

    def __init__(self, load: Callable[..., Any], receiver: Receiver) -> None:
        self._load, self._receiver = load, receiver

    def __call__(self, data: Any, buffers: Sequence[Any] = (), private: bool = False) -> Any:
        return self._load(data, buffers, private)

    def add_words(self, failure: dict[str, Any]) -> None:
        """Adds the lines that the worker has printed to the failure."""
        printed = self._receiver.words(failure["worker"])
        failure["last_words"] = [*printed, *failure["last_words"]][-_WORDS:] if printed else failure["last_words"]
