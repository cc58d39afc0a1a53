"""Failures of workers. Their base class is the exception of `ProcessPoolExecutor`, for programs that catch it.

This module is separate from the other exceptions because importing the base class takes longer than importing the rest
of this package.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

from ._errors import MANY_PROCESSES, Crash, CrashFrame, Failure, MemoryLimitExceeded

if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
else:
    try:
        from concurrent.futures.process import BrokenProcessPool
    except RuntimeError:
        # At the end of the interpreter the module cannot be imported. The program has not imported it either, so cannot
        # catch its exception.
        BrokenProcessPool = BrokenExecutor


class WorkerDied(Failure, BrokenProcessPool):
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


class KilledForMemory(MemoryLimitExceeded, BrokenProcessPool):
    """Linux has killed the worker, because the machine or its container was out of memory."""


class StartFailed(Failure, BrokenProcessPool):
    """No worker can be started: the message says why. An initializer that raises is such a reason."""

    def __init__(self, message: str = "no worker can be started") -> None:
        super().__init__(message)
        self.last_words = []
        self.deaths = []


def start_failed(why: str) -> StartFailed:
    """Returns the exception for a reason of the engine why no worker can start."""
    # Linux reports this error at the user's limit of processes and threads.
    return StartFailed(f"{why} ({MANY_PROCESSES})" if "EAGAIN" in why else why)


def from_failure(failure: dict[str, Any]) -> WorkerDied | KilledForMemory | StartFailed:
    """Returns the exception for a failure that ended a worker. `failure`: the dictionary of the extension."""
    kind, text = failure["kind"], failure["text"]
    if kind == "start":
        return start_failed(text)
    if kind == "oom":
        return KilledForMemory(text)
    error = WorkerDied(text, signal=failure.get("signal"), exit_code=failure.get("exit_code"))
    if crash := failure["crash"]:
        frames = [CrashFrame(**frame) for frame in crash["frames"]]
        error.crash = Crash(**{**crash, "frames": frames})
    return error
