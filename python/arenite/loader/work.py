"""What runs in workers: they open the dataset and write samples into batches."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy

from . import layout, order

if TYPE_CHECKING:
    from .. import Executor

#: Buffers from this size on are shared; smaller ones are part of the pickle.
_LARGE = 16 << 10
#: The number of datasets that a worker keeps.
_MOST_OPEN = 4

_numbers = itertools.count()
_open: dict[Any, Any] = {}


class Shipped:
    """An object that is pickled once, in shared memory, and that each worker unpickles once."""

    def __init__(self, executor: Executor, value: Any, kind: Any = None) -> None:
        self._value = value
        self._key = os.getpid(), id(executor), next(_numbers)
        #: A class or function that goes along with tasks, so that workers have it as it is in the program now.
        self._kind = kind if getattr(kind, "__module__", None) == "__main__" else None
        self._parts: list[Any] = []
        buffers: list[memoryview] = []

        def is_small(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < _LARGE:
                return True
            buffers.append(buffer.raw())
            return False

        try:
            data = pickle.dumps(value, 5, buffer_callback=is_small)
        except Exception:
            # It contains functions without a name, which only the executor can send: with each task.
            return
        self._parts = [executor.share(numpy.frombuffer(one, numpy.uint8)) for one in [memoryview(data), *buffers]]

    def __getstate__(self) -> Any:
        return self._key, self._kind, self._parts, None if self._parts else self._value

    def __setstate__(self, state: Any) -> None:
        self._key, self._kind, self._parts, self._value = state

    def open(self) -> Any:
        """Returns the object."""
        if self._value is not None or not self._parts:
            return self._value
        if self._key not in _open:
            data, *buffers = self._parts
            made = pickle.loads(data, buffers=buffers)
            if len(_open) >= _MOST_OPEN:
                del _open[next(iter(_open))]
            _open[self._key] = made
        return _open[self._key]


class Reader:
    """Reads the samples of a dataset."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._takes_rng = takes_rng(type(dataset).__getitem__)

    def read(self, index: int, seed: int, epoch: int) -> Any:
        if self._takes_rng:
            return self._dataset.__getitem__(index, rng=order.generator(seed, epoch, index))
        return self._dataset[index]


def takes_rng(function: Any) -> bool:
    """Whether a function has a parameter for random numbers."""
    try:
        return "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def describe(reader: Shipped, index: int, at: tuple[int, int], ragged: dict[str, Any]) -> tuple[layout.Tree, float]:
    """Returns the structure of a sample, and the seconds that it takes."""
    opened = reader.open()
    begin = perf_counter()
    sample = opened.read(index, *at)
    return layout.describe(sample, ragged), perf_counter() - begin


def fill(
    reader: Shipped, tree: Shipped, indices: tuple[int, ...], at: tuple[int, int], *outs: Any
) -> tuple[list[list[Any]], float]:
    """Writes samples into a part of a batch. Returns the values of leaves that are collected in lists, and the seconds
    that this took."""
    opened, structure = reader.open(), tree.open()
    begin = perf_counter()
    lists = layout.write(structure, outs, (opened.read(index, *at) for index in indices))
    return lists, perf_counter() - begin


def read(reader: Shipped, index: int, at: tuple[int, int]) -> Any:
    return reader.open().read(index, *at)


def collated(reader: Shipped, collate: Any, indices: tuple[int, ...], at: tuple[int, int]) -> Any:
    """Returns what the function `collate` makes of samples."""
    opened = reader.open()
    return collate([opened.read(index, *at) for index in indices])


def collate_read(collate: Any, samples: list[Any]) -> Any:
    return collate(samples)
