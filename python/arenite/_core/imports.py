"""The modules that workers have imported. A new worker imports them before its first task, so that the deadline of a
task does not include the time of imports.

The names are in a memory file of the program, which workers open by its descriptor there. A worker appends the imports
of a task that has succeeded: so a module that ends the process when it is imported is never in the file.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The seconds between two reads of the file by a worker without a task.
_PAUSE = 0.1

_file = -1
#: The number of bytes read from the file.
_read = 0
#: The number of loaded modules at the last check, and their names.
_count = 0
_names: set[str] = set()
#: Whether the first task has begun. The lock is `_importing`; imports before the first task happen under it.
_is_used = False
_importing = allocate_lock()


_NAME = "arenite-imports"


def make() -> int:
    """Makes the file, in the program."""
    return os.memfd_create(_NAME, os.MFD_CLOEXEC)


def begin(path: str, waits: bool) -> None:
    """Imports the modules in the file, in a worker. `waits`: repeats this until the worker gets a task."""
    global _file
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return  # This process may not open descriptors of the program.
    # After the executor was dropped, the descriptor may be that of another file of the program.
    if not os.readlink(f"/proc/self/fd/{file}").startswith(f"/memfd:{_NAME} "):
        os.close(file)
        return
    _file = file
    with _importing:
        _catch_up()
        note_loaded()
    if waits:
        import threading

        threading.Thread(target=_wait, name="arenite-imports", daemon=True).start()


def note_loaded() -> None:
    """Notes the modules that are loaded already: they are not imports of tasks. Called in a template, too, so that its
    copies need not look at them."""
    global _count
    if _count != len(sys.modules):
        _names.update(sys.modules)
        _count = len(sys.modules)


def end() -> None:
    """Called before a task: imports missing modules before the first task, and none after that. Two threads that import
    modules which import each other may deadlock."""
    global _is_used
    if not _is_used:
        with _importing:
            if not _is_used and _file >= 0:
                _catch_up()
            _is_used = True


def note() -> None:
    """Called after a task that has succeeded: appends its imports to the file."""
    global _count
    if _file < 0 or len(sys.modules) == _count:
        return
    _count = len(sys.modules)
    try:
        new = [name for name, module in sys.modules.copy().items() if name not in _names and _is_found(module)]
        _names.update(sys.modules)
        if new:
            os.write(_file, "".join(f"{name}\n" for name in new).encode())
    except Exception:
        pass  # The imports of a task do not make it fail.


def _is_found(module: Any) -> bool:
    try:
        # Not `getattr`, which may run code of the program: that loads modules, or raises.
        spec = object.__getattribute__(module, "__dict__").get("__spec__")
        return spec is not None and spec.origin is not None and not spec.name.startswith(("arenite.", "__"))
    except Exception:
        return False  # The task has stored something else there.


def _catch_up() -> None:
    """Imports modules that were added to the file."""
    global _read
    try:
        data = os.pread(_file, max(0, os.fstat(_file).st_size - _read), _read)
    except OSError:
        return  # A sandbox may refuse the call.
    if not data:
        return
    # Another worker may be writing: ignores an incomplete line.
    whole = data[: data.rfind(b"\n") + 1]
    _read += len(whole)
    for name in whole.decode().splitlines():
        try:
            __import__(name)
        except BaseException:
            pass  # A task that imports the module gets the error.
    note_loaded()


def _wait() -> None:
    import threading

    pause = threading.Event()
    while not _is_used and not pause.wait(_PAUSE):
        with _importing:
            if not _is_used:
                _catch_up()
