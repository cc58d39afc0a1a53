"""The memory of batches: it is used again when the last array over it is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy

from .. import Executor
from .layout import Leaf, Tree, build, collected, leaves
from .work import Shipped


class _Lease:
    """The owner of all arrays of one batch. Returns their memory at its end."""

    def __init__(self, ring: Ring, memory: list[Any]) -> None:
        self._ring, self._memory = ring, memory

    def __del__(self) -> None:
        # In any thread, at any moment: `append` needs no lock.
        if len(self._ring.free) < self._ring.slots:
            self._ring.free.append(self._memory)


class _Lent:
    """What numpy takes for the owner of an array's memory. Views of the array refer to it, too."""

    def __init__(self, array: Any, lease: _Lease) -> None:
        self.__array_interface__ = array.__array_interface__
        self._lease = lease


class Ring:
    """Memory for batches of samples with these leaves. `make`: `Executor.empty`."""

    def __init__(self, make: Callable[..., Any], leaves: list[Leaf], batch_size: int, slots: int) -> None:
        self._make = make
        #: The most batches whose memory waits to be used again.
        self.slots = slots
        self._shapes = [((batch_size, *leaf.shape), leaf.dtype) for leaf in leaves if leaf.shape is not None]
        self.free: deque[list[Any]] = deque()

    def take(self) -> list[Any]:
        """Returns memory for a batch: an array for each leaf. It is the caller's: `lend` lets it return here, and if
        it is dropped instead, tasks may still write it."""
        try:
            return self.free.popleft()
        except IndexError:
            return [self._make(shape, dtype) for shape, dtype in self._shapes]

    def lend(self, memory: list[Any]) -> list[Any]:
        """Returns arrays over the memory, which returns to the ring when the last view of them is gone."""
        lease = _Lease(self, memory)
        return [numpy.asarray(_Lent(array, lease)) for array in memory]


class Format:
    """The structure and the memory of batches: what the first sample has described."""

    def __init__(self, executor: Executor, tree: Tree, batch_size: int, slots: int) -> None:
        self.tree, self.leaves = Shipped(executor, tree), leaves(tree)
        self._tree = tree
        self.ring = Ring(executor.empty, self.leaves, batch_size, slots)

    def batch(self, memory: list[Any], parts: list[list[list[Any]]], indices: tuple[int, ...], count: int) -> Any:
        """Returns the batch of this number of samples. `parts`: the values that parts have collected in lists."""
        arrays = iter(self.ring.lend(memory))
        lists = iter([[one for part in parts for one in part[k]] for k in range(len(parts[0]))])
        values = (
            collected(leaf, next(lists)) if leaf.shape is None else next(arrays)[:count] for leaf in self.leaves
        )
        return build(self._tree, values, indices)
