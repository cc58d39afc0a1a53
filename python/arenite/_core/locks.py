"""Locks that any code of the program may meet: a signal handler, a finalizer that the garbage collector runs, or a
child made by `fork()`."""

from __future__ import annotations

import _thread
import os
from weakref import WeakSet

_locks: WeakSet[_thread.RLock] = WeakSet()


def lock() -> _thread.RLock:
    """Makes a reentrant lock. In a child made by `fork()` it is free, unless the thread that lives on in the child holds
    it: other threads will never release it."""
    made = _thread.RLock()
    _locks.add(made)
    return made


def _after_fork() -> None:
    for one in _locks:
        if one.acquire(False):
            one.release()
        else:
            one._at_fork_reinit()  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_after_fork)
