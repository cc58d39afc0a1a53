"""Named objects in shared memory, for all programs of a user on one machine: a client of `arenite serve`.

With a server that runs:

    store = arenite.connect("main")
    store["prices"] = numpy.arange(1e6)            # copied in once; replaces what has the name
    arenite.connect("main")["prices"].mean()       # another program: mapped, not copied; read-only

Tasks of an executor take what comes out of a store without a copy: their workers map it as well.

This file needs nothing but Python's standard library, and numpy or pyarrow for objects of theirs: it is a complete
client of the protocol in docs/store-protocol.md. Only executors need the rest of the package.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import mmap
import os
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Iterator, MutableMapping
from math import prod
from typing import Any

try:
    from ._arenite import map_file
except ImportError:
    map_file = None  # type: ignore[assignment]

_PROTOCOL = 1
_MAX_PACKET = 64 << 10
_PATIENCE = 30
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


class StoreError(Exception):
    """A call to a store failed. The message says why, and what to do."""


class NotRunning(StoreError, ConnectionError):
    """No server of this name runs, or it ended. Arrays from it remain usable."""


class NoObject(StoreError, KeyError):
    """There is no object of this name."""

    def __str__(self) -> str:
        # That of KeyError quotes its argument.
        return Exception.__str__(self)


class ObjectExists(StoreError):
    """There is an object of this name already."""


class StoreFull(StoreError, MemoryError):
    """The store has no room: `requested`, `free` and `capacity` say how much, in bytes."""

    def __init__(self, message: str, requested: int = 0, free: int = 0, capacity: int = 0) -> None:
        super().__init__(message)
        self.requested = requested
        self.free = free
        self.capacity = capacity


#: For `os.register_at_fork`.
_stores: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()


def connect(name: str = "main") -> Store:
    """Connect to the store of this name, or to the socket at a path."""
    return Store(name)


class Store(MutableMapping[str, Any]):
    """A store, as a mapping of names to objects.

    What comes out is mapped and read-only: numpy arrays, `pyarrow.Table`s, or `memoryview`s of bytes. It remains usable
    after its removal and after the server's end. Threads may share a store; a forked process connects by itself.
    """

    def __init__(self, name: str) -> None:
        #: The store's name.
        self.name = name
        self._socket: socket.socket | None = None
        #: Leases that the server is to be told the end of.
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
            return _array(content, info["dtype"], info["shape"])
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
        """Copy a value into the store under this name, and return what `objects` says of it.

        A numpy array (and what has its interface) becomes an array; what has `__arrow_c_stream__` (a pyarrow or polars
        table) an Arrow stream; bytes and what has a buffer of bytes, bytes. Raise `ObjectExists` if the name is taken,
        unless `replace`.
        """
        if hasattr(value, "__arrow_c_stream__"):
            return self._put_arrow(name, value, replace)
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

    def draft(self, shape: int | tuple[int, ...], dtype: Any = "<f8") -> Draft:
        """Begin an array: memory that only this process has until it is published. Fill `draft.array`."""
        import numpy

        dtype = numpy.dtype(dtype).newbyteorder("<")
        if dtype.hasobject or dtype.names is not None:
            raise TypeError(f"a store keeps arrays of numbers, not of {dtype}")
        extents = (shape,) if isinstance(shape, int) else tuple(int(extent) for extent in shape)
        kind = {"kind": "array", "dtype": dtype.str, "shape": list(extents)}
        return Draft(self, kind, prod(extents) * dtype.itemsize)

    def objects(self) -> list[dict[str, Any]]:
        """All objects, by name: name, kind, dtype, shape, bytes, created, leases, pid and program of the maker."""
        found: list[dict[str, Any]] = []
        while True:
            page, _ = self._ask({"op": "ls", "after": found[-1]["name"] if found else ""})
            found += page["items"]
            if not page["more"]:
                return found

    def info(self) -> dict[str, Any]:
        """The store as a whole: name, pid, capacity, used and retained bytes, objects, clients, protocol, version."""
        return self._ask({"op": "info"})[0]

    def stop(self) -> None:
        """End the server. Arrays from it remain usable."""
        self._ask({"op": "stop"})

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.name,)

    def _after_fork(self) -> None:
        """Begins without a connection. In a forked process, the parent's stays the parent's."""
        self._lock = threading.Lock()
        self._disconnect()

    def close(self) -> None:
        """Close the connection; the next call opens it again. What was mapped remains usable."""
        with self._lock:
            self._disconnect()

    def __repr__(self) -> str:
        return f"arenite.connect({self.name!r})"

    def _put_arrow(self, name: str, value: Any, replace: bool) -> dict[str, Any]:
        import pyarrow

        table = pyarrow.table(value)
        # Its length first, so that the stream is written once, into the object.
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
        """Sends a request, and returns its answer with the descriptor that came with it."""
        text = json.dumps(request).encode()
        with self._lock:
            connection = self._connection()
            try:
                # A server that refuses this client has said why before it hung up.
                with contextlib.suppress(BrokenPipeError):
                    self._end_leases(0)
                    socket.send_fds(connection, [text], [] if file is None else [file])
                try:
                    data, files, _, _ = socket.recv_fds(connection, _MAX_PACKET, 4, socket.MSG_CMSG_CLOEXEC)
                except ConnectionResetError:
                    # What the server had sent before comes after this error.
                    data, files, _, _ = socket.recv_fds(connection, _MAX_PACKET, 4, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                self._disconnect()
                raise StoreError(f"the server of {self.name} has not answered for {_PATIENCE} s; is it stopped?") from None
            except ConnectionError:
                data, files = b"", []
            except BaseException:
                # The answer would be taken for that of the next request.
                self._disconnect()
                raise
            if not data:
                self._disconnect()
                raise NotRunning(_not_running(self.name))
        answer = json.loads(data)
        if "error" in answer:
            raise _failure(answer)
        return answer, files[0] if files else None

    def _release(self, id: int, connection: socket.socket | None) -> None:
        """Ends a lease, when what was mapped is gone."""
        self._ended.append((id, connection))
        # Called by the garbage collector at any moment, perhaps in a thread that holds the lock: then the next request
        # does it.
        if self._lock.acquire(blocking=False):
            try:
                self._end_leases(socket.MSG_DONTWAIT)
            except OSError:
                pass
            finally:
                self._lock.release()

    def _end_leases(self, flags: int) -> None:
        """Tells the server. Those of an earlier connection ended with it."""
        while self._ended:
            id, connection = self._ended[0]
            if connection is not None and connection is self._socket:
                connection.send(json.dumps({"op": "release", "id": id}).encode(), flags | socket.MSG_NOSIGNAL)
            self._ended.popleft()

    def _connection(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        try:
            self._socket = _dial(_path(self.name))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(_not_running(self.name)) from None
        except OtherUser as error:
            raise StoreError(str(error)) from None
        return self._socket

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
        self._file = _memory_file()
        self._close = weakref.finalize(self, os.close, self._file)
        self._mapped = _map_new(self._file, length) if length else None
        #: The bytes, zeros at first.
        self.memory = memoryview(bytearray() if self._mapped is None else self._mapped)
        #: The array, if it is one.
        self.array: Any = None
        if kind["kind"] == "array":
            self.array = _array(self.memory, kind["dtype"], kind["shape"])

    def publish(self, name: str, *, replace: bool = False) -> dict[str, Any]:
        """Make it the object of this name, which no process can change any more. Copies nothing.

        References to `array` and `memory`, and to parts of them, must be gone. What failed for its name or for want of
        room can be published again.
        """
        self.array = None
        self.memory.release()
        if self._mapped is not None:
            try:
                self._mapped.close()
            except BufferError:
                raise StoreError(
                    "the draft's memory is still referred to: delete the variables that hold its array or parts of it"
                ) from None
        if not _is_sealed(self._file):
            _seal(self._file)
        request = {"op": "put", "name": name, "replace": replace, **self._kind}
        info, _ = self._store._ask(request, self._file)
        self._close()
        return info


class OtherUser(Exception):
    """The server at a path belongs to another user."""


def _dial(path: str) -> socket.socket:
    """Connects to the server at a path, which has to be of this user. Calls that wait for too long fail with EAGAIN."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _PATIENCE, 0))
        connection.connect(path)
        _, owner = _peer(connection)
        if owner != os.geteuid():
            raise OtherUser(f"the server at {path} belongs to another user ({owner})")
    except BaseException:
        connection.close()
        raise
    return connection


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user


