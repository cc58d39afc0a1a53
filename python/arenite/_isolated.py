"""Functions that run in processes of their own kind: `isolated`."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from . import _arenite
from ._executor import Executor, Settings
from ._sizes import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ._future import Future

P = ParamSpec("P")
T = TypeVar("T")
Out = TypeVar("Out", covariant=True)

#: What workers of an executor have in common: a limit of memory, a sandbox, modules.
_Kind = tuple[int | None, str | None, tuple[str, ...]]

#: The executor of each kind, made at the first call. It ends with the interpreter.
_executors: dict[_Kind, Executor] = {}
_lock = threading.Lock()
#: The options of each deadline. Functions do not hold them, because these are no pickles.
_deadlines: dict[float | None, Settings] = {}


@dataclass(frozen=True, slots=True)
class Report(Generic[T]):
    """How a call of an isolated function ended: what `report` returns."""

    #: What the function returned; None if it did not.
    value: T | None
    #: What the call would have raised, or None.
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
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """Calls the function in a worker and waits for it."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Out]:
        """Calls the function in a worker. Cancelling the awaiting task ends the call and its worker."""

    def report(self, *args: P.args, **kwargs: P.kwargs) -> Report[Any]:
        """Calls the function in a worker, waits, and returns how the call ended instead of raising."""


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
    """Makes a function run in a worker process at each call, so that a crash, a hang or a leak costs only that call.

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
    `MemoryLimitExceeded`. Threads may call it at the same time: each call runs in a worker of its own, as many at a
    time as there are cores. Arguments and results are copies. In a worker, the function runs where it is called.

    `await function.aio(…)` is the call for asyncio, and `function.report(…)` returns a `Report` with `value`, `error`
    and `seconds` instead of raising. `function.__wrapped__` is the function itself.

    All functions with equal `memory_limit`, `sandbox` and `preload` share workers, which start at the first call and end
    with the program.

    :param deadline: Seconds that a call may run, from when all that it refers to is imported.
    :param memory_limit: The most private memory of the process, in bytes or as "1GiB".
    :param sandbox: "strict", or True, takes the process the right to open files and sockets, and to start or touch other
        processes: see `Executor`. The function's own module is imported before; others have to be named in `preload`.
        "required" raises OSError where Linux lacks a part of the sandbox.
    :param preload: Names of modules that a worker imports before its first call.
    """
    if isinstance(preload, str):
        raise TypeError(f"preload must be a list of names, not the text {preload!r}")
    if sandbox not in (False, True, "strict", "required"):
        raise ValueError(f'sandbox must be False, True, "strict" or "required", not {sandbox!r}')
    mode = "strict" if sandbox is True else sandbox or None
    limit = parse("memory_limit", memory_limit, 0)
    modules = set(preload)
    _settings(deadline)

    def decorate(fn: Callable[..., Any]) -> Any:
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn.__qualname__} is no plain function: what it returns cannot leave its process")
        home = {fn.__module__} - {"__main__"} if mode is not None else set()
        return _wrapper(fn, (limit, mode, tuple(sorted(modules | home))), deadline)

    return decorate if fn is None else decorate(fn)


def _wrapper(fn: Callable[..., Any], kind: _Kind, deadline: float | None) -> Isolated[..., Any]:
    # These functions are sent to workers where the program's own functions name them. So they hold nothing but this.
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _arenite.is_worker():
            return fn(*args, **kwargs)
        future = _submit(fn, kind, deadline, args, kwargs)
        try:
            return future.result()
        finally:
            # After Ctrl-C nobody waits for it.
            future.cancel()

    async def aio(*args: Any, **kwargs: Any) -> Any:
        if _arenite.is_worker():
            return fn(*args, **kwargs)
        from asyncio import wrap_future

        return await wrap_future(_submit(fn, kind, deadline, args, kwargs))

    def report(*args: Any, **kwargs: Any) -> Report[Any]:
        began = perf_counter()
        try:
            value, error = call(*args, **kwargs), None
        except Exception as raised:
            value, error = None, raised
        return Report(value, error, perf_counter() - began)

    wrapped = cast("Any", call)
    wrapped.aio, wrapped.report = aio, report
    return cast("Isolated[..., Any]", wrapped)


def _submit(
    fn: Callable[..., T], kind: _Kind, deadline: float | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Future[T]:
    return _executor(kind)._submit(_settings(deadline), fn, args, kwargs)


def _settings(deadline: float | None) -> Settings:
    known = _deadlines.get(deadline)
    if known is None:
        known = _deadlines[deadline] = Settings({"deadline": deadline})
    return known


def _executor(kind: _Kind) -> Executor:
    with _lock:
        executor = _executors.get(kind)
        if executor is None:
            limit, mode, modules = kind
            executor = _executors[kind] = Executor(
                memory_limit=limit,
                sandbox=cast("Any", mode or False),
                preload=modules,
                writable="copy",
                output="plain",
                label="isolated",
            )
    return executor


def _after_fork() -> None:
    """The workers are those of the parent, and another thread may have held the lock."""
    global _executors, _lock
    _executors, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
