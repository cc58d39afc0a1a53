"""The workers of an executor: `Workers`, with which the other modules of this package submit calls. Their options:
`TaskOptions`."""

from __future__ import annotations

import sys
import threading
from _thread import start_new_thread
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, finalize

from .. import _arenite
from .._errors import ArenaFull
from . import context, copies, dispatch, inline, native, pickling, retry, room
from .future import Future, Unfinished, failed, of_pickling, unsubmitted
from .inputs import check_sizes
from .process import is_internal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from numpy.typing import NDArray

    from .._serving import Serving
    from . import channel, values
    from .definitions import Definitions
    from .map import Results
    from .packing import Pace
    from .stats import Stats

T = TypeVar("T")

#: Workers that end before the interpreter does.
running: WeakSet[Workers] = WeakSet()
_is_exiting = False
#: The number of functions for which an executor stores options, or the time of their calls.
_MOST_NAMES = 1024
#: The seconds that killed workers may take to end.
_LAST = 2.0


class Refusal(RuntimeError):
    """The error of an executor that was made in a worker."""

    #: See `main.run`.
    is_refusal = True

    def __reduce__(self) -> Any:
        return RuntimeError, self.args


class TaskOptions:
    """Options for tasks, without the executor: an executor that refers to its own options would be a reference
    cycle."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.is_timed = given.get("deadline") is not None
        #: The classes of exceptions that are retried; empty if all or none are.
        self.retried: tuple[type[BaseException], ...] = ()
        if not isinstance(retried := given.get("retry_errors", False), bool):
            self.retried = kinds = retried if isinstance(retried, tuple) else (retried,)
            if not kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
                raise TypeError(f"retry_errors must be True, False or a tuple of exception classes, not {retried!r}")
        #: Whether several calls may be sent as one task: no option applies to a single call.
        self.packs = not (self.is_timed or given.get("retries") or given.get("limit") is not None)
        self._by_name: dict[str, _arenite.Options] = {}
        # Raises errors of the options now, in the caller that wrote them.
        self.named("")

    def named(self, name: str) -> _arenite.Options:
        """Returns the options of a function with this name."""
        known = self._by_name.get(name)
        if known is None:
            if len(self._by_name) >= _MOST_NAMES:
                self._by_name.clear()
            given = {**self.given, "retry_errors": True} if self.retried else self.given
            known = self._by_name[name] = _arenite.Options(name=name or None, **given)
        return known


class Workers:
    """The engine of an executor, what was sent to it, and the way of a call to it. The executor fills it, and has the
    documented methods."""

    #: Missing with `max_workers=0`, and if the executor was made in a worker.
    engine: _arenite.Engine
    #: Runs tasks in this process, with `max_workers=0`.
    inline: _arenite.Inline
    #: The parts of the program's own modules that the workers get.
    definitions: Definitions
    #: The number of the dispatcher for the output of the workers.
    output: int
    capacity: int
    #: Whether short calls of a map may be sent as one task: not in a sandbox, which lends no memory, nor if tasks
    #: are counted.
    packs = False

    def __init__(self, count: int, lanes: int, writable: str | None, cancel_running: bool) -> None:
        self.count = count
        self.slots = max(1, count) * lanes
        self.is_inline = count == 0
        self.private = writable == "copy"
        self.private_results = writable is not None
        #: Unpickles what workers send.
        self.load: Callable[..., Any] = pickling.load
        self.cancel_running = cancel_running
        # Reentrant, for a signal handler that shuts down.
        self.lock = threading.RLock()
        self.is_closed = False
        #: The handle of the engine's end, once it was closed. The finalizer has the list.
        self._closing: list[_arenite.Closing] = []
        self.maps: WeakSet[Results[Any]] = WeakSet()
        self.servings: WeakSet[Serving] = WeakSet()
        self.plain = TaskOptions({})
        self.sent = context.Sent()
        #: By the code of a function, or the type and the name of another callable object.
        self._paces: dict[Any, Pace] = {}
        #: Arrays of arguments that were copied into the arena.
        self._copies = copies.Copies()
        #: Receivers of the data that workers send outside of results.
        self.receivers: list[channel.Receiver] = []
        #: What is called at the end of the workers.
        self.closers: list[Callable[[], object]] = []
        #: Calls that wait for futures that the engine does not know.
        self.later: set[values.Later] = set()
        #: Those of them whose arguments the arena had no room for. A thread submits one after the other.
        self.late: list[values.Later] = []
        #: If the executor was made in a worker: the reason why it refuses tasks.
        self.refusal: str | None = None

    def begin(self) -> None:
        """Called when the engine runs."""
        self.definitions.engine = self.engine
        self.capacity = self.engine.capacity
        finalize(self, _close_later, self.engine, self._closing, self.closers).atexit = False
        running.add(self)
        if "IPython" in sys.modules:
            from . import notebook

            notebook.follow_cells(running)

    def end_with(self, close: Callable[..., object], *arguments: Any) -> None:
        """Calls `close` when the workers have ended, also those of a dropped executor."""
        self.closers.append(partial(close, *arguments))

    def has_no_engine(self) -> bool:
        return self.is_inline or self.refusal is not None

    def chosen(self, fn: Callable[..., T], options: TaskOptions) -> Callable[..., T]:
        """Returns the function to send: options that retry exceptions of some classes wrap it."""
        return retry.Chosen(fn, options.retried) if options.retried and not self.is_inline else fn

    def pace_of(self, fn: Any) -> Pace:
        """Returns the measured time of a function's calls in the maps of this executor."""
        from .packing import Pace

        while type(fn) is partial:
            fn = fn.func
        key = getattr(fn, "__code__", None) or (type(fn), name_of(fn))
        if len(self._paces) >= _MOST_NAMES:
            self._paces.clear()
        return self._paces.setdefault(key, Pace())

    def pickle_function(
        self, fn: Any, private: bool, beside: Callable[..., pickling.Beside] = pickling.Arguments
    ) -> pickling.Function:
        """Pickles a function for any number of calls. `private`: whether tasks get private copies of its arrays;
        `beside`: replaces them."""
        pickled = pickling.pickle_function(fn, self.definitions, private, beside)
        self.engine.count_copied(pickled.copied)
        pickled.copied = 0
        return pickled

    def submit(
        self, options: TaskOptions, fn: Callable[..., T] | pickling.Function, args: tuple[Any, ...],
        kwargs: dict[str, Any], name: str | None = None, beside: Callable[..., pickling.Beside] | None = None,
        private: bool | None = None, tasks: list[_arenite.Task] | None = None,
    ) -> Future[T]:  # fmt: skip
        """Submits a call, and waits until the arena has room for its arguments. `name`: the name in statistics, for a
        function that is pickled already. `beside`: replaces the arrays of the arguments. `private`: whether the program
        may write to arrays in the result. `tasks`: gets the task, also if Ctrl-C comes before this returns."""
        ended: int | None = None
        while isinstance(made := self.try_submit(options, fn, args, kwargs, name, beside, private, tasks), ArenaFull):
            # The frames of the traceback refer to data that was copied before the arena was full.
            if (ended := room.wait(self, made.with_traceback(None), ended)) is None:
                return failed(room.advise(made))
        return made

    def try_submit(
        self, options: TaskOptions, fn: Callable[..., T] | pickling.Function, args: tuple[Any, ...],
        kwargs: dict[str, Any], name: str | None = None, beside: Callable[..., pickling.Beside] | None = None,
        private: bool | None = None, tasks: list[_arenite.Task] | None = None,
    ) -> Future[T] | ArenaFull:  # fmt: skip
        """Submits a call. Returns the exception if the arena has no room for its arguments."""
        self.check_open()
        if self.is_inline:
            return inline.call(self.inline, fn, args, kwargs)  # type: ignore[arg-type]
        self._check_workers()
        return self._send(options, fn, args, kwargs, name, beside, private, tasks)

    def _send(
        self, options: TaskOptions, fn: Callable[..., T] | pickling.Function, args: tuple[Any, ...],
        kwargs: dict[str, Any], name: str | None, beside: Callable[..., pickling.Beside] | None, private: bool | None,
        tasks: list[_arenite.Task] | None,
    ) -> Future[T] | ArenaFull:  # fmt: skip
        engine = self.engine
        is_pickled = False
        made: Future[T]
        load = retry.Load(self.load) if type(fn) is retry.Chosen else self.load
        is_private = self.private_results if private is None else private
        used: list[int] = []
        try:
            if isinstance(fn, pickling.Function):
                function = fn
            else:
                function = pickling.pickle_function(fn, self.definitions, self.private)
            plain = None if kwargs else pickling.dump_plain(args)
            if plain is not None:
                head, kind, buffers = function.head, function.kind | pickling.POSITIONAL, function.buffers
                copied = function.copied
            else:
                call, more = ((args, kwargs), 0) if kwargs else (args, pickling.POSITIONAL)
                arrays = beside or partial(copies.Beside, copies=self._copies, used=used)
                head, plain, kind, buffers, copied = function.call(call, more, self.private, arrays)
                copied += function.copied
            if copied:
                engine.count_copied(copied)
            named = options.named(name or name_of(fn))
            head, kind = self.sent.before(head, kind)
            if options.is_timed:
                kind |= context.TIMED
            is_pickled = True
            if tasks is None:
                task = engine.submit(head, plain, kind, buffers or None, named)
            else:
                # One call, after which the task is recorded: see `Results._send`.
                tasks.extend(map(engine.submit, (head,), (plain,), (kind,), (buffers or None,), (named,)))
                task = tasks[-1]
        except Unfinished as unfinished:
            from .values import Later, held

            args, kwargs = held((args, kwargs))
            made = unsubmitted(is_private, self.cancel_running, load)
            again = partial(self._send, options, fn, args, kwargs, name, beside, private, tasks)
            return Later(self, made, again, unfinished.futures).future
        except (Exception, SystemExit) as error:
            with self.lock:
                if self._closing:
                    self.check_open()
            if engine.is_foreign or is_pickled and isinstance(error, ValueError):
                raise  # Memory that the call lends is lent already, or overlaps.
            return error if isinstance(error, ArenaFull) else failed(of_pickling(error))
        made = Future(task, is_private, self.cancel_running, load)
        if used:
            self._copies.hold(made, used)
        return made

    def map(
        self, options: TaskOptions, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], timeout: float | None,
        chunksize: int | None, buffersize: int | None, progress: bool | str, name: str | None = None,
    ) -> Iterator[T]:  # fmt: skip
        """Submits a call for each item: see `Executor.map`."""
        check_sizes(chunksize, buffersize)
        if self.is_closed:
            # No items, nothing to submit.
            for _ in zip(*iterables):
                self.check_open()
            return iter(())
        if self.is_inline:
            return inline.map_calls(self.inline, fn, iterables)
        self._check_workers()
        from .map import Results

        named = options.named(name or name_of(fn))
        more = context.TIMED if options.is_timed else 0
        packs = self.packs and options.packs
        results = Results(self, fn, iterables, named, timeout, chunksize, buffersize, progress, more, packs)
        self.maps.add(results)
        is_single = chunksize == 1 or chunksize is None and (not packs or buffersize is not None)
        return results if is_single else results.flat()

    def copy_once(self, array: NDArray[Any]) -> Any:
        """Copies an array into the arena for any number of calls. Returns its replacement in their arguments, or
        NotImplemented for an array that is pickled."""
        self._copies.free()
        beside = pickling.Arguments(self.engine, False)
        reduced = beside.reduce_array(array)
        self.engine.count_copied(beside.copied)
        return reduced

    def share(self, value: T) -> T:
        """Copies arrays into the arena: see `Executor.share`."""
        self.check_open()
        from . import arrays

        if self.is_inline:
            return inline.share(value)
        self._copies.free()
        return arrays.share(self.engine, value, self.engine.count_copied)  # type: ignore[no-any-return]

    def make(self, shape: Any, dtype: Any, order: Any, zeroed: bool) -> NDArray[Any]:
        """Makes an array in the arena."""
        self.check_open()
        if self.is_inline:
            return inline.make(shape, dtype, order, zeroed)
        from . import arrays

        self._copies.free()
        return arrays.make(self.engine, shape, dtype, order, zeroed)

    def stats(self) -> Stats:
        """Returns statistics."""
        from . import stats

        if self.has_no_engine():
            return stats.Stats()
        self._copies.free()
        return stats.from_dict(self.engine.stats())

    def shutdown(self, wait: bool, cancel: bool, grace: float | None) -> None:
        """Ends the workers. `grace`: the seconds that running tasks have to end if `cancel` is true; None for ever."""
        # Without the lock: in a child made by `fork()`, it may belong to a thread that does not exist there.
        self.is_closed = True
        for serving in list(self.servings):
            serving.close()
        if self.has_no_engine() or self.engine.is_foreign:
            return
        try:
            for later in list(self.later):
                if cancel:
                    later.future.cancel()
                elif wait:
                    later.wait()
            maps = list(self.maps)
            for results in maps:
                if cancel:
                    results.cancel()
                else:
                    results.submit_rest(waits=wait)
            if cancel:
                self.engine.cancel_all(grace == 0)
            with self.lock:
                if (closing := self.engine.close(grace if cancel else None)) is not None:
                    self._closing.append(closing)
            if wait and self._closing:
                native.wait(self._closing[0], None)
                for results in maps:
                    if results.unread is not None:
                        with results.unread:
                            pass
                dispatch.unregister(self.output)
                for receiver in self.receivers:
                    receiver.close()
                while self.closers:
                    self.closers.pop(0)()
        except KeyboardInterrupt:
            self._report_ended(KeyboardInterrupt)
            self.engine.cancel_all(True)
            if self._closing:
                self._closing[0].wait(_LAST)
            raise

    def end_now(self, kind: type[BaseException]) -> None:
        """Ends all tasks for an exception of this class, and prints their number."""
        if not (self.has_no_engine() or self.engine.is_foreign):
            self._report_ended(kind)
        self.shutdown(True, True, 0.0)

    def _report_ended(self, kind: type[BaseException]) -> None:
        report_ended(kind, self.engine.open_tasks() + sum(results.unsent() for results in list(self.maps)))

    def check_open(self) -> None:
        """Raises RuntimeError after the shutdown."""
        if not self.is_closed:
            return
        if self.refusal is not None:
            raise Refusal(self.refusal)
        if _is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        raise RuntimeError("cannot schedule new futures after shutdown")

    def is_ending(self) -> bool:
        """Whether no call is sent any more, also none that waits."""
        return bool(self._closing)

    def _check_workers(self) -> None:
        if (why := self.engine.broken) is not None:
            from .._broken import start_failed

            raise start_failed(f"no worker can be started any more: {why}")


