"""The memory of batches: it is used again when the last array over it is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy

from .layout import Leaf


class _Lease:
    """The owner of all arrays of one batch. Returns their memory at its end."""

    def __init__(self, free: deque[list[Any]], memory: list[Any]) -> None:
        self._free, self._memory = free, memory

    def __del__(self) -> None:
        # In any thread, at any moment: `append` needs no lock.
        self._free.append(self._memory)


class _Lent:
    """What numpy takes for the owner of an array's memory. Views of the array refer to it, too."""

    def __init__(self, array: Any, lease: _Lease) -> None:
        self.__array_interface__ = array.__array_interface__
        self._lease = lease


class Ring:
    """Memory for batches of samples with these leaves. `make`: `Executor.empty`."""

    def __init__(self, make: Callable[..., Any], leaves: list[Leaf], batch_size: int, slots: int) -> None:
        self._make, self._slots = make, slots
        self._shapes = [((batch_size, *leaf.shape), leaf.dtype) for leaf in leaves if leaf.shape is not None]
        self._free: deque[list[Any]] = deque(maxlen=slots)

    def take(self) -> list[Any]:
        """Returns memory for a batch: an array for each leaf. It is the caller's: `lend` lets it return here, and if
        it is dropped instead, tasks may still write it."""
        try:
            return self._free.popleft()
        except IndexError:
            return [self._make(shape, dtype) for shape, dtype in self._shapes]

    def lend(self, memory: list[Any]) -> list[Any]:
        """Returns arrays over the memory, which returns to the ring when the last view of them is gone."""
        lease = _Lease(self._free, memory)
        return [numpy.asarray(_Lent(array, lease)) for array in memory]
