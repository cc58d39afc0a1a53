"""Futures among the arguments of a task, which takes their values.

The value of another task of the same executor goes from worker to worker: the pickle of the arguments refers to that
task as it does to the memory of an array (see `out_of_band`), and the engine begins the new task when the other one has
ended. A call with other futures, of threads and other executors, is submitted when they have ended: `Later`.
"""

from __future__ import annotations

import pickle
import sys
from _thread import start_new_thread
from collections import defaultdict
from concurrent.futures import CancelledError
from concurrent.futures import Future as BaseFuture
from contextlib import suppress
from copy import copy
from dataclasses import fields, is_dataclass
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._errors import ArenaFull
from . import dispatch, native, out_of_band, pickling, room
from .future import Future, NoValue, Unfinished, decodes_to_failure, failed, pending_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from .workers import Workers

_WHERE = (
    "a task takes the values of futures that are its arguments or in lists, tuples, dictionaries and data classes: "
    "pass the future there, or pass its result()"
)
_NO_LOOP = (
    "a future of asyncio among the arguments cannot end: its event loop is closed, or would have to run while the "
    "executor is shut down in it. Await the future, or the task, before"
)


def is_future(value: Any) -> bool:
    """Whether a value is a future of threads, processes or asyncio."""
    # Not `isinstance(value, …)`, for which a lazy object makes its value.
    return issubclass(type(value), BaseFuture) or hasattr(type(value), "_asyncio_future_blocking")


def wait(unfinished: Unfinished) -> None:
    """Waits in this thread."""
    for future in unfinished.futures:
        wait_for(future)


def wait_for(future: Any) -> None:
    if not isinstance(future, BaseFuture) and not future.done():
        raise TypeError("this cannot wait for a future of asyncio: await it first")
    if not future.cancelled():
        future.exception()


def value_of(future: Any) -> Any:
    """Returns the value of a future that has ended."""
    if future.cancelled():
        raise NoValue(CancelledError())
    if (error := future.exception()) is not None:
        raise NoValue(error)
    return future.result()


# ---- in pickles


class Values:
    """Replaces the futures among the arguments of a call by their values, in a pickle."""

    def __init__(self) -> None:
        self.futures: list[Any] = []
        #: Those of them that have not ended and are none of the engine.
        self.unfinished: list[Any] = []

    def reduce(self, future: Any, engine: Any) -> Any:
        """Reduces a future to its value."""
        self.futures.append(future)
        if (task := pending_task(future, engine)) is not None:
            return pickling.value_of, (pickle.PickleBuffer(out_of_band.Reply(task)),)
        if future.done():
            return pickling.itself, (value_of(future),)
        self.unfinished.append(future)
        return pickling.itself, (None,)

    def check(self, arguments: Any) -> None:
        """Called with the arguments that were pickled. Raises TypeError if an object has pickled a future as itself,
        which would be its value in the task; and `Unfinished`."""
        lost = {id(future) for future in self.futures}
        for value in _walk(arguments):
            lost.discard(id(value))
            if not lost:
                break
        else:
            raise TypeError(f"{_place(arguments, lost)} is a future: {_WHERE}")
        if self.unfinished:
            raise Unfinished(self.unfinished)


#: Types whose values have no parts. Lists may have millions of them.
_PLAIN = frozenset((int, float, complex, bool, str, bytes, type(None)))


def _walk(arguments: Any) -> Iterator[Any]:
    """Yields arguments and their parts. Those at the top come first: futures often are there."""
    # The list keeps what properties of data classes return, so that each identity belongs to one object.
    found, seen = [arguments], set[int]()
    for value in found:
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            found.extend(_parts(value))


def _parts(value: Any) -> list[Any]:
    """Returns the parts of a value whose futures are replaced by their values."""
    kind = type(value)
    if issubclass(kind, (list, tuple)):
        parts: Collection[Any] = value
    else:
        parts = (value if issubclass(kind, dict) else _fields(value)).values()
    return [part for part in parts if type(part) not in _PLAIN]


def _fields(value: Any) -> dict[str, Any]:
    """Returns the fields of a data class that are set."""
    kind = type(value)
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _place(arguments: Any, futures: set[int]) -> str:
    """Names the attribute that is one of these futures."""
    left, seen = [arguments], set[int]()
    while left:
        value = left.pop()
        if id(value) in seen or isinstance(value, (type, ModuleType)):
            continue
        seen.add(id(value))
        for name, part in getattr(value, "__dict__", {}).items():
            if id(part) in futures:
                return f"the attribute {name!r} of a {type(value).__qualname__} among the arguments"
            left.append(part)
        left.extend(_parts(value))
    return "a part of an object among the arguments"


# ---- copies


def replaced(arguments: Any) -> Any:
    """Returns arguments with values in place of futures, for a call in this process. Waits for them."""

    def value(future: Any) -> Any:
        wait_for(future)
        return value_of(future)

    return _copied(arguments, value)


def held(arguments: Any) -> Any:
    """Returns arguments with the futures that they have now: the program may change its lists meanwhile."""
    return _copied(arguments, pickling.itself)


