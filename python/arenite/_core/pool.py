"""The pool: `Pool`, the commonly used part of `multiprocessing.Pool`, on an executor."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import queue
import sys
import threading
import warnings
from collections import deque
from concurrent.futures import Future as BaseFuture
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from .._errors import Cancelled
from . import dispatch
from .executor import Executor, workers_of
from .future import when_ended
from .map import Results
from .outcomes import Entry, failure
from .packing import STUCK, Packing
from .workers import Refusal, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Unpack

    from .signatures import PoolOptions
    from .stats import WorkerStats

T = TypeVar("T")

#: Pools that end before the interpreter does.
_pools: WeakSet[Pool] = WeakSet()

_RUN, _CLOSE, _TERMINATE = "RUN", "CLOSE", "TERMINATE"

#: Seconds for which `Pool._pool` waits for the processes of workers, and between its looks at them.
_STARTED, _PAUSE = 10.0, 0.001


class PoolTimeout(multiprocessing.TimeoutError, TimeoutError):
    """A result did not come in time. It is both the exception of `multiprocessing` and Python's `TimeoutError`."""


class AsyncResult(Generic[T]):
    """The result of `apply_async`, `map_async` or `starmap_async`."""

    def __init__(
        self,
        future: BaseFuture[T],
        callback: Callable[[T], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._future = future
        self._callback = callback
        self._error_callback = error_callback
        #: An event that is set after the callback has returned; None without callbacks.
        self._called: threading.Event | None = None
        if callback is not None or error_callback is not None:
            self._called = threading.Event()
            when_ended(future, self._call)

    def _call(self, future: BaseFuture[T]) -> None:
        assert self._called is not None
        try:
            # As with `multiprocessing`, calls that `terminate()` has ended have no callback.
            if not future.cancelled():
                error = future.exception()
                if error is None:
                    if self._callback is not None:
                        self._callback(future.result())
                elif self._error_callback is not None:
                    self._error_callback(error)
        finally:
            self._callback = self._error_callback = None
            self._called.set()

    def _wait(self, timeout: float | None) -> bool:
        until = None if timeout is None else monotonic() + timeout
        try:
            self._future.exception(timeout)
        except Cancelled:
            pass
        except TimeoutError:
            return False
        if self._called is None:
            return True
        return self._called.wait(None if until is None else max(0.0, until - monotonic()))

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the result is there, at most `timeout` seconds."""
        self._wait(timeout)

    def get(self, timeout: float | None = None) -> T:
        """Returns the value, or raises the exception of the call. Waits at most `timeout` seconds, then raises
        `multiprocessing.TimeoutError`; the call goes on.

        Raises `CancelledError` if `terminate()` has ended the call.
        """
        if not self._wait(timeout):
            raise PoolTimeout(f"the result did not come within {timeout} s")
        return self._future.result()

    def ready(self) -> bool:
        """Whether the call has ended, and the callback has returned."""
        return self._future.done() and (self._called is None or self._called.is_set())

    def successful(self) -> bool:
        """Whether the call returned a value. Raises ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return not self._future.cancelled() and self._future.exception() is None


class MapResult(AsyncResult[list[T]]):
    """The result of `map_async` or `starmap_async`, of which other libraries read how much is left."""

    _calls: Calls[T]

    @property
    def _number_left(self) -> int:
        return self._calls.tasks_left()

    @property
    def _chunksize(self) -> int:
        return self._calls.chunksize


class Calls(Results[T]):
    """The results of `Pool.imap`, in the order of the input. An exception of the input is raised after earlier results.

    As with `multiprocessing`, `next` continues after Ctrl-C.
    """

    #: For `map` and the like: the number of calls that were not collected, and the number of values without a call.
    total = missing = 0

    def _pull(self) -> bool:
        try:
            return super()._pull()
        except Exception as error:
            entry = Entry(error, 0, 1)
            # No function call: see `Results._send`.
            self._flying += (entry,)
            self._items = None
            return False

    def _pull_packing(self, packing: Packing, most: int) -> bool:
        try:
            return super()._pull_packing(packing, most)
        except Exception as error:
            packing.feed(all_of_it=True)
            entry = Entry(error, 0, 1)
            # The last call of a function: see `Results._send`.
            packing.line += (entry,)
            self._items = None
            packing.stock.release()
            return False

    def _interrupt(self, error: BaseException) -> None:
        """Does nothing: the next call continues."""

    def next(self, timeout: float | None = None) -> T:
        """Returns the next result. Waits at most `timeout` seconds, then raises `multiprocessing.TimeoutError`."""
        self._timeout = timeout
        self._until = None if timeout is None else monotonic() + timeout
        try:
            while not self._values:
                self._advance()
        finally:
            self._timeout = self._until = None
        return self.__next__()

    def _late(self) -> TimeoutError:
        return PoolTimeout(f"the result did not come within {self._timeout} s")

    def collect(self) -> list[T]:
        """Waits for all results. Returns them, or raises the first exception in the order of the input."""
        values: list[Any] = [None] * self.missing
        error: BaseException | None = None
        while True:
            try:
                self._advance()
            except StopIteration:
                break
            except BaseException:
                # Ctrl-C: no caller gets any result.
                self.close(self._cancel_running)
                raise
            self.total -= len(self._values)
            if error is None:
                if not self._is_whole:
                    error = next(filter(None, map(failure, self._values)), None)
                if error is None:
                    values += self._values
                else:
                    values.clear()
            self._values.clear()
        if error is None:
            return values
        try:
            raise error
        finally:
            error = self = None  # type: ignore[assignment]


    @property
    def chunksize(self) -> int:
        return self._chunksize

    def tasks_left(self) -> int:
        """Returns the number of calls of `collect` that have not ended, in chunks."""
        ended = sum(entry.calls for entry in tuple(self._flying) if entry.has_ended)
        return -(-(self.total - ended) // self._chunksize)


class UnorderedCalls(Calls[T]):
    """The results of `Pool.imap_unordered`, in the order in which the calls end."""

    def _begin(self) -> None:
        #: The tasks that have ended.
        self._landed: deque[Entry] = deque()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        if self.packing is not None:
            self.packing.when_sent = partial(_arm, self._landed, self._wakes)

    def _fill(self) -> None:
        super()._fill()
        if self.packing is None:
            self._arm_all()

    def _pull_packing(self, packing: Packing, most: int) -> bool:
        has_more = super()._pull_packing(packing, most)
        last = packing.line[-1] if packing.line else None
        if type(last) is Entry and not last.is_armed:
            _arm(self._landed, self._wakes, last)
        return has_more

    def submit_rest(self, has_end: bool = False, waits: bool = False) -> None:
        super().submit_rest(has_end, waits)
        if self.packing is None:
            self._arm_all()

    def _arm_all(self) -> None:
        """Arranges that the end of each task in flight is reported. The tasks for which this is arranged already
        precede the others."""
        with self._lock:
            others = [*itertools.takewhile(lambda entry: not entry.is_armed, reversed(self._flying))]
            for entry in reversed(others):
                _arm(self._landed, self._wakes, entry)

    def _next_packing(self, packing: Packing) -> Any:
        landed, line = self._landed, packing.line
        while True:
            packing.feed()
            while line and getattr(line[0], "is_spent", False):
                del line[0]
            while landed and not self._is_left(landed[0], line):
                landed.popleft()
            if landed:
                with contextlib.suppress(queue.Empty):
                    self._wakes.get_nowait()
                entry: Any = landed[0]
                if type(entry) is not Entry:
                    packing.is_ready(entry)
                return entry
            if packing.stock.pulled == self._given and self._items is None:
                return None
            left = self._left()
            pause = STUCK if packing.is_busy() else left
            try:
                self._wakes.get(timeout=pause if left is None or pause is None else min(left, pause))
            except queue.Empty:
                if left is not None and left <= STUCK:
                    raise self._late() from None
                # After Ctrl-C some tasks may not be armed.
                for entry in (*packing.open, *line):
                    if not entry.is_armed and entry.task is not None:
                        _arm(landed, self._wakes, entry)
                    elif type(entry) is not Entry and entry.has_more():
                        return entry

    def _is_left(self, entry: Any, line: deque[Any]) -> bool:
        """Whether the outcome of a landed entry was not taken. An entry may land twice."""
        return entry in line if type(entry) is Entry else not entry.is_spent

    def _next(self) -> Entry | None:
        # After Ctrl-C some tasks may not be armed.
        self._arm_all()
        landed = self._landed
        while True:
            # An entry that was armed twice, or before a termination, is not in flight any more.
            while landed and landed[0] not in self._flying:
                landed.popleft()
            if landed:
                with contextlib.suppress(queue.Empty):
                    self._wakes.get_nowait()
                # Searches from the front: tasks end approximately in the order in which they were submitted.
                return landed[0]
            if not self._flying:
                return None
            try:
                self._wakes.get(timeout=self._left())
            except queue.Empty:
                raise self._late() from None


def _arm(landed: deque[Any], wakes: queue.SimpleQueue[None], entry: Any) -> None:
    """Arranges that `landed` gets the entry when its task ends."""
    land, task = partial(_land, landed, wakes, entry), entry.task
    if task is None or isinstance(task, BaseException) or dispatch.arm(land, task, dispatch.token()):
        land()
    entry.is_armed = True


def _land(landed: deque[Any], wakes: queue.SimpleQueue[None], entry: Any) -> None:
    """Appends a task to `landed`: it has ended."""
    landed.append(entry)
    wakes.put(None)


class Pool:
    """A pool of worker processes with the interface of `multiprocessing.Pool`, on an `Executor`.

    >>> import arenite
    >>> with arenite.Pool(2) as pool:
    ...     pool.starmap(pow, [(2, 3), (3, 2)])
    [8, 9]

    :param processes: The number of worker processes, by default one for each core.
    :param initializer: Called with `initargs` in each worker before its first call. If it raises, calls fail with
        `StartFailed`.
    :param maxtasksperchild: Replaces each worker after this number of tasks: of chunks, for `map`.
    :param context: The `mp_context` of `Executor`.
    :param options: Other keywords of `Executor`, such as `memory_limit`, `preload`, `output` or `settings`. The default
        of `writable` is "copy": calls may change their arguments, and the program their results.

    No `if __name__ == "__main__"` is needed, and lambdas and functions of notebooks can be called. Large arguments are
    passed in shared memory. Each call gets a private copy of them, for which only pages that the call writes are
    copied.

    The death of a worker costs the call that it ran, and the pool goes on: `apply` and `get` raise `WorkerDied`; `imap`
    and `imap_unordered` raise it in place of the result, and continue. `map` and `starmap` wait until all tasks have
    ended, and then raise the first exception in the order of the input. With a `chunksize`, all calls of a chunk fail
    with their worker.

    Results of calls that `terminate()` ends raise `CancelledError` instead of never coming.
    """

    #: The executor that runs the calls: for arrays in shared memory, statistics and options.
    executor: Executor

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        self._state = _CLOSE
        if processes is None:
            processes = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None:
            if not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0:
                raise ValueError("maxtasksperchild must be a positive int or None")
        # Calls may change their arguments, as with multiprocessing.
        options.setdefault("writable", "copy")
        self.executor = Executor(
            processes, context, initializer, tuple(initargs), max_tasks_per_child=maxtasksperchild, **options
        )
        self._processes = processes
        self._context = context
        #: The threads that wait for results of `map_async`.
        self._threads: list[threading.Thread] = []
        self._state = _RUN
        _pools.add(self)

    def __repr__(self) -> str:
        return f"<arenite.Pool state={self._state} pool_size={self._processes}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- what other libraries read of a `multiprocessing.Pool`

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """`isinstance(pool, multiprocessing.pool.Pool)` holds, without a cost for programs that do not ask."""
        module = sys.modules.get("multiprocessing.pool")
        return Pool if module is None else module.Pool  # type: ignore[no-any-return]

    @property
    def _pool(self) -> list[WorkerStats]:
        """The workers; none after the shutdown.

        Waits until each has a process: callers compare the `pid`s with later ones, to notice that a worker has died.
        """
        until = monotonic() + _STARTED
        while not workers_of(self.executor).is_closed:
            workers = [worker for worker in self.executor.stats().workers if not worker.spare]
            if all(worker.pid for worker in workers) or monotonic() > until:
                return workers
            sleep(_PAUSE)
        return []

    @property
    def _ctx(self) -> Any:
        return self._context or multiprocessing.get_context()

    # ---- calls

    def apply(self, func: Callable[..., T], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> T:
        """Calls `func(*args, **kwds)` in a worker. Returns its value, or raises its exception."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[T]:
        """Calls `func(*args, **kwds)` in a worker, and returns at once.

        >>> import arenite
        >>> with arenite.Pool(1) as pool:
        ...     result = pool.apply_async(divmod, (7, 2), callback=print)
        ...     result.wait(60)
        (3, 1)

        :param callback: Called with the value in the dispatcher thread, before `get()` returns. It should return
            quickly.
        :param error_callback: Called with the exception.
        """
        self._check_running()
        return AsyncResult(self.executor.submit(func, *args, **(kwds or {})), callback, error_callback)

    def map(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None) -> list[T]:
        """Calls `func` with each item. Returns the values in their order, or raises the first exception after all calls
        have ended.

        >>> import arenite
        >>> with arenite.Pool(2) as pool:
        ...     pool.map(lambda n: n * n, range(5))
        [0, 1, 4, 9, 16]

        :param chunksize: The number of calls that are sent as one task, and fail with its worker. By default short
            calls are sent in packets, and the death of a worker costs one call; with `maxtasksperchild`, the default is
            a quarter of each worker's share.
        """
        return self._listed(func, iterable, chunksize).collect()

    def starmap(self, func: Callable[..., T], iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> list[T]:
        """Like `map`, with a tuple of arguments for each call."""
        return self._listed(func, iterable, chunksize, True).collect()

    def map_async(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """Like `map`, but returns at once. A separate thread runs the callbacks, before `get()` returns."""
        return self._in_background(self._listed(func, iterable, chunksize), callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """Like `map_async`, with a tuple of arguments for each call."""
        return self._in_background(self._listed(func, iterable, chunksize, True), callback, error_callback)

    def imap(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None) -> Calls[T]:
        """Calls `func` with each item. Returns an iterator over the values in their order, which has `next(timeout)`.

        Items are pulled as workers need them, so the input may be endless.

        >>> import arenite, itertools
        >>> with arenite.Pool(2) as pool:
        ...     squares = pool.imap(lambda n: n * n, itertools.count())
        ...     [next(squares) for _ in range(5)]
        [0, 1, 4, 9, 16]
        """
        return self._calls(Calls, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Calls[T]:
        """Like `imap`, but the values come in the order in which the calls end."""
        return self._calls(UnorderedCalls, func, iterable, chunksize)

    def _calls(
        self, kind: type[Calls[T]], func: Callable[..., T], iterable: Iterable[Any], chunksize: int | None,
        is_star: bool = False,
    ) -> Calls[T]:  # fmt: skip
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        workers = workers_of(self.executor)
        options = workers.plain.named(name_of(func))
        results = kind(
            workers, func, (iterable,), options, None, chunksize, None, False, packs=workers.packs, is_star=is_star
        )
        workers.maps.add(results)
        return results

    def _listed(
        self, func: Callable[..., T], iterable: Iterable[Any], chunksize: int | None, is_star: bool = False
    ) -> Calls[T]:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        # Raises what `__len__` raises, as with multiprocessing.
        count = len(items)
        if chunksize == 0:
            # Makes no calls, as with multiprocessing, where each of them has the result None.
            results = self._calls(Calls, func, (), None, is_star)
            results.missing = count
            return results
        if chunksize is None and not workers_of(self.executor).packs:
            chunksize = max(1, -(-count // (4 * self._processes)))
        results = self._calls(Calls, func, items, chunksize, is_star)
        results.total = count
        return results

    def _in_background(
        self,
        results: Calls[T],
        callback: Callable[[list[T]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult[list[T]]:
        future: BaseFuture[list[T]] = BaseFuture()
        if not results.total:
            # As with multiprocessing.
            callback = error_callback = None
        result = MapResult(future, callback, error_callback)
        result._calls = results
        thread = threading.Thread(target=_collect, args=(results, future), name="arenite-map", daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()]
        self._threads.append(thread)
        thread.start()
        return result

    def _check_running(self) -> None:
        if self._state != _RUN:
            raise ValueError("Pool not running")
        if (refusal := workers_of(self.executor).refusal) is not None:
            raise Refusal(refusal)

    # ---- the end

    def close(self) -> None:
        """Ends the pool when all calls made so far have ended. No further calls can be made."""
        if self._state != _RUN:
            return
        self._state = _CLOSE
        maps = list(workers_of(self.executor).maps)
        if any(results.has_input() for results in maps):
            return
        if busy := [packing for results in maps if (packing := results.packing) is not None and packing.is_busy()]:
            thread = threading.Thread(target=_close, args=(self.executor, busy), name="arenite-close", daemon=True)
            self._threads.append(thread)
            thread.start()
        else:
            self.executor.shutdown(wait=False)

    def terminate(self) -> None:
        """Ends the pool and all its calls now. Workers that run a call are killed."""
        if self._state != _TERMINATE and "executor" in self.__dict__:
            self._state = _TERMINATE
            workers_of(self.executor).shutdown(True, True, 0.0)
            self._join_threads()

    def join(self) -> None:
        """Waits until the workers have ended. Requires an earlier `close` or `terminate`.

        Before that, reads the rest of the input of `imap`.
        """
        if self._state == _RUN:
            raise ValueError("Pool is still running")
        if self._state == _CLOSE:
            self._join_threads()
            for results in list(workers_of(self.executor).maps):
                results.submit_rest(has_end=True, waits=True)
            self.executor.shutdown(wait=True)

    def _join_threads(self) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        if self._state == _RUN:
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)


def _close(executor: Executor, busy: list[Packing]) -> None:
    """Ends an executor after all calls were sent, in a separate thread."""
    for packing in busy:
        packing.wait_for_all()
    executor.shutdown(wait=False)


def _collect(results: Calls[T], future: BaseFuture[list[T]]) -> None:
    """Waits for the results of a map, in a separate thread."""
    try:
        values = results.collect()
    except Cancelled:
        future.cancel()
        future.set_running_or_notify_cancel()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(values)


def _at_exit() -> None:
    """Ends all pools, as `multiprocessing` does."""
    for pool in list(_pools):
        pool.terminate()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
