"""Threads of the operating system, also under gevent and eventlet, which replace Python's threads.

The dispatcher waits outside of Python, so it must be a thread of the operating system. A green thread that waits for a
task must not block the loop that runs all others: it polls, and sleeps by the library's `sleep`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from .process import imported

if TYPE_CHECKING:
    from collections.abc import Callable

#: The seconds between two polls: at first, and at most.
_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class Waitable(Protocol):
    """An object that ends: a task, or an engine."""

    def wait(self, timeout: float | None = None) -> bool: ...


def original(name: str) -> Any:
    """Returns the original of a function in the module `_thread`; None unless a library has replaced it."""
    gevent = imported("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return gevent.get_original("_thread", name)
    eventlet = imported("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return getattr(eventlet.original("_thread"), name)
    return None


def wait(what: Waitable, timeout: float | None) -> bool:
    """Waits until `what` has ended, at most `timeout` seconds. Returns whether it has ended."""
    if not is_replaced:
        return what.wait(timeout)
    until = None if timeout is None else time.monotonic() + timeout
    pause = _PAUSE
    while not what.wait(0.0):
        if until is not None and time.monotonic() >= until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


def running_loop() -> Any:
    """Returns the event loop of asyncio that runs in this thread, or None."""
    asyncio = imported("asyncio")
    try:
        return None if asyncio is None else asyncio.get_running_loop()
    except RuntimeError:
        return None


#: Whether a library has replaced threads. Set when the dispatcher starts.
is_replaced = False


class Thread:
    """A daemon thread of the operating system."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        global is_replaced
        self._target = target
        self._is_alive = True
        self._thread: threading.Thread | None = None
        self._ident = 0
        start = original("start_new_thread")
        is_replaced = start is not None
        if start is not None:
            self._get_ident = original("get_ident")
            start(self._run, ())
        else:
            self._thread = threading.Thread(target=target, name=name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        self._ident = self._get_ident()
        try:
            self._target()
        finally:
            self._is_alive = False

    def is_alive(self) -> bool:
        return self._is_alive if self._thread is None else self._thread.is_alive()

    def is_current(self) -> bool:
        if self._thread is None:
            return bool(self._get_ident() == self._ident)
        return self._thread is threading.current_thread()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the thread has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.is_alive()


class Mark:
    """An event that another thread sets once."""

    def __init__(self) -> None:
        self._is_set = False
        self._event = None if is_replaced else threading.Event()

    def set(self) -> None:
        self._is_set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        if self._event is not None and timeout:
            self._event.wait(timeout)
        return self._is_set
