"""The executor of a table: the one that the caller gives, or one for the whole process."""

from __future__ import annotations

import os

from .. import _arenite
from .._core import locks
from .._core.executor import Configured, Executor, executor_of, options_of, workers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core.future import Future

_default: Executor | None = None
_lock = locks.lock()


def default() -> Executor:
    """Returns the executor of calls without an executor: a worker for each core. It ends with the program."""
    global _default
    with _lock:
        before = _default
        if before is not None and not workers_of(before).is_closed:
            return before
        # A task cannot start workers.
        made = Executor(0) if _arenite.is_worker() else Executor(preload=["arenite.tables"], output="plain")
        if _default is None or _default is before:
            _default = made
        else:
            # A signal handler has called this meanwhile.
            made.shutdown(wait=False)
        return _default


def _after_fork() -> None:
    """Called in a child made by `fork()`: the parent owns the executor."""
    global _default
    _default = None


os.register_at_fork(after_in_child=_after_fork)


def configured(executor: Executor | Configured | None) -> Configured:
    """Returns the executor with its options for tasks."""
    if isinstance(executor, Configured):
        return executor
    return Configured(default() if executor is None else executor, {})


def urgent(tasks: Configured) -> Configured:
    """Returns options for tasks on which other tasks depend, and that may run again."""
    given = {"priority": 0, "retries": 0, **options_of(tasks).given}
    given |= {"priority": given["priority"] + 1, "retries": max(2, given["retries"])}
    return Configured(executor_of(tasks), given)


def workers(tasks: Configured) -> int:
    return workers_of(tasks).slots


def is_sandboxed(tasks: Configured) -> bool:
    """Whether workers cannot open files, and their data is not trusted."""
    return workers_of(tasks).load.__module__ == "arenite._core.plain"


class Caller:
    """Submits calls of one function, which is pickled once."""

    def __init__(self, tasks: Configured, function: Any, name: str) -> None:
        self._settings, self._function, self._name = options_of(tasks), function, name
        self._workers = workers_of(tasks)
        self._workers.check_open()
        if not self._workers.is_inline:
            self._function = self._workers.pickle_function(function, self._workers.private)

    def __call__(self, *arguments: Any) -> Future[Any]:
        # Arrow reads parts in place, and writes to none.
        return self._workers.submit(self._settings, self._function, arguments, {}, self._name, private=False)
