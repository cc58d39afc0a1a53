"""The order of samples: a function of seed, epoch and rank alone, so that any point of it can be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Union

import numpy

#: Indices in their order, also with `set_epoch`, as samplers of PyTorch; or a function that draws them.
Sampler = Union[Iterable[int], Callable[[numpy.random.Generator], Any]]


def generator(*key: int) -> numpy.random.Generator:
    """Returns the generator of random numbers of a seed, an epoch and, for one sample, its index."""
    return numpy.random.default_rng(key)


def ranks(rank: int | None, world: int | None) -> tuple[int, int]:
    """Checks rank and world. Takes those of `torchrun` if they are not given."""
    if rank is None and world is None and "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    rank, world = rank or 0, 1 if world is None else world
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1, not {rank} of {world}")
    return rank, world


class Order:
    """The indices of all epochs."""

    def __init__(
        self, size: Callable[[], int], batch_size: int, *, shuffle: bool = False, rank: int = 0, world: int = 1,
        drop_last: bool = False, sampler: Sampler | None = None,
    ) -> None:  # fmt: skip
        self._size, self._batch_size, self._shuffle = size, batch_size, shuffle
        self._rank, self._world, self._drops, self._sampler = rank, world, drop_last, sampler
        self._known: dict[tuple[int, int], Any] = {}

    def indices(self, seed: int, epoch: int) -> Any:
        """Returns the indices of an epoch, as an array."""
        if (known := self._known.get((seed, epoch))) is not None:
            return known
        made = self._make(seed, epoch)
        if len(self._known) > 1:
            # An epoch and the next one, which begins before it ends.
            del self._known[next(iter(self._known))]
        self._known[seed, epoch] = made
        return made

    def _make(self, seed: int, epoch: int) -> Any:
        if self._sampler is not None:
            if callable(self._sampler):
                return numpy.asarray(self._sampler(generator(seed, epoch)), numpy.int64)
            if hasattr(self._sampler, "set_epoch"):
                self._sampler.set_epoch(epoch)
            return numpy.fromiter(self._sampler, numpy.int64)
        size = self._size()
        made = generator(seed, epoch).permutation(size) if self._shuffle else numpy.arange(size)
        if self._world > 1 and size:
            # Each rank has the same number of samples.
            share = size // self._world if self._drops else -(-size // self._world)
            made = numpy.resize(made, share * self._world)[self._rank :: self._world]
        return made

    def batch(self, seed: int, epoch: int, number: int) -> tuple[int, ...]:
        """Returns the indices of a batch."""
        start = number * self._batch_size
        return tuple(self.indices(seed, epoch)[start : start + self._batch_size].tolist())

    def batches(self, seed: int, epoch: int) -> int:
        """Returns the number of batches of an epoch."""
        full, rest = divmod(len(self.indices(seed, epoch)), self._batch_size)
        return full + (rest > 0 and not self._drops)
