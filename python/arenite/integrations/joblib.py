"""The backend of joblib: see `arenite.joblib`."""

from __future__ import annotations

import os
import reprlib
import threading
import warnings
import weakref
from functools import partial
from time import monotonic
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, Literal

from joblib import cpu_count, parallel_config, register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from .. import _arenite
from .._broken import WorkerDied
from .._core import dispatch, pickling, reach
from .._core.executor import Configured, Executor, options_of, workers_of
from .._core.future import when_ended
from .._core.map import Results
from .._core.outcomes import failure
from .._core.packing import Pace
from .._core.workers import Workers, name_of
from .._errors import DeadlineExceeded, MemoryLimitExceeded, RemoteError
from .joblib_arrays import MAX_NBYTES, Arrays, Beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._core.future import Future
    from .._core.packing import Packing

if not hasattr(ParallelBackendBase, "submit"):
    raise ImportError("arenite.joblib needs joblib 1.5 or newer: pip install --upgrade joblib")

#: Options of tasks. All other options belong to the executor.
_OF_TASKS = ("deadline", "retries", "retry_errors", "backoff", "priority", "limit")
#: Options that joblib passes to every backend, and that this backend ignores.
_UNUSED = ("context", "prefer", "require", "temp_folder", "verbose")
#: Options that a call in this process ignores.
_ISOLATING = ("deadline", "memory_limit", "retries", "sandbox")
#: The part of the arena, as a divisor, from which on joblib submits tasks one by one.
_PART = 8
#: The seconds after which unused workers end, as in loky.
_IDLE_TIMEOUT = 300.0


class AreniteBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend "arenite" of `joblib.Parallel`.

    Options are passed to `joblib.parallel_config(backend="arenite", …)` or to `Parallel(backend="arenite", …)`: options
    of `Executor`, such as `memory_limit`, and of `Executor.options`: `deadline`, `retries`, `retry_errors`, `backoff`,
    `priority` and `limit`. Without `n_jobs`, there is a worker for each core.

    :param errors: "return" returns the exception of a task in place of its result; with "raise", `Parallel` raises the
        first exception, and all results are lost.
    :param idle_worker_timeout: The seconds after which unused workers end.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self.parallel: Any = None
        self._shared: _SharedExecutor | None = None
        self._tasks: Configured
        self._arrays = Arrays()
        self._returns_errors = False
        #: Whether tasks have large arrays that they do not share.
        self._has_large = False
        #: Batches that have not ended.
        self._open: set[_Batch | _PackedBatch] = set()
        self._pace = Pace()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns the number of workers: all cores for None, counted from their number if negative."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs != 1 and _arenite.is_worker():
            warnings.warn(
                "a task of arenite starts no workers, setting n_jobs=1: use backend='threading' there, or more tasks",
                stacklevel=3,
            )
            return 1
        return n_jobs if n_jobs > 0 else max(1, int(cpu_count()) + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **given: Any) -> int:
        """Acquires the workers for a `Parallel`. Returns their number."""
        if self.parallel is None:
            # One backend serves every `Parallel` inside a `parallel_config`, several of them at the same time, and does
            # not know which of them calls it. So each `Parallel` gets its own backend.
            own = type(self)(self.nesting_level, self.inner_max_num_threads, **self.backend_kwargs)
            own.parallel = weakref.proxy(parallel)
            raise FallbackToBackend(own)
        options = {**self.backend_kwargs, **given}
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            if lost := [name for name in _ISOLATING if options.get(name)]:
                said = f"n_jobs=1 runs tasks in this process, without {', '.join(lost)}: use n_jobs=2"
                warnings.warn(said, stacklevel=4)
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        for name in _UNUSED:
            options.pop(name, None)
        of_tasks = {name: options.pop(name) for name in _OF_TASKS if name in options}
        if not isinstance(of_tasks.get("retry_errors", False), bool):
            raise ValueError("retry_errors is True or False with joblib: classes of exceptions are for Executor.options")
        errors: Literal["raise", "return"] = options.pop("errors", "raise")
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", not {errors!r}')
        self._returns_errors = errors == "return"
        max_nbytes, mode = options.pop("max_nbytes", MAX_NBYTES), options.pop("mmap_mode", "r")
        idle_timeout = options.pop("idle_worker_timeout", _IDLE_TIMEOUT)
        options.setdefault("threads", self.inner_max_num_threads)
        # Imported before the deadline or memory limit of a task applies.
        preload = options.get("preload", ())
        options["preload"] = [__name__, *([preload] if isinstance(preload, str) else preload)]
        options.setdefault("output", "plain")
        self._arrays = Arrays(None if mode is None else max_nbytes, mode != "r", not options.get("sandbox"))
        self._has_large = False
        self._pace = Pace()
        self._shared = _acquire({"max_workers": n_jobs, **options}, idle_timeout)
        try:
            self._tasks = self._shared.executor.options(**of_tasks)
        except BaseException:
            self.terminate()
            raise
        return n_jobs

    def compute_batch_size(self) -> int:
        """Returns the number of calls that joblib submits together if the user leaves that to the backend: more than
        one for quick calls."""
        size: int = super().compute_batch_size()
        # A timeout applies to a single task, and the arguments of waiting tasks must not fill the memory.
        if size > 1 and self._shared is not None:
            workers = workers_of(self._shared.executor)
            is_filling = workers.engine.stats()["used_bytes"] > workers.capacity // _PART
            if is_filling or self._has_large or self.parallel.timeout is not None:
                return 1
        return size

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> _Batch | _PackedBatch:
        """Submits a batch of calls. They are one task if the user has set `batch_size`. Otherwise quick calls of one
        function are sent in packets, and other calls as separate tasks."""
        if self._shared is None:
            raise RuntimeError("this call of Parallel has ended")
        items, workers = func.items, workers_of(self._shared.executor)
        used: list[int] = []
        beside = partial(Beside, arrays=self._arrays, used=used)
        before = self._arrays.added
        if self._packs(items) and (packed := self._send_packed(func, workers, beside, used, callback)) is not None:
            self._has_large |= self._arrays.added - before > 2
            return packed
        tasks = [[item] for item in items] if self.parallel.batch_size == "auto" else [items]
        batch = _Batch(tasks, self.parallel.n_dispatched_tasks - len(items), partial(self._arrays.release, used))
        self._open.add(batch)
        for calls in tasks:
            batch.futures.append(self._send(calls, func, workers, beside))
        # More than the one or two arrays that all calls share.
        self._has_large |= min(len(tasks), self._arrays.added - before) > 2
        if callback is not None:
            batch.when_ended(callback)
        return batch

    def _packs(self, items: list[Any]) -> bool:
        """Whether calls that joblib has batched are sent in packets: quick calls of one function."""
        assert self._shared is not None
        function = items[0][0]
        return (
            len(items) > 1
            and self.parallel.batch_size == "auto"
            and workers_of(self._shared.executor).packs
            and options_of(self._tasks).packs
            and type(function) in (FunctionType, BuiltinFunctionType)
            # The function refers to no objects, so calls of a packet may share it.
            and reach.is_global(function)
            and all(item[0] is function for item in items)
        )

    def _send_packed(
        self, func: Any, workers: Workers, beside: Callable[..., Beside], used: list[int], callback: Any
    ) -> _PackedBatch | None:
        """Sends calls of one function in packets. Returns None if it cannot be pickled."""
        items = func.items
        function = items[0][0]
        is_positional = not any(item[2] for item in items)
        one = (_InPacket if is_positional else _InPacketNamed)(function, *self.get_nested_backend())
        lasting = partial(Beside, arrays=self._arrays, used=None)
        try:
            call = self._arrays.function(type(one), function, lambda: workers.pickle_function(one, False, lasting))
        except Exception:
            return None  # A future raises the same exception.
        first = self.parallel.n_dispatched_tasks - len(items)
        batch = _PackedBatch(items, first, partial(self._arrays.release, used), callback)
        self._open.add(batch)
        calls = [item[1] for item in items] if is_positional else [item[1:] for item in items]
        options = options_of(self._tasks).named(name_of(function))
        batch.send(_Calls(workers, call, calls, options, self._pace, beside, batch))
        return batch

    def _send(
        self, calls: list[Any], func: Any, workers: Workers, beside: Callable[..., Beside]
    ) -> Future[Any]:
        """Submits calls as one task."""
        function, args, kwargs = calls[0]
        # As in the batch that joblib has made.
        nested = self.get_nested_backend()
        one: Any
        if len(calls) == 1:
            one = _Function(function, *nested)
        else:
            is_one = all(item[0] is function for item in calls)
            one = _Functions(function, *nested) if is_one else func
            args, kwargs = tuple(item[1:] for item in calls) if is_one else (), {}
        call: Any = None
        if one is not func and type(function) in (FunctionType, BuiltinFunctionType):
            # Each task of the call uses the arrays of the function.
            lasting = partial(Beside, arrays=self._arrays, used=None)
            try:
                call = self._arrays.function(type(one), function, lambda: workers.pickle_function(one, False, lasting))
            except Exception:
                pass  # The future raises the same exception.
        if call is None:
            call, args = _call, (one, *args)
        return workers.submit(options_of(self._tasks), call, args, kwargs, name_of(function), beside)

    def retrieve_result_callback(self, out: _Batch | _PackedBatch) -> list[Any]:
        """Returns the results of a batch, or raises its first exception."""
        self._open.discard(out)
        results: list[Any] = []
        for number, error, values in out.outcomes():
            if error is None:
                results += values
                continue
            if isinstance(error, (WorkerDied, DeadlineExceeded, MemoryLimitExceeded)):
                error.add_note(out.describe(number))
            if self._returns_errors and isinstance(error, Exception):
                results += [error] * len(out.tasks[number])
                continue
            try:
                raise error
            finally:
                del error
        return results

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends all tasks of the call, also the running ones. Their workers are replaced."""
        with self.parallel._lock:
            # Tasks are submitted under this lock, and not while the call is being aborted.
            rest, self._open = self._open, set()
        for batch in rest:
            batch.cancel()

    def stop_call(self) -> None:
        """Called at the end of the call: frees the memory of its arrays."""
        self._arrays.clear()

    def terminate(self) -> None:
        """Releases the workers for later calls."""
        shared, self._shared = self._shared, None
        self._arrays.clear()
        self._open.clear()
        self.reset_batch_stats()
        if shared is not None:
            _release(shared)


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs, in a worker, a function that is pickled with its arguments."""
    return function(*args, **kwargs)


