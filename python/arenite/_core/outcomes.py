"""The outcomes of the tasks of a map: `Entry`, and failures in place of values."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._errors import Cancelled
from .future import error_of
from .process import is_internal
from .raised import Raised, load_error, stopped

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

    from .._arenite import Task
    from .map import Results

T = TypeVar("T")


class Entry:
    """A task in flight."""

    __slots__ = ("calls", "copied", "is_armed", "task")

    def __init__(self, task: Task | BaseException, copied: int, calls: int) -> None:
        #: The task, or the exception if none could be made.
        self.task = task
        #: The bytes that were copied for it.
        self.copied = copied
        #: Number of its calls.
        self.calls = calls
        #: Whether its end is reported.
        self.is_armed = False

    @property
    def has_ended(self) -> bool:
        return isinstance(self.task, BaseException) or self.task.done()


class Failed:
    """The failure of a task, in place of a value."""

    __slots__ = ("_error", "_make")

    def __init__(self, error: BaseException | None = None, make: Callable[[], BaseException] = RuntimeError) -> None:
        self._error = stopped(error) if isinstance(error, StopIteration) else error
        #: Makes the exception when it is needed: the exceptions of many calls would take much memory.
        self._make = make

    @classmethod
    def of_pickle(cls, pickle: bytes, load: Callable[..., Any]) -> Failed:
        return cls(make=partial(load_error, pickle, load))

    @property
    def error(self) -> BaseException:
        if self._error is None:
            self._error = self._make()
        return self._error


def values_of(entry: Entry, size: int, load: Callable[..., Any], private: bool) -> tuple[bool, list[Any]]:
    """Returns whether all calls of a task that has ended have succeeded, and their values, with failures in place of
    missing values. `size`: the number of calls that were sent as one task, also if the last task has fewer."""
    task = entry.task
    error: BaseException
    if isinstance(task, BaseException):
        return False, [Failed(task)] * entry.calls
    reply = task.take()
    if type(reply) is dict:
        error = Cancelled(reply.get("text", "")) if reply["kind"] == "cancelled" else error_of(reply, load)
        return False, [Failed(error)] * entry.calls
    try:
        value = load(reply[0], reply[1], private)
        if size == 1:
            # The class of the exception is not to be retried.
            return (False, [Failed.of_pickle(value.pickle, load)]) if type(value) is Raised else (True, [value])
        is_whole, values = value
        if type(values) is not list or len(values) != entry.calls:
            raise RuntimeError(f"the worker did not send the results of {entry.calls} calls")
        if is_whole is not True:
            values = [Failed.of_pickle(one.pickle, load) if type(one) is Raised else one for one in values]
        return is_whole is True, values
    except Exception as raised:
        return False, [Failed(raised)] * entry.calls


class Flat(itertools.chain[T]):
    """The results of a map whose tasks consist of several calls."""

    results: Results[T]

    def close(self) -> None:
        """Closes the `Results`."""
        self.results.close()
        # Drops values that were taken and not returned.
        while True:
            try:
                next(self)
            except StopIteration:
                return
            except Exception:
                pass


def pieces(values: deque[Any]) -> Iterator[Any]:
    """Yields the values of a chunk, in which some are missing. An exception does not end the iteration."""
    return map(_give, itertools.repeat(values))


def _give(values: deque[Any]) -> Any:
    """Takes the first value. Raises the failure in its place, if it is one."""
    if not values:
        raise StopIteration
    error = failure(values[0])
    # No function call: see `Results._send`.
    if error is None:
        value = values[0]
        del values[0]
        return value
    try:
        del values[0]
        raise error
    finally:
        error = None


def clear(error: BaseException) -> None:
    """Drops the variables of all frames in the traceback except the first one. The frames are of this package and have
    ended."""
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    while trace is not None:
        if is_internal(trace.tb_frame):
            trace.tb_frame.clear()
        trace = trace.tb_next


def failure(value: Any) -> BaseException | None:
    """Returns the exception in place of a value; None for a value."""
    return value.error if type(value) is Failed else None
