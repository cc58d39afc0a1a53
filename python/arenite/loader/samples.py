"""Batches of a dataset that has samples by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import Executor, mut
from . import faults, layout, order, work
from .ring import Format

#: A part of a batch is one task: about this many seconds of work, but at least this many samples while these take less
#: than the longer time.
_SHORT, _LEAST, _LONG = 0.004, 8, 0.4
#: Of a batch that takes less than these seconds, more are made ahead.
_SHORT_BATCH = 0.002


class Job:
    """A batch in the making."""

    def __init__(self, at: tuple[int, int], number: int, indices: tuple[int, ...], memory: list[Any]) -> None:
        #: Seed and epoch.
        self.at = at
        self.number, self.indices, self.memory = number, list(indices), memory
        #: The samples and the task of each part.
        self.parts: list[tuple[range, Any]] = []
        #: The values that are collected in lists, by the first sample of each part.
        self.lists: dict[int, list[list[Any]]] = {}
        self.made: Any = None


class Samples:
    """The batches of a dataset. `workers`: their number, as far as it is known."""

    def __init__(
        self, dataset: Any, indices: order.Order, batch_size: int, on_error: faults.OnError,
        deadline: float | None, ragged: dict[str, layout.Ragged], collate: Callable[[list[Any]], Any] | None,
        failures: list[faults.Failure], prefetch: int | None, workers: int,
    ) -> None:  # fmt: skip
        self._dataset, self._order, self._batch_size = dataset, indices, batch_size
        self._on_error, self._deadline, self._ragged, self._collate = on_error, deadline, ragged, collate
        self._failures, self._prefetch, self._workers = failures, prefetch, workers
        self._seconds: float | None = None
        self._format: Any = None

    def begin(self, executor: Executor) -> None:
        self._executor = executor
        self._tasks = executor.options(deadline=self._deadline)
        self._all = executor.options(deadline=self._deadline and self._deadline * self._batch_size)
        self._reader = work.Shipped(executor, work.Reader(self._dataset), type(self._dataset))

    def batches(self, seed: int, epoch: int) -> int:
        return self._order.batches(seed, epoch)

    def submit(self, at: tuple[int, int], number: int) -> Job:
        """Submits the tasks of a batch. `at`: seed and epoch."""
        indices = self._order.batch(*at, number)
        if self._collate is not None:
            job, rows = Job(at, number, indices, []), range(len(indices))
            job.parts = [(rows, self._all.submit(work.collated, self._reader, self._collate, indices, at))]
            return job
        if self._format is None:
            self._describe(at, indices[0])
        ring = self._format.ring
        ring.slots = self.ahead() + 2
        job, size = Job(at, number, indices, ring.take()), self._part()
        for start in range(0, len(indices), size):
            rows = range(start, min(start + size, len(indices)))
            job.parts.append((rows, self._fill(job, rows)))
        return job

    def ahead(self) -> int:
        """Returns the number of batches that are made ahead."""
        if self._prefetch is not None:
            return self._prefetch
        # Waiting for a short batch takes longer than making it.
        is_short = self._seconds is not None and self._seconds * self._batch_size < _SHORT_BATCH
        return (self._workers + 1) * (4 if is_short else 1) if self._workers else 0

    def _part(self) -> int:
        """Returns the number of samples of a part."""
        seconds = max(self._seconds or 0.0, 1e-9)
        wanted = max(_SHORT / seconds, min(_LEAST, _LONG / seconds))
        if self._deadline is not None:
            wanted = min(wanted, self._deadline / 4 / seconds)
        return max(1, int(min(wanted, self._batch_size)))

    def _describe(self, at: tuple[int, int], index: int) -> None:
        """Lets a worker describe the first sample, or the first one that can be read."""

        def describe(index: int) -> Any:
            return self._tasks.submit(work.describe, self._reader, index, at, self._ragged)

        future, _ = self._settled(describe(index), index, at, describe, [])
        tree, self._seconds = future.result()
        self._format = Format(self._executor, tree, self._batch_size, self.ahead() + 2)

    def _fill(self, job: Job, rows: range) -> Any:
        outs = [mut(array[rows.start : rows.stop]) for array in job.memory]
        indices = tuple(job.indices[rows.start : rows.stop])
        return self._tasks.submit(work.fill, self._reader, self._format.tree, indices, job.at, *outs)

    def finish(self, job: Job) -> Any:
        """Waits for a batch, and runs parts that have failed again, sample by sample. Returns the batch."""
        for rows, future in job.parts:
            if faults.error_of(future) is None:
                self._record(job, rows, future)
            elif self._collate is None:
                self._fill_singly(job, rows)
            else:
                self._collate_singly(job)
        indices = tuple(job.indices)
        if self._collate is not None:
            return job.made
        parts = [job.lists[start] for start in sorted(job.lists)]
        return self._format.batch(job.memory, parts, indices, len(indices))

    def _record(self, job: Job, rows: range, future: Any) -> None:
        if self._collate is not None:
            job.made = future.result()
            return
        job.lists[rows.start], seconds = future.result()
        self._seconds = 0.8 * (self._seconds or 0) + 0.2 * seconds / len(rows)

    def _fill_singly(self, job: Job, rows: range) -> None:
        for row, future in [(row, self._fill(job, range(row, row + 1))) for row in rows]:

            def again(index: int, row: int = row) -> Any:
                job.indices[row] = index
                return self._fill(job, range(row, row + 1))

            settled, _ = self._settled(future, job.indices[row], job.at, again)
            self._record(job, range(row, row + 1), settled)

    def _collate_singly(self, job: Job) -> None:
        """Values of single samples go from worker to worker."""

        def read(index: int) -> Any:
            return self._tasks.submit(work.read, self._reader, index, job.at)

        futures = [read(index) for index in job.indices]
        for row, future in enumerate(futures):
            futures[row], job.indices[row] = self._settled(future, job.indices[row], job.at, read)
        job.made = self._all.submit(work.collate_read, self._collate, futures).result()

    def _settled(
        self, future: Any, index: int, at: tuple[int, int], submit: Callable[[int], Any],
        failures: list[faults.Failure] | None = None,
    ) -> tuple[Any, int]:  # fmt: skip
        """Waits for the task of a sample. If it fails, submits it again for this or for another sample, or raises its
        exception. Returns the task that has succeeded, and its sample. `failures`: the record, if it is another one."""
        record = self._failures if failures is None else failures
        others = self._replacements(index, at)
        for attempt in range(faults.ATTEMPTS + 1):
            error = faults.error_of(future)
            if error is None:
                break
            is_last = attempt == faults.ATTEMPTS
            if self._on_error != "retry" or is_last:
                record.append(faults.failure(index, at[1], error))
            if self._on_error == "raise" or is_last:
                raise error
            if self._on_error == "skip":
                index = next(others)
            future = submit(index)
        return future, index

    def _replacements(self, index: int, at: tuple[int, int]) -> Iterator[int]:
        """Yields samples in the place of one: a function of seed, epoch and index."""
        known = self._order.indices(*at)
        draw = order.generator(*at, index, 1)
        while True:
            yield int(known[draw.integers(len(known))])

    @staticmethod
    def drop(job: Job) -> None:
        """Cancels the tasks of a batch that have not begun. The others write memory that is used no more."""
        for _, future in job.parts:
            if not future.running():
                future.cancel()
