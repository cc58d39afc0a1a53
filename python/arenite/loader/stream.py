"""Batches of a source that only iterates: shards are read one after the other, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy

from .. import Executor, mut
from . import faults, layout, order, work
from .ring import Format

#: An element of the record of a lane that has not begun.
_NONE = -1


class Stream:
    """A source of samples that only iterates: files that are read from their beginning, for example.

    >>> import arenite.loader as al
    >>> def lines(shard):
    ...     for number in range(3):
    ...         yield {"shard": shard, "number": number}
    >>> with al.Loader(al.Stream(lines, [10, 20]), batch_size=2, workers=1) as loader:
    ...     for batch in loader:
    ...         print(batch["shard"], batch["number"])
    [10 10] [0 1]
    [20 20] [0 1]
    [10] [2]
    [20] [2]

    :param read: Called in a worker with a shard, or with a shard and `rng`, a generator of seed, epoch and the number
        of the shard. Returns an iterable of samples.
    :param shards: What `read` takes. With `shuffle` each epoch has them in another order, and ranks share them.
    :param lanes: The number of shards that are read at a time. Batches come from the lanes in turn. The order depends
        on it, but not on the number of workers.
    """

    def __init__(self, read: Callable[..., Iterable[Any]], shards: Sequence[Any], lanes: int = 4) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        self.read, self.shards, self.lanes = read, shards, lanes

    def open(self, number: int, at: tuple[int, int]) -> Iterator[Any]:
        """Reads a shard."""
        if work.takes_rng(self.read):
            return iter(self.read(self.shards[number], rng=order.generator(*at, number)))
        return iter(self.read(self.shards[number]))


def as_stream(dataset: Any) -> Stream | None:
    """Returns a dataset as a stream, if it is one; also an IterableDataset of PyTorch, in one shard."""
    if isinstance(dataset, Stream):
        return dataset
    if any(kind.__name__ == "IterableDataset" for kind in type(dataset).__mro__):
        return Stream(iter, [dataset], 1)
    return None


class _Lane:
    """Reads shards one after the other, in a worker. `ends`: the number of samples of shards that end early."""

    def __init__(
        self, stream: work.Shipped, numbers: list[int], at: tuple[int, int], ends: dict[int, int], skipped: int
    ) -> None:
        #: Set during calls: shared memory that has the shard and the number of samples begun.
        self._record: Any = [0, 0]
        self._samples = self._read(stream.open(), numbers, at, ends)
        for _ in range(skipped):
            next(self._samples)

    def _read(self, stream: Stream, numbers: list[int], at: tuple[int, int], ends: dict[int, int]) -> Iterator[Any]:
        for number in numbers:
            samples, end, count = None, ends.get(number), 0
            while end is None or count < end:
                self._record[:] = number, count
                samples = stream.open(number, at) if samples is None else samples
                try:
                    sample = next(samples)
                except StopIteration:
                    break
                yield sample
                count += 1

    def fill(self, tree: work.Shipped, count: int, record: Any, *outs: Any) -> tuple[list[list[Any]], int]:
        """Writes the next samples into a batch. Returns what is collected in lists, and the number of samples."""
        self._record, done = record, 0

        def counted() -> Iterator[Any]:
            nonlocal done
            for sample in self._samples:
                yield sample
                done += 1
                if done == count:
                    return

        try:
            return layout.write(tree.open(), outs, counted()), done
        finally:
            # The memory belongs to this call only.
            self._record = [0, 0]


def _describe(stream: work.Shipped, number: int, at: tuple[int, int], ragged: dict[str, layout.Ragged]) -> Any:
    for sample in stream.open().open(number, at):
        return layout.describe(sample, ragged)
    return None


class _Job:
    def __init__(self, memory: list[Any], record: Any) -> None:
        self.memory, self.record = memory, record
        self.future: Any = None


class _Queue:
    """A lane and the batches that are asked of it."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.jobs: deque[_Job] = deque()
        #: The number of samples that it has given.
        self.done = 0
        self.ends: dict[int, int] = {}
        self.actor: Any = None
        self.is_ended = False


