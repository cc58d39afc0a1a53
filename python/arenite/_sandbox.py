"""How a worker prepares itself for the sandbox.

The engine protects the program, with seccomp and Landlock, against native code too. This module helps honest code:
modules that import others when they are first used do so before, and what Python code cannot do raises an exception
that says so, instead of ending the worker or being reported as "No module named".
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

#: Modules that functions of the standard library and of this package import when they are first called, and those that
#: the code of tasks expects to find.
_MODULES = (
    "arenite._errors arenite._plain base64 bisect collections copy csv dataclasses datetime decimal enum "
    "fractions functools hashlib heapq io itertools json linecache math operator queue random re resource secrets statistics "
    "string struct textwrap threading time traceback types typing uuid zlib _strptime"
)
_ENCODINGS = "ascii cp1252 idna latin_1 raw_unicode_escape unicode_escape utf_8_sig utf_16 utf_16_be utf_16_le utf_32"
#: Parts that modules import when they are first used, if the module is loaded.
_PARTS = {
    "numpy": "fft lib.format linalg ma random strings",
    "PIL": "ExifTags Image ImageFile ImageOps",
}

#: Audit events of Python that are refused, and what the message says of the sandbox. Without it, seccomp ends the
#: worker or returns an error without a reason.
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
    """In the place of the search path: names the module that is missing."""

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
        return  # What is loaded already.
    if event == "os.kill" and first == os.getpid():
        return
    what = event.removesuffix(".__new__")
    # Numbers are descriptors, and addresses are of no interest.
    named = first if isinstance(first, (str, bytes, os.PathLike)) else None
    text = f"the sandbox of this worker {refused} ({what})"
    raise PermissionError(errno.EACCES, text) if named is None else PermissionError(errno.EACCES, text, named)


def prepare() -> None:
    """Loads what tasks may need. The last thing that opens files."""
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
                    pass  # Another version has it elsewhere.
    if "numpy" in sys.modules:
        importlib.import_module("arenite._arrays")
    image = sys.modules.get("PIL.Image")
    if image is not None:
        image.init()  # type: ignore[attr-defined]
    # The time zone, which is in a file.
    import time

    time.localtime()


def close() -> None:
    """Makes Python code that uses what the sandbox refuses raise an exception from now on."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, _Finder]
    sys.addaudithook(_audit)
