"""Failures of workers. Their base class is the exception of `ProcessPoolExecutor`, for programs that catch it.

Importing that class imports `multiprocessing`, so they get it with the first failure, or when the program names them.
This module itself is imported with the executor: a failure is described also where no file can be opened any more.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

from ._errors import (
    MANY_PROCESSES,
    ArenaFull,
    Cancelled,
    Crash,
    CrashFrame,
    DeadlineExceeded,
    Failure,
    MemoryLimitExceeded,
    describe,
)

if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
else:
    BrokenProcessPool = BrokenExecutor


def complete() -> None:
    """Gives the classes of this module their base class."""
    try:
        from concurrent.futures.process import BrokenProcessPool
    except (ImportError, OSError, RuntimeError):
        # No file can be opened, or the interpreter ends. The program has not imported the class either, so cannot catch
        # it.
        return
    for kind in (WorkerDied, KilledForMemory, StartFailed):
        kind.__bases__ = (*kind.__bases__[:-1], BrokenProcessPool)


class _Completed(Failure):
    """The base of classes that `complete` changes, which it has done when there is an instance."""

    def __new__(cls, *args: Any, **_: Any) -> _Completed:
        complete()
        return super().__new__(cls, *args)


class WorkerDied(_Completed, BrokenProcessPool):
    """The worker process ended while it ran the task. It was replaced, and other tasks go on.

    >>> import arenite, os
    >>> with arenite.Executor(1) as ex:
    ...     try:
    ...         ex.submit(os._exit, 3).result()
    ...     except arenite.WorkerDied as died:
    ...         print(died.exit_code, died.signal)
    3 None
    """

    #: The signal that ended the process, or None.
    signal: int | None = None
    #: The code that the process exited with, or None.
    exit_code: int | None = None
    #: What the process recorded of its crash. None if it did not crash or the task is not to blame.
    crash: Crash | None = None

    def __init__(self, message: str = "the worker died", *, signal: int | None = None, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code
        self.last_words = []
        self.deaths = []


class KilledForMemory(_Completed, MemoryLimitExceeded, BrokenProcessPool):
    """Linux has killed the worker, because the machine or its container was out of memory."""


class StartFailed(_Completed, BrokenProcessPool):
    """No worker can be started: the message says why. An initializer that raises is such a reason.

    An executor that has given up stays so. Once the reason is gone, make a new one.
    """

    def __init__(self, message: str = "no worker can be started") -> None:
        super().__init__(message)
        self.last_words = []
        self.deaths = []


def start_failed(why: str) -> StartFailed:
    """Returns the exception for a reason of the engine why no worker can start."""
    # Linux reports this error at the user's limit of processes and threads.
    advice = f" ({MANY_PROCESSES})" if "EAGAIN" in why else ""
    return StartFailed(f"{why}{advice}\nAn executor that has given up stays so: remove the reason, then make a new one")


def from_failure(failure: dict[str, Any]) -> BaseException:
    """Returns the exception for a failure of the engine. `failure`: the dictionary of the extension."""
    kind, text = failure["kind"], failure["text"]
    error: Any
    if kind == "deadline":
        error = DeadlineExceeded(text, deadline=failure["limit"])
    elif kind == "memory":
        error = MemoryLimitExceeded(text, limit=failure["limit"])
    elif kind == "arena":
        numbers = ("requested", "free", "capacity", "largest_free", "worker_share")
        error = ArenaFull(text, **{name: failure[name] for name in numbers})
    elif kind in ("cancelled", "shutdown"):
        return Cancelled(text)
    elif kind == "start":
        error = start_failed(text)
    elif kind == "oom":
        error = KilledForMemory(text)
    elif kind in ("died", "quarantined"):
        error = WorkerDied(text, signal=failure.get("signal"), exit_code=failure.get("exit_code"))
        if crash := failure["crash"]:
            frames = [CrashFrame(**frame) for frame in crash["frames"]]
            error.crash = Crash(**{**crash, "frames": frames})
    else:
        return RuntimeError(text)
    describe(error, failure)
    return error  # type: ignore[no-any-return]
