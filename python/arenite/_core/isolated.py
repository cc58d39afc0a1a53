"""Functions that run in separate processes: `isolated`."""

from __future__ import annotations

import functools
import hashlib  # noqa: F401
import inspect
import os
import subprocess  # noqa: F401
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from .. import _arenite
# With `hashlib` and `subprocess`, what the first call imports elsewhere: there a signal handler that calls a function
# would find modules that are half imported.
from . import definitions, imports, locks, log, lookup, output, plain  # noqa: F401
from .executor import LEAST_MEMORY, Executor, sandbox_mode, workers_of
from .settings import Settings
from .sizes import parse
from .workers import TaskOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from .future import Future

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
Out = TypeVar("Out", covariant=True)

#: The settings that workers of an executor share: memory limit, sandbox, modules.
_Kind = tuple[int | None, str | None, tuple[str, ...]]

#: The executor of each kind, made at the first call. It ends with the interpreter.
_executors: dict[_Kind, Executor] = {}
_lock = locks.lock()
#: The options for each deadline. Functions do not refer to options, because options cannot be pickled.
_deadlines: dict[float | None, TaskOptions] = {}


@dataclass(frozen=True, slots=True)
class Report(Generic[T]):
    """The outcome of a call of an isolated function: the type that `report` returns."""

    #: The return value of the function; None if it raised.
    value: T | None
    #: The exception that the call would have raised, or None.
    error: Exception | None
    #: From the call to its end, in seconds.
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None


class Isolated(Protocol[P, Out]):
    """A function that runs in a worker: what `isolated` returns."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """Calls the function in a worker and waits for it."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Out]:
        """Calls the function in a worker. Cancelling the awaiting task ends the call and its worker."""

    def report(self, *args: P.args, **kwargs: P.kwargs) -> Report[Any]:
        """Calls the function in a worker and waits. Returns the outcome instead of raising."""

    @overload
    def __get__(self, instance: None, owner: type) -> Isolated[P, Out]: ...
    @overload
    def __get__(
        self: Isolated[Concatenate[S, Q], Out], instance: S, owner: type | None = None
    ) -> Callable[Q, Out]: ...


@overload
def isolated(fn: Callable[P, T], /) -> Isolated[P, T]: ...
@overload
def isolated(
    fn: None = None,
    /,
    *,
    deadline: float | None = None,
    memory_limit: int | str | None = None,
    sandbox: bool | Literal["strict", "required"] = False,
    preload: Iterable[str] = (),
) -> Callable[[Callable[P, T]], Isolated[P, T]]: ...
def isolated(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    deadline: float | None = None,
    memory_limit: int | str | None = None,
    sandbox: bool | Literal["strict", "required"] = False,
    preload: Iterable[str] = (),
) -> Any:
    """Runs each call of a function in a worker process, so that a crash, a hang or a leak costs only that call.

    >>> import arenite, os
    >>> @arenite.isolated(deadline=5, memory_limit="1GiB")
    ... def halves(values):
    ...     if not values:
    ...         os.abort()
    ...     return [value / 2 for value in values]
    >>> halves([1, 2])
    [0.5, 1.0]
    >>> type(halves.report([]).error).__name__
    'WorkerDied'

    The call raises what the function raises, `WorkerDied` if the process ends, `DeadlineExceeded` or
    `MemoryLimitExceeded`. Several threads may call the function at the same time: each call has a worker, and as many
    calls run as there are cores. Arguments and results are copied. A call in a worker runs the function in this worker.

    `await function.aio(…)` is the call for asyncio. `function.report(…)` returns a `Report` with `value`, `error` and
    `seconds` instead of raising; for a method, `Class.method.report(object, …)`. `function.__wrapped__` is the original
    function.

    All functions with equal `memory_limit`, `sandbox` and `preload` share workers. These start at the first call, with
    the environment and the working directory at that time, and end with the program. The program waits at its end for
    calls of other threads, so give a function that may hang a deadline.

    :param deadline: The seconds that a call may run, from when everything that it refers to is imported.
    :param memory_limit: The limit of private memory of the process, in bytes or as "1GiB". Copies of arrays count.
    :param sandbox: "strict", or True, denies the process the right to open files and sockets, and to start or touch
        other processes: see `Executor`. The module of the function is imported first; other modules must be named in
        `preload`. "required" raises OSError if Linux lacks a part of the sandbox.
    :param preload: Names of modules that a worker imports before its first call.
    """
    if isinstance(preload, str):
        raise TypeError(f"preload must be a list of names, not the text {preload!r}")
    mode = sandbox_mode(sandbox)
    limit = parse("memory_limit", memory_limit, LEAST_MEMORY)
    modules = set(preload)
    _options(deadline)

    def decorate(fn: Callable[..., Any]) -> Any:
        name = getattr(fn, "__qualname__", repr(fn))
        if not callable(fn):
            hint = ": put @arenite.isolated below it" if isinstance(fn, (property, classmethod)) else ""
            raise TypeError(f"{name} cannot be called{hint}")
        inner = inspect.unwrap(fn.func if isinstance(fn, functools.partial) else fn)
        kinds = inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
        if any(is_kind(inner) for is_kind in kinds):
            raise TypeError(f"{name} is no plain function: what it returns cannot leave its process")
        home = {fn.__module__} if mode is not None and _is_importable(getattr(fn, "__module__", None)) else set()
        return _wrapper(fn, (limit, mode, tuple(sorted(modules | home))), deadline)

    return decorate if fn is None else decorate(fn)


