"""The packets of a service: values as JSON and memory files, see docs/service-protocol.md."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

from . import _memory_files as memory_files
from ._memory_files import MAX_PACKET

MAX_FILES = 200
#: The number of files that Linux sends with a packet. With more, some would be lost without a notice.
MOST_FILES = 253
#: The bytes up to which content is copied instead of mapped: copied content takes no descriptor.
_SMALL = 64 << 10
#: The bytes of a text in a packet; a longer text is sent as a file. The second limit is for packets that are too long
#: with the first. With it, the answers to all calls that a client may have open fit into the buffer of its socket.
_SHORT_TEXTS = (1024, 64)
_MAX_DIMS = 64
_SIZES = {"|b1": 1, "|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<f2": 2, "<i4": 4, "<u4": 4, "<f4": 4}
_SIZES |= {"<i8": 8, "<u8": 8, "<f8": 8, "<c8": 8, "<c16": 16}
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
#: The number of a call.
_ID = re.compile(rb'"id"\s*:\s*(-?\d{1,18})\s*[,}]')
#: Errors of a process without descriptors, memory, or room in sockets.
LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS, errno.ENOBUFS)


class DoesNotFit(ValueError):
    """Values that need a longer packet, or more files, than allowed."""

    def __init__(self) -> None:
        super().__init__(
            f"values do not fit a packet of {MAX_PACKET} bytes with {MAX_FILES} files: use an array instead of a list"
        )


class _Files(list[int]):
    """The files of a packet. A value may refer to one array thousands of times: checks limits before files are made."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        #: The bytes that further files may have.
        self._left = most
        #: The number of values in lists.
        self._listed = 0

    def make_room(self, nbytes: int) -> None:
        """Called before a file of this length is made."""
        if len(self) >= MAX_FILES:
            raise DoesNotFit
        if self._left is not None:
            self._left -= nbytes
            if self._left < 0:
                raise MemoryError("its arrays, each counted as often as it occurs, take more than shared memory has")

    def make_list(self, count: int) -> None:
        """Called before a list of this length is made: each value takes a byte and a comma."""
        self._listed += count
        if 2 * self._listed > MAX_PACKET:
            raise DoesNotFit


