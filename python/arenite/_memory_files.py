"""Memory files, and the sockets of stores and services that send them. Needs only the standard library, and numpy for
arrays."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import sys
import weakref
from typing import Any

try:
    from ._arenite import map_file
except ImportError:
    map_file = None  # type: ignore[assignment]

MAX_PACKET = 64 << 10
#: The seconds that a client waits for a server to read or to answer.
PATIENCE = 30
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def create() -> int:
    """Returns the descriptor of a new memory file."""
    return os.memfd_create("arenite-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


#: New memory files that are mapped for writing.
_new: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def _after_fork() -> None:
    """Called in a forked process, which lacks the mappings: other memory may be at their addresses by the time that
    they are closed. So they are never closed there."""
    for mapped in list(_new):
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(mapped))


os.register_at_fork(after_in_child=_after_fork)


def map_new(file: int, length: int) -> mmap.mmap:
    """Returns a new memory file, mapped for writing."""
    # Allocates all memory now: a lack is an error here, not a later SIGBUS.
    os.posix_fallocate(file, 0, length)
    mapped = mmap.mmap(file, length, mmap.MAP_SHARED)
    # The mapping of a forked process would be writable, which would prevent sealing.
    mapped.madvise(mmap.MADV_DONTFORK)
    _new.add(mapped)
    return mapped


def seal(file: int) -> None:
    """Makes a memory file immutable. No writable mapping of the file may exist."""
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)


def is_sealed(file: int) -> bool:
    """Whether a memory file is immutable."""
    return fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS


def map_sealed(file: int, length: int) -> Any:
    """Returns a sealed memory file, mapped for reading."""
    if map_file is not None:
        # Executors know this mapping, and pass it to their tasks.
        return map_file(file)
    if sys.version_info >= (3, 13):
        return mmap.mmap(file, length, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
    # The mapping has its own descriptor.
    return mmap.mmap(file, length, mmap.MAP_SHARED, mmap.PROT_READ)


def as_array(content: memoryview, dtype: str, shape: list[int]) -> Any:
    """Returns the content of a memory file as a numpy array."""
    import numpy

    return numpy.frombuffer(content, dtype).reshape(shape)


class OtherUser(Exception):
    """The server at a path belongs to another user."""


def socket_path(name: str) -> str:
    """Returns the path of the socket of a store or a service; a name with "/" is a path."""
    if "/" in name:
        return name
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{runtime}/arenite" if runtime.startswith("/") else f"/tmp/arenite-{os.geteuid()}"
    return f"{folder}/{name}.sock"


def dial(path: str) -> socket.socket:
    """Connects to the server at a path, which must belong to this user. Calls that wait for too long fail with
    EAGAIN."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PATIENCE, 0))
        connection.connect(path)
        _, owner = peer(connection)
        if owner != os.geteuid():
            raise OtherUser(f"the server at {path} belongs to another user ({owner})")
    except BaseException:
        connection.close()
        raise
    return connection


def peer(connection: socket.socket) -> tuple[int, int]:
    """Returns the process and the user at the other end."""
    pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user


def receive(connection: socket.socket, most: int) -> tuple[bytes, list[int], int]:
    """Returns the next packet (empty at the end), its files, which the caller closes, and flags. `most`: the largest
    number of files."""
    try:
        data, files, flags, _ = socket.recv_fds(connection, MAX_PACKET, most, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # Data that the other end has sent before the error can still be received.
        data, files, flags, _ = socket.recv_fds(connection, MAX_PACKET, most, socket.MSG_CMSG_CLOEXEC)
    return data, files, flags