def _close_later(engine: _arenite.Engine, ends: list[_arenite.Closing], closers: list[Callable[[], object]]) -> None:
    """Called when an executor is dropped: its tasks may need what the closers end."""
    if not engine.is_foreign and closers:
        closing = engine.close(None)
        # Not a thread of `threading`, whose locks may be held where an object is dropped.
        start_new_thread(_close_at_end, (ends[-1] if closing is None else closing, closers))


def _close_at_end(closing: _arenite.Closing, closers: list[Callable[[], object]]) -> None:
    native.wait(closing, None)
    for close in closers:
        close()


def refusal() -> str:
    """Returns the reason why an executor in a worker refuses tasks: names the module that makes the executor."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_internal(frame):
        frame = frame.f_back
    name = frame.f_globals.get("__name__") if frame is not None else None
    return (
        f"a task cannot have an executor with workers of its own: module {name!r} has made this one in a worker. Submit "
        "from the program, or use Executor(max_workers=0), which runs in the task, or a pool of the standard library"
    )


def report_ended(kind: type[BaseException], count: int) -> None:
    """Prints how many tasks an exception of this class has ended, which may end the program without a word."""
    if count and sys.stderr is not None:
        tasks = "1 task that had" if count == 1 else f"{count} tasks that had"
        print(f"arenite: {kind.__name__} has ended {tasks} not finished", file=sys.stderr, flush=True)


def name_of(function: Any) -> str:
    """Returns the name of a function in statistics, traces and reports."""
    try:
        name = getattr(function, "__qualname__", None)
    except Exception:
        # Of a `__getattr__` that raises another exception than AttributeError.
        name = None
    return name if isinstance(name, str) else type(function).__qualname__


def _at_exit() -> None:
    """Finishes all submitted tasks before the interpreter ends, as the executors of the standard library do."""
    global _is_exiting
    _is_exiting = True
    # After Ctrl-C has ended the program, nobody waits for its tasks. In an interactive session that is no reason to
    # end.
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")
    try:
        for workers in list(running):
            if interrupted:
                workers.end_now(KeyboardInterrupt)
            else:
                workers.shutdown(True, False, None)
        _arenite.join_all()
        if "arenite._core.channel" in sys.modules:
            from . import channel

            channel.close_all()
    except BaseException as error:
        # Of a signal handler: there is no later end to wait at.
        for workers in list(running):
            workers.end_now(type(error))
        raise
    finally:
        dispatch.stop()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
