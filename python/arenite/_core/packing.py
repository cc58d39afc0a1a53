"""Sends short calls of a map in packets, for `Results`, if each call could be a separate task.

The first calls are sent alone, to measure the time of a call. A packet takes a few milliseconds. The worker of a packet
writes the result of each call into a journal, which is shared memory (`src/packet`). So results outlive the worker, and
the program knows which calls have begun. If a worker dies, the call that ran fails, and the calls that had not begun
are sent again. The program also sends the rest of a packet again if the packet takes too long: it closes the journal,
so that no further call of the packet begins.

A thread that takes results sends the next packets. While no thread takes results, the dispatcher sends them.
"""

from __future__ import annotations

import threading
from collections import deque
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._arenite import Buffer, Journal, Stock
from .._errors import ArenaFull, Cancelled
from . import dispatch, native, out_of_band, pickling, values
from .future import Unfinished, error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._arenite import Options, Packet, Task
    from .workers import Workers

#: The intended seconds of a packet.
_TARGET = 0.004
#: The seconds from which on a call is sent alone: then the overhead of a task is a hundredth of the call.
_LONG = 0.0005
#: The largest number of calls in a packet.
_MOST_CALLS = 8192
#: The number of calls that are measured before packets are made.
_MEASURED = 3
#: The rest of a packet is taken back after this many seconds without the begin of a call, and after this many seconds.
STUCK, _LATE = 0.02, 0.05
#: The seconds of work that are sent ahead for each thread of a worker; and the smallest and largest number of packets.
_AHEAD, _LEAST_AHEAD, _MOST_AHEAD = 0.02, 3, 16
#: The number of packets that measure how long other programs use the workers' cores, and the longest time considered.
_LATE_PACKETS, _LATEST = 16, 0.5
#: The seconds after which the dispatcher replaces a thread that takes no results.
_TEND = 0.004
#: The number of tasks for each thread of a worker that are checked together.
_MOST_LOOKS = 8
#: The bytes of a journal, and the part of the arena for the journals of a map, as a divisor.
_JOURNAL = 128 << 10
_PART = 16
#: The longest pickle of arguments in a packet, and the largest number of its buffers.
_LONGEST, _MOST_BUFFERS = 8 << 10, 64
#: The kinds of a failure before the first call that apply to all calls of the task.
_OF_ALL = ("cancelled", "shutdown", "start", "raised", "rejected")


