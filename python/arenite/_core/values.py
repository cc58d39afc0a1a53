"""Futures among the arguments of a task, which takes their values.

The value of another task of the same executor goes from worker to worker: the pickle of the arguments refers to that
task as it does to the memory of an array (see `out_of_band`), and the engine begins the new task when the other one has
ended. A call with other futures, of threads and other executors, is submitted when they have ended: `Later`.
"""

from __future__ import annotations

import pickle
from _thread import start_new_thread
from concurrent.futures import CancelledError
from concurrent.futures import Future as BaseFuture
from copy import copy
from dataclasses import fields, is_dataclass
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._errors import ArenaFull
from . import dispatch, native, out_of_band, pickling, room
from .future import Future, NoValue, Unfinished, failed, pending_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .workers import Workers

_WHERE = (
    "a task takes the values of futures that are its arguments or in lists, tuples, dictionaries and data classes: pass "
    "the future there, or pass its result()"
)


def is_future(value: Any) -> bool:
    """Whether a value is a future of threads, processes or asyncio."""
    return isinstance(value, BaseFuture) or hasattr(type(value), "_asyncio_future_blocking")


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
        left, seen = [arguments], set[int]()
        while left:
            value = left.pop()
            if id(value) in lost:
                lost.discard(id(value))
            elif id(value) not in seen:
                seen.add(id(value))
                left.extend(_parts(value))
        if lost:
            raise TypeError(f"{_place(arguments, lost)} is a future: {_WHERE}")
        if self.unfinished:
            raise Unfinished(self.unfinished)


def _parts(value: Any) -> Collection[Any]:
    """Returns the parts of a value whose futures are replaced by their values."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return value.values()
    return [getattr(value, name, None) for name in _fields(value)]


def _fields(value: Any) -> list[str]:
    is_one = is_dataclass(value) and not isinstance(value, type)
    return [field.name for field in fields(value)] if is_one else []


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


# ---- in this process


def replaced(arguments: Any) -> Any:
    """Returns arguments with values in place of futures, for a call in this process."""
    left, seen = [arguments], dict[int, Any]()
    while left:
        value = left.pop()
        if seen.setdefault(id(value), value) is value:
            left.extend(part for part in _parts(value) if id(part) not in seen)
    return _replaced(arguments, {}) if any(map(is_future, seen.values())) else arguments


def _replaced(value: Any, known: dict[int, Any]) -> Any:
    """`known`: what replaces the parts so far, by their identity."""
    if id(value) in known:
        return known[id(value)]
    if is_future(value):
        wait_for(value)
        return value_of(value)
    if isinstance(value, tuple):
        parts = [_replaced(part, known) for part in value]
        return known.setdefault(id(value), type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts))
    fields = _fields(value)
    if not fields and not isinstance(value, (list, dict)):
        return value
    made = known[id(value)] = copy(value)
    if isinstance(value, list):
        made[:] = [_replaced(part, known) for part in value]
    elif isinstance(value, dict):
        made.update((key, _replaced(part, known)) for key, part in value.items())
    for name in fields:
        object.__setattr__(made, name, _replaced(getattr(value, name), known))
    return made


class Later:
    """A call that is submitted when futures that the engine does not know have ended."""

    def __init__(
        self, workers: Workers, future: Future[Any], submit: Callable[[], Any], unfinished: list[Any]
    ) -> None:
        """`future` gets the outcome of what `submit` returns: a future, or `ArenaFull`."""
        self._workers, self.future, self._submit = workers, future, submit
        self._left, self._lock = len(unfinished), Lock()
        #: Set when the call was submitted, or is given up.
        self.sent = native.Mark()
        workers.later.add(self)
        # If it is cancelled.
        future.add_done_callback(self._end)
        for one in unfinished:
            if isinstance(one, BaseFuture):
                one.add_done_callback(self._note)
            else:
                one.get_loop().call_soon_threadsafe(one.add_done_callback, self._note)

    def _note(self, _: object) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        dispatch.soon(self._send)

    def _send(self, waits: bool = False) -> None:
        """Submits the call. `waits`: while the arena has no room, which the dispatcher must not."""
        try:
            made = None if self.future.done() else self._submit()
            while isinstance(made, ArenaFull):
                if not waits:
                    start_new_thread(self._send, (True,))
                    return
                has_room = room.wait(self._workers, made.with_traceback(None))
                made = self._submit() if has_room else failed(room.advise(made))
        except Exception as error:
            made = failed(error)
        if made is not None:
            self.future.follow(made)
        self._end()

    def _end(self, _: object = None) -> None:
        self._workers.later.discard(self)
        self.sent.set()
