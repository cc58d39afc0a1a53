"""Forwards records of `logging` from tasks to the handlers of the program.

A worker has one handler, at its root logger, which sends each record to the program over a socket. In the program, a
thread for each worker passes the record to the logger of the same name. Workers have the levels of the program when it
made the executor (see `libraries`), so they do not send records that the program would drop.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import struct
from typing import Any

from . import channel

_LENGTH = struct.Struct("<I")


def is_configured() -> bool:
    """Whether the program has a handler anywhere."""
    loggers: Any = logging.root.manager.loggerDict.values()
    return bool(logging.root.handlers) or any(
        getattr(logger, "handlers", None) and not all(isinstance(one, logging.NullHandler) for one in logger.handlers)
        for logger in loggers
    )


class Receiver(channel.Receiver):
    """Receives the records of an executor's workers."""

    def __init__(self) -> None:
        super().__init__("arenite-log")

    def receive(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
                data = stream.read(*_LENGTH.unpack(head))
                try:
                    record = logging.makeLogRecord(pickle.loads(data))
                    logger = logging.getLogger(record.name)
                    if logger.isEnabledFor(record.levelno):
                        logger.handle(record)
                except Exception:
                    logging.Handler().handleError(logging.makeLogRecord({"msg": "a record of a task"}))


class Forward(logging.Handler):
    """Sends records to the program."""

    def __init__(self, address: channel.Address) -> None:
        super().__init__()
        self._address = address
        self._socket: socket.socket | None = None
        self._process = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = pickle.dumps(self._prepared(record), 5)
            self._connected().sendall(_LENGTH.pack(len(data)) + data)
        except Exception:
            self.handleError(record)

    def _prepared(self, record: logging.LogRecord) -> dict[str, Any]:
        """Returns the fields of a record without objects that cannot be pickled, or whose classes the program may not
        have."""
        said = dict(record.__dict__)
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            said["exc_text"] = logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]
        said.update(message=text, exc_info=None)
        try:
            if not _is_data((record.msg, record.args)):
                said.update(msg=text, args=None)
            pickle.dumps(said, 5)
        except Exception:
            # Fields that `extra` has added, or a message that contains itself.
            plain = (int, float, type(None))
            said = {name: value if isinstance(value, plain) else str(value) for name, value in said.items()}
            said.update(msg=text, args=None)
        return said

    def _connected(self) -> socket.socket:
        # A process that a task has forked needs another connection.
        if self._socket is None or self._process != os.getpid():
            self._socket, self._process = channel.connect(self._address), os.getpid()
        return self._socket


def _is_data(value: Any) -> bool:
    """Whether a value consists of texts, numbers and containers of these, which formatters for JSON write."""
    if type(value) is dict:
        return all(map(_is_data, value)) and all(map(_is_data, value.values()))
    if type(value) in (list, tuple):
        return all(map(_is_data, value))
    return type(value) in (str, bytes, int, float, bool, type(None))


def install(address: channel.Address, only_if_bare: bool) -> None:
    """Forwards the records of this worker. `only_if_bare`: does nothing if the root logger has a handler."""
    if only_if_bare and logging.root.handlers:
        return
    logging.root.addHandler(Forward(address))
