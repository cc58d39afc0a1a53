"""The results of many calls of one function, as `Executor.map` returns them."""

from __future__ import annotations

import _thread
import itertools
import sys
import threading
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._errors import ArenaFull, Cancelled
from . import native, out_of_band, pickling, room, values
from .bars import make_bar
from .future import Unfinished, of_pickling
from .inputs import (
    Chunks,
    Layouts,
    WithCopies,
    copies_of_repeated,
    is_endless,
    length,
    present,
)
from .outcomes import Entry, Failed, Flat, clear, failure, pieces, values_of
from .packing import STUCK, Packing, release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .._arenite import Options, Task
    from .packing import Pace
    from .workers import Workers


T = TypeVar("T")

#: The number of tasks in flight for an input with a length. Further items wait until results are taken.
_MOST_SIZED = 1 << 16
#: The number of calls in flight that are sent in packets.
_MOST_PACKED = 1 << 18
#: The number of tasks in flight for an input that may be endless: at first for each task that can run, and at most.
_FIRST_WINDOW = 4
_MOST_UNSIZED = 4096
#: The number of items that are taken from the input before sending, if the previous ones took at most this many
#: seconds.
_MOST_PULLED, _QUICK_PULL = 4096, 0.001
#: The number of items that are taken first, if the calls are known to be short.
_FIRST_PULLED = 16
#: The part of the arena for copies of the arguments of one map, as a divisor.
_PART = 4


