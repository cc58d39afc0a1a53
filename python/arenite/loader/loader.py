"""The loader: epochs of batches, their states, and the batches that are made ahead."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Literal

from .. import Executor
from . import faults, layout, order, torch_names
from .samples import Samples
from .stream import Batches, as_stream

#: Modules of each worker.
_PRELOAD = ("numpy", "arenite.loader.work")


class Loader:
    """Batches of a dataset, made ahead by worker processes in shared memory.

    >>> import arenite.loader as al
    >>> class Squares:
    ...     def __len__(self):
    ...         return 10
    ...     def __getitem__(self, i):
    ...         return {"number": i, "square": float(i * i)}
    >>> with al.Loader(Squares(), batch_size=4, workers=2) as loader:
    ...     for batch in loader:
    ...         print(batch["number"], batch["square"])
    [0 1 2 3] [0. 1. 4. 9.]
    [4 5 6 7] [16. 25. 36. 49.]
    [8 9] [64. 81.]

    Each iteration is the next epoch. Batches have the structure of a sample, with arrays whose memory is used again
    when the last view of a batch is gone.

    :param dataset: Has `__len__` and `__getitem__(index)`, or `__getitem__(index, rng)` with a numpy generator of seed,
        epoch and index; or a `Stream`, or an IterableDataset of PyTorch. Workers get it once: its arrays have one copy
        for all processes.
    :param batch_size: The number of samples of a batch.
    :param shuffle: Whether each epoch has another order, drawn from seed and epoch.
    :param seed: The seed of the order and of `rng`.
    :param workers: The number of processes, by default one for each core. With 0, samples are read in this process.
    :param on_error: What happens when a sample raises, crashes, hangs or takes too much memory. "raise" raises the
        exception; "retry" reads the sample up to three times more before; "skip" takes another sample, which depends on
        seed, epoch and index alone. `failures` has what failed.
    :param deadline: The seconds that one sample may take.
    :param memory_limit: The limit of private memory of a worker, in bytes or as "2GiB".
    :param rank: The number of this process among `world` that share the samples; by default that of `torchrun`.
    :param drop_last: Whether to leave out a last batch that is smaller than the others. With several ranks also leaves
        out samples that do not suffice for all ranks; otherwise some are repeated.
    :param prefetch: The number of batches that are made ahead. By default one more than workers, and more if a batch
        takes less than two milliseconds.
    :param sampler: The indices of an epoch in order: an iterable, whose `set_epoch` is called, or a function of a numpy
        generator of seed and epoch. It belongs to this rank: rank and world do not apply.
    :param collate: A function that makes a batch of a list of samples. It runs in workers.
    :param ragged: How to put arrays of different shapes together, by their name: "list", "pad" or ("pad", value).
    :param executor: Runs the tasks, in the place of workers of the loader's own.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int = 0,
        workers: int | None = None,
        on_error: Literal["raise", "skip", "retry"] = "raise",
        deadline: float | None = None,
        memory_limit: int | str | None = None,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
        prefetch: int | None = None,
        sampler: order.Sampler | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: dict[str, layout.Ragged] | None = None,
        executor: Executor | None = None,
        **others: Any,
    ) -> None:
        same = torch_names.translated(others)
        workers, collate = same.get("workers", workers), same.get("collate", collate)
        if batch_size is None or batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, as {seed} is")
        if sampler is not None and shuffle:
            raise ValueError("a sampler gives the order: shuffle must be False")
        if executor is not None and (workers is not None or memory_limit is not None):
            raise ValueError("workers and memory_limit belong to the executor that is given")
        if sampler is not None and (rank is not None or world is not None):
            raise ValueError("a sampler gives the indices of this rank: leave out rank and world")
        rank, world = (0, 1) if sampler is not None else order.ranks(rank, world)
        count = (len(os.sched_getaffinity(0)) if workers is None else workers) if executor is None else 2
        self._given = executor
        self._owned: Executor | None = None
        self._workers, self._memory_limit = workers, memory_limit
        #: The samples that have failed.
        self.failures: list[faults.Failure] = []
        self.dataset, self.batch_size, self.drop_last, self.sampler = dataset, batch_size, drop_last, sampler
        self._seed, self._epoch, self._batch = seed, 0, 0
        self._batches_of_stream: Batches | None = None
        if (stream := as_stream(dataset)) is not None:
            if sampler is not None or collate is not None:
                raise ValueError("a stream has no sampler and no collate")
            self._batches_of_stream = Batches(
                stream, batch_size, shuffle, rank, world, drop_last, faults.check(on_error), deadline, ragged or {},
                self.failures, prefetch, count,
            )  # fmt: skip
        indices = order.Order(
            lambda: len(dataset), batch_size, shuffle=shuffle, rank=rank, world=world, drop_last=drop_last,
            sampler=sampler,
        )  # fmt: skip
        self._source = Samples(
            dataset, indices, batch_size, faults.check(on_error), deadline, ragged or {}, collate, self.failures,
            prefetch, count,
        )  # fmt: skip
        self._jobs: deque[Any] = deque()
        self._next: tuple[int, int] = (0, 0)
        self._has_begun = self._is_resumed = False
        #: The number of iterations: the last one has the batches.
        self._turn = 0

    # ---- epochs

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        if self._batches_of_stream is not None:
            raise TypeError("a stream has no length: its samples are not counted before they are read")
        return self._source.batches(self._seed, self._epoch)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes an epoch the next one. If it has begun, as after `load_state_dict`, it goes on."""
        if epoch != self._epoch:
            self._epoch, self._batch = epoch, 0
        self._is_resumed = True

    def __iter__(self) -> Iterator[Any]:
        if self._batch and not self._is_resumed:
            # The last iteration was left in the middle.
            self._epoch, self._batch = self._epoch + 1, 0
        self._is_resumed = False
        self._turn += 1
        self._begin()
        if self._batches_of_stream is not None:
            return self._stream(self._batches_of_stream, self._turn, self._epoch, self._batch)
        first = self._jobs[0] if self._jobs else None
        if first is None or (first.at, first.number) != ((self._seed, self._epoch), self._batch):
            self._discard()
        return self._batches(self._turn, self._epoch)

    def _batches(self, turn: int, epoch: int) -> Iterator[Any]:
        is_ended = False
        try:
            count = self._source.batches(self._seed, epoch)
            while self._epoch == epoch and self._batch < count:
                self._ahead(max(1, self._source.ahead()))
                job = self._jobs.popleft()
                try:
                    batch = self._source.finish(job)
                except BaseException:
                    self._source.drop(job)
                    raise
                del job
                self._ahead(self._source.ahead())
                self._batch += 1
                if self._batch == count:
                    self._epoch, self._batch, is_ended = epoch + 1, 0, True
                yield batch
                # The caller has another reference, or none.
                del batch
                if turn != self._turn:
                    raise RuntimeError("another iteration of this loader has begun, which has its batches now")
            is_ended = True
        finally:
            if not is_ended and turn == self._turn:
                self._discard()

    def _stream(self, source: Batches, turn: int, epoch: int, done: int) -> Iterator[Any]:
        run = source.run((self._seed, epoch))
        # One batch ahead: only then is the state after the last batch that of the next epoch.
        following = next(islice(run, done, None), None)
        while following is not None:
            batch, following = following, next(run, None)
            self._batch += 1
            if following is None:
                self._epoch, self._batch = epoch + 1, 0
            yield batch
            del batch
            if turn != self._turn:
                raise RuntimeError("another iteration of this loader has begun, which has its batches now")

    def _ahead(self, count: int) -> None:
        """Submits batches until this number is in the making: those of the next epoch follow those of this one."""
        while len(self._jobs) < count:
            epoch, number = self._next
            if number >= self._source.batches(self._seed, epoch):
                if number == 0:
                    return
                epoch, number = epoch + 1, 0
                if number >= self._source.batches(self._seed, epoch):
                    return
            self._jobs.append(self._source.submit((self._seed, epoch), number))
            self._next = epoch, number + 1

    def _discard(self) -> None:
        """Gives up batches that are made ahead, and continues at the state."""
        while self._jobs:
            self._source.drop(self._jobs.popleft())
        self._next = self._epoch, self._batch

    # ---- the state

    def state_dict(self) -> dict[str, Any]:
        """Returns the position after the last batch: seed, epoch, and the batches of this epoch that are done. If
        samples were skipped, also their epochs and indices."""
        state: dict[str, Any] = {"seed": self._seed, "epoch": self._epoch, "batch": self._batch}
        if self.failures:
            state["skipped"] = [(failure.epoch, failure.index) for failure in self.failures]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues at a position, with any number of workers."""
        self._seed, self._epoch, self._batch = state["seed"], state["epoch"], state["batch"]
        self._is_resumed = True
        self._turn += 1
        self._discard()

    # ---- the executor

    def _begin(self) -> None:
        if self._has_begun:
            return
        executor = self._given
        if executor is None:
            module = sys.modules.get(type(self.dataset).__module__)
            spec = getattr(module, "__spec__", None)
            preload = [*_PRELOAD, spec.name] if spec is not None else _PRELOAD
            executor = self._owned = Executor(self._workers, memory_limit=self._memory_limit, preload=preload)
        (self._batches_of_stream or self._source).begin(executor)
        self._has_begun = True

    def close(self) -> None:
        """Ends the workers of the loader. Batches remain valid."""
        self._turn += 1
        self._discard()
        if self._owned is not None:
            self._owned.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
