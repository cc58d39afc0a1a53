"""The executor of a table: the one that the caller gives, or one for the whole process."""

from __future__ import annotations

import os
import threading

from .. import _arenite
from .._core import pickling
from .._core.executor import Configured, Executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core.future import Future

_default: Executor | None = None
_lock = threading.Lock()


def default() -> Executor:
    """Returns the executor of calls without an executor: a worker for each core. It ends with the program."""
    global _default
    with _lock:
        if _default is None or _default._is_closed:
            if _arenite.is_worker():
                # A task cannot start workers.
                _default = Executor(0)
            else:
                _default = Executor(preload=["arenite.tables"], output="plain")
        return _default


def _after_fork() -> None:
    """Called in a child made by `fork()`: the parent owns the executor."""
    global _default, _lock
    _default, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def configured(executor: Executor | Configured | None) -> Configured:
    """Returns the executor with its options for tasks."""
    if isinstance(executor, Configured):
        return executor
    return Configured(default() if executor is None else executor, {})


def urgent(tasks: Configured) -> Configured:
    """Returns options for tasks on which other tasks depend, and that may run again."""
    given = {"priority": 0, "retries": 0, **tasks._settings}
    given |= {"priority": given["priority"] + 1, "retries": max(2, given["retries"])}
    return Configured(tasks._executor, given)


def workers(tasks: Configured) -> int:
    return tasks._executor._slots


def is_sandboxed(tasks: Configured) -> bool:
    """Whether workers cannot open files, and their data is not trusted."""
    return tasks._executor._load.__module__ == "arenite._core.plain"


class Caller:
    """Submits calls of one function, which is pickled once."""

    def __init__(self, tasks: Configured, function: Any, name: str) -> None:
        self._tasks, self._function, self._name = tasks, function, name
        executor = tasks._executor
        executor._check_open()
        if not executor._inline:
            pickled = pickling.pickle_function(function, executor._definitions, executor._private)
            executor._engine.count_copied(pickled.copied)
            pickled.copied = 0
            self._function = pickled

    def __call__(self, *arguments: Any) -> Future[Any]:
        future = self._tasks._executor._submit(self._tasks, self._function, arguments, {}, self._name)
        # Arrow reads parts in place, and writes to none.
        future._private = False
        return future