class Results(Generic[T]):
    """The results of a map, in the order of its items.

    The exception of a task is raised in place of its result; the following `next` returns the result after it. Dropping
    the iterator after the first `next` cancels the tasks that have not begun; dropping it earlier lets all tasks run.
    Ctrl-C while `next` waits also ends running tasks, and ends the iteration.
    """

    def __init__(
        self, workers: Workers, function: Callable[..., T] | pickling.Function, iterables: tuple[Iterable[Any], ...],
        options: Options | None, timeout: float | None, chunksize: int | None, buffersize: int | None, progress: Any,
        more: int = 0, packs: bool = False, pace: Pace | None = None, is_star: bool = False,
        beside: Callable[..., out_of_band.Beside] = out_of_band.Arguments,
    ) -> None:  # fmt: skip
        """`packs`: without a `chunksize`, short calls may be sent in packets. `pace`: the measured time of calls, by
        default that of earlier maps of the function. `is_star`: whether an item of the only input is a tuple of all
        arguments of a call. `beside`: replaces arrays in arguments."""
        self._workers = workers
        self._engine = workers.engine
        self._private = workers.private
        self._cancel_running = workers.cancel_running
        self._private_results = workers.private_results
        self._load = workers.load
        #: Makes what replaces the value of a failed call.
        self._failed = partial(Failed.of_pickle, load=self._load)
        self._options = options
        self._until = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._function: pickling.Function
        if isinstance(function, pickling.Function):
            self._function = function
        else:
            self._function = pickling.pickle_function(function, workers.definitions, self._private)
            self._engine.count_copied(self._function.copied)
        self._chunksize = chunksize or 1
        copied = copies_of_repeated(iterables, workers.copy_once)
        self._beside = partial(WithCopies, copies=copied) if copied else beside
        self._is_star = is_star
        #: The number of items that are taken from the input at a time.
        self._most_pulled = 1
        #: Sends short calls in packets, if that is allowed.
        self.packing: Packing | None = None
        if packs and chunksize is None:
            pace = pace or workers.pace_of(function)
            is_single = len(iterables) == 1 and not is_star
            self.packing = Packing(workers, self._function, options, more, pace, is_single, self._beside)
            self._dump: Callable[[Any], Any] = self.packing.dump
            # The first packets of calls that are known to be short are no single calls.
            self._most_pulled = max(1, min(pace.size, _FIRST_PULLED))
            if self._beside is out_of_band.Arguments:
                self._dump = Layouts(self._dump, self._engine.find_object, self._function.objects()).dump
        #: Tasks in flight, in order; calls in packets are in `line` of `packing`.
        self._flying: deque[Entry] = deque()
        #: With packets: the number of values that were taken, and the bytes that were copied for their calls.
        self._given = self._given_bytes = 0
        #: Values of a task that the caller has not got yet.
        self._values: deque[Any] = deque()
        #: The bytes that were copied for the tasks in flight.
        self._bytes = 0
        self._most_bytes = workers.capacity // _PART
        #: Random numbers of calls depend on their index in this series: those of packets, in that of `packing`.
        self._series = self._engine.series() if self.packing is None else None
        #: The index of the next call.
        self._index = 0
        #: The arguments of the next task, after they were taken from the input.
        self._held: Any = None
        #: The task with these arguments after it was submitted, and the bytes that were copied for it.
        self._sent: list[Task] = []
        self._copied = 0
        #: Locked while tasks are submitted.
        self._lock = threading.RLock()
        #: Locked while a result is taken, also while a thread waits for the result.
        self._taking = threading.RLock()
        self._is_cut = False
        #: Whether a result was asked for.
        self._is_begun = False
        #: Locked until all tasks have ended, after the iterator was dropped before a result was asked for.
        self.unread: _thread.LockType | None = None
        #: Whether the executor was shut down before all results were taken.
        self._is_cancelled = False
        self._exact = buffersize is not None
        #: Whether `_values` contains no failure.
        self._is_whole = False
        if buffersize is None:
            iterables = tuple(map(present, iterables))
        lengths = [known for items in iterables if (known := length(items)) is not None]
        self._is_sized = len(lengths) == len(iterables)
        self._is_endless = all(map(is_endless, iterables))
        total = min(lengths) if lengths else None
        if buffersize is not None:
            self._window = buffersize
        elif self._is_sized:
            self._window = _MOST_SIZED if self.packing is None else _MOST_PACKED
        else:
            self._window = _FIRST_WINDOW * workers.slots
        self._kind = pickling.POSITIONAL
        self._items: Iterator[Any] | None = self._tasks(iterables)
        self._kind |= more
        self._bar = make_bar(progress, total if self._is_sized else None)
        self._begin()
        try:
            self._fill()
        except BaseException:
            # No caller has this object, but the traceback refers to it.
            self.close()
            raise

    def _begin(self) -> None:
        """Called before the first task is submitted."""

    def _tasks(self, iterables: tuple[Iterable[Any], ...]) -> Iterator[Any]:
        """Returns the arguments of each task, and sets the kind of the arguments."""
        calls: Iterator[Any]
        if self._is_star:
            calls = map(tuple, iterables[0])
        elif self._chunksize > 1 and len(iterables) == 1:
            self._kind = pickling.MANY
            return Chunks(iterables[0], self._chunksize)
        elif self.packing is not None and len(iterables) == 1:
            return iter(iterables[0])
        else:
            calls = zip(*iterables)
        if self._chunksize == 1:
            return calls
        self._kind = pickling.MANY_TUPLES
        return Chunks(calls, self._chunksize)

    def _fill(self) -> None:
        """Submits items until the window is full."""
        if self.packing is not None:
            self._fill_packing(self.packing)
            return
        with self._lock:
            while len(self._flying) < self._window and (self._bytes < self._most_bytes or not self._flying):
                if not self._submit_next():
                    return

    def _submit_next(self, waits: bool = True) -> bool:
        """Submits the next item. Returns false if there is none, or if it must wait for room in the arena."""
        if self._held is None and not self._pull():
            return False
        calls = len(self._held) if self._chunksize > 1 else 1
        outcome: Task | BaseException
        try:
            if not self._sent:
                self._send(self._held)
            outcome = self._sent[0]
        except ArenaFull as full:
            if waits and self._flying:
                return False
            self._copied, outcome = 0, room.advise(full)
        except (Exception, SystemExit) as error:
            self._copied, outcome = 0, of_pickling(error)
        entry = Entry(outcome, self._copied, calls)
        # No function calls from here on: see `_send`.
        self._flying += (entry,)
        self._bytes += entry.copied
        self._index += calls
        self._held = None
        self._sent = []
        return True

    def _pull(self) -> bool:
        """Takes the arguments of the next task from the input. Returns false at its end."""
        if self._items is not None:
            # Does not call `next`: see `_send`.
            for self._held in self._items:
                return True
            self._items = None
        return False

    def _send(self, item: Any) -> None:
        """Submits a task for these arguments.

        The interpreter raises `KeyboardInterrupt` only after calls of functions. So the result of a call must be
        recorded by that call, or by following steps without a call: an item that was pulled in `_held`, a task that was
        sent in `_sent`, a result in `_values`. Then `next` can continue where Ctrl-C came.
        """
        function, engine = self._function, self._engine
        data = None if self._chunksize > 1 else pickling.dump_plain(item)
        if data is not None:
            head, kind, buffers, self._copied = function.head, function.kind | self._kind, function.buffers, 0
        else:
            try:
                head, data, kind, buffers, copied = function.call(item, self._kind, self._private, self._beside)
            except Unfinished as unfinished:
                values.wait(unfinished)
                return self._send(item)
            self._copied = copied + len(data)
            engine.count_copied(copied)
        head, kind = self._workers.sent.before(head, kind)
        call = (head,), (data,), (kind,), (buffers or None,), (self._options,), ((self._series, self._index),)
        self._sent.extend(map(engine.submit, *call))

    def _fill_packing(self, packing: Packing) -> None:
        """Takes items from the input until the window is full."""
        with self._lock:
            while self._items is not None or packing.stock.held is not None:
                ahead = self._ahead(packing)
                room = self._window - ahead
                copied = packing.stock.pulled_bytes - self._given_bytes + self._bytes
                if room <= 0 or ahead and copied >= self._most_bytes:
                    return
                begin = monotonic()
                if not self._pull_packing(packing, min(room, self._most_pulled)):
                    return
                # Takes more items at a time from an input that does not wait.
                most = 2 * self._most_pulled if monotonic() - begin < _QUICK_PULL else self._most_pulled // 4
                self._most_pulled = max(1, min(most, _MOST_PULLED))
                packing.feed()

    def _ahead(self, packing: Packing) -> int:
        """Returns the number of items that were taken from the input and whose results were not taken."""
        return packing.stock.pulled - self._given + (len(self._values) if self._exact else 0)

    def _pull_packing(self, packing: Packing, most: int) -> bool:
        """Takes items from the input. Returns false if they must wait for room in the arena."""
        stock = packing.stock
        error: BaseException | None = None
        packing.is_pulling = True
        if not self._is_sized:
            # Lets the dispatcher send calls if the input waits.
            packing.feed()
        try:
            packing.window = self._window
            # Not `or`: an iterator may be false.
            items = iter(()) if self._items is None else self._items
            if not stock.pull(items, most, not self._is_sized, self._dump):
                self._items = None
                packing.has_input = False
        except (Exception, SystemExit) as raised:
            if stock.held is None:
                raise
            error = of_pickling(raised)
        finally:
            packing.is_pulling = False
        if stock.held is None:
            return True
        return self._submit_alone(packing, error)

    def _submit_alone(self, packing: Packing, error: BaseException | None) -> bool:
        """Submits the arguments that cannot be part of a packet as a task. `error`: the reason if they cannot be
        pickled. Returns false if they must wait."""
        # Sends the earlier calls.
        packing.feed(all_of_it=True)
        outcome: Task | BaseException
        if error is None and not self._sent:
            try:
                call = [(part,) for part in packing.call_alone()]
                self._sent.extend(map(self._engine.submit, *call))
            except Exception as raised:
                error = raised
        if isinstance(error, ArenaFull):
            if self._ahead(packing) and not packing.is_last:
                return False
            error = room.advise(error)
        if error is None:
            outcome, copied = self._sent[0], packing.alone[-1]
        else:
            outcome, copied = error, 0
        entry = Entry(outcome, copied, 1)
        # The last call of a function: see `_send`.
        packing.line += (entry,)
        packing.taken += 1
        self._bytes += entry.copied
        self._sent = []
        packing.stock.release()
        return True

    def __iter__(self) -> Results[T]:
        return self

    def __next__(self) -> T:
        while True:
            try:
                if self._exact and self.packing is not None and self._values:
                    self._fill_packing(self.packing)
                while not self._values:
                    self._advance()
            except BaseException as interrupt:
                if isinstance(interrupt, Exception):
                    raise
                self._interrupt(interrupt)
                # The traceback must not keep objects that the caller has dropped.
                clear(interrupt)
                self = None  # type: ignore[assignment]
                raise
            values = self._values
            value = values[0]
            error = None if self._is_whole else failure(value)
            # No function calls up to the end: see `_send`. Another thread may have taken the value.
            if values and values[0] is value:
                del values[0]
                if error is None:
                    return value  # type: ignore[no-any-return]
                try:
                    raise error
                finally:
                    value = error = self = None  # type: ignore[assignment]

    def flat(self) -> Iterator[T]:
        """Returns an iterator over the results of single calls, for a map whose tasks consist of several calls."""
        found = self._pieces()
        # The iteration starts at a point where an exception does not end it.
        next(found)
        flat = Flat.from_iterable(found)
        flat.results = self  # type: ignore[attr-defined]
        return flat

    def _pieces(self) -> Iterator[Iterable[T]]:
        """Yields the results in pieces, after an empty piece. An exception is part of a piece, so it does not end the
        iteration."""
        error: BaseException | None = None
        while True:
            try:
                yield ()
                if error is not None:
                    piece: Iterable[T] = pieces(deque([Failed(error)]))
                    error = None
                    yield piece
                while True:
                    if not self._values:
                        self._advance()
                    whole, given = self._is_whole, self._values
                    # Removes each value from the piece, so that only the caller refers to it.
                    piece = map(deque.popleft, itertools.repeat(given, len(given))) if whole else pieces(given)
                    values: deque[Any] = deque()
                    # No function call: see `_send`.
                    self._values = values
                    yield piece
            except (StopIteration, GeneratorExit):
                return
            except BaseException as raised:
                # Also for Ctrl-C: a piece raises it.
                error = raised
                if not isinstance(raised, Exception):
                    self._interrupt(raised)

    def _advance_packing(self, packing: Packing) -> None:
        """Takes results of calls, unless values are left."""
        with self._taking:
            if self._values:
                return
            if self._exact or self._ahead(packing) <= self._window // 2:
                packing.feed()
                if not self._exact and not self._is_sized and packing.is_starving():
                    self._window = min(2 * self._window, _MOST_UNSIZED)
                self._fill()
            # Another thread may close the map meanwhile.
            line = packing.line
            entry = self._next_packing(packing)
            if entry is None:
                packing.free()
                raise self._end()
            mark: Any = None
            if type(entry) is Entry:
                is_whole, values = values_of(entry, self._chunksize, self._load, self._private_results)
            else:
                is_whole, values, mark = packing.values(entry, Failed, self._failed)
            count, copied = len(values), entry.copied
            # No function calls up to `spend`: see `_send`.
            self._is_whole = is_whole
            self._values += values
            self._given += count
            if mark is not None:
                entry.taken, entry.at, entry.is_spent = mark
                if entry.is_spent:
                    self._given_bytes += copied
                    packing.spend(entry)
            else:
                self._bytes -= copied
                line.remove(entry)
        if self._bar is not None:
            self._bar.update(count)

    def _next_packing(self, packing: Packing) -> Any:
        """Waits for the next calls that end. Returns None if no calls are left."""
        while True:
            packing.feed()
            entry = packing.first()
            if entry is None:
                return None
            if type(entry) is Entry:
                if not isinstance(entry.task, BaseException) and not self._wait(entry.task, self._left()):
                    raise self._late()
                return entry
            if packing.is_ready(entry):
                return entry
            # Meanwhile other packets may have to be taken back or sent.
            left = self._left()
            pause = STUCK if packing.is_busy() else left
            if left is not None and pause is not None:
                pause = min(left, pause)
            if self._wait(entry.task, pause):
                continue
            if entry.has_more():
                return entry
            if left is not None and left <= STUCK:
                raise self._late()

    def _advance(self) -> None:
        """Takes the outcome of the next task, unless the caller has not got all values of an earlier task yet."""
        self._is_begun = True
        if self.packing is not None:
            self._advance_packing(self.packing)
            return
        with self._taking:
            if self._values:
                return
            if self._exact or len(self._flying) <= self._window // 2:
                if self._flying and not self._exact and not self._is_sized and self._is_starving():
                    self._window = min(2 * self._window, _MOST_UNSIZED)
                self._fill()
            # Another thread may close the map meanwhile.
            flying = self._flying
            entry = self._next()
            if entry is None:
                raise self._end()
            is_whole, values = values_of(entry, self._chunksize, self._load, self._private_results)
            # No function calls up to the last line: see `_send`.
            self._is_whole = is_whole
            self._values += values
            self._bytes -= entry.copied
            flying.remove(entry)
        if self._bar is not None:
            self._bar.update(len(values))

    def _end(self) -> BaseException:
        """Returns the exception to raise when no results are left."""
        if self._bar is not None:
            self._bar.close()
        if self._is_cancelled:
            return Cancelled()
        # An iterator that is exhausted keeps no workers.
        release(self)
        if self._is_cut:
            return RuntimeError(
                "the executor was shut down before the input of this map was used up: take the results inside of the "
                "`with` block, or pass a list, whose items are all submitted before"
            )
        return StopIteration()

    def _next(self) -> Entry | None:
        """Waits for the next task that ends. Returns None if no task is left."""
        if not self._flying:
            return None
        entry = self._flying[0]
        if not isinstance(entry.task, BaseException) and not self._wait(entry.task, self._left()):
            raise self._late()
        return entry

    def _wait(self, task: Task, timeout: float | None) -> bool:
        """Waits for the end of a task. Exceptions come from signal handlers only."""
        try:
            return native.wait(task, timeout)
        except Exception as error:
            self._interrupt(error)
            raise

    def _interrupt(self, error: BaseException) -> None:
        """Ends the map after a signal handler has interrupted a wait for a result. Only Ctrl-C ends running tasks."""
        self.close(isinstance(error, KeyboardInterrupt) and self._cancel_running)
        if self._bar is not None:
            self._bar.close()

    def _left(self) -> float | None:
        """Returns the seconds until the timeout."""
        return None if self._until is None else max(0.0, self._until - monotonic())

    def _late(self) -> TimeoutError:
        # No results come after the timeout, as in the standard library.
        self.close(self._cancel_running)
        return TimeoutError(f"the results of the map did not come within {self._timeout} s")

    def _is_starving(self) -> bool:
        """Whether the workers are idle because results are taken as fast as they come."""
        last = self._flying[-1].task
        return isinstance(last, BaseException) or last.done()

    def has_input(self) -> bool:
        """Whether items are left in the input."""
        is_held = self._held if self.packing is None else self.packing.stock.held
        return self._items is not None or is_held is not None

    def unsent(self) -> int:
        """Returns the number of calls that wait to be sent in packets."""
        return 0 if self.packing is None else len(self.packing.stock)

    def submit_rest(self, has_end: bool = False, waits: bool = False) -> None:
        """Submits all items that are left, before the executor ends. Reads an input without a length, which may be
        endless, only if `has_end` is true or no result was asked for. `waits`: waits until no packet must be sent
        again."""
        with self._lock:
            is_left_unread = self._is_begun and self.unread is None or self._exact or self._is_endless
            if is_left_unread and not self._is_sized and not has_end:
                self._is_cut = self._items is not None
                self._items = None
                if self.packing is None:
                    return
            self._window = 1 << 62
            if self.packing is not None:
                self._submit_rest_packing(self.packing, waits)
                return
            while self._items is not None or self._held is not None:
                if not self._submit_next() and self._held is not None:
                    # The arena is full. The end of the tasks in flight frees their arguments.
                    for entry in tuple(self._flying):
                        if not isinstance(entry.task, BaseException):
                            entry.task.wait(None)
                    self._submit_next(waits=False)

    def _submit_rest_packing(self, packing: Packing, waits: bool) -> None:
        while self._items is not None or packing.stock.held is not None:
            self._fill_packing(packing)
            if packing.stock.held is not None or self._items is not None:
                # The arena is full. The end of the tasks in flight frees their arguments.
                packing.wait_for_all()
                for entry in tuple(packing.line):
                    if type(entry) is Entry and not isinstance(entry.task, BaseException):
                        entry.task.wait(None)
                self._most_bytes = 1 << 62
                self._pull_packing(packing, 1)
        if waits:
            packing.wait_for_all()
        packing.send_alone()

    def close(self, kill: bool = False) -> None:
        """Cancels the tasks that have not begun, and with `kill` ends running tasks. No further results come."""
        with self._lock:
            self._items = self._held = None
            left: list[Any] = [*self._sent, *(entry.task for entry in tuple(self._flying))]
            if self.packing is not None:
                left += self.packing.close()
            tasks: list[Task] = [task for task in left if not isinstance(task, BaseException)]
            # Cancels all tasks before it ends the first worker, which must not begin another task.
            for task in tasks:
                task.cancel()
            for task in tasks:
                if kill and not task.done():
                    task.kill()
            self._sent, self._flying = [], deque()
            self._values.clear()

    def _is_open(self) -> bool:
        """Whether items or tasks are left."""
        return bool(self.has_input() or self._flying or self.packing is not None and self.packing.is_open())

    def cancel(self) -> None:
        """Cancels the tasks that have not begun, because the executor ends."""
        with self._lock:
            self._is_cancelled = self._is_open()
        self.close()

    def __del__(self) -> None:
        if "_bar" not in self.__dict__:
            return  # `__init__` has failed, before any task was submitted.
        if self._is_begun or self._is_endless or not self._is_open() or sys.is_finalizing():
            self.close()
            return
        # As in the standard library, all calls are made although no caller asks for the results.
        if self._exact:
            self._items = None
        self.unread = _thread.allocate_lock()
        self.unread.acquire()
        self._workers.maps.add(self)
        try:
            # Not `threading`, whose locks the thread may hold that runs the garbage collector. The thread keeps this
            # object.
            _thread.start_new_thread(self._run_unread, (self.unread,))
        except RuntimeError:
            self.unread.release()
            self.close()

    def _run_unread(self, lock: _thread.LockType) -> None:
        """Lets all tasks run, and drops their results."""
        error: BaseException | None = None
        try:
            while True:
                try:
                    self._advance()
                except (StopIteration, Cancelled):
                    break
                except Exception as raised:
                    # Of the input, or an engine that has ended.
                    if error is not None:
                        break
                    error, self._items = raised, None
                self._values.clear()
            if error is not None:
                # The interpreter prints it.
                raise error
        finally:
            lock.release()
