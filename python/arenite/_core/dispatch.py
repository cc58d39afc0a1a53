"""The dispatcher: a thread that finishes armed futures when their tasks have ended, and prints the output of tasks.

It starts with the first executor and ends before the interpreter. Threads of the engine report to it through a queue,
and never wait for the interpreter.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from .. import _arenite
from . import native

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._arenite import Task


class Tended(Protocol):
    """An object that needs regular calls, such as calls that are sent in packets."""

    def tend(self) -> None: ...


#: What to call when a task has ended, such as a method of its future, by token.
_armed: dict[int, Callable[[], object]] = {}
_tokens = itertools.count(1)
#: Events that threads wait for: everything that was reported earlier has been processed.
_marks: dict[int, native.Mark] = {}
#: The tended objects, by identity, and the seconds between two calls.
_tended: dict[int, ref[Tended]] = {}
_TICK = 0.005
#: The consumers of output lines. Arguments: stream ("stdout", "stderr" or "notice"), worker and text.
_outputs: dict[int, Callable[[str, int, str], None]] = {}
#: Reentrant, because a signal handler may make an executor.
_lock = threading.RLock()
_thread: native.Thread | None = None
#: Whether the thread is being started. A signal handler that makes an executor meanwhile starts no second one.
_is_starting = False
_stopped = False


def register(output: Callable[[str, int, str], None]) -> int:
    """Starts the dispatcher. Returns a number; an engine that is given this number sends lines to `output`."""
    global _thread, _is_starting
    number = next(_tokens)
    with _lock:
        _outputs[number] = output
        if _thread is None and not _is_starting and not _stopped:
            _is_starting = True
            try:
                _thread = native.Thread(_run, "arenite-dispatcher")
            finally:
                _is_starting = False
    return number


def unregister(number: int) -> None:
    """Removes an output, whose workers have ended."""
    drain()
    _outputs.pop(number, None)


def token() -> int:
    """Returns a new token."""
    return next(_tokens)


def arm(finish: Callable[[], None], task: Task, token: int) -> bool:
    """Lets the dispatcher call `finish` when the task has ended. Returns true if the task has ended already; then the
    caller must call it."""
    _armed[token] = finish
    # The dispatcher may have got the report of a task that has just ended.
    return task.arm(token) and _armed.pop(token, None) is not None


def soon(call: Callable[[], object]) -> None:
    """Lets the dispatcher make this call."""
    number = next(_tokens)
    _armed[number] = call
    _arenite.report(number)


def tend(what: Tended) -> None:
    """Adds an object that the dispatcher tends."""
    if id(what) not in _tended:
        key, is_first = id(what), not _tended
        _tended[key] = ref(what, lambda _: _tended.pop(key, None))
        if is_first:
            # The token belongs to no object: it only wakes the dispatcher.
            _arenite.report(token())


def leave(what: Tended) -> None:
    """Removes an object that the dispatcher tends."""
    _tended.pop(id(what), None)


def is_current() -> bool:
    """Whether the calling thread is the dispatcher."""
    return _thread is not None and _thread.is_current()


def drain() -> None:
    """Waits until everything reported so far is processed. In the dispatcher itself this returns at once."""
    thread = _thread
    if thread is None or not thread.is_alive() or thread.is_current():
        return
    token = next(_tokens)
    mark = _marks[token] = native.Mark()
    _arenite.report(token)
    while not native.wait(mark, 0.1) and thread.is_alive():
        pass
    _marks.pop(token, None)


def stop() -> None:
    """Ends the dispatcher. Called once, when the interpreter exits."""
    global _stopped
    drain()
    _stopped = True
    thread = _thread
    if thread is not None and thread.is_alive():
        _arenite.report(0)
        native.wait(thread, None)


def _run() -> None:
    while True:
        ended, lines = _arenite.next_events(_TICK if _tended else 3600.0)
        for number, source, worker, text in lines:
            output = _outputs.get(number)
            if output is not None:
                _guarded(output, source, worker, text)
        for token in ended:
            if token == 0:
                return
            finish = _armed.pop(token, None)
            if finish is not None:
                _guarded(finish)
            elif (mark := _marks.get(token)) is not None:
                mark.set()
        for tended in tuple(_tended.values()):
            if (what := tended()) is not None:
                _guarded(what.tend)
        del ended, lines
        finish = output = what = None


def _guarded(function: Callable[..., object], *arguments: Any) -> None:
    """Calls a function of the user or of a future. An exception must not end the dispatcher."""
    try:
        function(*arguments)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            pass


def _after_fork() -> None:
    """Runs in a child made by `fork()`. The parent owns the dispatcher's thread and all engines."""
    global _thread, _lock, _is_starting
    _arenite.after_fork()
    _armed.clear()
    _tended.clear()
    _marks.clear()
    _outputs.clear()
    _thread = None
    _is_starting = False
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