def _copied(arguments: Any, value_for: Callable[[Any], Any]) -> Any:
    """Copies what contains futures, and nothing else. `value_for`: returns what takes the place of a future."""
    found = list(_walk(arguments))
    holders = list(filter(is_future, found))
    if not holders:
        return arguments
    users = defaultdict[int, list[Any]](list)
    for value in found:
        for part in _parts(value):
            users[id(part)].append(value)
    changed = set(map(id, holders))
    for value in holders:
        for user in users[id(value)]:
            if id(user) not in changed:
                changed.add(id(user))
                holders.append(user)
    #: What takes the place of the parts so far.
    known = dict[int, Any]()

    def copied(value: Any) -> Any:
        key, kind = id(value), type(value)
        if key not in changed:
            return value
        if key in known:
            return known[key]
        if is_future(value):
            return known.setdefault(key, value_for(value))
        if issubclass(kind, tuple):
            # As `pickle` does, without the arguments of a derived class.
            made: Any = tuple.__new__(kind, map(copied, value))
            getattr(made, "__dict__", {}).update(getattr(value, "__dict__", {}))
            return known.setdefault(key, made)
        made = known[key] = copy(value)
        if issubclass(kind, list):
            list.__setitem__(made, slice(None), map(copied, value))
        elif issubclass(kind, dict):
            dict.update(made, zip(value, map(copied, value.values()), strict=True))
        for name, part in _fields(value).items():
            if id(part) in changed:
                object.__setattr__(made, name, copied(part))
        return made

    return copied(arguments)


# ---- futures that the engine does not know


def _has_failed(future: Any) -> bool:
    """Whether a future that has ended has no value."""
    if type(future) is Future:
        return future.cancelled() or decodes_to_failure(future)
    return future.cancelled() or future.exception() is not None


class Later:
    """A call that is submitted when futures that the engine does not know have ended."""

    def __init__(
        self, workers: Workers, future: Future[Any], submit: Callable[[], Any], unfinished: list[Any]
    ) -> None:
        """`future` gets the outcome of what `submit` returns: a future, or `ArenaFull`."""
        self._workers, self.future, self._submit = workers, future, submit
        #: Those that have not ended; 0 when the call is being submitted, or is given up.
        self._left, self._lock = len(unfinished), Lock()
        self._loops = [one.get_loop() for one in unfinished if not isinstance(one, BaseFuture)]
        #: Set when the call was submitted, or is given up.
        self.sent = native.Mark()
        workers.later.add(self)
        # If it is cancelled.
        future.add_done_callback(self._end)
        for one in unfinished:
            if isinstance(one, BaseFuture):
                one.add_done_callback(self._note)
            else:
                with suppress(RuntimeError):  # The loop is closed.
                    one.get_loop().call_soon_threadsafe(one.add_done_callback, self._note)
        if any(loop.is_closed() for loop in self._loops):
            self._give_up()

    def _take(self, count: int) -> bool:
        """Whether the last of the futures that this waits for is among these `count`."""
        with self._lock:
            had, self._left = self._left, max(0, self._left - count)
        return had > 0 and self._left == 0

    def _note(self, future: Any) -> None:
        # The first failure ends the call.
        if self._take(sys.maxsize if _has_failed(future) else 1):
            dispatch.soon(self._send)

    def wait(self) -> None:
        """Waits until the call was submitted. Gives it up if that cannot be, because this keeps an event loop from
        running, or because it has ended."""
        while not native.wait(self.sent, 0.1):
            current = native.running_loop()
            if any(loop is current or loop.is_closed() for loop in self._loops):
                self._give_up()

    def _give_up(self) -> None:
        if self._take(sys.maxsize):
            self.future.follow(failed(RuntimeError(_NO_LOOP)))
            self._end()

    def _send(self) -> None:
        """Submits the call. In the dispatcher, which must not wait until the arena has room."""
        made = self._try()
        if isinstance(made, ArenaFull):
            workers = self._workers
            with workers.lock:
                workers.late.append(self)
                is_first = len(workers.late) == 1
            if is_first:
                start_new_thread(_send_late, (workers,))
        else:
            self._sent(made)

    def send_late(self) -> None:
        """Submits the call when the arena has room."""
        ended: int | None = None
        while isinstance(made := self._try(), ArenaFull):
            if (ended := room.wait(self._workers, made.with_traceback(None), ended)) is None:
                made = failed(room.advise(made))
                break
        self._sent(made)

    def _try(self) -> Any:
        try:
            return None if self.future.done() else self._submit()
        except Exception as error:
            return failed(error)

    def _sent(self, made: Any) -> None:
        if made is not None:
            self.future.follow(made)
        self._end()

    def _end(self, _: object = None) -> None:
        self._workers.later.discard(self)
        self.sent.set()


def _send_late(workers: Workers) -> None:
    is_left = True
    while is_left:
        workers.late[0].send_late()
        with workers.lock:
            del workers.late[0]
            is_left = bool(workers.late)
