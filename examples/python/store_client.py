"""A client of `arenite serve` in the standard library alone, written from docs/store-protocol.md for other languages.

    python examples/python/store_client.py put NAME FILE
    python examples/python/store_client.py get NAME FILE
    python examples/python/store_client.py rm NAME
    python examples/python/store_client.py ls

The store is `main`, or the one that ARENITE_STORE names. For programs in Python there is `arenite.connect`.
"""

import contextlib
import fcntl
import json
import mmap
import os
import socket
import struct
import sys
from pathlib import Path

MAX_PACKET = 64 << 10
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
#: Types of elements: those of the protocol, and those of Python's buffers.
FORMATS = {"|b1": "?", "|i1": "b", "|u1": "B", "<i2": "h", "<u2": "H", "<i4": "i", "<u4": "I"}
FORMATS |= {"<i8": "q", "<u8": "Q", "<f4": "f", "<f8": "d"}
DTYPES = {format: dtype for dtype, format in FORMATS.items()} | {"l": "<i8", "L": "<u8"}


def connect(name):
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = f"{runtime}/arenite" if runtime else f"/tmp/arenite-{os.geteuid()}"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"{folder}/{name}.sock")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user != os.geteuid():
        raise PermissionError(f"the server of {name} belongs to user {user}")
    return connection


def receive(connection, most_files):
    """The next packet and its descriptors."""
    packet, files, _, _ = socket.recv_fds(connection, MAX_PACKET, most_files, socket.MSG_CMSG_CLOEXEC)
    if not packet:
        raise ConnectionError("the server has ended")
    return json.loads(packet), files


def kind_of(buffer):
    """What the protocol says of the content of a buffer: an array, or bytes."""
    if buffer.format == "B" and buffer.ndim == 1:
        return {"kind": "bytes"}
    return {"kind": "array", "dtype": DTYPES[buffer.format.lstrip("<")], "shape": list(buffer.shape)}


def sealed_file(buffer):
    """A memory file with the content of a buffer, which nobody can change any more."""
    file = os.memfd_create("object", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        if buffer.nbytes:
            os.posix_fallocate(file, 0, buffer.nbytes)
            with mmap.mmap(file, buffer.nbytes) as mapped:
                mapped[:] = buffer.cast("B")
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        return file
    except BaseException:
        os.close(file)
        raise


def map_file(file, value):
    """The content of a sealed file, mapped as a read-only buffer of the type and shape of the value."""
    size = os.fstat(file).st_size
    if fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS != SEALS or value.get("bytes", size) != size:
        raise ValueError("the file is not sealed, or not as long as it should be")
    content = memoryview(mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ) if size else b"")
    return content.cast(FORMATS[value["dtype"]], value["shape"]) if value["kind"] == "array" and size else content


class Store:
    def __init__(self, name="main"):
        self.socket = connect(name)
        info, _ = self.ask({"op": "info"})
        if info["protocol"] != 1 or "capacity" not in info:
            raise ConnectionError(f"{name} is no store that speaks version 1 of the protocol: {info}")
        self.capacity = info["capacity"]

    def ask(self, request, files=()):
        socket.send_fds(self.socket, [json.dumps(request).encode()], files)
        answer, files = receive(self.socket, 1)
        if "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer, files

    def put(self, name, value, replace=False):
        """Copies what has a buffer (bytes, an array of numpy) into a new object. Returns the object's entry."""
        buffer = memoryview(value)
        if buffer.nbytes > self.capacity:
            raise MemoryError(f"the store has {self.capacity} bytes, and {name} takes {buffer.nbytes}")
        file = sealed_file(buffer)
        try:
            return self.ask({"op": "put", "name": name, "replace": replace, **kind_of(buffer)}, [file])[0]
        finally:
            os.close(file)

    @contextlib.contextmanager
    def get(self, name):
        """An object as a buffer, until the end of the `with` block. No part of the buffer may remain in use."""
        entry, [file] = self.ask({"op": "get", "name": name})
        try:
            with map_file(file, entry) as content:
                yield content
        finally:
            os.close(file)
            self.socket.send(json.dumps({"op": "release", "id": entry["id"]}).encode())

    def remove(self, name):
        self.ask({"op": "rm", "name": name})

    def entries(self):
        last, more = "", True
        while more:
            page, _ = self.ask({"op": "ls", "after": last})
            yield from page["items"]
            more = page["more"]
            last = page["items"][-1]["name"] if page["items"] else last


def main(command, *arguments):
    store = Store(os.environ.get("ARENITE_STORE", "main"))
    match command, *arguments:
        case "put", name, file:
            store.put(name, Path(file).read_bytes(), replace=True)
        case "get", name, file:
            with store.get(name) as content:
                Path(file).write_bytes(content)
        case "rm", name:
            store.remove(name)
        case "ls",:
            for entry in store.entries():
                print(entry["name"], entry["kind"], entry["bytes"])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
