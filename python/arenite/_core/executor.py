"""The executor: `Executor`."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import Executor as BaseExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from .. import _arenite
from .._errors import MANY_FILES, MANY_PROCESSES
from . import dispatch
from . import main as _main
from . import start as _start
from . import template as _template
from .inputs import check_sizes
from .limiter import engine_limiter
from .settings import Settings, check
from .sizes import count, parse
from .stats import Stats
from .workers import TaskOptions, Workers, name_of, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Never

    import numpy
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .._serving import Serving
    from .actor import Actor
    from .arrays import Shape
    from .future import Future
    from .limiter import Limiter
    from .scope import Scope
    from .signatures import A, B, C, Given, Kind, Scalar

P = ParamSpec("P")
T = TypeVar("T")

#: About twice the memory of an interpreter that has done nothing yet.
LEAST_MEMORY = 16 << 20
#: The first piece of the arena that a worker gets.
_LEAST_ARENA = 64 << 10
#: Seconds that running tasks have to end after `shutdown(cancel_futures=True)`.
_GRACE = 0.15

Output = Literal["labelled", "plain"] | None


class Configured:
    """An executor with options for tasks: what `Executor.options` returns."""

    def __init__(self, executor: Executor, options: dict[str, Any]) -> None:
        self._executor = executor
        self._options = TaskOptions(options)

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A], T], a: Given[A], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B], T], a: Given[A], b: Given[B], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B, C], T], a: Given[A], b: Given[B], c: Given[C], /) -> Future[T]: ...
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits a task with these options: see `Executor.submit`."""
        workers, options = self._executor._workers, self._options
        return workers.submit(options, workers.chosen(fn, options), args, kwargs, name_of(fn))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool | str = False,
    ) -> Iterator[T]:
        """Submits a task for each item, with these options: see `Executor.map`.

        With a deadline, retries or a limit, each item is a separate task, whatever the `chunksize`.
        """
        check_sizes(chunksize, buffersize)
        workers, options = self._executor._workers, self._options
        if options.retried or not options.packs:
            chunksize = 1
        chosen = workers.chosen(fn, options)
        return workers.map(options, chosen, iterables, timeout, chunksize, buffersize, progress, name_of(fn))


