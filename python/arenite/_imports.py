"""What workers have imported, so that a worker that replaces another one imports it before its first task, and no
deadline of a task pays for that.

The names are in a memory file of the program, which workers open by its descriptor there. A worker appends what a task
that has ended well has imported: what ends a process when it is imported is never in the list.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

# A worker imports this before its first task: see `_pickle`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds between two looks of a worker that has had no task.
_PAUSE = 0.1

_file = -1
#: How much of the file was read.
_read = 0
#: The number of loaded modules at the last look, and their names.
_count = 0
_names: set[str] = set()
#: The first task has begun. `_importing` is held while this module imports others before that.
_is_used = False
_importing = allocate_lock()


_NAME = "arenite-imports"


def make() -> int:
    """In the program: makes the file."""
    return os.memfd_create(_NAME, os.MFD_CLOEXEC)


def begin(path: str, waits: bool) -> None:
    """In a worker: imports what others have. `waits`: goes on doing so, until it gets a task."""
    global _file, _count
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return  # The program may not show it.
    # If the executor has been dropped, the number may be that of another file of the program.
    if not os.readlink(f"/proc/self/fd/{file}").startswith(f"/memfd:{_NAME} "):
        os.close(file)
        return
    _file = file
    with _importing:
        _catch_up()
        _names.update(sys.modules)
        _count = len(sys.modules)
    if waits:
        import threading

        threading.Thread(target=_wait, name="arenite-imports", daemon=True).start()


def end() -> None:
    """Before a task: imports what is missing before the first one, and nothing more after that. Two threads that import
    modules which import each other may each wait for the other."""
    global _is_used
    if not _is_used:
        with _importing:
            if not _is_used and _file >= 0:
                _catch_up()
            _is_used = True


def note() -> None:
    """After a task that has ended well."""
    global _count
    if _file < 0 or len(sys.modules) == _count:
        return
    _count = len(sys.modules)
    new = [name for name, module in list(sys.modules.items()) if name not in _names and _is_found(module)]
    _names.update(sys.modules)
    if new:
        os.write(_file, "".join(f"{name}\n" for name in new).encode())


def _is_found(module: Any) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.origin is not None and not spec.name.startswith(("arenite.", "__"))


def _catch_up() -> None:
    """Imports what is new in the file."""
    global _read, _count
    try:
        data = os.pread(_file, max(0, os.fstat(_file).st_size - _read), _read)
    except OSError:
        return  # A sandbox may refuse it.
    if not data:
        return
    # Another worker may be writing.
    whole = data[: data.rfind(b"\n") + 1]
    _read += len(whole)
    for name in whole.decode().splitlines():
        try:
            __import__(name)
        except BaseException:
            pass  # The task that imports it says why.
    _names.update(sys.modules)
    _count = len(sys.modules)


def _wait() -> None:
    import threading

    pause = threading.Event()
    while not _is_used and not pause.wait(_PAUSE):
        with _importing:
            if not _is_used:
                _catch_up()