def _memory_file() -> int:
    return os.memfd_create("arenite-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _map_new(file: int, length: int) -> mmap.mmap:
    """A new memory file, mapped for writing."""
    # With memory for all of it: a lack is an error here, and no SIGBUS later.
    os.posix_fallocate(file, 0, length)
    mapped = mmap.mmap(file, length, mmap.MAP_SHARED)
    # A forked process would keep it mapped for writing, which prevents sealing.
    mapped.madvise(mmap.MADV_DONTFORK)
    return mapped


def _seal(file: int) -> None:
    """Makes a memory file unchangeable. It must not be mapped for writing any more."""
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)


def _is_sealed(file: int) -> bool:
    return fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS


def _map_sealed(file: int, length: int) -> Any:
    if map_file is not None:
        # Known to executors, which pass it to their tasks.
        return map_file(file)
    if sys.version_info >= (3, 13):
        return mmap.mmap(file, length, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
    # Keeps a descriptor of its own.
    return mmap.mmap(file, length, mmap.MAP_SHARED, mmap.PROT_READ)


def _map(name: str, file: int | None, length: int) -> Any:
    """A received object, or None if it has no bytes."""
    if file is None:
        raise StoreError("the descriptor did not arrive; raise the limit on open files (ulimit -n)")
    if not _is_sealed(file) or os.fstat(file).st_size != length:
        raise StoreError(f"the server sent a file for {name} that can still be changed")
    if not length:
        return None
    try:
        return _map_sealed(file, length)
    except OSError as error:
        raise StoreError(f"{name} cannot be mapped: {error.strerror} (see ulimit -n, ulimit -v)") from error


def _array(content: memoryview, dtype: str, shape: list[int]) -> Any:
    import numpy

    return numpy.frombuffer(content, dtype).reshape(shape)


def _path(name: str) -> str:
    if "/" in name:
        return name
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{runtime}/arenite" if runtime.startswith("/") else f"/tmp/arenite-{os.geteuid()}"
    return f"{folder}/{name}.sock"


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