class Executor(BaseExecutor):
    """A `concurrent.futures.Executor` whose workers are processes that share arrays with this one.

    No `if __name__ == "__main__"` is needed. With it, workers run the main file once before their first task, as
    the standard library's `spawn` and `forkserver` do, so that they have what the file registers and sets elsewhere.
    Without it, and in notebooks, they never run it. In both cases functions and classes of `__main__` are sent with the
    globals that they name, once for each version; those of other modules are imported.

    >>> import arenite
    >>> with arenite.Executor(max_workers=2) as ex:
    ...     future = ex.submit(pow, 2, 10)
    ...     future.result()
    1024

    :param max_workers: The number of worker processes, by default one for each core. 0 runs tasks in this process, in
        the thread that submits them: for debugging.
    :param mp_context: A context of `multiprocessing`, whose start method applies if `start` is not given.
    :param initializer: Called with `initargs` in each worker before its first task. If it raises, submitted tasks fail
        with `StartFailed`, and `submit` and `map` raise `StartFailed`.
    :param max_tasks_per_child: Replaces each worker after this number of tasks.
    :param memory_limit: The limit of private memory of a worker, in bytes or as "1GiB". A task that asks for more fails
        with `MemoryLimitExceeded`. Arrays in the arena do not count.
    :param capacity: The bytes that arrays and results may take together; by default half of the available memory.
    :param preload: Names of modules that a worker imports before it is ready, such as "numpy".
    :param start: How workers are started. "forkserver", the default, starts one process, the template, which runs the
        main file, imports the modules of `preload`, and numpy if the program has imported it, and calls the functions
        marked by `before_fork`. Workers are copies of the template: a start takes milliseconds, and loaded data is in
        memory once. Executors with the same settings share a template, also one after the other. Loading must not start
        threads or leave files open. If it does, or fails, workers are started as with "spawn": `stats().no_template`
        has the reason, and so does a printed line if "forkserver" was given. "spawn" starts an interpreter for each
        worker. With "fork", workers are copies of this process as it is at the first `submit` or `map`, with all that
        it has loaded, set and opened; what tasks use of its globals they get as it is at each `submit`. Locks that other
        threads held at the fork are never free in workers, so this warns if the program has threads.
    :param sandbox: "strict", or True, denies workers the right to open files and sockets, and to start or touch other
        processes. Modules that tasks import must be named in `preload`; numpy is added if the program has imported it.
        Tasks return numbers, text, arrays and containers of these, which are copied; `mut()` is refused. "required"
        raises OSError if Linux lacks a part of the sandbox.
    :param lanes: The number of threads of each worker that run tasks at the same time: for tasks that wait.
    :param writable: "results": the program may write to arrays in results; pages that it writes are copied. "copy" also
        gives tasks private copies of shared arrays, so that no other process sees what a task writes. With None,
        results of 4 KiB and more are read-only views of the arena. Arguments that are not in shared memory are always
        private to their task.
    :param output: What happens to lines that tasks print: "labelled" prints them to `sys.stdout` and `sys.stderr` with
        the number of the worker, "plain" as they are; None drops them. Progress bars such as tqdm's are drawn in the
        terminal of this process in both; without a terminal, "labelled" prints the last state of each.
    :param threads: The number of threads that libraries start in each worker: BLAS, OpenMP, OpenCV, polars, numexpr and
        numba. By default each worker has its share of the cores; 0 or "all" leaves the libraries as they are. Variables
        such as `OMP_NUM_THREADS` that the program or `env` sets take precedence over the default, those of `env` also
        over a number. Sandboxed workers always use one thread.
    :param seed: The seed of `arenite.rng()`: tasks of equal programs draw equal numbers.
    :param settings: Options that few programs need: see `Settings`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        start: Literal["forkserver", "spawn", "fork"] | None = None,
        preload: Iterable[str] = (),
        memory_limit: int | str | None = None,
        capacity: int | str | None = None,
        sandbox: bool | Literal["strict", "required"] = False,
        lanes: int = 1,
        threads: int | Literal["all"] | None = None,
        writable: Literal["copy", "results"] | None = "results",
        output: Output = "labelled",
        seed: int | None = None,
        settings: Settings = Settings(),  # noqa: B008, frozen
        **others: Never,
    ) -> None:
        check(settings, others)
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        max_workers, lanes = count("max_workers", max_workers), count("lanes", lanes, least=1)
        spares = count("spares", settings.spares)
        if max_tasks_per_child is not None:
            max_tasks_per_child = count("max_tasks_per_child", max_tasks_per_child, least=1)
        if writable not in (None, "copy", "results"):
            raise ValueError(f'writable must be None, "copy" or "results", not {writable!r}')
        #: Other libraries read it, as from the executors of the standard library.
        self._max_workers = max_workers
        mode = sandbox_mode(sandbox)
        method, is_chosen = _start.method(start, mp_context)
        threads = _start.thread_count(threads, mode is not None)
        logging, label, env, python = settings.logging, settings.label, settings.env, settings.python
        if logging not in (None, "auto", "forward"):
            raise ValueError(f'logging must be None, "auto" or "forward", not {logging!r}')
        if logging == "forward" and sandbox:
            raise ValueError("a sandbox sends no records: logging='forward' needs workers that may open sockets")
        if sandbox and max_workers == 0:
            raise ValueError("a sandbox needs workers: max_workers=0 runs tasks in this process")
        #: For the other modules of this package, which get it by `workers_of`.
        workers = self._workers = Workers(max_workers, lanes, writable, settings.cancel_running)
        workers.packs = mode is None and max_tasks_per_child is None
        if workers.is_inline:
            workers.inline = _arenite.Inline(seed)
            _template.call_marked()
            if initializer is not None:
                initializer(*initargs)
            return
        if _arenite.is_worker():
            # Not an error yet: a module with an executor as a global may also define functions that are tasks.
            workers.is_closed, workers.refusal = True, refusal()
            return
        limit = parse("memory_limit", memory_limit, LEAST_MEMORY) or 0
        most = settings.max_arena_per_worker
        fraction, most = (most, None) if isinstance(most, float) else (None, most)
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"max_arena_per_worker must be a size, or a fraction from above 0 to 1, not {fraction}")
        if mode is not None:
            from .plain import load

            workers.load = load
        _load("definitions")
        from .definitions import Definitions

        workers.definitions = Definitions(mode is not None)
        try:
            log = None
            if logging is not None and mode is None and (logging == "forward" or "logging" in sys.modules):
                from . import log as _log

                if logging == "forward" or _log.is_configured():
                    receiver = _log.Receiver()
                    log = receiver.address, logging != "forward"
                    workers.receivers.append(receiver)
                    workers.end_with(receiver.stop)
            plain = None
            if output == "plain" and mode is None:
                from . import output as _output

                lines = _output.Receiver()
                plain = lines.address
                workers.receivers.append(lines)
                workers.end_with(lines.stop)
                workers.load = _output.Load(workers.load, lines)
            imports = lookups = None
            if mode is None:
                from .imports import make
                from .lookup import Server

                server = Server(workers.definitions)
                server.start()
                lookups = server.address
                workers.end_with(server.stop)
                file = make()
                workers.end_with(os.close, file)
                imports = f"/proc/{os.getpid()}/fd/{file}", spares > 0
            program = None if mode is not None else _main.described()
            if program is not None and (not settings.main or method == "fork"):
                program = *program[:2], False
            workers.definitions.runs_main = method == "fork" or program is not None and program[2]
            prefix = f"({label}:main) " if output == "labelled" else None if output is None else ""
            loaded = _template.setup(
                workers.definitions, preload, mode is not None, program, prefix, method == "fork"
            )
            workers.end_with(workers.definitions.close)
            setup = _start.setup(
                workers.definitions, initializer, initargs, preload, mode is not None, threads, env, python,
                private=workers.private, private_values=workers.private_results, memory_limit=limit, log=log,
                output=plain, bars=_bars(output, mode), imports=imports, lookups=lookups, template=loaded, main=program,
            )
            workers.output = dispatch.register(_printer(output, label))
            workers.engine = _arenite.Engine(
                workers=max_workers,
                spares=spares,
                lanes=lanes,
                capacity=parse("capacity", capacity),
                memory_limit=limit,
                max_arena=parse("max_arena_per_worker", most, _LEAST_ARENA),
                max_arena_fraction=fraction,
                recycle_after=max_tasks_per_child or 0,
                recycle_above=parse("recycle_above", settings.recycle_above) or 0,
                sandbox=mode,
                label=label,
                program=_start.interpreter(python),
                arguments=_start.arguments(python),
                environment=_start.environment(max_workers, env, mode is not None, python, threads),
                identity=_start.identity(),
                setup=setup,
                template=None if method == "spawn" else (loaded, not is_chosen),
                forks=method == "fork",
                output=workers.output,
                trace=settings.trace,
                report=settings.report,
                seed=seed,
                start_timeout=settings.start_timeout,
            )
        except BaseException as error:
            for closer in workers.closers:
                closer()
            if "can't start new thread" in str(error) or getattr(error, "errno", None) == errno.EAGAIN:
                raise OSError(errno.EAGAIN, MANY_PROCESSES) from error
            if type(error) is OSError and error.errno in (errno.EMFILE, errno.ENFILE) and MANY_FILES not in str(error):
                raise OSError(error.errno, f"an executor needs some files: {MANY_FILES}") from error
            raise
        workers.begin()

    # ---- tasks

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A], T], a: Given[A], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B], T], a: Given[A], b: Given[B], /) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[[A, B, C], T], a: Given[A], b: Given[B], c: Given[C], /) -> Future[T]: ...
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits a task: the call `fn(*args, **kwargs)` in a worker. Returns its future.

        A future among the arguments, also in lists, tuples, dictionaries and data classes, stands for its value: the
        task begins when the future has it. The values of tasks of this executor stay in shared memory. If a future
        fails or is cancelled, so does the task, which never begins.

        >>> import arenite, operator
        >>> with arenite.Executor(2) as ex:
        ...     three = ex.submit(operator.add, 1, 2)
        ...     ex.submit(sum, [three, ex.submit(pow, three, 2)]).result()
        12

        If the arena has no room for the arguments, waits until tasks have ended. On an event loop, and if no task ends
        within a minute, the future fails with `ArenaFull` instead.

        Arguments that cannot be pickled make the future fail. Raises RuntimeError after `shutdown`, and ValueError if
        memory that `arenite.mut` lends to the task is lent already, overlaps another argument, or goes to a task with
        retries.
        """
        return self._workers.submit(self._workers.plain, fn, args, kwargs)

    def map(  # type: ignore[override]
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool | str = False,
    ) -> Iterator[T]:
        """Calls `fn` with the items of the iterables. Returns an iterator over the results in their order.

        If the iterables have a length, items are submitted at once, as far as the arena has room for their arguments.
        Items of other iterables, which may be endless, are pulled as workers need them; `buffersize` is the number of
        results that may be ahead of the caller.

        :param timeout: Seconds from this call on after which `TimeoutError` is raised and all tasks that are left are
            cancelled, as `Future.cancel()` does it.
        :param chunksize: Calls that are sent as one task. If its worker dies, all calls of a chunk fail. By default
            short calls are sent in packets whose size follows from measured times, and the death of a worker costs one
            call.
        :param progress: Whether a progress bar is shown, if tqdm is installed. A text is its title.

        The exception of a call is raised in place of its result; the following `next` returns the result after it.
        Ctrl-C while `next` waits ends the map: it cancels tasks that have not begun, and ends running tasks. Dropping
        the iterator after the first `next` cancels tasks that have not begun. If no result is asked for, all calls are
        made all the same.

        If `submit` was overridden or replaced, it makes the calls, at once, as in `ProcessPoolExecutor`; then the first
        exception ends the iterator.
        """
        _load("map")
        if getattr(self.submit, "__func__", None) is not _SUBMIT:
            from .by_submit import map_by

            return map_by(self.submit, fn, iterables, timeout, chunksize, buffersize, progress)
        return self._workers.map(self._workers.plain, fn, iterables, timeout, chunksize, buffersize, progress)

    def options(
        self,
        *,
        deadline: float | None = None,
        retries: int = 0,
        retry_errors: bool | type[BaseException] | tuple[type[BaseException], ...] = False,
        backoff: tuple[float, float] | None = None,
        priority: int = 0,
        label: str | None = None,
        limit: Limiter | None = None,
    ) -> Configured:
        """Returns this executor with options for tasks, which has `submit` and `map`.

        >>> import arenite, time
        >>> with arenite.Executor(1) as ex:
        ...     hung = ex.options(deadline=0.1).submit(time.sleep, 60)
        ...     type(hung.exception()).__name__
        'DeadlineExceeded'

        :param deadline: Seconds that each attempt may run, from when all that it refers to is imported. Then its worker
            is killed and replaced.
        :param retries: How often a task runs again after the death of its worker or its deadline.
        :param retry_errors: Whether it also runs again after an exception: True, or a tuple of classes of exceptions.
        :param backoff: Seconds of the first and of the longest pause between attempts. They double in between.
        :param priority: Above 0 starts before other tasks that wait, below 0 after them.
        :param label: A name for people, in errors, traces and reports.
        :param limit: A limiter of how many such tasks run at a time or start per second. `max_workers=0` ignores it.
        """
        given = {
            "deadline": deadline,
            "retries": count("retries", retries),
            "retry_errors": retry_errors,
            "backoff": backoff,
            "priority": priority,
            "label": label,
            "limit": None if limit is None else engine_limiter(limit),
        }
        return Configured(self, given)

    def scope(self) -> Scope:
        """Returns a context whose tasks have all ended when its block ends.

        >>> import arenite
        >>> with arenite.Executor(2) as ex:
        ...     with ex.scope() as scope:
        ...         powers = [scope.submit(pow, 2, n) for n in range(4)]
        ...     [power.result() for power in powers]
        [1, 2, 4, 8]

        The first exception of a task cancels the other tasks, and is raised at the end of the block as it is, so that
        `except ValueError` works as it does around `result()`; exceptions of others stay in their futures. An exception
        of the block cancels all tasks, too. Ctrl-C ends all tasks, also those that run.
        """
        _load("scope")
        from .scope import Scope

        self._workers.check_open()
        return Scope(self._workers)

    def actor(self, cls: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Actor[T]:
        """Makes the object `cls(*args, **kwargs)` in a worker, where it stays. Returns an actor with its methods.

        >>> import arenite, collections
        >>> with arenite.Executor(2) as ex:
        ...     counter = ex.actor(collections.Counter, "abc")
        ...     counter.update("aab").result()
        ...     counter.most_common(1).result()
        [('a', 3)]

        A method returns a `Future`. Calls run one after the other, in the order in which they were made; an exception
        leaves the object as it is. Several actors may share a worker, and other tasks run between their calls. Arrays
        of the arena in the arguments may stay in the object without a copy.

        Type checkers know the arguments and the result of a method that is named by its class:
        `counter[collections.Counter.most_common](1)` is the same call as above.

        If `cls` raises, each call raises the same. If the worker dies, the object is lost: the call that ran, and all
        later calls, raise `WorkerDied` or the exception of the cause. No call runs twice. A task that is cancelled or
        exceeds its deadline also ends its worker, with the actors in it: use a separate executor for actors that must
        not be lost in this way. Workers with actors are not recycled.

        The actor ends with the last reference to it, or with its `with` block, after the calls made so far.
        """
        _load("actor")
        from .actor import Actor

        self._workers.check_open()
        return Actor(self._workers, cls, args, kwargs)

    def serve(self, name: str, kernels: Mapping[str, Callable[..., Any]], /, *, max_calls: int = 64) -> Serving:
        """Serves functions under a name to other programs of this user, which call them with `arenite.service.connect`.

        Returns at once: a separate thread answers clients, and workers of this executor run the calls, one of each
        client in turn. The service ends with `close()` of the returned object, with its `with` block, or with the
        executor.

        >>> import arenite, os
        >>> with arenite.Executor(1) as ex, ex.serve(f"example-{os.getpid()}", {"add": lambda a, b: a + b}) as serving:
        ...     with arenite.service.connect(serving.name) as example:
        ...         example.kernels, example.call("add", 1, 2)
        ({'add': '(a, b)'}, 3)

        Functions take and return None, numbers, text, bytes, numpy arrays and lists of these. They are pickled now, with
        the current values of the objects that they refer to.

        :param name: 1 to 64 letters, digits, "-", "_" and ".", or the path of a socket.
        :param max_calls: The number of calls of one client that may wait and run.

        Raises `arenite.service.AlreadyRunning` if another program serves the name.
        """
        _load("._serving")
        from .._serving import Serving

        self._workers.check_open()
        serving = Serving(self._workers, name, kernels, count("max_calls", max_calls, least=1))
        self._workers.servings.add(serving)
        return serving

    # ---- arrays

    def share(self, value: T) -> T:
        """Returns the value with its memory in the arena, read-only: tasks get it without a copy.

        For arrays, and for anything that pickles its buffers out of band, such as data frames or lists of arrays. The
        memory is free when the last array over it is gone.

        >>> import arenite, numpy
        >>> with arenite.Executor(1) as ex:
        ...     table = ex.share(numpy.arange(10_000))
        ...     int(ex.submit(numpy.sum, table).result())
        49995000
        """
        _load("arrays")
        return self._workers.share(value)

    @overload
    def empty(self, shape: Shape, *, order: Any = "C") -> NDArray[numpy.float64]: ...
    @overload
    def empty(self, shape: Shape, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
    @overload
    def empty(self, shape: Shape, dtype: DTypeLike, order: Any = "C") -> NDArray[Any]: ...
    def empty(self, shape: Shape, dtype: DTypeLike = float, order: Any = "C") -> NDArray[Any]:
        """Makes an array with unspecified elements in the arena, as `numpy.empty` does elsewhere.

        It is writable here, and read-only in tasks, except for what `arenite.mut` lends them.
        """
        _load("arrays")
        return self._workers.make(shape, dtype, order, False)

    @overload
    def zeros(self, shape: Shape, *, order: Any = "C") -> NDArray[numpy.float64]: ...
    @overload
    def zeros(self, shape: Shape, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
    @overload
    def zeros(self, shape: Shape, dtype: DTypeLike, order: Any = "C") -> NDArray[Any]: ...
    def zeros(self, shape: Shape, dtype: DTypeLike = float, order: Any = "C") -> NDArray[Any]:
        """Makes an array of zeros in the arena, as `numpy.zeros` does elsewhere."""
        _load("arrays")
        return self._workers.make(shape, dtype, order, True)

    @overload
    def full(self, shape: Shape, fill_value: Any, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
    @overload
    def full(
        self, shape: Shape, fill_value: Any, dtype: DTypeLike | None = None, order: Any = "C"
    ) -> NDArray[Any]: ...
    def full(
        self, shape: Shape, fill_value: Any, dtype: DTypeLike | None = None, order: Any = "C"
    ) -> NDArray[Any]:
        """Makes an array with one value everywhere in the arena, as `numpy.full` does elsewhere."""
        import numpy

        out = self.empty(shape, numpy.asarray(fill_value).dtype if dtype is None else dtype, order)
        out[...] = fill_value
        return out

    @overload
    def array(self, values: ArrayLike, dtype: Kind[Scalar]) -> NDArray[Scalar]: ...
    @overload
    def array(self, values: NDArray[Scalar], dtype: None = None) -> NDArray[Scalar]: ...
    @overload
    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]: ...
    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Makes a writable array with a copy of these values in the arena, as `numpy.array` does elsewhere."""
        import numpy

        source = numpy.asarray(values, dtype)
        out = self.empty(source.shape, source.dtype)
        out[...] = source
        return out

    # ---- the executor

    def stats(self) -> Stats:
        """Returns statistics of the arena, the workers and the tasks."""
        return self._workers.stats()

    def trim(self) -> int:
        """Returns unused memory of the arena to Linux at once, instead of after some seconds.

        Returns the number of bytes.
        """
        return 0 if self._workers.has_no_engine() else self._workers.engine.trim()

    # For editors that take the type of `with Executor() as ex` from the standard library otherwise.
    def __enter__(self) -> Self:
        return self

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the executor. No task can be submitted from now on.

        :param wait: Waits until all tasks have ended. Otherwise they go on in the background.
        :param cancel_futures: Cancels tasks that have not begun, and ends those that do not end at once, unless the
            executor has the setting `cancel_running=False`.

        Ctrl-C while this waits ends all tasks. After another exception of a signal handler they go on, and the program
        waits for them at its end.
        """
        self._workers.shutdown(wait, cancel_futures, _GRACE if self._workers.cancel_running else None)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self._workers.end_now(exc_type)
        else:
            self.shutdown(wait=True)
        return False

    def __repr__(self) -> str:
        workers = self._workers
        state = "shut down" if workers.is_closed else f"{workers.count} workers"
        if workers.refusal is not None:
            state = "made in a worker"
        return f"<arenite.Executor: {state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "an executor cannot be sent to a task: submit from the program, and pass what the task needs, not an object "
            "that holds the executor"
        )


def _load(name: str) -> None:
    """Imports a module that is first needed now."""
    try:
        import_module(f".{name}", __package__)
    except (ImportError, OSError) as error:
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as refused:
            text = f"the first use of this loads a module, and no file can be opened: {MANY_FILES}"
            raise OSError(refused.errno, text) from error
        raise


#: What a subclass overrides, and a program replaces.
_SUBMIT = Executor.submit


def workers_of(executor: Executor | Configured) -> Workers:
    """Returns the workers of an executor, for the other modules of this package."""
    return executor_of(executor)._workers


def executor_of(tasks: Executor | Configured) -> Executor:
    """Returns the executor, without its options for tasks."""
    return tasks._executor if isinstance(tasks, Configured) else tasks


def options_of(tasks: Configured) -> TaskOptions:
    """Returns the options for tasks."""
    return tasks._options


def sandbox_mode(sandbox: Any) -> str | None:
    """Checks the argument `sandbox`. Returns "strict", "required" or None."""
    if sandbox not in (False, True, "strict", "required"):
        raise ValueError(f'sandbox must be False, True, "strict" or "required", not {sandbox!r}')
    if not sandbox:
        return None
    return "required" if sandbox == "required" else "strict"


def cancelled() -> bool:
    """In a task: whether it was cancelled and should return soon. Elsewhere False.

    Only needed with the setting `cancel_running=False`; otherwise a task that is cancelled is ended.
    """
    return _arenite.is_cancelled()


def _bars(output: Output | Callable[[str, int, str], None], mode: str | None) -> str | None:
    """Returns the terminal for the progress bars of tasks: "" if there is none, None to leave bars among the lines."""
    if output not in ("labelled", "plain") or mode is not None:
        return None
    try:
        if sys.stderr.isatty():
            return f"/proc/{os.getpid()}/fd/{sys.stderr.fileno()}"
    except (AttributeError, OSError, ValueError):
        pass  # No stream, or one without a descriptor.
    return "" if output == "labelled" else None


def _printer(output: Output | Callable[[str, int, str], None], label: str) -> Callable[[str, int, str], None]:
    """Returns the function that prints the lines of workers."""
    if callable(output):
        return output
    if output not in ("labelled", "plain", None):
        raise ValueError(f'output must be "labelled", "plain", None or a callable, not {output!r}')

    def write(source: str, worker: int, text: str) -> None:
        if output is None:
            return
        stream = sys.stdout if source == "stdout" else sys.stderr
        if stream is None or getattr(stream, "closed", False):
            return
        try:
            stream.write(f"({label}:{worker}) {text}\n" if output == "labelled" else f"{text}\n")
            stream.flush()
        except BrokenPipeError:
            pass  # What reads the output of the program has ended, as `head` does.

    return write
