"""Threads beside gevent and eventlet, which put theirs in the place of Python's.

The dispatcher waits outside of Python, so it has to be a thread of the operating system in any case. A thread that
waits for a task must not stop the loop on which all others run: it looks again and again, and sleeps as the library has
it.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks: at first, and at most.
_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class Waitable(Protocol):
    """What ends: a task, or an engine."""

    def wait(self, timeout: float | None = None) -> bool: ...


def original(name: str) -> Any:
    """What module `_thread` has under a name; None unless a library has replaced it."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return gevent.get_original("_thread", name)
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return getattr(eventlet.original("_thread"), name)
    return None


def wait(what: Waitable, timeout: float | None) -> bool:
    """Waits until it has ended, at most `timeout` seconds. Returns whether it has."""
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


#: Whether a library has replaced threads. Known when the dispatcher starts.
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
        """Waits for its end."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.is_alive()


class Mark:
    """Is set once, by another thread."""

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
