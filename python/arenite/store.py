"""Named objects in shared memory, for all programs of a user on one machine: a client of `arenite serve`.

While a server runs:

    store = arenite.connect("main")
    store["prices"] = numpy.arange(1e6)            # copied in once; replaces what has the name
    arenite.connect("main")["prices"].mean()       # another program: mapped, not copied; read-only

Tasks of an executor take objects of a store without a copy: their workers map these objects, too.

This file and `_memory_files.py` need only the standard library of Python, and numpy or pyarrow for their objects: they
are a complete client of the protocol in docs/store-protocol.md. Only executors need the rest of the package.
"""

from __future__ import annotations

import collections
import contextlib
import json
import operator
import os
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from math import prod
from typing import Any, SupportsIndex

from . import _memory_files as memory_files

_PROTOCOL = 1
#: An answer comes with one file at most.
_MOST_FILES = 4


class StoreError(Exception):
    """A call to a store failed. The message gives the reason, and advice."""


class NotRunning(StoreError, ConnectionError):
    """No server with this name runs, or it has ended. Its arrays remain usable."""


class NoObject(StoreError, KeyError):
    """No object has this name."""

    def __str__(self) -> str:
        # `KeyError.__str__` would quote the message.
        return Exception.__str__(self)


class ObjectExists(StoreError):
    """An object has this name already."""


class StoreFull(StoreError, MemoryError):
    """The store has no room: see `requested`, `free` and `capacity`, in bytes."""

    def __init__(self, message: str, requested: int = 0, free: int = 0, capacity: int = 0) -> None:
        super().__init__(message)
        self.requested = requested
        self.free = free
        self.capacity = capacity


#: For `os.register_at_fork`.
_stores: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()


def connect(name: str = "main") -> Store:
    """Connect to the store with this name, or to the socket at a path."""
    return Store(name)


