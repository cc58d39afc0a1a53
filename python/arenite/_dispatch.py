"""The dispatcher: one thread that is told which armed futures have ended, and prints what tasks print.

It exists from the first executor on and ends before the interpreter does. Threads of the engine report to it through a
queue, and never wait for the interpreter.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from . import _arenite, _native

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._arenite import Task


class Armed(Protocol):
    """What is told that its task has ended: a future, for example."""

    def _finish(self) -> None: ...


class Tended(Protocol):
    """What has to be looked after: calls that are sent in packets."""

    def tend(self) -> None: ...


#: Armed futures by their token. They are kept until they have ended: their callbacks have to run.
_armed: dict[int, Armed] = {}
_tokens = itertools.count(1)
#: Events that threads wait for: all that was reported before is done.
_marks: dict[int, _native.Mark] = {}
#: What is tended again and again, by its identity, and the seconds in between.
_tended: dict[int, ref[Tended]] = {}
_TICK = 0.005
#: What takes the lines of an executor's workers: stream ("stdout", "stderr" or "notice"), worker and text.
_outputs: dict[int, Callable[[str, int, str], None]] = {}
#: Reentrant, for a signal handler that makes an executor.
_lock = threading.RLock()
_thread: _native.Thread | None = None
_stopped = False


def register(output: Callable[[str, int, str], None]) -> int:
    """Starts the dispatcher. Returns the number with which an engine sends lines to `output`."""
    global _thread
    number = next(_tokens)
    with _lock:
        _outputs[number] = output
        if _thread is None and not _stopped:
            _thread = _native.Thread(_run, "arenite-dispatcher")
    return number


def unregister(number: int) -> None:
    """The workers of this output have ended."""
    drain()
    _outputs.pop(number, None)


def token() -> int:
    """Returns a new token."""
    return next(_tokens)


def arm(future: Armed, task: Task, token: int) -> bool:
    """Lets the dispatcher finish the future when its task has ended. Returns true if it has already, and the caller has
    to finish it."""
    _armed[token] = future
    # A task that ends meanwhile may be reported as well.
    return task.arm(token) and _armed.pop(token, None) is not None


def tend(what: Tended) -> None:
    """Has this tended by the dispatcher from now on."""
    if id(what) not in _tended:
        key, is_first = id(what), not _tended
        _tended[key] = ref(what, lambda _: _tended.pop(key, None))
        if is_first:
            # No one waits for this token.
            _arenite.report(token())


def leave(what: Tended) -> None:
    """It needs that no more."""
    _tended.pop(id(what), None)


def is_current() -> bool:
    """Whether the calling thread is the dispatcher."""
    return _thread is not None and _thread.is_current()


def drain() -> None:
    """Waits until everything that was reported so far is done, unless this is the dispatcher itself."""
    thread = _thread
    if thread is None or not thread.is_alive() or thread.is_current():
        return
    token = next(_tokens)
    mark = _marks[token] = _native.Mark()
    _arenite.report(token)
    while not _native.wait(mark, 0.1) and thread.is_alive():
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
        _native.wait(thread, None)


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
            future = _armed.pop(token, None)
            if future is not None:
                _guarded(future._finish)
            elif (mark := _marks.get(token)) is not None:
                mark.set()
        for tended in tuple(_tended.values()):
            if (what := tended()) is not None:
                _guarded(what.tend)
        del ended, lines
        future = output = what = None


def _guarded(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of the user or of a future: an exception must not end the dispatcher."""
    try:
        function(*arguments)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            pass


def _after_fork() -> None:
    """In a child: the dispatcher's thread and all engines are the parent's."""
    global _thread, _lock
    _arenite.after_fork()
    _armed.clear()
    _tended.clear()
    _marks.clear()
    _outputs.clear()
    _thread = None
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
