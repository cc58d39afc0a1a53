"""A group of tasks that end together: `Scope`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .._errors import Cancelled
from . import locks
from .future import Future, cancelled, decodes_to_failure, end, wait_for
from .workers import report_ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .. import _arenite
    from .signatures import A, B, C, Given
    from .workers import Workers

P = ParamSpec("P")
T = TypeVar("T")


class Scope:
    """Tasks that have all ended when the `with` block ends: see `Executor.scope`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = locks.lock()
        #: Tasks that have not ended.
        self._open: set[Future[Any]] = set()
        #: The first task that failed.
        self._failed: Future[Any] | None = None
        #: The number of tasks that were cancelled.
        self._cancelled = 0
        self._is_over = False

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A], T], a: Given[A], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B], T], a: Given[A], b: Given[B], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B, C], T], a: Given[A], b: Given[B], c: Given[C], /) -> Future[T]: ...
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits a task, as `Executor.submit` does. After a task of the scope has failed, the future is cancelled."""
        if self._is_over:
            raise RuntimeError("cannot schedule new futures after the end of the scope")
        if self._failed is not None:
            return cancelled()
        tasks: list[_arenite.Task] = []
        try:
            future = self._workers.submit(self._workers.plain, fn, args, kwargs, tasks=tasks)
            with self._lock:
                self._open.add(future)
        except BaseException:
            # Ctrl-C: the task may have been sent.
            for task in tasks:
                task.kill()
            raise
        future.add_done_callback(self._end)  # type: ignore[arg-type]
        if self._failed is not None and self._failed is not future:
            # A task of the scope has failed meanwhile.
            future.cancel()
        return future

    def _end(self, future: Future[Any]) -> None:
        """Called when a task has ended. Does not unpickle its value, because this may be the dispatcher."""
        with self._lock:
            self._open.discard(future)
            if self._failed is not None or not decodes_to_failure(future):
                return
            self._failed = future
        self._cancel(False)

    def _cancel(self, kill: bool) -> None:
        with self._lock:
            rest = list(self._open)
            self._cancelled = max(self._cancelled, sum(not future.done() for future in rest))
        for future in rest:
            if kill:
                end(future)
            else:
                future.cancel()

    def _join(self) -> None:
        while True:
            with self._lock:
                future = next(iter(self._open), None)
            if future is None:
                return
            wait_for(future)
            with self._lock:
                # The callback of the future may be about to do this.
                self._open.discard(future)
                if self._failed is None and decodes_to_failure(future):
                    self._failed = future
            if self._failed is future:
                self._cancel(False)

    def __enter__(self) -> Scope:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        try:
            if kind is not None:
                self._cancel(issubclass(kind, KeyboardInterrupt))
            self._join()
        except BaseException as interrupt:
            # Ctrl-C.
            self._cancel(True)
            self._report(interrupt)
            raise
        failed = self._failed
        if failed is None or not (error is None or isinstance(error, Cancelled)):
            self._report(error)
            return
        # Raises the error of the failed task. An error of the block comes from a cancelled future, and explains less.
        first = failed.exception()
        if first is None:
            return
        self._report(first)
        try:
            raise first from first.__cause__
        finally:
            first = failed = self = error = None  # type: ignore[assignment]

    def _report(self, error: BaseException | None) -> None:
        """Prints how many tasks were cancelled, if the exception ends the program without a word."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            report_ended(type(error), self._cancelled)