def encode(value: Any, files: _Files, longest: int) -> Any:
    """Returns the JSON form of a value. Adds the files of the value to `files`; the caller closes them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, str):
        text = value.encode()
        if len(text) <= longest:
            return str(value)
        files.make_room(len(text))
        files.append(_file_of(memoryview(text)))
        return {"kind": "bytes", "text": True}
    if isinstance(value, (list, tuple)):
        files.make_list(len(value))
        return [encode(item, files, longest) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a service takes and returns dictionaries with keys of text")
        return {"dict": {key: encode(item, files, longest) for key, item in value.items()}}
    if hasattr(value, "__array__"):
        return _encode_array(value, files, longest)
    try:
        content = memoryview(value)
    except TypeError:
        known = "None, numbers, text, bytes, numpy arrays, and lists and dictionaries of these"
        raise TypeError(f"a service takes and returns {known}, no {type(value).__name__}") from None
    files.make_room(content.nbytes)
    files.append(_file_of(memoryview(content.tobytes()) if not content.c_contiguous else content.cast("B")))
    return {"kind": "bytes"}


def _encode_array(value: Any, files: _Files, longest: int) -> Any:
    import numpy

    if isinstance(value, numpy.generic) and isinstance(number := value.item(), (bool, int, float, str, bytes)):
        return encode(number, files, longest)
    array = numpy.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in _SIZES:
        raise TypeError(f"a service takes and returns arrays of numbers, not of {array.dtype}")
    files.make_room(array.nbytes)
    file = memory_files.create()
    files.append(file)
    if array.nbytes <= _SMALL:
        os.write(file, array.astype(dtype, copy=False).tobytes())
    else:
        with memory_files.map_new(file, array.nbytes) as mapped:
            target: Any = numpy.frombuffer(mapped, dtype).reshape(array.shape)
            numpy.copyto(target, array)
            # No object may refer to memory that is unmapped.
            del target
    memory_files.seal(file)
    return {"kind": "array", "dtype": dtype.str, "shape": list(array.shape)}


def _file_of(content: memoryview) -> int:
    file = memory_files.create()
    try:
        if len(content) <= _SMALL:
            os.write(file, content)
        else:
            with memory_files.map_new(file, len(content)) as mapped:
                mapped[:] = content  # type: ignore[assignment]
        memory_files.seal(file)
    except BaseException:
        os.close(file)
        raise
    return file


def pack(message: dict[str, Any], member: str, value: Any, most: int | None = None) -> tuple[bytes, list[int]]:
    """Returns a packet with a value as this member, and its files, which the caller closes. `most`: bytes of all
    files."""
    for longest in _SHORT_TEXTS:
        files = _Files(most)
        try:
            packet = to_json({**message, member: encode(value, files, longest)})
        except RecursionError:
            close(files)
            raise TypeError("lists are nested too deeply") from None
        except BaseException:
            close(files)
            raise
        if len(packet) <= MAX_PACKET and len(files) <= MAX_FILES:
            return packet, files
        close(files)
    raise DoesNotFit


def to_json(message: dict[str, Any], errors: str = "strict") -> bytes:
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors=errors)


def id_of(packet: bytes) -> int | None:
    """Returns the number of the call in a packet that cannot be read as JSON: its integers have too many digits, or its
    lists are nested too deeply."""
    found = _ID.search(packet)
    return None if found is None else int(found[1])


def close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def decode(value: Any, files: Iterator[int], of_bytes: Callable[[memoryview], Any]) -> Any:
    """Returns the value of its JSON form. Raises ValueError if it has none."""
    if isinstance(value, list):
        return [decode(item, files, of_bytes) for item in value]
    if not isinstance(value, dict):
        return value
    if (items := value.get("dict")) is not None:
        if not isinstance(items, dict):
            raise ValueError("a dictionary is no object")
        return {key: decode(item, files, of_bytes) for key, item in items.items()}
    if (name := value.get("float")) is not None:
        if not isinstance(name, str) or name not in _FLOATS:
            raise ValueError(f"the number {name!r:.20} is none of {', '.join(_FLOATS)}")
        return _FLOATS[name]
    kind, dtype, shape = value.get("kind"), value.get("dtype"), value.get("shape")
    length = None
    if kind == "array":
        if not isinstance(dtype, str) or dtype not in _SIZES:
            raise ValueError(f"the element type {dtype!r:.20}; known are {', '.join(_SIZES)}")
        if not isinstance(shape, list) or not all(type(extent) is int and extent >= 0 for extent in shape):
            raise ValueError("the shape of an array is a list of its extents")
        if len(shape) > _MAX_DIMS:
            raise ValueError(f"{len(shape)} dimensions; an array has at most {_MAX_DIMS}")
        length = math.prod(shape) * _SIZES[dtype]
    elif kind != "bytes":
        raise ValueError(f"the kind {kind!r:.20} is none of a value")
    file = next(files, None)
    if file is None:
        raise ValueError("there are fewer files than values that need one")
    content = _content(file, length)
    if kind == "array":
        return memory_files.as_array(content, dtype, shape)  # type: ignore[arg-type]
    copied = of_bytes(content)
    return str(copied, "utf-8") if value.get("text") is True else copied


def _content(file: int, length: int | None) -> memoryview:
    """Returns the content of a received file: copies it if it is small, otherwise maps it."""
    try:
        sealed = memory_files.is_sealed(file)
    except OSError:
        raise ValueError("a descriptor is none of a memory file (memfd_create)") from None
    if not sealed:
        raise ValueError("a file can still be changed: add the seals F_SEAL_WRITE, F_SEAL_GROW and F_SEAL_SHRINK")
    found = os.fstat(file)
    size = found.st_size
    if length not in (None, size):
        raise ValueError(f"a file of {size} bytes for an array of {length}")
    if found.st_blocks * 512 < size:
        raise ValueError(f"{found.st_blocks * 512} of {size} bytes of a file have memory: allocate all of it (fallocate)")
    try:
        return memoryview(os.pread(file, size, 0) if size <= _SMALL else memory_files.map_sealed(file, size))
    except OSError as error:
        if error.errno in LIMITS:
            raise
        raise ValueError(f"a file cannot be read: {error.strerror}") from None


def send(connection: socket.socket, packet: bytes, files: list[int]) -> None:
    if files:
        socket.send_fds(connection, [packet], files, socket.MSG_NOSIGNAL)
    else:
        connection.send(packet, socket.MSG_NOSIGNAL)