class Pace:
    """The measured time of a function's calls."""

    def __init__(self) -> None:
        #: The seconds per call in the last packets.
        self._last: deque[float] = deque(maxlen=_MEASURED)
        self._late: deque[float] = deque(maxlen=_LATE_PACKETS)
        self._most = _MOST_CALLS

    def note(self, seconds: float, late: float, calls: int, of: int) -> None:
        """Records that a packet with `of` calls has ended after `calls` calls, while other programs had the core for
        `late` seconds."""
        self._last.append(seconds / calls)
        self._late.append(min(2 * late, _LATEST))
        if calls == of > 1:
            self._most = min(2 * self._most, _MOST_CALLS)
        elif calls < of and seconds < _TARGET:
            # The journal was full, or a value was too long for it.
            self._most = max(calls, self._most // 4)

    @property
    def time(self) -> float | None:
        """Returns the seconds of a call, or None before they are known: the shortest of the last times, because the
        first calls load modules."""
        return min(self._last) if len(self._last) == _MEASURED else None

    @property
    def late(self) -> float:
        """Returns the seconds by which a packet may be late because other programs use the cores. Its rest is not taken
        back for that."""
        return max(self._late, default=0.0)

    @property
    def size(self) -> int:
        """Returns the number of calls for a packet; 0 while it is not known."""
        time = self.time
        if time is None:
            return 0
        return 1 if time > _LONG else min(self._most, int(_TARGET / max(time, 1e-9)))


class Entry:
    """Calls of a map that are sent together."""

    __slots__ = (
        "at", "began", "calls", "error", "first", "is_armed", "is_spent", "journal", "limit", "packets", "reply", "rest", "seen",
        "seen_at", "tail", "taken", "tasks",
    )

    def __init__(self, first: int, *packets: Packet) -> None:
        #: The number of its first call.
        self.first = first
        #: The packet after it was taken, and its task after it was sent: lists that one call fills. See
        #: `Results._send`.
        self.packets: list[Packet] = list(packets)
        self.tasks: list[Task] = []
        self.journal: Journal | None = None
        #: The reason why the packet could not be sent.
        self.error: BaseException | None = None
        #: After the task has ended, the number of the entry's calls; further calls are in `rest`.
        self.calls: int | None = None
        #: The number of calls that had begun when the journal was closed.
        self.limit: int | None = None
        #: The reply of the task; and the pickle and buffers of the last value, if it is not in the journal.
        self.reply: Any = None
        self.tail: Any = None
        #: The number of values that were taken, and the offset of the next value in the journal.
        self.taken = self.at = 0
        self.is_spent = False
        #: The entries that follow in the order of the items.
        self.rest: list[Entry] = []
        #: The number of calls that had begun at the last check, and the time when this number was first seen.
        self.seen, self.seen_at = 0, 0.0
        #: The time when the first call was seen to have begun.
        self.began = 0.0
        #: Whether its end is reported.
        self.is_armed = False

    @property
    def task(self) -> Task | None:
        return self.tasks[0] if self.tasks else None

    @property
    def is_waiting(self) -> bool:
        """Whether the packet was not sent yet."""
        return not self.tasks and self.error is None and bool(self.packets)

    @property
    def copied(self) -> int:
        """The bytes that were copied for the calls that are not in `rest`."""
        return sum(one.copied for one in self.packets) - sum(one.packets[0].copied for one in self.rest)

    def has_more(self) -> bool:
        """Whether results were not taken yet."""
        return self.journal is not None and self.journal.done > self.taken

    @property
    def has_ended(self) -> bool:
        return self.error is not None or not self.packets or (bool(self.tasks) and self.tasks[0].done())


def _first(entry: Entry) -> int:
    return entry.first


def release(calls: Any) -> None:
    """Drops the references of calls that have all ended to their workers."""
    for name in ("_workers", "_engine"):
        vars(calls).pop(name, None)


class Packing:
    """Sends the calls of a map in packets."""

    def __init__(
        self,
        workers: Workers,
        function: pickling.Function,
        options: Options | None,
        kind: int,
        pace: Pace,
        is_single: bool,
        beside: Callable[..., out_of_band.Beside],
    ) -> None:
        """`is_single`: whether each item of the input is the only argument of a call, rather than a tuple of all
        arguments."""
        self._workers = workers
        self._engine = workers.engine
        self._function = function
        self._options = options
        self._kind = kind | pickling.PACKED
        self._beside = beside
        self.pace = pace
        #: The calls that were not sent.
        self.stock = Stock(is_single, function.has_objects())
        #: Entries whose end must be noticed: they wait, are measured, or may have a rest.
        self.open: list[Entry] = []
        #: Locked while entries change, and never while code of the program runs.
        self.lock = (native.original("RLock") or threading.RLock)()
        #: All entries in the order of the items, except those in the `rest` of others.
        self.line: deque[Any] = deque()
        self._free: list[Journal] = []
        self._most_journals = workers.capacity // _PART // _JOURNAL
        self._journals = 0
        #: A call that cannot be part of a packet.
        self.alone: Any = None
        #: Called with each entry that was sent.
        self.when_sent: Callable[[Entry], object] | None = None
        #: The time of the last call of `feed`.
        self._fed = 0.0
        #: The number of calls that were taken from the stock, or sent alone.
        self.taken = 0
        #: Their random numbers depend on their index in this series.
        self._series = workers.engine.series()
        #: Whether entries to send were added.
        self._was_split = False
        #: The number of calls that may be in flight, and whether the input may have more calls than the stock.
        self.window = 1 << 30
        self.has_input = True
        #: Whether items are being taken from the input, which may wait for the effects of calls.
        self.is_pulling = False
        #: Whether all calls are sent as separate tasks, because the executor ends.
        self.is_last = False

    # ---- the input

    def dump(self, item: Any) -> tuple[bytes, list[Any], int] | None:
        """Pickles arguments. Returns None if they must be sent alone; then `alone` has the call."""
        definitions, private = self._workers.definitions, self._workers.private
        kind, picklers = self._kind & ~pickling.PACKED | pickling.POSITIONAL, self._function.picklers()
        try:
            data, buffers, copied, names = definitions.dump(item, private, self._beside, picklers, True)
        except Unfinished as unfinished:
            values.wait(unfinished)
            return self.dump(item)
        if self._function.shares(picklers):
            self.alone = self._function.call(item, kind, private, self._beside)
            self._engine.count_copied(self.alone[-1])
            return None
        self._engine.count_copied(copied)
        if not names <= self._function.names:
            self._function = self._function.referring_to(names, definitions)
        is_long = len(data) > _LONGEST or len(buffers) > _MOST_BUFFERS
        if is_long or any(type(one) is not Buffer or one.lent for one in buffers):
            function = self._function
            self.alone = function.head, data, function.kind | kind, [*function.buffers, *buffers], copied
            return None
        return data, buffers, copied + len(data)

    def call_alone(self) -> tuple[Any, ...]:
        """Returns the arguments of `submit` for the call that was pickled last."""
        head, data, kind, buffers, _ = self.alone
        head, kind = self._workers.sent.before(head, kind)
        return head, data, kind, buffers or None, self._options, (self._series, self.taken)

    def _call(self, data: bytes, kind: int, buffers: Sequence[Any], first: int) -> tuple[Any, ...]:
        function = self._function
        head, kind = self._workers.sent.before(function.head, function.kind | kind)
        return head, data, kind, [*function.buffers, *buffers] or None, self._options, (self._series, first)

    # ---- sending

    def feed(self, all_of_it: bool = False) -> None:
        """Processes ended tasks, and sends the next packets. `all_of_it`: sends the whole stock."""
        with self.lock:
            self._fed = now = monotonic()
            busy = 0
            for entry in tuple(self.open):
                if entry.is_waiting:
                    self._was_split = True
                elif entry.has_ended:
                    self.settle(entry)
                elif (busy := busy + 1) > _MOST_LOOKS * self._workers.slots:
                    # Tasks end approximately in the order in which they were sent.
                    break
                elif entry.journal is not None and entry.limit is None:
                    self._look(entry, now)
            if self._was_split:
                self._was_split = False
                # In the order of the items: a call may wait until earlier results are taken.
                for entry in sorted(self.open, key=_first):
                    if entry.is_waiting:
                        self._send(entry)
            while len(self.stock):
                size = self._next_size()
                if not size:
                    if not all_of_it:
                        break
                    size = max(1, self.pace.size)
                entry = Entry(self.taken)
                # No function call: an interrupt leaves an entry without calls.
                self.line += (entry,)
                entry.packets.extend(map(self.stock.take, (size,)))
                self.taken += len(entry.packets[0])
                self._send(entry)
                if self.pace.size != 1 and not entry.is_spent:
                    self.open += (entry,)
            if self.open or len(self.stock) or self.is_pulling:
                dispatch.tend(self)
            else:
                dispatch.leave(self)

    def tend(self) -> None:
        """Calls `feed` from the dispatcher while work remains, unless a thread that takes results has just called
        it."""
        if monotonic() - self._fed >= _TEND and self.lock.acquire(blocking=False):
            try:
                self.feed()
            finally:
                self.lock.release()

    def _next_size(self) -> int:
        """Returns the number of calls to send now; 0 to wait."""
        slots, stock, size = self._workers.slots, len(self.stock), self.pace.size
        if self.is_last or size == 1:
            return 1
        if not size:
            return int(len(self.open) < max(_MEASURED + 1, 2 * slots))
        size = min(size, self.window // (4 * slots) or 1)
        ahead = max(_LEAST_AHEAD, min(_MOST_AHEAD, ceil(_AHEAD / (size * (self.pace.time or _LONG)))))
        if len(self.open) >= ahead * slots:
            return 0
        if self.has_input and (stock >= size or len(self.open) >= 2 * slots):
            # With too few calls it waits: more will come, and the workers are busy.
            return size if stock >= size else 0
        return min(size, max(size // 16, ceil(stock / (2 * slots)), 1))

    def _send(self, entry: Entry) -> None:
        if not entry.packets or entry.is_spent:
            return
        packet = entry.packets[0]
        kind, own = self._kind, packet.buffers
        if len(packet) > 1:
            try:
                if entry.journal is None:
                    entry.journal = self._new_journal()
                own = [entry.journal.open(), *own]
            except ArenaFull:
                # Sends each call as a separate task.
                self._split(entry, 0, 1)
                entry.is_spent = True
                return
            kind |= pickling.JOURNALED
        try:
            call = [(part,) for part in self._call(packet.arguments, kind, own, entry.first)]
            entry.tasks.extend(map(self._engine.submit, *call))
        except Exception as error:
            entry.error = error
        if self.when_sent is not None:
            self.when_sent(entry)

    def _new_journal(self) -> Journal:
        if self._free:
            return self._free.pop()
        if self._journals >= self._most_journals:
            raise ArenaFull("the journals of a map take their share of the arena")
        journal = Journal(self._engine.alloc(_JOURNAL))
        self._journals += 1
        return journal

    def _split(self, entry: Entry, first: int, most: int) -> None:
        """Ends an entry at the call `first`, and makes entries of at most `most` calls from the rest."""
        rest = self._rest(entry, first, most)
        # No function call: see `Results._send`.
        entry.calls = first
        entry.rest = rest
        self.open += rest
        self._was_split = True

    def _rest(self, entry: Entry, first: int, most: int) -> list[Entry]:
        packets = entry.packets[0].rest(first, most)
        return [Entry(entry.first + first + number * most, packet) for number, packet in enumerate(packets)]

    def _look(self, entry: Entry, now: float) -> None:
        """Takes back calls of a packet that have not begun, if one of its calls, or the packet, takes long."""
        journal, packet = entry.journal, entry.packets[0]
        assert journal is not None
        begun = journal.begun
        if not begun:
            return
        if not entry.seen:
            entry.began = now
        if begun != entry.seen:
            entry.seen, entry.seen_at = begun, now
        late = self.pace.late
        if begun >= len(packet) or now - entry.seen_at <= STUCK + late and now - entry.began <= _LATE + late:
            return
        self.take_back(entry, ceil((len(packet) - begun) / (2 * self._workers.slots)) or 1)
        # Later packets that have not begun are sent again after this rest, so that no call overtakes one that is to end
        # earlier.
        for other in tuple(self.open):
            is_later = other.first > entry.first and other.tasks and other.limit is None
            if is_later and other.journal is not None and not other.journal.begun:
                self.take_back(other, len(other.packets[0]))

    def take_back(self, entry: Entry, most: int) -> None:
        """Prevents further calls of a packet from beginning. Sends its rest in packets of at most `most` calls."""
        assert entry.journal is not None
        limit = min(entry.journal.close(), len(entry.packets[0]))
        rest = self._rest(entry, limit, most)
        # No function call: see `Results._send`.
        entry.limit = limit
        entry.rest = rest
        self.open += rest
        self._was_split = True

    # ---- outcomes

    def settle(self, entry: Entry) -> None:
        """Takes the reply of a task that has ended. Does nothing if it was taken."""
        with self.lock:
            if entry.calls is None and entry.packets:
                self._settle(entry)
            if entry in self.open:
                self.open.remove(entry)

    def _settle(self, entry: Entry) -> None:
        packet, journal = entry.packets[0], entry.journal
        count = len(packet) if entry.limit is None else entry.limit
        if entry.error is not None:
            entry.calls = count
            return
        reply = entry.tasks[0].take()
        if type(reply) is not dict:
            try:
                took, late, calls, tail = pickling.load(reply[0], ())
                if calls:
                    self.pace.note(took, late, calls, count)
            except Exception as error:
                # The worker has damaged its memory.
                entry.error, entry.calls = error, count
                return
            if tail is not None:
                entry.tail = tail, reply[1]
        elif journal is None:
            calls = 1
        else:
            begun, done = min(journal.begun, count), journal.done
            if not begun and reply["kind"] in _OF_ALL:
                calls = count
            else:
                # Counts at least one call, so that attempts end if each fails before its first call.
                calls = max(begun, done, 1)
        entry.reply = reply
        if entry.limit is None and calls < len(packet):
            size = max(1, self.pace.size)
            self._split(entry, calls, min(size, ceil((len(packet) - calls) / (2 * self._workers.slots))))
        else:
            entry.calls = calls

    def is_ready(self, entry: Entry) -> bool:
        """Whether the task of an entry has ended. Sends the entry if it was not sent."""
        if entry.is_waiting:
            with self.lock:
                self._send(entry)
        if not entry.has_ended:
            return False
        self.settle(entry)
        return True

    def is_busy(self) -> bool:
        """Whether there is something to do while a thread waits for the first task: packets that may have to be sent or
        taken back, or calls in stock."""
        return bool(self.open or len(self.stock))

    def is_starving(self) -> bool:
        """Whether the workers are idle because results are taken as fast as they come."""
        last = self.line[-1] if self.line else None
        if len(self.stock) or self.open:
            return False
        if type(last) is not Entry:
            return last is None or isinstance(last.task, BaseException) or bool(last.task.done())
        return last.has_ended

    def is_open(self) -> bool:
        """Whether results of calls are left."""
        return bool(len(self.stock)) or self.stock.held is not None or self.first() is not None

    def first(self) -> Any:
        """Returns the first entry with values left, or a task that was sent alone; None if there is none."""
        with self.lock:
            while self.line:
                entry, line = self.line[0], None
                while type(entry) is Entry and entry.is_spent and entry.rest:
                    entry, line = entry.rest[0], entry.rest
                if type(entry) is not Entry or not entry.is_spent and entry.packets:
                    return entry
                if line is None:
                    del self.line[0]
                else:
                    del line[0]
            return None

    def values(self, entry: Entry, failed: type[Any], make: Callable[[bytes], Any]) -> tuple[bool, list[Any], Any]:
        """Returns the results of an entry's calls since the last time: whether all calls have succeeded, the values,
        and the new `taken`, `at` and `is_spent`. `failed`: the class of objects in place of failures; `make` makes such
        an object from the pickle of an exception."""
        journal, calls = entry.journal, entry.calls
        load, private = self._workers.load, self._workers.private_results

        def read(data: Any, buffers: Sequence[Any] = ()) -> Any:
            try:
                return load(data, buffers, private)
            except Exception as error:
                return failed(error)

        whole, at = True, entry.at
        values: list[Any] = []
        if journal is not None and entry.error is None:
            most = journal.done if calls is None else min(journal.done, calls)
            try:
                values, whole, at = journal.read(at, most - entry.taken, read, make, failed)
            except ValueError as error:
                entry.error = error
        taken = entry.taken + len(values)
        if calls is not None and taken < calls:
            if entry.tail is not None:
                last = read(*entry.tail) if type(entry.tail[0]) is not tuple else make(entry.tail[0][1])
                values.append(last)
                whole = whole and type(last) is not failed
            failure: BaseException = entry.error or RuntimeError("the worker did not send what a call has given")
            if type(entry.reply) is dict:
                is_cancelled = entry.reply["kind"] == "cancelled"
                failure = Cancelled(entry.reply.get("text", "")) if is_cancelled else error_of(entry.reply, load)
            missing = calls - entry.taken - len(values)
            values += [failed(failure)] * missing
            whole = whole and not missing
            taken = calls
        return whole, values, (taken, at, calls is not None)

    def spend(self, entry: Entry) -> None:
        """Marks an entry whose values were all taken."""
        journal, entry.journal = entry.journal, None
        if journal is not None:
            self._free.append(journal)

    # ---- the end

    def close(self) -> list[Task]:
        """Prevents further calls from beginning. Returns the tasks of all entries that were sent."""
        with self.lock:
            self.stock.clear()
            entries = {id(entry): entry for entry in (*self.line, *self.open)}.values()
            self.open, self.line = [], deque()
            tasks: list[Any] = []
            for entry in entries:
                if type(entry) is not Entry:
                    tasks.append(entry.task)
                    continue
                if entry.journal is not None:
                    entry.journal.close()
                tasks += entry.tasks
            return tasks

    def wait_for_all(self) -> None:
        """Sends everything, and waits until no packet may have to be sent again."""
        while True:
            self.feed()
            with self.lock:
                task = next((entry.task for entry in self.open if entry.task is not None), None)
            if task is None:
                if not len(self.stock):
                    return
            else:
                native.wait(task, STUCK)

    def send_alone(self) -> None:
        """Sends all calls that have not begun as separate tasks: the executor ends, and no call can be sent again."""
        with self.lock:
            self.is_last = True
            for entry in tuple(self.open):
                if entry.journal is not None and entry.limit is None and not entry.has_ended:
                    self.take_back(entry, 1)
            self.feed(all_of_it=True)

    def free(self) -> None:
        """Frees the journals, and releases the workers: no calls are left."""
        self._journals -= len(self._free)
        self._free.clear()
        release(self)