class _Function:
    """The function of a call without its arguments. Called with arguments, it does what joblib's batch of the call
    does."""

    def __init__(self, function: Callable[..., Any], backend: Any, n_jobs: int | None) -> None:
        self.function = function
        self.backend = backend
        self.n_jobs = n_jobs

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        with parallel_config(backend=self.backend, n_jobs=self.n_jobs):
            return [self.function(*args, **kwargs)]


class _InPacket(_Function):
    """Like `_Function`, for calls in packets: applies joblib's settings once for each packet."""

    def arenite_around(self) -> Any:
        return parallel_config(backend=self.backend, n_jobs=self.n_jobs)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _InPacketNamed(_InPacket):
    """Like `_InPacket`, for calls with keyword arguments."""

    def __call__(self, args: Any, kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class _Functions(_Function):
    """Like `_Function`, for several calls of one function."""

    def __call__(self, *calls: Any) -> list[Any]:
        with parallel_config(backend=self.backend, n_jobs=self.n_jobs):
            return [self.function(*args, **kwargs) for args, kwargs in calls]


class _Batch:
    """Calls that joblib has submitted together, and their tasks."""

    def __init__(self, tasks: list[list[Any]], first: int, release: Callable[[], None]) -> None:
        #: Called when all tasks have ended.
        self._release = release
        #: The calls of each task.
        self.tasks = tasks
        #: The number of the first call.
        self.first = first
        self.futures: list[Future[Any]] = []
        self._left: list[Future[Any]] = []
        self._callback: Callable[[Any], object]

    def when_ended(self, callback: Callable[[Any], object]) -> None:
        """Calls `callback(self)` when all tasks have ended."""
        self._callback, self._left = callback, self.futures[:]
        when_ended(self._left.pop(), self._one_ended)

    def _one_ended(self, _: object) -> None:
        # Arms one future at a time: when it ends, most of the others have ended, too.
        while self._left:
            future = self._left.pop()
            if not future.done():
                future.add_done_callback(self._one_ended)
                return
        self._callback(self)
        self._release()
        # Futures and tasks refer to this batch.
        self.futures, self.tasks = [], []

    def outcomes(self) -> Iterator[tuple[int, BaseException | None, list[Any]]]:
        """The number and the exception of each task, or the values of its calls."""
        for number, future in enumerate(self.futures):
            error = future.exception()
            values = [] if error is not None else future.result()
            if error is None and (type(values) is not list or len(values) != len(self.tasks[number])):
                error = RemoteError("its worker has sent another number of values than there were calls")
            yield (number, None, values) if error is None else (number, error, [])

    def cancel(self) -> None:
        """Ends all tasks, also the running ones."""
        for future in self.futures:
            future.cancel()

    def describe(self, number: int) -> str:
        """Describes the place of a task in the call."""
        return _describe(self.tasks, self.first, number)


def _describe(tasks: list[list[Any]], first: int, number: int) -> str:
    """Describes the place of a task in a call of `Parallel`. `first`: the number of the first call of these tasks."""
    calls = tasks[number]
    first += sum(map(len, tasks[:number]))
    function, args, kwargs = calls[0]
    words = [reprlib.repr(value) for value in args]
    words += [f"{name}={reprlib.repr(value)}" for name, value in kwargs.items()]
    text, last = f"task {first}", first + len(calls) - 1
    if last > first:
        text = f"tasks {first} to {last}, which were one batch; the first is"
    return f"It ran {text} of this call of joblib.Parallel: {name_of(function)}({', '.join(words)})"


class _PackedBatch:
    """Calls that joblib has submitted together, and that are sent in packets."""

    def __init__(self, items: list[Any], first: int, release: Callable[[], None], callback: Any) -> None:
        #: Called when all calls have ended.
        self._release, self._callback = release, callback
        self.tasks = [[item] for item in items]
        self.first = first
        self._calls: _Calls | None = None
        #: The tasks that were sent, and the tasks that have ended. Several threads append to these lists.
        self._sent: list[None] = []
        self._ended: list[None] = []
        self._is_reported = False

    def send(self, calls: _Calls) -> None:
        """Called when the calls begin to be sent."""
        self._calls = calls
        dispatch.soon(self._step)

    def when_sent(self, entry: Any) -> None:
        """Called when a task was sent."""
        self._sent.append(None)
        task = entry.task
        if task is None or dispatch.arm(self._finish, task, dispatch.token()):
            dispatch.soon(self._finish)

    def _finish(self) -> None:
        """Called when a task has ended."""
        self._ended.append(None)
        self._step()

    def _step(self) -> None:
        """Sends the next calls, or reports the end. The dispatcher calls it."""
        calls = self._calls
        if calls is None:
            return  # Called again after `send`.
        calls.fill()
        if calls.has_input() and len(self._ended) == len(self._sent):
            # The end of tasks has made room, or there will never be room.
            calls.packing.is_last = True
            calls.fill()
        if calls.is_sent() and len(self._ended) == len(self._sent) and not self._is_reported:
            self._is_reported = True
            if self._callback is not None:
                self._callback(self)
            self._release()

    def outcomes(self) -> Iterator[tuple[int, BaseException | None, list[Any]]]:
        """Yields for each failed call its number and exception, and for other calls the values from a number on."""
        calls, self._calls = self._calls, None
        assert calls is not None
        yield from calls.outcomes()
        self.tasks = []

    def cancel(self) -> None:
        """Ends all calls, also the running ones."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.close(kill=True)

    def describe(self, number: int) -> str:
        """Describes the place of a call."""
        return _describe(self.tasks, self.first, number)


class _Calls(Results[Any]):
    """The results of the calls of a `_PackedBatch`."""

    packing: Packing

    def __init__(
        self, workers: Workers, function: Any, calls: Any, options: Any, pace: Pace, beside: Any, batch: _PackedBatch
    ) -> None:
        self._batch = batch
        super().__init__(
            workers, function, (calls,), options, None, None, None, False, pickling.SHARED, True, pace, True, beside
        )

    def _begin(self) -> None:
        self.packing.when_sent = self._batch.when_sent
        # Sends all calls: results are taken at the end.
        self._window = 1 << 62

    def is_sent(self) -> bool:
        """Whether all calls were sent, and none must be sent again."""
        return not (self.has_input() or self.packing.is_busy())

    def fill(self) -> None:
        """Sends calls as far as possible."""
        self._fill()
        self.packing.feed()

    def outcomes(self) -> Iterator[tuple[int, BaseException | None, list[Any]]]:
        number = 0
        while True:
            try:
                self._advance()
            except StopIteration:
                return
            if self._is_whole:
                yield number, None, list(self._values)
            else:
                for place, value in enumerate(self._values, number):
                    error = failure(value)
                    yield (place, error, []) if error is not None else (place, None, [value])
            number += len(self._values)
            self._values.clear()


# ---- executors


class _SharedExecutor:
    """An executor that calls with the same options share."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.executor = Executor(**options)
        #: The number of calls that use it.
        self.users = 0
        self.idle_timeout = _IDLE_TIMEOUT
        self.idle_since = 0.0

    def fits(self, options: dict[str, Any]) -> bool:
        try:
            return not workers_of(self.executor).is_closed and bool(self.options == options)
        except Exception:  # Arrays in `initargs`, for example, have no truth value.
            return False


#: The executor of the last call. Reentrant: a generator that is dropped releases it, wherever that happens.
_current: _SharedExecutor | None = None
_lock = threading.RLock()
#: Ends the idle executor, at the time `_due`.
_timer: threading.Timer | None = None
_due = 0.0


def _acquire(options: dict[str, Any], idle_timeout: float) -> _SharedExecutor:
    """Returns an executor with these options: the executor of the last call, or a new one."""
    global _current
    with _lock:
        before = _current
        if before is None or not before.fits(options):
            _current = _SharedExecutor(options)
            if before is not None and not before.users:
                before.executor.shutdown(wait=False)
        assert _current is not None
        _current.users += 1
        _current.idle_timeout = idle_timeout
        return _current


def _release(shared: _SharedExecutor) -> None:
    """Releases the executor at the end of a call."""
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        if shared is not _current:
            shared.executor.shutdown(wait=False)
            return
        shared.idle_since = monotonic()
        if _timer is None or _due > shared.idle_since + shared.idle_timeout:
            _wait_for_idleness(shared.idle_timeout)


def shutdown(wait: bool = True) -> None:
    """Ends the workers that wait for the next call, which will start new ones. `wait`: waits until they have ended."""
    global _current, _timer
    with _lock:
        shared, _current = _current, None
        if _timer is not None:
            _timer.cancel()
            _timer = None
    if shared is not None and not shared.users:
        shared.executor.shutdown(wait=wait)


def _wait_for_idleness(seconds: float) -> None:
    global _timer, _due
    if _timer is not None:
        _timer.cancel()
    _due = monotonic() + seconds
    _timer = threading.Timer(seconds, _end_idle)
    _timer.daemon = True
    _timer.name = "arenite-joblib-idle"
    _timer.start()


def _end_idle() -> None:
    """Ends the executor if no call has used it for its idle timeout."""
    global _current, _timer
    with _lock:
        if _timer is not threading.current_thread():
            return  # Another timer waits.
        _timer = None
        shared = _current
        if shared is None or shared.users:
            return  # The end of the call starts the next timer.
        left = shared.idle_since + shared.idle_timeout - monotonic()
        if left > 0:
            _wait_for_idleness(left)
            return
        _current = None
    shared.executor.shutdown(wait=False)


def _after_fork() -> None:
    """Called in a child made by `fork()`: the parent owns the executor."""
    global _current, _lock, _timer
    _current = _timer = None
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
register_parallel_backend("arenite", AreniteBackend)