class Batches:
    """The batches of a stream."""

    def __init__(
        self, stream: Stream, batch_size: int, shuffle: bool, rank: int, world: int, drop_last: bool,
        on_error: faults.OnError, deadline: float | None, ragged: dict[str, layout.Ragged],
        failures: list[faults.Failure], prefetch: int | None, workers: int,
    ) -> None:  # fmt: skip
        self._stream, self._batch_size, self._drops = stream, batch_size, drop_last
        self._on_error, self._ragged, self._failures = on_error, ragged, failures
        self._deadline = deadline and deadline * batch_size
        self._ahead = (workers + 1 if workers else 0) if prefetch is None else prefetch
        size = len(stream.shards)
        self._order = order.Order(lambda: size, 1, shuffle=shuffle)
        self._rank, self._world = rank, world
        self._format: Format | None = None

    def begin(self, executor: Executor) -> None:
        self._executor = executor
        self._shipped = work.Shipped(executor, self._stream, self._stream.read)

    def run(self, at: tuple[int, int]) -> Iterator[Any]:
        """Yields the batches of an epoch."""
        numbers = self._order.indices(*at).tolist()[self._rank :: self._world]
        lanes = [_Queue(numbers[k :: self._stream.lanes]) for k in range(min(self._stream.lanes, len(numbers)))]
        if not lanes or self._format is None and not self._describe(numbers, at):
            return
        turns, asked = deque(lanes), deque(lanes)
        try:
            while turns:
                for _ in range(max(1, self._ahead) - sum(len(lane.jobs) for lane in lanes)):
                    self._ask(asked[0], at)
                    asked.rotate(-1)
                lane = turns[0]
                if not lane.jobs:
                    self._ask(lane, at)
                batch = self._finish(lane, at)
                if lane.is_ended:
                    turns.popleft()
                    asked.remove(lane)
                    lane.jobs.clear()
                else:
                    turns.rotate(-1)
                if batch is not None:
                    yield batch
                    del batch
        finally:
            for lane in lanes:
                for job in lane.jobs:
                    if job.future is not None and not job.future.running():
                        job.future.cancel()

    def _describe(self, numbers: list[int], at: tuple[int, int]) -> bool:
        """Lets a worker describe the first sample. Returns whether there is one."""
        error: BaseException | None = None
        for number in numbers:
            for _ in range(2):
                future = self._executor.options(deadline=self._deadline).submit(
                    _describe, self._shipped, number, at, self._ragged
                )
                if (error := faults.error_of(future)) is None:
                    break
            if error is not None and self._on_error != "skip":
                self._failures.append(faults.failure(number, at[1], error, "shard"))
                raise error
            if error is None and (tree := future.result()) is not None:
                self._format = Format(self._executor, tree, self._batch_size, max(1, self._ahead) + 2)
                return True
        return False

    def _ask(self, lane: _Queue, at: tuple[int, int]) -> None:
        """Asks a lane for its next batch."""
        job = _Job([], self._executor.empty(2, numpy.int64))
        lane.jobs.append(job)
        self._send(lane, job, at)

    def _send(self, lane: _Queue, job: _Job, at: tuple[int, int]) -> None:
        if lane.actor is None:
            lane.actor = self._executor.actor(_Lane, self._shipped, lane.numbers, at, lane.ends, lane.done)
        assert self._format is not None
        job.memory, job.record[:] = self._format.ring.take(), _NONE
        outs = map(mut, job.memory)
        fill = lane.actor.options(deadline=self._deadline).fill
        job.future = fill(self._format.tree, self._batch_size, mut(job.record), *outs)

    def _finish(self, lane: _Queue, at: tuple[int, int]) -> Any:
        """Waits for the next batch of a lane. Reads it again if that fails. Returns None if there is no further one."""
        attempts: dict[tuple[int, int], int] = {}
        while (error := faults.error_of(lane.jobs[0].future)) is not None:
            number, count = map(int, lane.jobs[0].record)
            tried = attempts[number, count] = attempts.get((number, count), 0) + 1
            # The first failure may have been another's: a worker has several lanes, and is killed from outside.
            most = faults.ATTEMPTS if self._on_error == "retry" or number == _NONE else 1
            if tried > most:
                self._failures.append(faults.failure(number, at[1], error, "shard"))
                if self._on_error != "skip" or number == _NONE:
                    raise error
                lane.ends[number] = count
            lane.actor = None
            for job in lane.jobs:
                # Its tasks may still write the former record.
                job.record = self._executor.empty(2, numpy.int64)
                self._send(lane, job, at)
        job = lane.jobs.popleft()
        lists, count = job.future.result()
        lane.done += count
        lane.is_ended = count < self._batch_size
        if count == 0 or self._drops and lane.is_ended:
            return None
        assert self._format is not None
        return self._format.batch(job.memory, [lists], (), count)
