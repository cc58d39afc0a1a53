"""The template, a process from which workers are copied: `before_fork`, and the modules that it loads."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from . import context, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .definitions import Definitions

F = TypeVar("F", bound="Callable[[], object]")

#: Flags of functions whose call runs no code of the body: generators, coroutines, asynchronous generators.
_NEVER_RUN = 0x20 | 0x80 | 0x200
#: The functions that templates call, in the order in which they were marked.
_marked: list[Callable[[], object]] = []


def before_fork(function: F) -> F:
    """Marks a function without parameters. The template of an executor calls it before workers are copied, to load data
    that all workers need and only read.

    This applies to executors that are made later. Tasks see the globals that the function sets in
    its module.

    >>> import arenite
    >>> @arenite.before_fork
    ... def load():
    ...     import decimal  # or what takes longer
    >>> with arenite.Executor(2) as ex:
    ...     ex.submit(pow, 2, 10).result()
    1024
    """
    code = getattr(function, "__code__", None)
    if not callable(function) or code is not None and code.co_flags & _NEVER_RUN:
        raise TypeError(f"before_fork marks a plain function, which is called, not {function!r}")
    if code is not None and code.co_argcount > len(getattr(function, "__defaults__", None) or ()) + hasattr(
        function, "__self__"
    ):
        raise TypeError(f"before_fork marks a function without parameters, and {function!r} has some")
    _marked.append(function)
    return function


def call_marked() -> None:
    """Calls the marked functions in this process, for an executor without workers."""
    for function in _marked:
        function()


def begin_fork() -> None:
    """Prepares the fork of this process. Warns as `os.fork` does from Python 3.12 on if this process has other threads
    than those of this package."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                names.append(file.read())
        except OSError:
            pass  # It has ended.
    own = sum(thread.name.startswith("arenite-") for thread in threading.enumerate())
    if sum(not name.startswith("arenite-") for name in names) - own > 1:
        warnings.warn(
            f"This process (pid={os.getpid()}) is multi-threaded, use of start='fork' may lead to deadlocks in workers: "
            "a lock that another thread holds is never free there",
            DeprecationWarning,
            stacklevel=4,
        )
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # Otherwise each copy would write the buffered output.
            stream.flush()


def setup(
    definitions: Definitions,
    preload: Iterable[str],
    sandboxed: bool,
    program: tuple[Any, ...] | None,
    prefix: str | None,
    is_forked: bool,
) -> bytes:
    """Returns the pickled arguments of `worker.load`. `program`: `main` of `start.setup`; `prefix`: what precedes each
    line that the main file prints; None to drop them; `is_forked`: whether the template is a copy of the program."""
    calls = defined = None
    if _marked:
        calls, _, _, used = definitions.dump((tuple(_marked), ()), False)
        if used:
            defined = definitions.of_setup(used)
    names = [*start.modules(preload, sandboxed), *(name for name in ("numpy",) if name in sys.modules)]
    given: dict[str, Any] = {
        "path": context.path(),
        "filters": context.filters(),
        "argv": sys.argv[:1] if sandboxed else list(sys.argv),
        "preload": names,
        "definitions": defined,
        "calls": calls,
        "sandboxed": sandboxed,
        "main": program,
        "prefix": prefix,
        "is_forked": is_forked,
    }
    return pickle.dumps(given, 5)