class Store(MutableMapping[str, Any]):
    """A store, as a mapping of names to objects.

    Values are mapped and read-only: numpy arrays, `pyarrow.Table`s, or `memoryview`s of bytes. They remain usable after
    their removal and after the server's end. Threads may share a store; a forked process opens a new connection.
    """

    def __init__(self, name: str) -> None:
        #: The store's name.
        self.name = name
        self._socket: socket.socket | None = None
        #: Leases whose end was not reported to the server yet.
        self._ended: collections.deque[tuple[int, socket.socket | None]] = collections.deque()
        self._after_fork()
        _stores[id(self)] = self
        protocol = self.info()["protocol"]
        if protocol != _PROTOCOL:
            raise StoreError(f"the server speaks version {protocol} of the protocol, and this client {_PROTOCOL}")

    def __getitem__(self, name: str) -> Any:
        info, file = self._ask({"op": "get", "name": name})
        connection = self._socket
        mapped = None
        try:
            mapped = _map(name, file, info["bytes"])
        finally:
            if file is not None:
                os.close(file)
            if mapped is None:
                self._release(info["id"], connection)
        content = memoryview(b"")
        if mapped is not None:
            weakref.finalize(mapped, self._release, info["id"], connection).atexit = False
            content = memoryview(mapped)
        if info["kind"] == "array":
            return memory_files.as_array(content, info["dtype"], info["shape"])
        if info["kind"] == "arrow":
            import pyarrow.ipc

            with pyarrow.ipc.open_stream(pyarrow.py_buffer(content)) as reader:
                return reader.read_all()
        return content

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(name, value, replace=True)

    def __delitem__(self, name: str) -> None:
        self._ask({"op": "rm", "name": name})

    def __contains__(self, name: object) -> bool:
        return any(known == name for known in self)

    def __iter__(self) -> Iterator[str]:
        return (info["name"] for info in self.objects())

    def __len__(self) -> int:
        count: int = self.info()["objects"]
        return count

    def put(self, name: str, value: Any, *, replace: bool = False) -> dict[str, Any]:
        """Copy a value into the store under this name. Return its entry in `objects`.

        A numpy array (or an object with its interface, such as a Series) is stored as an array, a table with
        `__arrow_c_stream__` (of pyarrow, pandas or polars) as an Arrow stream, and an object with a buffer of bytes as
        bytes. Raise `ObjectExists` if the name is taken, unless `replace`.
        """
        if hasattr(value, "__arrow_c_stream__") and (table := _table_of(value)) is not None:
            return self._put_arrow(name, table, replace)
        if isinstance(value, (bytes, bytearray, memoryview)):
            content = memoryview(value).cast("B")
            draft = Draft(self, {"kind": "bytes"}, len(content))
            draft.memory[:] = content
        else:
            import numpy

            array = numpy.asarray(value)
            draft = self.draft(array.shape, array.dtype)
            numpy.copyto(draft.array, array)
        return draft.publish(name, replace=replace)

    def wait(self, name: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until an object has this name, for `timeout` seconds at most. Return its entry in `objects`.

        The server answers when the object is published: nothing is polled. Raise `NoObject` if the time is over, and
        `NotRunning` if the server ends meanwhile. Other threads can use the store while one waits.
        """
        with contextlib.closing(self._dial()) as connection:
            if timeout is None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
            else:
                connection.settimeout(max(timeout, 0.001))
            try:
                with contextlib.suppress(BrokenPipeError):
                    connection.send(json.dumps({"op": "wait", "name": name}).encode(), socket.MSG_NOSIGNAL)
                data, _, _ = memory_files.receive(connection, _MOST_FILES)
            except TimeoutError:
                message = f'no object "{name}" appeared in the store {self.name} within {timeout} s'
                raise NoObject(message) from None
            except ConnectionError:
                data = b""
        return self._read(data)

    def draft(self, shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any = "<f8") -> Draft:
        """Begin an array in memory that only this process can access until it is published. Fill `draft.array`."""
        import numpy

        dtype = numpy.dtype(dtype).newbyteorder("<")
        if dtype.hasobject or dtype.names is not None:
            raise TypeError(f"a store keeps arrays of numbers, not of {dtype}")
        extents = tuple(map(operator.index, shape if isinstance(shape, Iterable) else (shape,)))
        if any(extent < 0 for extent in extents):
            raise ValueError(f"the extents of an array are not negative: {extents}")
        kind = {"kind": "array", "dtype": dtype.str, "shape": list(extents)}
        return Draft(self, kind, prod(extents) * dtype.itemsize)

    def objects(self) -> list[dict[str, Any]]:
        """All objects, by name: name, kind, dtype, shape, bytes, created, leases, pid and program of the creator."""
        found: list[dict[str, Any]] = []
        while True:
            page, _ = self._ask({"op": "ls", "after": found[-1]["name"] if found else ""})
            found += page["items"]
            if not page["more"]:
                return found

    def info(self) -> dict[str, Any]:
        """Information on the store: name, pid, capacity, used and retained bytes, objects, clients, protocol,
        version."""
        return self._ask({"op": "info"})[0]

    def stop(self) -> None:
        """End the server. Its arrays remain usable."""
        self._ask({"op": "stop"})

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.name,)

    def _after_fork(self) -> None:
        """Starts without a connection in a forked process, whose parent owns the open one."""
        self._lock = threading.Lock()
        self._disconnect()

    def close(self) -> None:
        """Close the connection. The next call opens it again. Mapped objects remain usable."""
        with self._lock:
            self._disconnect()

    def __repr__(self) -> str:
        return f"arenite.connect({self.name!r})"

    def _put_arrow(self, name: str, table: Any, replace: bool) -> dict[str, Any]:
        import pyarrow

        # Computes the length first, so that the stream is written once, directly into the object.
        sink = pyarrow.MockOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        draft = Draft(self, {"kind": "arrow"}, sink.size())
        with pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(draft.memory)) as out:
            with pyarrow.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
        del out, writer
        return draft.publish(name, replace=replace)

    def _ask(self, request: dict[str, Any], file: int | None = None) -> tuple[dict[str, Any], int | None]:
        """Sends a request. Returns the answer, and the descriptor that came with the answer."""
        text = json.dumps(request).encode()
        with self._lock:
            connection = self._connection()
            try:
                # A server that refuses this client has sent its reason before it closed the connection.
                with contextlib.suppress(BrokenPipeError):
                    self._end_leases(0)
                    socket.send_fds(connection, [text], [] if file is None else [file])
                data, files, _ = memory_files.receive(connection, _MOST_FILES)
            except BlockingIOError:
                self._disconnect()
                message = f"the server of {self.name} has not answered for {memory_files.PATIENCE} s; is it stopped?"
                raise StoreError(message) from None
            except ConnectionError:
                data, files = b"", []
            except BaseException:
                # Disconnects: otherwise the answer would be taken for the answer of the next request.
                self._disconnect()
                raise
            if not data:
                self._disconnect()
        return self._read(data), files[0] if files else None

    def _read(self, data: bytes) -> dict[str, Any]:
        """Returns an answer; raises its error. An empty packet: the server has ended."""
        if not data:
            raise NotRunning(_not_running(self.name))
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise _failure(answer)
        return answer

    def _release(self, id: int, connection: socket.socket | None) -> None:
        """Ends a lease after its mapping is gone."""
        self._ended.append((id, connection))
        # The garbage collector may call this at any moment, also in a thread that has the lock: then the next request
        # reports the end.
        if self._lock.acquire(blocking=False):
            try:
                self._end_leases(socket.MSG_DONTWAIT)
            except OSError:
                pass
            finally:
                self._lock.release()

    def _end_leases(self, flags: int) -> None:
        """Reports ended leases to the server. Leases of an earlier connection have ended with it."""
        while self._ended:
            id, connection = self._ended[0]
            if connection is not None and connection is self._socket:
                connection.send(json.dumps({"op": "release", "id": id}).encode(), flags | socket.MSG_NOSIGNAL)
            self._ended.popleft()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._dial()
        return self._socket

    def _dial(self) -> socket.socket:
        try:
            return memory_files.dial(memory_files.socket_path(self.name))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(_not_running(self.name)) from None
        except memory_files.OtherUser as error:
            raise StoreError(str(error)) from None

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Draft:
    """An object before it is published. A draft that is dropped, or whose process ends, leaves nothing behind."""

    def __init__(self, store: Store, kind: dict[str, Any], length: int) -> None:
        info = store.info()
        if length > info["capacity"]:
            free = max(info["capacity"] - info["used"], 0)
            raise StoreFull(
                f"the store is full: requested {length} bytes, free {free}, capacity {info['capacity']}; start the server "
                "with a larger --capacity",
                length,
                free,
                info["capacity"],
            )
        self._store = store
        self._kind = kind
        self._file = memory_files.create()
        self._close = weakref.finalize(self, os.close, self._file)
        self._mapped = memory_files.map_new(self._file, length) if length else None
        #: The bytes; zeros at first.
        self.memory = memoryview(bytearray() if self._mapped is None else self._mapped)
        #: The array, if the object is an array.
        self.array: Any = None
        if kind["kind"] == "array":
            self.array = memory_files.as_array(self.memory, kind["dtype"], kind["shape"])

    def publish(self, name: str, *, replace: bool = False) -> dict[str, Any]:
        """Make it the object with this name. No process can change it any more. Copies nothing.

        References to `array` and `memory`, and to parts of them, must not exist any more. If publishing fails for the
        name or for lack of room, it can be repeated. A draft is published once.
        """
        if not self._close.alive:
            # Another file may have its descriptor.
            raise StoreError("the draft was published already: begin another one")
        self.array = None
        self.memory.release()
        if self._mapped is not None:
            try:
                self._mapped.close()
            except BufferError:
                raise StoreError(
                    "the draft's memory is still referred to: delete the variables that hold its array or parts of it"
                ) from None
        if not memory_files.is_sealed(self._file):
            memory_files.seal(self._file)
        request = {"op": "put", "name": name, "replace": replace, **self._kind}
        info, _ = self._store._ask(request, self._file)
        self._close()
        return info


def _table_of(value: Any) -> Any:
    """Returns a `pyarrow.Table` of an object with `__arrow_c_stream__`; None if the object is a column, whose values are
    an array."""
    import pyarrow

    try:
        return pyarrow.table(value)
    except pyarrow.ArrowInvalid as error:
        try:
            column = pyarrow.chunked_array(value)
        except pyarrow.ArrowException:
            raise error from None
    if column.null_count and not pyarrow.types.is_floating(column.type):
        raise TypeError("an array of a store has no nulls: fill them, or put a table with this column")
    return None


def _map(name: str, file: int | None, length: int) -> Any:
    """Returns a received object; None if it has no bytes."""
    if file is None:
        raise StoreError("the descriptor did not arrive; raise the limit on open files (ulimit -n)")
    if not memory_files.is_sealed(file) or os.fstat(file).st_size != length:
        raise StoreError(f"the server sent a file for {name} that can still be changed")
    if not length:
        return None
    try:
        return memory_files.map_sealed(file, length)
    except OSError as error:
        raise StoreError(f"{name} cannot be mapped: {error.strerror} (see ulimit -n, ulimit -v)") from error


def _not_running(name: str) -> str:
    return f"no store {name} is served; start it with `arenite serve --name {name}`"


def _failure(answer: dict[str, Any]) -> StoreError:
    message = answer["message"]
    match answer["error"]:
        case "no_object":
            return NoObject(message)
        case "exists":
            return ObjectExists(message)
        case "full":
            return StoreFull(message, answer["requested"], answer["free"], answer["capacity"])
        case _:
            return StoreError(message)


def _after_fork() -> None:
    for store in list(_stores.values()):
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork)
