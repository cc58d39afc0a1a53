"""Prepares a worker for its sandbox.

The engine protects the program by seccomp and Landlock, also against native code. This module helps honest code: it
imports in advance the modules that others import when they are first used, and it makes refused actions of Python code
raise an exception with the reason, instead of ending the worker or raising "No module named".
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Modules that functions of the standard library and of this package import when they are first called, and modules
#: that tasks usually have.
_MODULES = (
    "arenite._errors arenite._core.plain arenite._core.retry base64 bisect collections copy csv dataclasses "
    "datetime decimal enum fractions functools hashlib heapq io itertools json linecache math operator queue random "
    "re resource secrets statistics string struct textwrap threading time traceback types typing uuid zlib "
    "_strptime"
)
_ENCODINGS = "ascii cp1252 idna latin_1 raw_unicode_escape unicode_escape utf_8_sig utf_16 utf_16_be utf_16_le utf_32"
#: For each module: parts that it imports when they are first used. They are imported in advance if it is loaded.
_PARTS = {
    "numpy": "fft lib.format linalg ma random strings",
    "PIL": "ExifTags Image ImageFile ImageOps",
}

#: Audit events of Python that are refused, and the sandbox's part of the message. Without this, seccomp ends the worker
#: or returns an error without a reason.
_REFUSED = {
    "open": "opens no files",
    "os.listdir": "reads no folders",
    "os.scandir": "reads no folders",
    "os.mkdir": "changes no files",
    "os.remove": "changes no files",
    "os.rename": "changes no files",
    "os.rmdir": "changes no files",
    "os.truncate": "changes no files",
    "os.chdir": "opens no files",
    "os.exec": "starts no programs",
    "os.fork": "starts no processes",
    "os.forkpty": "starts no processes",
    "os.posix_spawn": "starts no programs",
    "os.system": "starts no programs",
    "subprocess.Popen": "starts no programs",
    "os.kill": "sends no signals",
    "os.killpg": "sends no signals",
    "signal.pthread_kill": "sends no signals",
    "socket.__new__": "opens no sockets",
    "socket.getaddrinfo": "opens no sockets",
    "socket.gethostbyname": "opens no sockets",
    "ctypes.dlopen": "loads no libraries",
    "mmap.__new__": "maps no files",
    "resource.setrlimit": "sets no limits",
    "resource.prlimit": "sets no limits",
    "sys.remote_exec": "runs no other processes",
}


class _Finder:
    """Replaces the finders of the search path: raises an error that names the missing module."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        raise ModuleNotFoundError(
            f"module {name!r} is not loaded in this worker, and the sandbox opens no files: name it in "
            f"Executor(preload=[{name!r}])",
            name=name,
        )


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    refused = _REFUSED.get(event)
    if refused is None:
        return
    first = arguments[0] if arguments else None
    if event == "ctypes.dlopen" and not first:
        return  # The program itself, which is loaded already.
    if event == "os.kill" and first == os.getpid():
        return
    what = event.removesuffix(".__new__")
    # Numbers are descriptors. Addresses are not shown.
    named = first if isinstance(first, (str, bytes, os.PathLike)) else None
    text = f"the sandbox of this worker {refused} ({what})"
    raise PermissionError(errno.EACCES, text) if named is None else PermissionError(errno.EACCES, text, named)


def prepare() -> None:
    """Loads what tasks may need. This is the last step that opens files."""
    for name in _MODULES.split():
        importlib.import_module(name)
    for name in _ENCODINGS.split():
        importlib.import_module(f"encodings.{name}")
    for module, parts in _PARTS.items():
        if module in sys.modules:
            for part in parts.split():
                try:
                    importlib.import_module(f"{module}.{part}")
                except ModuleNotFoundError:
                    pass  # Another version has the module elsewhere.
    if "numpy" in sys.modules:
        importlib.import_module("arenite._core.arrays")
    image = sys.modules.get("PIL.Image")
    if image is not None:
        image.init()  # type: ignore[attr-defined]
    # Reads the time zone from its file.
    import time

    time.localtime()


def close() -> None:
    """From now on, Python code that does what the sandbox refuses gets an exception."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, _Finder]
    sys.addaudithook(_audit)