def _wrapper(fn: Callable[..., Any], kind: _Kind, deadline: float | None) -> Isolated[..., Any]:
    # A worker gets this function like any other, by the name of `fn`. So the closure refers only to `fn`, `kind` and
    # `deadline`.
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _arenite.is_worker():
            return fn(*args, **kwargs)
        tasks: list[_arenite.Task] = []
        try:
            return _submit(call, kind, deadline, args, kwargs, tasks).result()
        finally:
            # After Ctrl-C, no thread waits for the call.
            for task in tasks:
                task.kill()

    async def aio(*args: Any, **kwargs: Any) -> Any:
        """Calls the function in a worker. Cancelling the awaiting task ends the call and its worker."""
        if _arenite.is_worker():
            return fn(*args, **kwargs)
        from asyncio import wrap_future

        tasks: list[_arenite.Task] = []
        try:
            return await wrap_future(_submit(call, kind, deadline, args, kwargs, tasks))
        finally:
            for task in tasks:
                task.kill()

    def report(*args: Any, **kwargs: Any) -> Report[Any]:
        """Calls the function in a worker and waits. Returns the outcome instead of raising."""
        began = perf_counter()
        try:
            value, error = call(*args, **kwargs), None
        except Exception as raised:
            value, error = None, raised
        return Report(value, error, perf_counter() - began)

    wrapped = cast("Any", call)
    for one in (aio, report):
        one.__qualname__ = f"{getattr(call, '__qualname__', '')}.{one.__name__}"
        setattr(wrapped, one.__name__, one)
    return cast("Isolated[..., Any]", wrapped)


def _submit(
    fn: Callable[..., T],
    kind: _Kind,
    deadline: float | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tasks: list[_arenite.Task],
) -> Future[T]:
    return workers_of(_executor(kind)).submit(_options(deadline), fn, args, kwargs, tasks=tasks)


def _options(deadline: float | None) -> TaskOptions:
    known = _deadlines.get(deadline)
    if known is None:
        known = _deadlines[deadline] = TaskOptions({"deadline": deadline})
    return known


def _executor(kind: _Kind) -> Executor:
    with _lock:
        executor = _executors.get(kind)
        workers = None if executor is None else workers_of(executor)
        if executor and workers and not workers.is_closed and workers.engine.broken is not None:
            # A worker could not start. The cause may be mended before the next call.
            del _executors[kind]
            executor.shutdown(wait=False)
            executor = None
        if executor is None:
            limit, mode, modules = kind
            made = Executor(
                memory_limit=limit,
                sandbox=cast("Any", mode or False),
                preload=modules,
                writable="copy",
                output="plain",
                settings=Settings(label="isolated"),
            )
            # A signal handler may have called a function meanwhile.
            executor = _executors.setdefault(kind, made)
            if executor is not made:
                made.shutdown(wait=False)
    return executor


def _is_importable(name: str | None) -> bool:
    """Whether a worker finds this module, and not another one, by its name."""
    module = sys.modules.get(name or "")
    if name is None or module is None or name == "__main__":
        return False
    path, spec, parts = None, None, name.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return name in sys.builtin_module_names
        path = spec.submodule_search_locations
    return spec is not None and spec.origin == getattr(module, "__file__", None)


def _after_fork() -> None:
    """Runs in a child made by `fork()`: the parent owns the workers."""
    global _executors
    _executors = {}


os.register_at_fork(after_in_child=_after_fork)
